"""The state of a session, as the fold makes it and as a snapshot holds it.

- Compact on disk: structs are arrays, enums small numbers, times nanoseconds since 1970 UTC.
  At the face every time is an aware UTC `datetime`.
- Fields are only ever added at the end, with a default; meanings never change.
- What can be computed is not stored, but for running sums that would cost a walk over all batches.
- `success_rate` has one definition everywhere: completed / (completed + failed); skipped items are
  left out, and with nothing finished it is `None`.

It is long because it is one table: every struct of a snapshot, each field with its meaning, in the
order in which they stand on disk.

Source: FORMAT.md, "Session state".
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeAlias, Union

import msgspec

from milepost.model.recoveries import BatchRecoveryResult
from milepost.types import (
    BatchErrorType,
    BatchPhase,
    BatchStatus,
    CheckpointType,
    ItemStatus,
    Key,
    Outcome,
    RecoveryPriority,
    RecoveryReason,
    RecoveryStrategy,
    SessionKind,
)

FOLD_VERSION = 4
"""Raised when the fold learns what older readers would fold wrongly."""

SCHEMA_VERSION = 3
"""Raised when the state gets a field that older readers must not drop."""


def _time(ns: int | None) -> datetime | None:
    return None if ns is None else _sure_time(ns)


def _sure_time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).replace(
        microsecond=ns % 1_000_000_000 // 1_000
    )


def success_rate(completed: int, failed: int) -> float | None:
    """Share of the finished items that were completed; `None` while none is finished."""
    finished = completed + failed
    return completed / finished if finished else None


class Retrying(msgspec.Struct, array_like=True, frozen=True, tag=0):
    """A phase that is being tried again.

    Attributes:
        phase: The phase that failed.
    """

    phase: Union[BatchPhase, str, Retrying]  # noqa: UP007  # msgspec resolves this form on 3.11


Phase: TypeAlias = BatchPhase | str | Retrying
"""One of the six phases, any other text, or the retry of a phase."""


class ItemProgress(msgspec.Struct, array_like=True, gc=False):
    """One item whose detail is kept.

    Attributes:
        item_id: The item's key.
        status: Where it stands.
        started_ns: When it was first taken; `None` if it was only ever reported.
        ended_ns: When it was last finished.
        attempts: How often it was taken, or reported as finished without having been taken.
        failed_runs: Executions in which it failed for good, since it was last put back.
        failed_in: Epoch of the latest of them; 0 for none.
        error_message: What was last wrong with it.
        error_type: Of what kind that was.
        is_recoverable: Whether trying again can help.
        is_added: Whether it was found on the way, so that no source need yield it.
        payload: What it is, where that is more than its key; kept until it is done.
    """

    item_id: Key
    status: ItemStatus
    started_ns: int | None = None
    ended_ns: int | None = None
    attempts: int = 0
    failed_runs: int = 0
    failed_in: int = 0
    error_message: str | None = None
    error_type: BatchErrorType | None = None
    is_recoverable: bool = True
    is_added: bool = False
    payload: Any = None

    @property
    def start_time(self) -> datetime | None:
        """When it was first taken."""
        return _time(self.started_ns)

    @property
    def end_time(self) -> datetime | None:
        """When it was last finished."""
        return _time(self.ended_ns)

    @property
    def retry_count(self) -> int:
        """Attempts after the first."""
        return max(0, self.attempts - 1)


class BatchMetrics(msgspec.Struct, array_like=True, frozen=True):
    """How a batch went.

    Attributes:
        items_per_second: Finished items over active time; `None` where no time was measured.
        memory_usage_mb: Resident memory of the process at the batch's end, in MiB; `None` without
            psutil.
        cpu_usage_percent: CPU time of the process over wall time while the batch ran here; 100 is
            one core.
        network_requests_count: User counter `network_requests`.
        database_operations_count: User counter `database_operations`.
        error_rate: Failed / (completed + failed) items; `None` with nothing finished.
        counters: All other user counters.
    """

    items_per_second: float | None = None
    memory_usage_mb: float | None = None
    cpu_usage_percent: float | None = None
    network_requests_count: int = 0
    database_operations_count: int = 0
    error_rate: float | None = None
    counters: dict[str, int] = {}


class ActiveBatch(msgspec.Struct, array_like=True):
    """A batch that was begun and not ended, with all its item records.

    Attributes:
        batch_id: The batch's key.
        batch_number: Its number in the session, from 0.
        started_ns: When it was first begun.
        updated_ns: When anything last happened to it.
        resumed_ns: Since when it runs in the current execution; 0 while it does not.
        active_ns: Time it ran in earlier executions; dead time is not in it.
        label: What people call it.
        payload: What the batch is about, where no plan holds it.
        items_total: How many items it has; `None` while that is not known.
        items_processed: Items completed.
        items_failed: Items failed for good.
        items_skipped: Items left out on purpose.
        items_processing: Items in flight.
        is_counted: Whether only counts are reported (`update_progress`), not items.
        keeps_items: Whether the item keys stay after its completion, so that it can grow.
        current_phase: What it is doing.
        retry_count: Runs in which it failed for good, since it was last put back.
        attempts: Tries in the current run.
        error_message: What was last wrong.
        error_type: Of what kind that was.
        counters: User counters.
        open: Items pending, in flight or failed, by key.
        finished: Items completed or skipped whose detail is kept, the oldest first.
        done: Keys of items completed or skipped whose detail is not kept.
        queued: Items found on the way and never taken, the oldest first: key and payload.
        items_added: How many were found on the way.
        is_positional: Whether items are known by their position in the source.
        position: All items before this one are done, but for those in `open`.
        digested: How many items `digest` is of.
        digest: Of the first items of the source, as they were.
    """

    batch_id: str
    batch_number: int
    started_ns: int
    updated_ns: int
    resumed_ns: int = 0
    active_ns: int = 0
    label: str | None = None
    payload: Any = None
    items_total: int | None = None
    items_processed: int = 0
    items_failed: int = 0
    items_skipped: int = 0
    items_processing: int = 0
    is_counted: bool = False
    keeps_items: bool = False
    current_phase: Phase = BatchPhase.INITIALIZING
    retry_count: int = 0
    attempts: int = 0
    error_message: str | None = None
    error_type: BatchErrorType | None = None
    counters: dict[str, int] = {}
    open: dict[Key, ItemProgress] = {}
    finished: dict[Key, ItemProgress] = {}
    done: set[Key] = set()
    queued: dict[Key, Any] = {}
    items_added: int = 0
    is_positional: bool = False
    position: int = 0
    digested: int = 0
    digest: str = ""

    @property
    def start_time(self) -> datetime:
        """When it was first begun."""
        return _sure_time(self.started_ns)

    @property
    def updated_at(self) -> datetime:
        """When anything last happened to it."""
        return _sure_time(self.updated_ns)

    @property
    def items_finished(self) -> int:
        """Items completed, failed or skipped: those no ETA waits for."""
        return self.items_processed + self.items_failed + self.items_skipped

    @property
    def items_pending(self) -> int:
        """Items known and not begun."""
        total = self.items_known if self.items_expected is None else self.items_expected
        return max(0, total - self.items_finished - self.items_processing)

    @property
    def items_expected(self) -> int | None:
        """How many items it has as far as is known now, those found on the way too.

        While it grows that is the least it can be: what was found may be in the source, too.
        """
        if not self.items_added:
            return self.items_total
        return max(self.items_total or 0, self.items_known)

    @property
    def is_growing(self) -> bool:
        """Whether items were found on the way: there may be more than anybody knows of."""
        return self.items_added > 0

    @property
    def items_known(self) -> int:
        """Items that were ever seen: finished, failed, in hand, or found on the way."""
        unfinished = len(self.open) - self.items_failed
        return self.items_finished + unfinished + len(self.queued)

    @property
    def detailed_progress(self) -> list[ItemProgress]:
        """All item records whose detail is kept."""
        return [*self.finished.values(), *self.open.values()]

    @property
    def success_rate(self) -> float | None:
        """Completed / (completed + failed)."""
        return success_rate(self.items_processed, self.items_failed)

    @property
    def estimated_completion(self) -> datetime | None:
        """When the batch should be done, seen from its last event; `None` if that is unknown."""
        from milepost.model.estimate import batch_remaining_ns  # noqa: PLC0415  # it builds on this file

        left = batch_remaining_ns(self)
        return None if left is None else _sure_time(self.updated_ns + left)

    def is_addable(self, key: Key) -> bool:
        """Whether it is not done and nobody noted that it was found on the way."""
        item = self.open.get(key)
        return not item.is_added if item is not None else not self.is_known(key)

    def is_done(self, key: Key) -> bool:
        """Whether the item is completed or skipped: never to be run again."""
        if self.is_positional and isinstance(key, int) and 0 <= key < self.position:
            return key not in self.open
        return key in self.finished or key in self.done

    def is_known(self, key: Key) -> bool:
        """Whether the item was ever seen."""
        return key in self.open or key in self.queued or self.is_done(key)

    def status_of(self, key: Key) -> ItemStatus | None:
        """Where the item stands; `None` if it was never seen. Without detail, it is completed."""
        item = self.open.get(key) or self.finished.get(key)
        if item is not None:
            return item.status
        if self.is_done(key):
            return ItemStatus.COMPLETED
        return ItemStatus.PENDING if key in self.queued else None


class CompletedBatch(msgspec.Struct, array_like=True, frozen=True):
    """A batch that ended well.

    Attributes:
        batch_id: The batch's key.
        batch_number: Its number.
        started_ns: When it was first begun.
        ended_ns: When it ended.
        active_ns: How long it ran, dead time left out.
        label: What people call it.
        items_processed: Items completed.
        items_failed: Items failed: 0, but for batches that only reported counts.
        items_skipped: Items left out on purpose.
        performance_metrics: How it went; `None` where that was not wanted.
        progress: Its item records, where they are kept (`keeps_items`).
    """

    batch_id: str
    batch_number: int
    started_ns: int
    ended_ns: int
    active_ns: int
    label: str | None = None
    items_processed: int = 0
    items_failed: int = 0
    items_skipped: int = 0
    performance_metrics: BatchMetrics | None = None
    progress: ActiveBatch | None = None

    @property
    def start_time(self) -> datetime:
        """When it was first begun."""
        return _sure_time(self.started_ns)

    @property
    def end_time(self) -> datetime:
        """When it ended."""
        return _sure_time(self.ended_ns)

    @property
    def updated_at(self) -> datetime:
        """When anything last happened to it."""
        return self.end_time

    @property
    def duration_ms(self) -> int:
        """How long it ran, dead time left out."""
        return self.active_ns // 1_000_000

    @property
    def success_rate(self) -> float | None:
        """Completed / (completed + failed)."""
        return success_rate(self.items_processed, self.items_failed)


class FailedBatch(msgspec.Struct, array_like=True, frozen=True):
    """A batch that ended with an error or with failed items.

    Attributes:
        batch_id: The batch's key.
        batch_number: Its number.
        failed_ns: When it was given up.
        error_message: Why.
        error_type: Of what kind that was.
        retry_count: Runs in which it failed for good, this one included.
        is_recoverable: Whether trying again can help.
        partial_progress: All that was done; a retry starts from here.
    """

    batch_id: str
    batch_number: int
    failed_ns: int
    error_message: str
    error_type: BatchErrorType
    retry_count: int
    is_recoverable: bool
    partial_progress: ActiveBatch

    @property
    def failure_time(self) -> datetime:
        """When it was given up."""
        return _sure_time(self.failed_ns)

    @property
    def updated_at(self) -> datetime:
        """When anything last happened to it."""
        return self.failure_time

    @property
    def label(self) -> str | None:
        """What people call it."""
        return self.partial_progress.label


class Execution(msgspec.Struct, array_like=True):
    """One process's run over the session.

    Attributes:
        epoch: The writer's turn.
        started_ns: When it began.
        host: On which machine.
        pid: In which process.
        boot_id: On which boot of the machine.
        process_started: When that process began, in the system's own notation.
        release: Which milepost.
        ended_ns: When it ended; without an `outcome`, its last sign of life.
        outcome: How it ended; `None` while it runs, and for ever if it died.
        error_message: What ended it, if something did.
        items_processed: Items it completed.
        items_failed: Items it failed for good.
        in_flight: Batch number and item key of all that was in hand when it died.
        program: What people call the program that ran.
    """

    epoch: int
    started_ns: int
    host: str
    pid: int
    boot_id: str = ""
    process_started: str = ""
    release: str = ""
    ended_ns: int | None = None
    outcome: Outcome | None = None
    error_message: str | None = None
    items_processed: int = 0
    items_failed: int = 0
    in_flight: list[tuple[int, Key]] = []
    program: str = ""

    @property
    def start_time(self) -> datetime:
        """When it began."""
        return _sure_time(self.started_ns)

    @property
    def end_time(self) -> datetime | None:
        """When it ended, or its last sign of life."""
        return _time(self.ended_ns)


class CheckpointInfo(msgspec.Struct, array_like=True, frozen=True):
    """A mark that a program set on purpose.

    Attributes:
        id: What it is loaded by.
        checkpoint_type: Why it was set.
        created_ns: When.
        sequence: Number of the event that mentions it.
        name: What the program calls it.
        batch_number: The batch it was set in; `None` for the session.
    """

    id: str
    checkpoint_type: CheckpointType
    created_ns: int
    sequence: int
    name: str | None = None
    batch_number: int | None = None

    @property
    def created_at(self) -> datetime:
        """When it was set."""
        return _sure_time(self.created_ns)


class PlanPart(msgspec.Struct, array_like=True, frozen=True):
    """A segment of the plan: batches `first` to `first + count - 1`.

    Attributes:
        path: The segment, relative to the session's folder.
        first: Number of its first batch.
        count: How many batches it holds.
    """

    path: str
    first: int
    count: int


class Suspect(msgspec.Struct, array_like=True):
    """What was in hand when its process died, and has not ended since.

    Attributes:
        batch: Number of the batch.
        key: The item; `None` for the batch as a whole, where none of its items was in hand.
        deaths: How often in a row the process died with this alone in hand.
        items_finished: The most items that its batch had finished at a death it was in.
        last_death: What is known of the last death, for people.
    """

    batch: int
    key: Key | None = None
    deaths: int = 0
    items_finished: int = 0
    last_death: str = ""


class RecoveryMark(msgspec.Struct, array_like=True, frozen=True):
    """The latest recovery, and how far the work was then.

    Attributes:
        at_ns: When.
        sequence: Number of the event.
        reason: Why.
        priority: How urgent it was.
        strategy: How.
        batches_completed: Batches that were completed then.
        items_done: Items that were completed or skipped then.
        items_failed: Items that stood as failed then.
        result: What it came to; `None` where an older writer did not note it.
    """

    at_ns: int
    sequence: int
    reason: RecoveryReason
    priority: RecoveryPriority
    strategy: RecoveryStrategy
    batches_completed: int = 0
    items_done: int = 0
    items_failed: int = 0
    result: BatchRecoveryResult | None = None

    @property
    def recovered_at(self) -> datetime:
        """When."""
        return _sure_time(self.at_ns)


class OutputRows(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The latest rows of an output that belong to acknowledged items.

    Attributes:
        path: The file, relative to the store.
        start_bytes: Where these rows begin.
        length_bytes: Where they end, and with them all that was acknowledged.
        checksum: CRC-32 of the bytes between.
    """

    path: str
    start_bytes: int
    length_bytes: int
    checksum: int


