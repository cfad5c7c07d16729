"""A program that a supervisor started waits for the writer that it meets.

- Who supervises wants the work done, not a refusal. A program whose supervisor was killed goes on
  alone, say: the next supervisor's waits for its end, as a watcher does, and then carries on.
- A writer that the same supervisor started is no reason to wait: it may be waiting for us.
- Nothing is held meanwhile, so a signal ends the wait as it ends any program.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from milepost.model.status import Presence
from milepost.session import presence
from milepost.storage import lease as leases
from milepost.text import say

if TYPE_CHECKING:
    from milepost.session.presence import Watcher
    from milepost.session.turn import Site

LOOK_SECONDS: Final = 0.5


def wait_for_writer(site: Site, watcher: Watcher) -> bool:
    """Return once the session's writer is gone, if it is one to wait for; whether it was."""
    lease = _to_wait_for(site, watcher)
    if lease is None:
        return False
    say(f"{site.name}: process {lease.pid} on {lease.host} writes it; waiting for its end")
    never = threading.Event()
    while _to_wait_for(site, watcher) is not None:
        watcher.clock.wait(never, LOOK_SECONDS)
    return True


def _to_wait_for(site: Site, watcher: Watcher) -> leases.Lease | None:
    """The turn of the writer that is worth a wait."""
    token = watcher.here.started_by
    lease = leases.newest_lease(site.folder, session=site.name)
    if not token or lease is None or lease.started_by == token:
        return None
    standing = presence.look(site, lease, watcher, note=True)
    return lease if standing in {Presence.ALIVE, Presence.UNKNOWN} else None
