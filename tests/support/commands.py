"""Running the command line in tests: in this process by click's runner, or as a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from click.testing import CliRunner

import milepost
from milepost_cli.group import cli

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent.parent

SIGNALS = [
    (signal.SIGINT, 130, milepost.SessionStatus.STOPPED),
    (signal.SIGTERM, 143, milepost.SessionStatus.INTERRUPTED),
    (signal.SIGHUP, 143, milepost.SessionStatus.INTERRUPTED),
]
"""What stops a program, the exit code it has then, and what its session is."""


class Ran(NamedTuple):
    """What a command left: exit code, stdout and stderr apart."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The one error object on stderr."""
        return json.loads(self.err)["error"]


def run(*words: str | os.PathLike[str], env: Mapping[str, str | None] | None = None) -> Ran:
    """Run `milepost` with these words in this process."""
    settings = {"MILEPOST_STORE": None, **(env or {})}
    result = CliRunner().invoke(cli, [os.fspath(word) for word in words], env=settings)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def start(
    *words: str | os.PathLike[str],
    cwd: str | os.PathLike[str] | None = None,
    stdout: int = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start `python -m milepost_cli` with these words as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "milepost_cli", *(os.fspath(word) for word in words)],
        cwd=cwd,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'engine'}{os.pathsep}{ROOT / 'cli'}"}
        | dict(env or {}),
    )


def on_terminal(
    *words: str | os.PathLike[str],
    columns: int,
    cwd: str | os.PathLike[str] | None = None,
    stdout: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Ran:
    """Run `python -m milepost_cli` on a terminal of this width; `out` is all that it showed."""
    import pty
    import termios

    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, columns))
    path = os.pathsep.join([str(ROOT / "engine"), str(ROOT / "cli")])
    process = subprocess.Popen(
        [sys.executable, "-m", "milepost_cli", *(os.fspath(word) for word in words)],
        cwd=cwd,
        stdout=side if stdout is None else stdout,
        stderr=side,
        env={**os.environ, "PYTHONPATH": path, "TERM": "xterm"} | dict(env or {}),
    )
    os.close(side)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # Linux says EIO when the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    return Ran(process.wait(timeout=60), shown.decode(), "")


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below a folder, with size and time of change."""
    found: dict[str, tuple[int, int]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.stat()
        found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found
