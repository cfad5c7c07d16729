"""Whether the writer of a session is there: the one judge of life, for all who ask.

- A held OS lock means life, wherever the writer is. On the writer's own boot a free one means
  death, at once: pids, clocks and suspended machines are not asked.
- Elsewhere only the heartbeat can tell, and only over time. A copy of the folder, and a session
  that the boot before this one left, have nobody who could write here: two beats of silence are
  waited for, in case this is no copy after all. A folder that is shared with another host is left
  to that host until it was silent for `stale_after_seconds` of our own watching.

Source: FORMAT.md, "Leases".
"""

from __future__ import annotations

import enum
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from milepost.clock import Clock, utc
from milepost.errors import AlreadyLockedError
from milepost.model.status import Presence
from milepost.storage import heartbeat
from milepost.storage import lease as leases
from milepost.storage.host import HostIdentity
from milepost.storage.location import command

if TYPE_CHECKING:
    from milepost.session.turn import Site

COPY_SILENCE_SECONDS: Final = 2 * heartbeat.BEAT_SECONDS + 0.5
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
    if lease.boot_id == here.boot_id and (lease.boot_id or lease.host == here.host):
        return Standing.HERE
    status = site.folder.stat()
    if status is not None and status.inode != lease.folder_inode:
        return Standing.COPIED
    return Standing.REBOOTED if lease.host == here.host else Standing.ELSEWHERE


def look(site: Site, lease: leases.Lease | None, watcher: Watcher) -> Presence:
    """Whether the writer of the latest lease is there, as far as one look can tell."""
    if leases.WriterLock(site.folder).held_elsewhere():
        return Presence.ALIVE
    if lease is None or standing(site, lease, watcher.here) is not Standing.ELSEWHERE:
        return Presence.GONE
    silent = heartbeat.silent_seconds(
        site.folder, lease.epoch, watcher.here, watcher.clock.monotonic(), note=False
    )
    return Presence.SILENT if silent >= watcher.stale_after_seconds else Presence.UNKNOWN


def may_be_elsewhere(site: Site, lease: leases.Lease, here: HostIdentity) -> bool:
    """Whether the writer of the latest lease did not end, and its OS lock says nothing here."""
    return standing(site, lease, here) not in {Standing.ENDED, Standing.HERE}


def note(site: Site, lease: leases.Lease | None, watcher: Watcher) -> None:
    """Remember the heartbeat of a writer elsewhere, so that a later look can tell its silence."""
    if lease is not None and standing(site, lease, watcher.here) is Standing.ELSEWHERE:
        heartbeat.silent_seconds(
            site.folder, lease.epoch, watcher.here, watcher.clock.monotonic(), note=True
        )


def wait_until_gone(site: Site, lease: leases.Lease | None, watcher: Watcher) -> Standing:
    """Return once the writer of the latest lease is surely gone; the OS lock is ours already.

    A copy takes a few seconds. Errors: `AlreadyLockedError` where a writer elsewhere shows signs of
    life, or has not been silent for long enough, naming it and until when.
    """
    if lease is None:
        return Standing.ENDED
    found = standing(site, lease, watcher.here)
    if found in {Standing.COPIED, Standing.REBOOTED}:
        _watch_two_beats(site, lease, watcher)
    elif found is Standing.ELSEWHERE:
        silent = heartbeat.silent_seconds(
            site.folder, lease.epoch, watcher.here, watcher.clock.monotonic(), note=True
        )
        if silent < watcher.stale_after_seconds:
            raise _refusal(site, lease, watcher, watcher.stale_after_seconds - silent)
    return found


def _watch_two_beats(site: Site, lease: leases.Lease, watcher: Watcher) -> None:
    before = heartbeat.read_beat(site.folder, lease.epoch)
    never = threading.Event()
    until = watcher.clock.monotonic() + COPY_SILENCE_SECONDS
    while watcher.clock.monotonic() < until:
        watcher.clock.wait(never, _LOOK_SECONDS)
        now = heartbeat.read_beat(site.folder, lease.epoch)
        if now.has_ended:
            return
        if now != before:
            raise _refusal(site, lease, watcher, watcher.stale_after_seconds)


def _refusal(
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
        holder={
            "host": lease.host,
            "pid": lease.pid,
            "since": since,
            "epoch": lease.epoch,
            "until": until,
        },
        hint="if it is surely gone, take the session at once:"
        f" {command(site.store_path, 'unlock', site.name)}",
    )
