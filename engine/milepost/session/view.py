"""A session as it is seen from outside: read without a lock, judged by one judge."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from milepost.errors import FormatError
from milepost.model.consistency import Finding
from milepost.model.state import SessionState, Suspect
from milepost.model.status import Judgement, Presence, judge
from milepost.session import history, presence
from milepost.session.deaths import is_copied, suspects_of
from milepost.session.registry import find
from milepost.snapshots import manifest
from milepost.storage import lease as leases

if TYPE_CHECKING:
    from milepost.session.presence import Watcher
    from milepost.session.turn import Site


class View(NamedTuple):
    """A session as it is read.

    Attributes:
        state: All that is known.
        judgement: Status and reason.
        findings: What was met while it was read.
        is_lossy: Whether acknowledged work is missing.
        version: The version that the state was read from.
        writer: The latest writer: host, pid, since, epoch, its presence, whether it lives, and
            whether it wrote the original of this copy.
        backup_error: What was last wrong with the backup.
        suspects: What was in hand at deaths and has not ended; a death that is not recorded yet
            counts.
    """

    state: SessionState
    judgement: Judgement
    findings: list[Finding]
    is_lossy: bool
    version: int
    writer: dict[str, Any] | None
    backup_error: str
    suspects: list[Suspect]


def look(site: Site, files: history.Files, watcher: Watcher) -> View:
    """Read and judge a session.

    Errors: `FormatError` where the folder holds a session of another name.
    """
    mine = find(site.folder.root)
    lease = leases.newest_lease(site.folder)
    found = Presence.ALIVE if mine is not None else presence.look(site, lease, watcher)
    # After the look at the lock: a writer that ended in between has left its whole state.
    loaded = history.load_live(files)
    check_name_of(site, loaded)
    return View(
        state=loaded.state,
        judgement=judge(loaded.state, found, is_copy=_is_cut_off(site, loaded.state)),
        findings=loaded.findings,
        is_lossy=loaded.is_lossy,
        version=loaded.base.version,
        writer=_writer_of(site, leases.newest_lease(site.folder), found),
        backup_error=mine.backup_error if mine is not None else _backup_error(site),
        suspects=_suspects(site, loaded.state, found, watcher),
    )


def _is_cut_off(site: Site, state: SessionState) -> bool:
    """Whether the latest run has no end because it was copied while it ran, or after it died."""
    latest = state.executions[-1] if state.executions else None
    return latest is not None and latest.outcome is None and is_copied(site.folder, latest.epoch)


def _suspects(site: Site, state: SessionState, found: Presence, watcher: Watcher) -> list[Suspect]:
    is_gone = found in {Presence.GONE, Presence.SILENT}
    return suspects_of(state, site.folder, watcher.here) if is_gone else state.suspects


def check_name_of(site: Site, loaded: history.Loaded) -> None:
    """The folder must hold the session that its name says."""
    if loaded.state.session_id != site.name:
        raise FormatError(
            f"the folder of session {site.name!r} holds session {loaded.state.session_id!r}",
            path=site.folder.root,
            hint="it was renamed or copied by hand; give it back its own name",
        )


def _backup_error(site: Site) -> str:
    found = manifest.read(site.folder)
    return found.backup if found is not None else ""


def _writer_of(site: Site, lease: leases.Lease | None, found: Presence) -> dict[str, Any] | None:
    if lease is None:
        return None
    return {
        "host": lease.host,
        "pid": lease.pid,
        "since": datetime.fromtimestamp(lease.taken_at_ns / 1e9, UTC),
        "epoch": lease.epoch,
        "presence": found.value,
        "alive": found in {Presence.ALIVE, Presence.UNKNOWN},
        "wrote_original": is_copied(site.folder, lease.epoch),
    }
