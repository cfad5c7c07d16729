"""Who this process is: host, boot, process and when it started.

- A pid alone is no identity: numbers are reused, so the start of the process goes with it.
- A boot id tells a power cut from a killed process.
- What the machine does not tell is an empty text, never a guess.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from functools import cache
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


Identify: TypeAlias = "Callable[[], HostIdentity]"
"""Says who the calling process is; replaced in tests that play two hosts."""


STARTED_BY: Final = "MILEPOST_STARTED_BY"
"""In the environment: the token of the supervisor that started a process."""


class HostIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """One process on one boot of one machine.

    Attributes:
        host: The machine's name.
        boot_id: What changes with every start of the machine; empty where it is not known.
        pid: Process number.
        process_started: When the process began, in the system's own notation; tells reused pids.
        started_by: Token of the supervisor that started it, or what started it; empty for none.
    """

    host: str
    boot_id: str
    pid: int
    process_started: str
    started_by: str = ""

    def shares_boot(self, host: str, boot_id: str) -> bool:
        """Whether a process of that host and boot ran on this one, where OS locks tell of it."""
        return boot_id == self.boot_id and (bool(boot_id) or host == self.host)


def this_process() -> HostIdentity:
    """The identity of the process that calls (after a fork, the child's own)."""
    return _identity(os.getpid())


@cache
def _identity(pid: int) -> HostIdentity:
    return HostIdentity(
        host=platform.node(),
        boot_id=_boot_id(),
        pid=pid,
        process_started=_process_started(pid),
        started_by=os.environ.get(STARTED_BY, ""),
    )


@cache
def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        try:
            return subprocess.run(
                ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"],
                capture_output=True,
                text=True,
                check=True,
                timeout=5,
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""
    return ""


def _process_started(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The command name may hold spaces and brackets; field 22 counts from the start.
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return str(time.time_ns() // 1_000_000_000)
