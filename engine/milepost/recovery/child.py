"""One process that does the work, started by us and waited for.

- It has a process group of its own: a Ctrl-C at the terminal reaches it once, from us, and not
  twice. What we pass on reaches the whole group in the end, whose end is awaited, because the work
  may be done behind a shell.
- It does not die with us: what it does is worth more than who started it.
- Who waits for it knows its end at once, with what the system tells of it: signal, exit code, most
  memory.
- Its output goes where ours goes, or to a file; never through a pipe that would break with us.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from milepost.errors import ConfigurationError, MilepostError
from milepost.settings.environment import as_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from milepost.types import RecoveryConfig

SIGNALS_PASSED_ON: Final = 2
"""Who sends more of them means it: then children are killed."""
_PASSING: Final = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""The machine has no room for one more process just now; the command may be fine."""


def environment(
    config: RecoveryConfig, store_path: str, session: str | None = None
) -> dict[str, str]:
    """A child's: ours, our store, our settings; one command for many sessions learns which.

    Who asked for work to be carried on means it, whatever `auto_resume` says to a run by hand.
    """
    more = {"MILEPOST_STORE": store_path, "MILEPOST_AUTO_RESUME": "true"}
    if session is not None:
        more["MILEPOST_SESSION"] = session
    return {**os.environ, **as_environment(config), **more}


class Ending(NamedTuple):
    """How a process ended.

    Attributes:
        code: Its exit code; negative for the signal that killed it.
        memory_mb: The most memory it had, in MiB; `None` where the system does not tell.
    """

    code: int
    memory_mb: float | None = None

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it; Ctrl-C does not kill, it is how a program is stopped."""
        return self.code < 0 and self.code != -signal.SIGINT

    @property
    def exit_code(self) -> int:
        """The exit code as a shell gives it: 128 and the signal for a killed process."""
        return 128 - self.code if self.code < 0 else self.code

    def __str__(self) -> str:
        if self.code >= 0:
            what = f"exit code {self.code}"
        else:
            try:
                what = f"killed by {signal.Signals(-self.code).name}"
            except ValueError:
                what = f"killed by signal {-self.code}"
        return (
            what
            if self.memory_mb is None
            else f"{what}, at most {self.memory_mb:,.0f} MiB of memory"
        )


GROUP_SECONDS_MAX: Final = 15.0
"""How long the group of a process that was told to end is waited for, once it itself is gone."""
_LOOK_SECONDS: Final = 0.02


class Child:
    """A running process."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        output: IO[bytes] | None = None,
        folder: str | None = None,
    ) -> None:
        """Start it in a folder, ours by default; `output` takes its stdout and stderr.

        Errors: `ConfigurationError` for a command that cannot be started; `MilepostError` where the
            machine has no room for it just now.
        """
        if not command:
            raise ConfigurationError("there is no command to start", hint="name one")
        try:
            self._process = subprocess.Popen(  # noqa: S603  # what to run is the user's own word
                list(command),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                process_group=None if sys.platform == "win32" else 0,
            )
        except (OSError, ValueError) as error:
            raise _refusal(command[0], folder, error) from error
        self.pid = self._process.pid
        self._reaping = threading.Lock()
        self._has_ended = False
        self._told: int | None = None

    def wait(self) -> Ending:
        """Return once it has ended; to be called once."""
        if sys.platform == "win32":
            return Ending(self._process.wait())
        try:
            # Its number is ours until it is reaped, so no signal of ours can meet another process.
            # macOS has the call from Python 3.13 on; before, that holds but for an instant.
            is_seen_first = hasattr(os, "waitid")
            if is_seen_first:
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            with self._reaping if is_seen_first else contextlib.nullcontext():
                if self._told is not None and is_seen_first:
                    # A shell is gone and did not pass it on.
                    with contextlib.suppress(OSError):
                        os.killpg(self.pid, self._told)
                _, status, usage = os.wait4(self.pid, 0)
                self._has_ended = True
        except ChildProcessError:
            # Who started us ignores the ends of children, and so the system forgets them.
            self._has_ended = True
            return Ending(self._process.wait())
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._told is not None:
            self._await_group()
        # Bytes on macOS, KiB elsewhere.
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return Ending(self._process.returncode, usage.ru_maxrss / unit)

    def send(self, number: int) -> None:
        """Pass a signal on; who is gone hears nothing.

        SIGTERM is for the process alone, which may finish what its own helpers have in hand; what
        it leaves behind is told when it is gone. Any other is for its whole group at once, as from
        a terminal.
        """
        with self._reaping:
            if self._has_ended:
                return
            self._told = number
            with contextlib.suppress(OSError, ValueError):
                if sys.platform == "win32":
                    self._process.terminate()
                else:
                    (os.kill if number == signal.SIGTERM else os.killpg)(self.pid, number)

    def _await_group(self) -> None:
        """Wait for what the process has started itself: after a signal it may still be saving."""
        until = time.monotonic() + GROUP_SECONDS_MAX
        with contextlib.suppress(OSError):
            while time.monotonic() < until:
                os.killpg(self.pid, 0)
                time.sleep(_LOOK_SECONDS)


def _refusal(program: str, folder: str | None, error: OSError | ValueError) -> MilepostError:
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, OSError) and error.errno in _PASSING:
        return MilepostError(f"cannot start {program!r} now: {reason}")
    if folder is not None and not os.path.isdir(folder):
        return ConfigurationError(
            f"cannot start {program!r}: there is no folder {folder}",
            hint="make it, or name another one",
        )
    return ConfigurationError(
        f"cannot start {program!r}: {reason}",
        hint="check the command, and that it can be found from here",
    )
