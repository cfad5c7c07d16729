"""Playing several hosts on one: who a process says to be, and a lock that does not reach across."""

from __future__ import annotations

from typing import TYPE_CHECKING

import milepost
from milepost.session.registry import unregister
from milepost.storage.host import HostIdentity

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path


def host(
    name: str, *, boot: str | None = None, pid: int = 4711, started: str = "1"
) -> HostIdentity:
    """A process on a machine of that name."""
    boot_id = f"boot of {name}" if boot is None else boot
    return HostIdentity(host=name, boot_id=boot_id, pid=pid, process_started=started)


def store_on(
    who: HostIdentity,
    path: Path,
    *,
    clock: milepost.Clock | None = None,
    stale_after_seconds: float = 60.0,
    program: str | None = None,
) -> milepost.Store:
    """A store as that process sees it."""
    return milepost.Store(
        path,
        clock=clock or milepost.ManualClock(),
        tracker=milepost.TrackerConfig(checkpoint_interval_seconds=1e9, sync_interval_seconds=30.0),
        recovery=milepost.RecoveryConfig(stale_after_seconds=stale_after_seconds),
        program=program,
        identify=lambda: who,
    )


def out_of_reach(session: milepost.Session) -> milepost.Session:
    """Make its OS lock one that others do not see, as on a share without locks; it goes on."""
    unregister(session.path, session)
    session._writer.turn._lock.release()
    return session


def beat(session: milepost.Session) -> None:
    """A sign of life now, as the pulse gives one every two seconds."""
    session._writer.turn.beat()


class Awakening(milepost.ManualClock):
    """A clock during whose waits something happens."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_seconds = 0.0
        self.meanwhile: Callable[[], object] = lambda: None

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Advance, and let it happen."""
        self.waited_seconds += timeout_seconds
        self.meanwhile()
        return super().wait(event, timeout_seconds)
