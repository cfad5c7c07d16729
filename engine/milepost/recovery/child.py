"""One process that does the work, started by us and waited for.

- It has a process group of its own: a Ctrl-C at the terminal reaches it once, from us, and not
  twice. It does not die with us: what it does is worth more than who started it.
- A thread waits for it, so its end is known at once. What the system tells of the end (signal, exit
  code, most memory) is kept.
- Its output goes where ours goes, or to a file; never through a pipe that would break with us.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING, NamedTuple

from milepost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


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
        """Whether a signal ended it."""
        return self.code < 0

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
        return what if self.memory_mb is None else f"{what}, at most {self.memory_mb:,.0f} MiB"


class Child:
    """A running process."""

    def __init__(
        self,
        command: Sequence[str],
        on_end: Callable[[Ending], None],
        *,
        environment: Mapping[str, str],
        output: IO[bytes] | int | None = None,
    ) -> None:
        """Start it; `on_end` is called once, from another thread.

        `output` takes its stdout and stderr; by default they are ours. Errors:
        `ConfigurationError` for a command that cannot be started.
        """
        self._on_end = on_end
        try:
            self._process = subprocess.Popen(  # noqa: S603  # what to run is the user's own word
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                process_group=None if sys.platform == "win32" else 0,
            )
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"cannot start {command[0]!r}: {getattr(error, 'strerror', None) or error}",
                hint="check the command, and that it can be found from here",
            ) from error
        self.pid = self._process.pid
        self._reaping = threading.Lock()
        self._has_ended = False
        threading.Thread(target=self._wait, name=f"milepost-child-{self.pid}", daemon=True).start()

    def _wait(self) -> None:
        if sys.platform == "win32":
            ending = Ending(self._process.wait())
        else:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            with self._reaping:  # its number is ours until here, so no signal can meet another
                _, status, usage = os.wait4(self.pid, 0)
                self._has_ended = True
            # Bytes on macOS, KiB elsewhere.
            unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
            ending = Ending(os.waitstatus_to_exitcode(status), usage.ru_maxrss / unit)
            self._process.returncode = ending.code
        self._on_end(ending)

    def send(self, number: int) -> None:
        """Pass a signal on; a process that is gone hears nothing."""
        with self._reaping:
            if self._has_ended:
                return
            with contextlib.suppress(OSError, ValueError):
                if sys.platform == "win32":
                    self._process.terminate()
                else:
                    os.kill(self.pid, number)
