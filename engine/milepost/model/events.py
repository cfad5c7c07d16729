"""The events: everything that can happen to a session, each with its sequence and its batch.

- An event is a tagged MessagePack array: tag, sequence, wall time, batch, then its own fields.
- Tags and the order of fields are part of the format: never changed, never reused; fields are only
  added at the end, with a default.
- Tags 0 to 9 belong to the journal's own records, and 38 to 127 to what is coming.
- `batch` is the batch's number, `NO_BATCH` for what concerns the session.

Source: FORMAT.md, "Events".
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias, Union

import msgspec

from milepost.model.recoveries import BatchRecoveryResult, RecoverySums
from milepost.model.state import BatchMetrics, OutputRows, Phase
from milepost.types import (
    BatchErrorType,
    CheckpointType,
    ItemStatus,
    Key,
    Outcome,
    RecoveryPriority,
    RecoveryReason,
    RecoveryStrategy,
    SessionKind,
)

NO_BATCH: Final = -1


class Event(msgspec.Struct, array_like=True, frozen=True):
    """What all events share.

    Attributes:
        sequence: Number of the event in its session, from 1, without a gap.
        at_ns: Wall clock, for people and durations; it orders nothing.
        batch: Number of the batch it concerns, `NO_BATCH` for none.
    """

    sequence: int
    at_ns: int
    batch: int


class SessionCreated(Event, frozen=True, tag=10):
    """The session began to exist; always sequence 1.

    Attributes:
        name: The session's name.
        uid: Its identity.
        kind: Work or data alone.
        item_cap: Items per batch that keep their detail.
    """

    name: str
    uid: str
    kind: SessionKind
    item_cap: int


class ItemCapChanged(Event, frozen=True, tag=11):
    """From here on, this many items of a batch keep their detail."""

    item_cap: int


class TotalBatchesSet(Event, frozen=True, tag=12):
    """How many batches the session will have became known, or unknown (`None`)."""

    total_batches: int | None


class PlanSealed(Event, frozen=True, tag=13):
    """A part of the plan became durable; the segment was published before this.

    Attributes:
        path: The segment, relative to the session's folder.
        first: Number of its first batch.
        count: How many batches it holds.
    """

    path: str
    first: int
    count: int


class ExecutionStarted(Event, frozen=True, tag=14):
    """A process began to work on the session.

    Attributes:
        epoch: The writer's turn.
        host: On which machine.
        pid: In which process.
        boot_id: On which boot of the machine.
        process_started: When that process began.
        release: Which milepost.
        program: What people call the program.
    """

    epoch: int
    host: str
    pid: int
    boot_id: str
    process_started: str
    release: str
    program: str = ""


class ExecutionEnded(Event, frozen=True, tag=15):
    """A process stopped working on the session by itself; a death leaves no such event.

    Attributes:
        epoch: The writer's turn.
        outcome: How it ended.
        error_message: What ended it, if something did; a line `hint: …` at its end, what to try.
    """

    epoch: int
    outcome: Outcome
    error_message: str | None = None


class SessionCompleted(Event, frozen=True, tag=16):
    """The work is ended; with failed batches the session stands as failed."""


class DataSet(Event, frozen=True, tag=17):
    """The session's data was replaced as a whole."""

    data: Any


class CheckpointSaved(Event, frozen=True, tag=18):
    """A checkpoint's file is durable.

    Attributes:
        id: What it is loaded by; `checkpoints/<id>.zst`.
        checkpoint_type: Why it was set.
        name: What the program calls it.
    """

    id: str
    checkpoint_type: CheckpointType
    name: str | None


class CheckpointsRemoved(Event, frozen=True, tag=19):
    """The age clean-up lets go of these; the files go after this."""

    ids: list[str]


class BatchStarted(Event, frozen=True, tag=20):
    """A batch was begun, or taken up again with all that it had.

    Attributes:
        key: The batch's key.
        label: What people call it.
        payload: What it is about, where no plan holds it.
        items_total: How many items it has, if known.
        keeps_items: Whether its item keys stay after its completion.
    """

    key: str
    label: str | None = None
    payload: Any = None
    items_total: int | None = None
    keeps_items: bool = False


class ProgressUpdated(Event, frozen=True, tag=21):
    """A batch told how far it is, in numbers; what is `None` did not change.

    Attributes:
        items_processed: Items completed, absolute.
        items_failed: Items failed, absolute, not among those processed.
        phase: What the batch is doing.
        items_total: How many items it has.
    """

    items_processed: int | None = None
    items_failed: int | None = None
    phase: Phase | None = None
    items_total: int | None = None


class ItemUpdated(Event, frozen=True, tag=22, gc=False):
    """One item changed; in the same record, the next one may be taken.

    Attributes:
        key: The item; `None` where only `taken` is meant.
        status: What became of it.
        taken: The item that is in hand from here on.
        error_message: What was wrong.
        error_type: Of what kind that was.
        is_recoverable: Whether trying again can help.
    """

    key: Key | None
    status: ItemStatus
    taken: Key | None = None
    error_message: str | None = None
    error_type: BatchErrorType | None = None
    is_recoverable: bool = True


