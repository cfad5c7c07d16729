"""Which session a job works on, and in which store: asked of short-lived processes.

- A target is the user's own code. One that crashes, exits or hangs while it is imported costs its
  process and a message, and nobody else; see `milepost_cli.probe` for the other side.
- All are asked at once, so several slow imports take as long as the slowest.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from milepost_cli.failure import TargetError

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE_SECONDS: Final = 120.0
"""How long an import may take; heavy libraries on a cold disk take a minute."""

_MILEPOST: Final = (sys.executable, "-P", "-m", "milepost_cli")
"""-P: the current folder must not shadow a module, as it does not for the `milepost` script."""

_ONLY_SCRIPTS: Final = 'put what only a script does under: if __name__ == "__main__":'
_PLACE: Final = re.compile(r'File "(.*)", line (\d+)')


class JobTarget(NamedTuple):
    """A target on the command line that is a job.

    Attributes:
        target: As it was typed.
        session: The session it works on.
        store: The store it names itself; `None` for none.
    """

    target: str
    session: str
    store: str | None


def command_of(target: str, *options: str) -> tuple[str, ...]:
    """The command that runs a job as a process of its own, as `milepost run` would."""
    return (*_MILEPOST, "run", target, *options)


def typed(command: Sequence[str]) -> str:
    """A command as people type it."""
    is_ours = tuple(command[: len(_MILEPOST)]) == _MILEPOST
    return shlex.join(["milepost", *command[len(_MILEPOST) :]] if is_ours else command)


def ask(
    targets: Sequence[str], *, patience_seconds: float = PATIENCE_SECONDS
) -> list[JobTarget | TargetError]:
    """What each target is, or what is wrong with it, in their order."""
    deadline = time.monotonic() + patience_seconds
    with contextlib.ExitStack() as stack:
        asked = [(target, stack.enter_context(_Probe(target))) for target in targets]
        return [
            _understood(target, answer)
            if (answer := probe.answer(deadline)) is not None
            else _too_slow(target, patience_seconds)
            for target, probe in asked
        ]


class _Answer(NamedTuple):
    code: int
    text: bytes
    complaint: bytes


class _Probe:
    """One process that imports a target."""

    def __init__(self, target: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # what to import is the user's own word
            [sys.executable, "-P", "-m", "milepost_cli.probe", target],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A group of its own: whatever the target starts while it is imported ends with it.
            process_group=None if sys.platform == "win32" else 0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.returncode is None:
            self._kill()
            self._process.communicate()

    def answer(self, deadline: float) -> _Answer | None:
        """What it said; `None` where it takes too long."""
        try:
            out, err = self._process.communicate(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        return _Answer(self._process.returncode, out, err)

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)


def _too_slow(target: str, seconds: float) -> TargetError:
    return TargetError(f"{target} was not imported within {seconds:g} seconds", _ONLY_SCRIPTS)


def _understood(target: str, answer: _Answer) -> JobTarget | TargetError:
    try:
        told: dict[str, Any] = json.loads(answer.text)
    except ValueError:
        return _death(target, answer)
    if "error" not in told:
        return JobTarget(target, told["session"], told["store"])
    error = told["error"]
    where = _where(error["facts"].get("traceback", []))
    return TargetError(error["message"] + where, error["hint"], error["exit_code"])


def _death(target: str, answer: _Answer) -> TargetError:
    how = f"exit code {answer.code}"
    if answer.code < 0:
        with contextlib.suppress(ValueError):
            how = signal.Signals(-answer.code).name
    last = answer.complaint.decode(errors="replace").strip().rpartition("\n")[2]
    what = f"{target} ended its process while it was imported ({how})"
    return TargetError(f"{what}: {last}" if last else what, _ONLY_SCRIPTS)


def _where(traceback: list[str]) -> str:
    """The error itself and the line it came from, after `X raised KeyError`."""
    if not traceback:
        return ""
    places = [found for line in traceback if (found := _PLACE.search(line))]
    if not places:
        return f" ({traceback[-1]})"
    return f" ({traceback[-1]}, line {places[-1][2]} of {os.path.basename(places[-1][1])})"
