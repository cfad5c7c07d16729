"""Jobs that go as far as a test lets them: they wait for files, so no test waits for a time."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from support.watching import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from pathlib import Path

ITEMS = 9
AT = 5
"""The item before which a job waits."""

_BODY = """
import os, time
import milepost

def note(kind, what):
    with open(os.path.join({folder!r}, f"{{kind}}-{name}"), "a") as file:
        file.write(f"{{what}}\\n")

def body(items):
    for item in items:
        if item == {at}:
            note("reached", os.getpid())
            until = time.monotonic() + {patience}
            while not os.path.exists(os.path.join({folder!r}, "go-{name}")):
                assert time.monotonic() < until, "nobody opened the gate"
                time.sleep(0.005)
        print("did", item, flush=True)
        note("did", item)
"""
_JOB = """
@milepost.job("{name}", batches=["only"])
def job(batch):
    with batch.items(range({items})) as items:
        body(items)
"""
_LOOP = """
body(milepost.resume(range({items}), "{name}"))
"""


class Gate:
    """A job in a file, or a script with a loop, and the files by which it is held.

    Attributes:
        name: That of its session.
        file: What it stands in.
        is_script: Whether it is a plain program.
    """

    def __init__(self, folder: Path, name: str, *, is_script: bool = False) -> None:
        self.name = name
        self.is_script = is_script
        self._folder = folder
        self.file = folder / f"{name}.py"
        facts = {"folder": str(folder), "items": ITEMS, "at": AT, "patience": PATIENCE_SECONDS}
        text = _BODY + (_LOOP if is_script else _JOB)
        self.file.write_text(text.format(name=name, **facts))

    def _lines(self, kind: str) -> list[int]:
        path = self._folder / f"{kind}-{self.name}"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def wait_for_run(self, number: int = 1) -> int:
        """Wait until its n-th run is at the gate; its process."""
        wait_until(lambda: len(self._lines("reached")) >= number)
        return self._lines("reached")[number - 1]

    def kill_run(self, number: int = 1) -> None:
        """Kill its n-th run at the gate."""
        os.kill(self.wait_for_run(number), signal.SIGKILL)

    def open(self) -> None:
        """Let it go on to its end."""
        (self._folder / f"go-{self.name}").touch()

    @property
    def done(self) -> list[int]:
        """Every item that was done, as often as it was."""
        return self._lines("did")