class ItemChange(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One item of an `ItemsUpdated`.

    Attributes:
        key: The item.
        status: What became of it.
        error_message: What was wrong.
        error_type: Of what kind that was.
        is_recoverable: Whether trying again can help.
    """

    key: Key
    status: ItemStatus
    error_message: str | None = None
    error_type: BatchErrorType | None = None
    is_recoverable: bool = True


class ItemsUpdated(Event, frozen=True, tag=23):
    """Many items changed at once: all of them or none."""

    changes: list[ItemChange]


class CountersAdded(Event, frozen=True, tag=24):
    """User counters of a batch went up by these amounts."""

    counters: dict[str, int]


class BatchAttemptFailed(Event, frozen=True, tag=25):
    """A try of the batch failed and another one follows in the same run.

    Attributes:
        error_message: Why.
        error_type: Of what kind that was.
        delay_ms: How long the run waits before the next try.
    """

    error_message: str
    error_type: BatchErrorType
    delay_ms: int


class BatchCompleted(Event, frozen=True, tag=26):
    """A batch ended well."""

    metrics: BatchMetrics | None = None


class BatchFailed(Event, frozen=True, tag=27):
    """A batch was given up for this run.

    Attributes:
        error_message: Why.
        error_type: Of what kind that was.
        is_recoverable: Whether a later run should try it again by itself.
    """

    error_message: str
    error_type: BatchErrorType
    is_recoverable: bool


class Retried(Event, frozen=True, tag=28):
    """Failed batches and items were put back by hand, with fresh attempts.

    Attributes:
        batches: Numbers of the failed batches that become pending again.
        items: Batch number to the keys of its failed items that become pending again.
    """

    batches: list[int]
    items: dict[int, list[Key]]


class Restarted(Event, frozen=True, tag=29):
    """The work begins anew; runs and checkpoints stay listed, the rest stays in older files.

    Attributes:
        runs_before: How many runs there were before; 0 where an older writer did not note it.
    """

    runs_before: int = 0


class Restored(Event, frozen=True, tag=30):
    """An older version became the state again.

    It is in no journal: the snapshot of the same sequence number is what it does.

    Attributes:
        version: The version that was restored.
        from_sequence: The sequence number of that version.
    """

    version: int
    from_sequence: int


class ExecutionDied(Event, frozen=True, tag=31):
    """The latest execution was found dead: it has no end, and its process is gone.

    Attributes:
        epoch: The turn of the execution.
        is_blamed: Whether what was in hand may have killed it; not so after a power cut, where the
            process ran on another machine, or where it ended and only could not record it.
        cause: What is known of the death, for people; empty for nothing.
    """

    epoch: int
    is_blamed: bool
    cause: str = ""


class Recovered(Event, frozen=True, tag=32):
    """The session was made ready to be carried on; a full restart begins the work anew with it.

    Attributes:
        reason: Why.
        priority: How urgent it was.
        strategy: How.
        batches: Numbers of the failed batches that wait again, with the runs they had.
        reset: Numbers of the begun batches that begin anew, without anything they had.
        from_batch: Where a partial recovery began; `None` for any other.
        duration_ms: How long the recovery took up to here.
        result: What it came to; `None` where an older writer did not note it.
        report: The scan that it was part of, as it stood then; `None` for a recovery by itself.
        runs_before: With a full restart, how many runs there were before.
    """

    reason: RecoveryReason
    priority: RecoveryPriority
    strategy: RecoveryStrategy
    batches: list[int] = []
    reset: list[int] = []
    from_batch: int | None = None
    duration_ms: int = 0
    result: BatchRecoveryResult | None = None
    report: RecoverySums | None = None
    runs_before: int = 0


class ItemsAdded(Event, frozen=True, tag=33):
    """Work was found on the way; keys that were known before are not in here.

    Attributes:
        keys: The new items, in the order in which they are to be run.
        payloads: What each is, where that is more than its key; `None` where no item is.
    """

    keys: list[Key]
    payloads: list[Any] | None = None


class ItemsEnded(Event, frozen=True, tag=34):
    """Items changed, others were taken, and their rows are in the outputs: all of it or nothing.

    Attributes:
        changes: What became of items.
        taken: The items that are in hand from here on.
        rows: Where each output ends with the rows of these items.
    """

    changes: list[ItemChange] = []
    taken: list[Key] = []
    rows: list[OutputRows] = []


class PositionsAdvanced(Event, frozen=True, tag=35):
    """Items known by their position were completed in their order, and the next ones taken.

    Attributes:
        done_through: All items in hand before this position are completed.
        digest: Of the first `done_through` items.
        taken: How many are in hand from there on.
        rows: Where each output ends with the rows of these items.
    """

    done_through: int
    digest: str
    taken: int = 0
    rows: list[OutputRows] = []


class OutputOpened(Event, frozen=True, tag=36):
    """Rows will be written to a file, behind what is in it.

    Attributes:
        path: The file, relative to the store, with `/` between folders.
        length_bytes: How long it is before the first row.
    """

    path: str
    length_bytes: int = 0


class ParamsSet(Event, frozen=True, tag=37):
    """What makes this run this run was said: a later run must say the same."""

    params: Any


BatchEvent: TypeAlias = Union[  # noqa: UP007  # msgspec wants one union object
    SessionCreated,
    ItemCapChanged,
    TotalBatchesSet,
    PlanSealed,
    ExecutionStarted,
    ExecutionEnded,
    SessionCompleted,
    DataSet,
    CheckpointSaved,
    CheckpointsRemoved,
    BatchStarted,
    ProgressUpdated,
    ItemUpdated,
    ItemsUpdated,
    CountersAdded,
    BatchAttemptFailed,
    BatchCompleted,
    BatchFailed,
    Retried,
    Restarted,
    Restored,
    ExecutionDied,
    Recovered,
    ItemsAdded,
    ItemsEnded,
    PositionsAdvanced,
    OutputOpened,
    ParamsSet,
]
"""Everything that can happen to a session."""