class SessionStatistics(msgspec.Struct, array_like=True):
    """Running sums over the whole session; failures and skipped items are in them.

    Attributes:
        total_batches_completed: Batches that ended well.
        total_batches_failed: Batches that stand as failed now.
        total_items_processed: Items completed, those of active batches too.
        total_items_failed: Items that stand as failed now.
        total_items_skipped: Items left out on purpose.
        total_batch_ns: Active time of the completed batches, summed.
        active_ns: Time that executions ran, up to the latest event; dead time is not in it.
        updated_ns: When any of this last changed.
    """

    total_batches_completed: int = 0
    total_batches_failed: int = 0
    total_items_processed: int = 0
    total_items_failed: int = 0
    total_items_skipped: int = 0
    total_batch_ns: int = 0
    active_ns: int = 0
    updated_ns: int = 0

    @property
    def average_batch_duration_ms(self) -> int | None:
        """Mean active time of the completed batches; `None` with none of them."""
        if not self.total_batches_completed:
            return None
        return self.total_batch_ns // self.total_batches_completed // 1_000_000

    @property
    def average_items_per_second(self) -> float | None:
        """Finished items over the session's active time; `None` where no time was measured."""
        finished = self.total_items_processed + self.total_items_failed + self.total_items_skipped
        return finished / (self.active_ns / 1e9) if self.active_ns > 0 and finished else None

    @property
    def success_rate(self) -> float | None:
        """Completed / (completed + failed) items; `None` with nothing finished."""
        return success_rate(self.total_items_processed, self.total_items_failed)

    @property
    def last_updated(self) -> datetime | None:
        """When any of this last changed."""
        return _sure_time(self.updated_ns) if self.updated_ns else None


