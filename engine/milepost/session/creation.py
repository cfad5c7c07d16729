"""Making a session: its folder whole under another name, then given its own at once.

- So a session is there with its lease and its first snapshot, or not at all.
- What a crash on the way left is removed by the age clean-up. It is taken away under a new name
  first: whoever was only slow finds nothing to give its name to, and never half a session.

Source: FORMAT.md, "Session folders".
"""

from __future__ import annotations

import os
import re
import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec

from milepost.model import events as e
from milepost.model import fold
from milepost.snapshots import versions
from milepost.storage import frame
from milepost.storage import lease as leases
from milepost.storage.directory import TEMPORARY_SUFFIX
from milepost.storage.heartbeat import mark_ended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.model.state import SessionState
    from milepost.session.turn import Site
    from milepost.session.writer import Settings
    from milepost.storage.directory import LocalDirectory
    from milepost.storage.host import HostIdentity
    from milepost.types import SessionKind

MAKING_SECONDS_MAX: Final = 3600
"""Nobody takes an hour to make a session: one that is younger may be in the making just now."""
_UNFINISHED: Final = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(TEMPORARY_SUFFIX)}")


def _unfinished_name() -> str:
    return f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"


def create_session(
    sessions: LocalDirectory,
    site: Site,
    settings: Settings,
    kind: SessionKind,
    data: Sequence[Any] = (),
) -> None:
    """Make the session, durably; another process that is quicker makes one as good.

    `data` is what it holds from its first version on.
    """
    sessions.make_folders()
    temporary = sessions.folder(_unfinished_name())
    temporary.make_folders("leases")
    now_ns = settings.clock.now_ns()
    state = fold.new_state(
        e.SessionCreated(
            1, now_ns, e.NO_BATCH, site.name, uuid.uuid4().hex, kind, settings.tracker.item_cap
        )
    )
    for each in data:
        state = fold.apply(state, e.DataSet(state.sequence + 1, now_ns, e.NO_BATCH, each))
    lease = _first_lease(temporary, state, settings.identify())
    temporary.create_whole(leases.lease_path(1), leases.encode_lease(lease))
    mark_ended(temporary, 1)  # who works on it takes a turn of his own
    versions.write(
        temporary,
        state,
        name=versions.SnapshotName(1, state.sequence, 1),
        created_ns=now_ns,
        by_hand=bool(data),
        restored_from=None,
        parents=(),
        level=frame.LEVEL_HOT if settings.store.enable_compression else frame.LEVEL_NONE,
    )
    source = os.path.basename(temporary.root)
    if not sessions.rename_folder(source, site.folder_name):
        sessions.remove_folder(source)


def remove_unfinished(sessions: LocalDirectory, *, older_than_ns: int, now_ns: int) -> None:
    """Remove what crashes left of sessions that were being made, where it is old enough."""
    age_ns = max(older_than_ns, MAKING_SECONDS_MAX * 1_000_000_000)
    for name in filter(_UNFINISHED.fullmatch, sessions.temporaries()):
        status = sessions.stat(name)
        if status is not None and status.is_folder and now_ns - status.modified_ns > age_ns:
            ours = _unfinished_name()
            sessions.rename_folder(name, ours)
            sessions.remove_folder(ours)


def _first_lease(
    folder: LocalDirectory, state: SessionState, process: HostIdentity
) -> leases.Lease:
    status = folder.stat()
    return leases.Lease(
        epoch=1,
        session=state.session_id,
        session_uid=state.uid,
        lineage=uuid.uuid4().hex,
        host=process.host,
        boot_id=process.boot_id,
        pid=process.pid,
        process_started=process.process_started,
        started_by=process.started_by or msgspec.UNSET,
        folder_inode=status.inode if status else 0,
        taken_at_ns=state.created_ns,
    )
