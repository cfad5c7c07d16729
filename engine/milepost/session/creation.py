"""Making a session: its folder whole under another name, then given its own at once.

So a session is there with its lease and its first snapshot, or not at all.

Source: FORMAT.md, "Session folders".
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

from milepost.model import events as e
from milepost.model import fold
from milepost.snapshots import versions
from milepost.storage import frame
from milepost.storage import lease as leases
from milepost.storage.host import this_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.model.state import SessionState
    from milepost.session.turn import Site
    from milepost.session.writer import Settings
    from milepost.storage.directory import LocalDirectory
    from milepost.types import SessionKind


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
    temporary = sessions.folder(f".{uuid.uuid4().hex}.tmp")
    temporary.make_folders("leases")
    now_ns = settings.clock.now_ns()
    state = fold.new_state(
        e.SessionCreated(
            1, now_ns, e.NO_BATCH, site.name, uuid.uuid4().hex, kind, settings.tracker.item_cap
        )
    )
    for each in data:
        state = fold.apply(state, e.DataSet(state.sequence + 1, now_ns, e.NO_BATCH, each))
    lease = _first_lease(temporary, state)
    temporary.create_whole(leases.lease_path(1), leases.encode_lease(lease))
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


def _first_lease(folder: LocalDirectory, state: SessionState) -> leases.Lease:
    status = folder.stat()
    process = this_process()
    return leases.Lease(
        epoch=1,
        session=state.session_id,
        session_uid=state.uid,
        lineage=uuid.uuid4().hex,
        host=process.host,
        boot_id=process.boot_id,
        pid=process.pid,
        process_started=process.process_started,
        folder_inode=status.inode if status else 0,
        taken_at_ns=state.created_ns,
    )
