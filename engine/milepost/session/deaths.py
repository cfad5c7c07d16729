"""The death of the run before: recorded, and what it was poisoned by is failed.

- A run that has no end died. What it had in hand is blamed only where that may have killed it: not
  after a power cut, not for a process of another host, not where the process went on or ended by
  itself.
- The death and each verdict are events of their own. A kill in between leaves the rest to be done
  by whoever opens the session next; a second time finds nothing to do.

Source: FORMAT.md, "Fold".
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from milepost.errors import FormatError, StorageError
from milepost.model import events as e
from milepost.model.arms.deaths import suspects_after_death
from milepost.model.state import Retrying
from milepost.storage import heartbeat
from milepost.storage import lease as leases
from milepost.text import counted
from milepost.types import BatchErrorType, BatchPhase, ItemStatus, label

if TYPE_CHECKING:
    from milepost.model.state import ActiveBatch, Execution, Phase, SessionState, Suspect
    from milepost.session.writer import Writer
    from milepost.storage.directory import LocalDirectory
    from milepost.storage.host import HostIdentity

CAUSE_CHARACTERS_MAX: Final = 2_000


def suspects_of(state: SessionState, folder: LocalDirectory, here: HostIdentity) -> list[Suspect]:
    """The suspects of a session whose writer is gone, a death not recorded yet included."""
    execution = state.execution
    if execution is None or not _is_blamed(execution, folder, here):
        return state.suspects
    return suspects_after_death(state)


def settle(writer: Writer, limit: int, cause: str) -> list[str]:
    """Record that the run before died, if it did, and fail what killed it `limit` times alone.

    `cause` is what is known of the death. Returns what was failed, for people. On return it is on
    the disk. The caller holds the lock, and has no run of its own.
    """
    execution = writer.state.execution
    if execution is not None:
        died = e.ExecutionDied(
            writer.next_sequence,
            writer.now_ns(),
            e.NO_BATCH,
            execution.epoch,
            _is_blamed(execution, writer.folder, writer.settings.identify()),
            cause[:CAUSE_CHARACTERS_MAX],
        )
        writer.commit(died, durable=True)
    return _fail_poison(writer, limit)


def _is_blamed(execution: Execution, folder: LocalDirectory, here: HostIdentity) -> bool:
    """Whether what a run had in hand may have killed its process."""
    if not here.shares_boot(execution.host, execution.boot_id):
        return False  # the power went, or it ran elsewhere: nothing is known of its end
    if is_copied(folder, execution.epoch):
        return False  # the process wrote another folder, and may live
    if (execution.pid, execution.process_started) == (here.pid, here.process_started):
        return False  # it is us: an iterator left suspended, and opened again
    # It gave its turn up by itself, and its disk took no more than that.
    return not heartbeat.read_beat(folder, execution.epoch).has_ended


def is_copied(folder: LocalDirectory, epoch: int) -> bool:
    """Whether the writer of an epoch wrote another folder, of which this one is a copy."""
    status = folder.stat()
    with contextlib.suppress(FormatError, StorageError):
        lease = leases.read_lease(folder, epoch)
        return status is not None and status.inode != lease.folder_inode
    return False


def _fail_poison(writer: Writer, limit: int) -> list[str]:
    active = writer.state.active_batches
    found = [each for each in writer.state.suspects if each.deaths >= limit]
    whole = {each.batch for each in found if each.key is None}
    events: list[e.BatchEvent] = []
    failed: list[str] = []
    for suspect in found:
        if suspect.key is not None and suspect.batch in whole:
            continue  # its batch fails as a whole
        batch = active[suspect.batch]
        message = _message(suspect, batch)
        what = f"batch {batch.batch_id!r}"
        failed.append(
            f"{what if suspect.key is None else f'item {suspect.key!r} of {what}'}"
            f" is failed: {message}"
        )
        events.append(_failing(writer, writer.next_sequence + len(events), suspect, message))
    if events:
        writer.commit_all(events, durable=True)
    return failed


def _failing(writer: Writer, sequence: int, suspect: Suspect, message: str) -> e.BatchEvent:
    head = (sequence, writer.now_ns(), suspect.batch)
    kind = BatchErrorType.UNKNOWN_ERROR
    if suspect.key is None:
        return e.BatchFailed(*head, message, kind, is_recoverable=False)
    status = ItemStatus.FAILED
    return e.ItemUpdated(*head, suspect.key, status, None, message, kind, is_recoverable=False)


def _message(suspect: Suspect, batch: ActiveBatch) -> str:
    """Why it is failed, with what is known of the deaths."""
    known = [suspect.last_death] if suspect.last_death else []
    if batch.current_phase is not BatchPhase.INITIALIZING:  # else nobody told one
        known.append(f"phase {_phase(batch.current_phase)}")
    often = counted(suspect.deaths, "time")
    how = f" ({', '.join(known)})" if known else ""
    return f"poison: its process died {often} in a row with this alone in hand{how}"


def _phase(phase: Phase) -> str:
    if isinstance(phase, Retrying):
        return f"{_phase(phase.phase)}, tried again"
    return label(phase) if isinstance(phase, BatchPhase) else phase
