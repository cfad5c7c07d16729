"""Shows a job that is killed in the middle and carries on, and proves that all came once.

    make demo

Everything happens on this machine, in a temporary folder that is removed at the end. The exit code
is 0 if the proof holds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import milepost

if TYPE_CHECKING:
    from collections.abc import Generator

EXAMPLES = Path(__file__).resolve().parent
RUNS_MAX = 5
PATIENCE_SECONDS = 120.0


class DemoError(Exception):
    """Something went another way than this demo is there to show."""


def say(text: str = "") -> None:
    """Tells whoever watches."""
    print(text, flush=True)


def known_places() -> set[str]:
    """The ids of all places, straight from the data that the API serves."""
    data = (EXAMPLES / "data" / "regions.tsv").read_text(encoding="utf-8")
    codes = {line.partition("\t")[0] for line in data.splitlines()}
    return {code for code in codes if len(code) == 10}


@contextlib.contextmanager
def started(
    command: list[str], folder: Path, **environment: str
) -> Generator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block, with what it says in a file in the folder."""
    with (folder / "said.txt").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(  # noqa: S603 - our own scripts
            command, cwd=folder, env={**os.environ, **environment}, stdout=said, stderr=said
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def api(folder: Path, *, fail: float, delay_ms: float) -> Generator[str]:
    """The API in a process and on a port of its own; gives its address."""
    folder.mkdir()
    port = folder / "port"
    options = ["--port", "0", "--port-file", str(port), "--fail", str(fail), "--seed", "7"]
    command = [sys.executable, str(EXAMPLES / "gov_api.py"), *options, "--delay-ms", str(delay_ms)]
    with started(command, folder) as process:
        until = time.monotonic() + PATIENCE_SECONDS
        while not port.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise DemoError(f"the API did not start: {(folder / 'said.txt').read_text()}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port.read_text().strip()}"


class Watched:
    """The job in a process, and what the store says of it meanwhile."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], total: int) -> None:
        self._said = folder / "said.txt"
        self._store = milepost.Store(folder / ".milepost")
        self._process = process
        self._total = total
        self._told = 0

    def done(self) -> int:
        """How many places the store counts as done."""
        try:
            return self._store.load_progress("places").total_items_processed
        except LookupError:  # so early that there is no store yet
            return 0

    def until(self, done: int) -> bool:
        """Narrates until so many places are done or the process ends; says whether it lives."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        told = time.monotonic()
        while self._process.poll() is None:
            now = self.done()
            self._pass_on()
            if now >= done:
                return True
            if time.monotonic() > deadline:
                raise DemoError(f"only {now:,} places after {PATIENCE_SECONDS:.0f} s")
            if time.monotonic() - told >= 1:
                say(f"      {now:6,} of {self._total:,} places")
                told = time.monotonic()
            time.sleep(0.2)
        self._pass_on()
        return False

    def _pass_on(self) -> None:
        """Shows what the job said since the last time."""
        lines = self._said.read_text(encoding="utf-8").splitlines()
        for line in lines[self._told :]:
            say(f"      {line}")
        self._told = len(lines)


def kill_in_the_middle(folder: Path, url: str, total: int) -> None:
    """Runs the job and kills it half way."""
    command = [sys.executable, str(EXAMPLES / "places.py")]
    with started(command, folder, PLACES_API=url) as process:
        if not Watched(folder, process, total).until(total // 2):
            raise DemoError("the job ended before it could be killed")
        process.kill()  # SIGKILL: it cannot be caught, so nothing can be saved or tidied up
        process.wait()
    state = milepost.Store(folder / ".milepost").load_progress("places")
    in_hand = sum(batch.items_processing for batch in state.active_batches.values())
    regions = len(state.active_batches)
    say(f"\n3. kill -9, process {process.pid}, in the middle of {regions} regions.")
    say(f"   {state.total_items_processed:,} places were done, {in_hand} in hand.")


def show(folder: Path) -> None:
    """What anybody can see of the store, with or without the job."""
    say("\n4. What the folder knows:  milepost show places\n")
    command = [sys.executable, "-m", "milepost_cli", "show", "places"]
    shown = subprocess.run(  # noqa: S603 - our own command
        command,
        cwd=folder,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    for line in shown.stdout.splitlines():
        say(f"      {line}")
    if shown.returncode:
        raise DemoError(f"milepost show failed with exit code {shown.returncode}")


def run_to_the_end(folder: Path, url: str, total: int) -> None:
    """Runs the same command until no region stands as failed."""
    command = [sys.executable, str(EXAMPLES / "places.py")]
    for run in range(RUNS_MAX):
        if run == 0:
            say("\n5. The same command again:  python examples/places.py\n")
        else:
            say("\n   Once more, for what the API failed in every try.\n")
        with started(command, folder, PLACES_API=url) as process:
            Watched(folder, process, total).until(total + 1)
            if process.returncode == 0:
                return
        # 3 is said of regions that the API failed in every try; a later run tries them again.
        if process.returncode != 3:
            raise DemoError(f"the job ended with exit code {process.returncode}")
    raise DemoError(f"regions still failed after {RUNS_MAX} runs")


def prove(output: Path, expected: set[str]) -> None:
    """Counts the output against the API's data; the store is not asked."""
    try:
        written = Counter(json.loads(line)["id"] for line in output.read_text("utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise DemoError(f"the output cannot be read: {error}") from error
    missing = expected - written.keys()
    strange = written.keys() - expected
    again = written.total() - len(written)
    say("\n6. The proof, counted in the job's output against the API's own data:\n")
    say(f"      {len(expected) - len(missing):,} of {len(expected):,} places are there")
    say(f"      {again} came twice, {len(strange)} are nobody's")
    if missing or strange or again:
        raise DemoError(f"{len(missing)} missing, {len(strange)} strange, {again} came twice")


def main() -> int:
    """Shows it all."""
    parser = argparse.ArgumentParser(description="A job is killed in the middle and carries on.")
    parser.add_argument("--quick", action="store_true", help="a faster API that fails less")
    quick: bool = parser.parse_args().quick
    fail, delay_ms = (0.01, 5.0) if quick else (0.04, 25.0)
    expected = known_places()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="milepost-demo-") as temporary:
        folder = Path(temporary) / "work"
        folder.mkdir()
        try:
            with api(Path(temporary) / "api", fail=fail, delay_ms=delay_ms) as url:
                say("1. An API starts on this machine, slow and unreliable like a real one:")
                say(f"   {len(expected):,} places of 250 regions; {fail:.0%} of all calls fail.")
                say("\n2. A job collects them:  python examples/places.py\n")
                kill_in_the_middle(folder, url, len(expected))
                show(folder)
                run_to_the_end(folder, url, len(expected))
            prove(folder / "places.jsonl", expected)
        except DemoError as error:
            say(f"\nThe demo failed: {error}")
            return 1
    seconds = time.monotonic() - begun
    say(f"\nNothing is missing, nothing came twice. It took {seconds:.0f} seconds and one folder.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
