"""Whether the writer of a session is there: the one judge of life, for all who ask.

- A held OS lock means life, wherever the writer is. On the writer's own boot a free one means
  death, at once: pids, clocks and suspended machines are not asked.
- Elsewhere only the heartbeat can tell, and only over time. A copy of the folder, and a session
  that the boot before this one left, have nobody who could write here: two beats of silence are
  waited for, in case it is neither after all. A folder that is shared with another host is left
  to that host until it was silent for `stale_after_seconds` of our own watching.
- Silence that was remembered saves a wait, but never takes a turn from another host: two beats of
  it are seen with our own eyes first. Else two machines that slept together would wake up to one
  that believes the other dead.
- Looking writes nothing and waits for nothing.

Source: FORMAT.md, "Leases".
"""

from __future__ import annotations

import enum
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from milepost.clock import Clock, utc
from milepost.errors import AlreadyLockedError
from milepost.model.status import Presence
from milepost.storage import heartbeat
from milepost.storage import lease as leases
from milepost.storage.host import HostIdentity
from milepost.storage.location import command

if TYPE_CHECKING:
    from milepost.session.turn import Site

TWO_BEATS_SECONDS: Final = 2 * heartbeat.BEAT_SECONDS + 0.5
"""Two beats and a little: what a living writer cannot let pass without a sign."""

_LOOK_SECONDS: Final = 0.25


class Standing(enum.Enum):
    """How the writer that took the latest lease stands to this host."""

    ENDED = "ended"
    """It gave its turn up."""
    HERE = "here"
    """It ran on this boot of this host: the OS lock alone says whether it lives."""
    REBOOTED = "rebooted"
    """It ran on this host before its last start."""
    COPIED = "copied"
    """It wrote another folder, of which this one is a copy."""
    ELSEWHERE = "elsewhere"
    """It wrote this very folder, from another host."""


class Watcher(NamedTuple):
    """Who looks.

    Attributes:
        here: The process that looks.
        clock: Its clock.
        stale_after_seconds: How long a writer on another host may be silent.
    """

    here: HostIdentity
    clock: Clock
    stale_after_seconds: float


def standing(site: Site, lease: leases.Lease, here: HostIdentity) -> Standing:
    """How the writer of a lease stands to us."""
    if heartbeat.read_beat(site.folder, lease.epoch).has_ended:
        return Standing.ENDED
    if here.shares_boot(lease.host, lease.boot_id):
        return Standing.HERE
    status = site.folder.stat()
    if status is not None and status.inode != lease.folder_inode:
        return Standing.COPIED
    return Standing.REBOOTED if lease.host == here.host else Standing.ELSEWHERE


def look(
    site: Site, lease: leases.Lease | None, watcher: Watcher, *, note: bool = False
) -> Presence:
    """Whether the writer of the latest lease is there, as far as one look can tell.

    With `note` its sign of life is remembered, so that a later look can tell how long it has been
    silent, and an opening need not wait for that.
    """
    if leases.WriterLock(site.folder).held_elsewhere():
        return Presence.ALIVE
    if lease is None or not may_be_elsewhere(site, lease, watcher.here):
        return Presence.GONE
    silent = _silent_seconds(site, lease, watcher, note=note)
    if standing(site, lease, watcher.here) is not Standing.ELSEWHERE:
        return Presence.GONE
    return Presence.SILENT if silent >= watcher.stale_after_seconds else Presence.UNKNOWN


def may_be_elsewhere(site: Site, lease: leases.Lease, here: HostIdentity) -> bool:
    """Whether the writer of the latest lease did not end, and its OS lock says nothing here."""
    return standing(site, lease, here) not in {Standing.ENDED, Standing.HERE}


def wait_until_gone(site: Site, lease: leases.Lease, watcher: Watcher) -> Standing:
    """Return once the writer of the latest lease is surely gone; the OS lock is ours already.

    That takes up to two beats. Errors: `AlreadyLockedError` where a writer elsewhere shows signs of
    life, or has not been silent for long enough, naming it and until when.
    """
    found = standing(site, lease, watcher.here)
    if found in {Standing.ENDED, Standing.HERE}:
        return found
    silent = _silent_seconds(site, lease, watcher, note=True)
    if found is Standing.ELSEWHERE:
        if silent < watcher.stale_after_seconds:
            raise _not_yet(site, lease, watcher, watcher.stale_after_seconds - silent)
        silent = 0.0
    _watch(site, lease, watcher, TWO_BEATS_SECONDS - silent)
    return found


def _silent_seconds(site: Site, lease: leases.Lease, watcher: Watcher, *, note: bool) -> float:
    now = watcher.clock.monotonic()
    return heartbeat.silent_seconds(site.folder, lease.epoch, watcher.here, now, note=note)


def _watch(site: Site, lease: leases.Lease, watcher: Watcher, seconds: float) -> None:
    """Return after so long without a sign of life; raise at the first one."""
    clock = watcher.clock
    never = threading.Event()
    before = heartbeat.read_beat(site.folder, lease.epoch)
    until = clock.monotonic() + seconds
    while (left := until - clock.monotonic()) > 0:
        clock.wait(never, min(left, _LOOK_SECONDS))
        now = heartbeat.read_beat(site.folder, lease.epoch)
        if now.has_ended:
            return
        if now != before:
            raise _alive(site, lease)


def _alive(site: Site, lease: leases.Lease) -> AlreadyLockedError:
    since = utc(lease.taken_at_ns)
    return AlreadyLockedError(
        f"session {site.name!r} is being written by process {lease.pid} on {lease.host} since"
        f" {since:%Y-%m-%d %H:%M:%S} UTC: its heartbeat moves",
        operation="lock",
        path=leases.LOCK_NAME,
        holder=_holder(lease),
        hint="wait for it to end, or stop it; reading works meanwhile",
    )


def _not_yet(
    site: Site, lease: leases.Lease, watcher: Watcher, left_seconds: float
) -> AlreadyLockedError:
    since = utc(lease.taken_at_ns)
    until = utc(watcher.clock.now_ns() + int(left_seconds * 1e9))
    return AlreadyLockedError(
        f"session {site.name!r} was last written by process {lease.pid} on {lease.host} since"
        f" {since:%Y-%m-%d %H:%M:%S} UTC, and whether it lives cannot be seen from here; it counts"
        f" as gone if it stays silent until {until:%H:%M:%S} UTC ({left_seconds:.0f} s from now)",
        operation="lock",
        path=leases.LOCK_NAME,
        holder={**_holder(lease), "until": until},
        hint="if it is surely gone, take the session at once:"
        f" {command(site.store_path, 'unlock', site.name)}",
    )


def _holder(lease: leases.Lease) -> dict[str, Any]:
    return {
        "host": lease.host,
        "pid": lease.pid,
        "since": utc(lease.taken_at_ns),
        "epoch": lease.epoch,
    }