class SessionState(msgspec.Struct, array_like=True):
    """All that is known of a session at one sequence number.

    Attributes:
        session_id: The session's name.
        uid: Its identity, made once; a later session of the same name has another.
        sequence: The last event that is in here.
        created_ns: When it was made.
        updated_ns: When the last event happened.
        kind: Work or data alone.
        item_cap: Items per batch that keep their detail.
        total_batches: How many batches it has; `None` while that is not known.
        completed_batches: By number, in the order in which they ended.
        active_batches: Begun and not ended, by number.
        failed_batches: Given up, by number.
        pending_batches: Put back by a retry and not begun again, by number, with what they had.
        executions: The latest runs, the oldest first.
        executions_forgotten: How many older ones are no longer listed.
        checkpoints: The marks set, the oldest first.
        plan: The sealed enumeration of batches, in parts.
        outcome: How the session ended; `None` while it is unfinished.
        ended_ns: When it ended.
        has_data: Whether data was ever set.
        data: What `set_data` last stored.
        session_statistics: Running sums.
        restarts: How often it was begun anew.
        last_snapshot_ns: When the snapshot this was loaded from was made; a snapshot's own time.
        suspects: What was in hand at deaths and has not ended since; it runs alone first.
        recovery: The latest recovery; `None` for none.
        has_params: Whether it was ever said what makes this run this run.
        params: What was said.
        outputs: The files that rows are written to, by path.
        runs_before: How many runs it had before it was last begun anew.
    """

    session_id: str
    uid: str
    sequence: int = 0
    created_ns: int = 0
    updated_ns: int = 0
    kind: SessionKind = SessionKind.WORK
    item_cap: int = 10_000
    total_batches: int | None = None
    completed_batches: dict[int, CompletedBatch] = {}
    active_batches: dict[int, ActiveBatch] = {}
    failed_batches: dict[int, FailedBatch] = {}
    pending_batches: dict[int, ActiveBatch] = {}
    executions: list[Execution] = []
    executions_forgotten: int = 0
    checkpoints: list[CheckpointInfo] = []
    plan: list[PlanPart] = []
    outcome: Outcome | None = None
    ended_ns: int | None = None
    has_data: bool = False
    data: Any = None
    session_statistics: SessionStatistics = msgspec.field(default_factory=SessionStatistics)
    restarts: int = 0
    last_snapshot_ns: int = 0
    suspects: list[Suspect] = []
    recovery: RecoveryMark | None = None
    has_params: bool = False
    params: Any = None
    outputs: dict[str, OutputRows] = {}
    runs_before: int = 0

    @property
    def session_start_time(self) -> datetime:
        """When it was made."""
        return _sure_time(self.created_ns)

    @property
    def last_updated(self) -> datetime:
        """When the last event happened."""
        return _sure_time(self.updated_ns)

    @property
    def last_checkpoint(self) -> datetime | None:
        """When the state was last saved as a snapshot, as far as this copy knows."""
        return _sure_time(self.last_snapshot_ns) if self.last_snapshot_ns else None

    @property
    def current_batch(self) -> ActiveBatch | None:
        """The one active batch, if exactly one is active."""
        return next(iter(self.active_batches.values())) if len(self.active_batches) == 1 else None

    @property
    def items_finished(self) -> int:
        """Items completed, failed or skipped, over all batches."""
        sums = self.session_statistics
        return sums.total_items_processed + sums.total_items_failed + sums.total_items_skipped

    @property
    def total_items_processed(self) -> int:
        """Items completed, over all batches."""
        return self.session_statistics.total_items_processed

    @property
    def runs(self) -> int:
        """How many runs it had, also those that are no longer listed."""
        return self.executions_forgotten + len(self.executions)

    @property
    def has_run(self) -> bool:
        """Whether it was run since it was made, or last begun anew."""
        return self.runs > self.runs_before

    @property
    def execution(self) -> Execution | None:
        """The latest run, if it has not ended: it runs, or it died."""
        latest = self.executions[-1] if self.executions else None
        return latest if latest is not None and latest.ended_ns is None else None

    @property
    def estimated_completion(self) -> datetime | None:
        """When the session should be done, seen from its last event; `None` if that is unknown."""
        from milepost.model.estimate import remaining_ns  # noqa: PLC0415  # it builds on this file

        left = remaining_ns(self)
        if left is None:
            return None
        try:
            return _sure_time(self.updated_ns + left)
        except (ValueError, OverflowError, OSError):  # beyond the year 9999
            return None

    def batch_status(self, number: int) -> BatchStatus | None:
        """Where a batch stands; `None` if the session has no such batch."""
        if number in self.completed_batches:
            return BatchStatus.COMPLETED
        if number in self.active_batches:
            return BatchStatus.PROCESSING
        if number in self.failed_batches:
            return BatchStatus.FAILED
        known = number in self.pending_batches or 0 <= number < self.planned
        return BatchStatus.PENDING if known else None

    def key_of(self, number: int) -> str | None:
        """The key of a batch that was ever begun; `None` for any other."""
        batch = (
            self.active_batches.get(number)
            or self.completed_batches.get(number)
            or self.failed_batches.get(number)
            or self.pending_batches.get(number)
        )
        return batch.batch_id if batch is not None else None

    def recorded(self, number: int) -> ActiveBatch | None:
        """All item records of a batch; `None` if it was never begun, or kept none."""
        failed = self.failed_batches.get(number)
        completed = self.completed_batches.get(number)
        return (
            self.active_batches.get(number)
            or self.pending_batches.get(number)
            or (failed.partial_progress if failed else None)
            or (completed.progress if completed else None)
        )

    @property
    def planned(self) -> int:
        """How many batches the plan holds."""
        return self.plan[-1].first + self.plan[-1].count if self.plan else 0
