"""A session, alive: the face of one named piece of resumable work.

- All that is done through it is an event first; its state is what the events make.
- A call that returned survives what the session's durability says. Batch ends, checkpoints,
  snapshots, data and `flush` return when they are on the disk, whatever the durability.
- What is taken up again goes on inside the interrupted batches, with their item records.
- It is long because it is one face: each method is one thing that a program may say to its session,
  and what is behind it (writer, roster, deaths, batches) has a file of its own.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import msgspec

from milepost.errors import (
    ClosedError,
    ConfigurationError,
    EncodingError,
    MilepostError,
    OutageError,
    ParametersChangedError,
    SupersededError,
)
from milepost.model import events as e
from milepost.model.estimate import active_ns
from milepost.model.fold import apply, copy
from milepost.session import deaths
from milepost.session.arguments import check_count
from milepost.session.aside import aside, working_task, working_thread
from milepost.session.batch import Batch
from milepost.session.loops import LoopsOfBatches
from milepost.session.outputs import Output, all_ended
from milepost.session.params import difference
from milepost.session.registry import register, unregister
from milepost.session.roster import Roster
from milepost.session.subscription import EVENT_BUFFER, Subscription
from milepost.snapshots import checkpoints, retention
from milepost.storage.location import command
from milepost.storage.values import copied, plain_value
from milepost.text import counted, error_text, say
from milepost.types import (
    BatchErrorType,
    BatchStatus,
    Outcome,
    RecoveryConfig,
    RecoveryStrategy,
)
from milepost.work.classify import Classifier, Verdict, classify

if TYPE_CHECKING:
    import os
    import threading
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from milepost.model.consistency import Finding
    from milepost.model.recoveries import BatchRecoveryResult, RecoverySums
    from milepost.model.state import ActiveBatch, SessionState, SessionStatistics
    from milepost.session.outputs import Outputs, Slip
    from milepost.session.writer import Writer
    from milepost.types import (
        CheckpointType,
        Key,
        RecoveryPriority,
        RecoveryReason,
    )

T = TypeVar("T")
R = TypeVar("R")

MESSAGE_CHARACTERS_MAX = 2_000
"""Longer error messages are cut: a state is no log file."""


class Policy(NamedTuple):
    """What a session decides by.

    Attributes:
        recovery: When failed work is taken up again by itself.
        classifier: What an exception means.
        release: Which milepost this is.
        program: What people call the program that runs, to tell them what to run again.
    """

    recovery: RecoveryConfig = RecoveryConfig()
    classifier: Classifier = classify
    release: str = ""
    program: str = ""


class Session:
    """One named piece of resumable work, open for writing in this process.

    Use it as a context manager. Leaving the block without `complete` leaves the session unfinished:
    `interrupted` after an exception, else `stopped`.
    """

    def __init__(self, writer: Writer, policy: Policy, *, execute: bool) -> None:
        """Take over a writer that is open; `execute` makes this a run of the work."""
        self._writer = writer
        self._policy = policy
        self._executing = False
        self._outcome: Outcome | None = None
        self._error_message: str | None = None
        self._stop = False
        self._thread = working_thread()
        task = working_task()
        self._task = None if task is None else weakref.ref(task)
        self.loops = LoopsOfBatches()
        self._roster = Roster(writer, policy.recovery.max_recovery_attempts)
        self.name = writer.site.name
        self.batch_word = "batch"  # what people call one here; told, and never kept
        self.is_new = writer.state.sequence == 1
        self.was_dead = writer.state.execution is not None
        self.poisoned: list[str] = []
        register(writer.folder.root, self)
        if execute:
            self.begin_execution()

    @property
    def executing(self) -> bool:
        """Whether this process's run over the session has begun."""
        return self._executing

    def begin_execution(self) -> None:
        """Record that this process works on the session now. A second time does nothing."""
        if self._executing:
            return
        self.settle_death()
        process = self._writer.settings.identify()
        self._executing = True
        with self._writer.lock:
            self._writer.ready()
            self._set_item_cap()
            self._writer.commit(
                e.ExecutionStarted(
                    self._writer.next_sequence,
                    self._writer.now_ns(),
                    e.NO_BATCH,
                    self._writer.turn.epoch,
                    process.host,
                    process.pid,
                    process.boot_id,
                    process.process_started,
                    self._policy.release,
                    self._policy.program,
                )
            )

    def _set_item_cap(self) -> None:
        """A run keeps detail as its own settings say; who only looks or mends changes nothing."""
        writer = self._writer
        cap = writer.settings.tracker.item_cap
        if writer.state.item_cap != cap:
            writer.commit(e.ItemCapChanged(writer.next_sequence, writer.now_ns(), e.NO_BATCH, cap))

    def settle_death(self, cause: str = "", *, limit: int | None = None) -> list[str]:
        """Record that the run before died, if it did, and fail what it was poisoned by.

        `cause` is what is known of the death; `limit` is how many deaths in a row are too many, by
        default `max_recovery_attempts`. Returns what was failed, for people. On return it is on the
        disk. A second time finds nothing to do.
        """
        with self._writer.lock:
            self._writer.ready()
            if self._executing:
                return []
            most = self._policy.recovery.max_recovery_attempts if limit is None else limit
            failed = deaths.settle(self._writer, most, cause)
        self.poisoned += failed
        return failed

    def record_recovery(
        self,
        reason: RecoveryReason,
        priority: RecoveryPriority,
        strategy: RecoveryStrategy,
        *,
        batches: list[int],
        reset: list[int],
        from_batch: int | None,
        duration_ms: int,
        result: BatchRecoveryResult,
        report: RecoverySums | None = None,
    ) -> None:
        """Make the session ready to be carried on, as was decided; on return it is on the disk.

        `batches` are failed ones that wait again, `reset` begun ones that begin anew; `result` is
        what that comes to, `report` the scan it is part of. Errors: `FoldError` for a batch that is
        none of these, before anything is written.
        """
        with self._writer.lock:
            self._writer.ready()
            self._commit_decision(
                e.Recovered(
                    self._writer.next_sequence,
                    self._writer.now_ns(),
                    e.NO_BATCH,
                    reason,
                    priority,
                    strategy,
                    batches,
                    reset,
                    from_batch,
                    duration_ms,
                    result,
                    report,
                    self._writer.state.runs if strategy is RecoveryStrategy.FULL_RESTART else 0,
                )
            )
            self._roster.forget()

    def _commit_decision(self, event: e.BatchEvent) -> None:
        """Commit what a caller decided; what the fold refuses must never stand in the journal."""
        apply(copy(self._writer.state), event)
        self._writer.commit(event, durable=True)

    def __repr__(self) -> str:
        return f"<Session {self.name!r} in {self._writer.folder.root}>"

    # What is known.

    @property
    def state(self) -> SessionState:
        """A frozen copy of all that is known; it does not follow what happens later."""
        with self._writer.lock:
            return copy(self._writer.state)

    @property
    def statistics(self) -> SessionStatistics:
        """Running sums over the whole session, as a copy."""
        with self._writer.lock:
            state = self._writer.state
            # The run that goes on is in the sums only when it ends.
            return msgspec.structs.replace(state.session_statistics, active_ns=active_ns(state))

    @property
    def live(self) -> SessionState:
        """The state itself, for reading a number or two without a copy. It changes any time."""
        return self._writer.state

    @property
    def data(self) -> Any:
        """What `set_data` last stored, as a copy; `None` if nothing was."""
        return plain_value(self._writer.state.data, "the session's data")

    @property
    def findings(self) -> list[Finding]:
        """What was met while it was read: dropped tails, damaged files, foreign writers."""
        return list(self._writer.findings)

    @property
    def notice(self) -> str:
        """What its user should know about where it comes from; empty for nothing."""
        return self._writer.turn.notice

    @property
    def path(self) -> str:
        """Absolute path of its folder."""
        return self._writer.folder.root

    @property
    def store_path(self) -> str:
        """Absolute path of the store it is in."""
        return self._writer.site.store_path

    @property
    def epoch(self) -> int:
        """The turn in which this run began, or would begin."""
        executions = self._writer.state.executions
        return executions[-1].epoch if self._executing else self._writer.turn.epoch

    @property
    def recovery(self) -> RecoveryConfig:
        """When failed work is taken up again."""
        return self._policy.recovery

    @property
    def backup_error(self) -> str:
        """What was last wrong with the backup; empty while it works."""
        return self._writer.archive.backup_error

    @property
    def closed(self) -> bool:
        """Whether it was closed, superseded or belongs to a parent process."""
        return self._writer.closed

    @property
    def is_of_other_task(self) -> bool:
        """Whether it belongs to another task of the event loop that is still at work."""
        task = None if self._task is None else self._task()
        return task is not None and not task.done() and task is not working_task()

    @property
    def thread(self) -> threading.Thread:
        """The thread that opened it."""
        return self._thread

    def is_done(self, key: str) -> bool:
        """Whether the batch of this key is completed."""
        number = self._roster.number_of(key)
        return number is not None and number in self._writer.state.completed_batches

    def judge(self, error: str | BaseException) -> tuple[str, BatchErrorType, bool]:
        """Message, kind and recoverability of an error, by the classifier; text is unknown."""
        if not isinstance(error, (str, BaseException)):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers are not all typed
            raise EncodingError(f"an error is text or an exception, not {error!r:.80}")
        if isinstance(error, str):
            return error[:MESSAGE_CHARACTERS_MAX], BatchErrorType.UNKNOWN_ERROR, True
        try:
            verdict = Verdict(*self._policy.classifier(error))
            verdict = Verdict(BatchErrorType(verdict.error_type), bool(verdict.is_recoverable))
        except Exception:  # a user's classifier must not cost the record
            verdict = classify(error)
        text = error_text(error).encode(errors="replace").decode()
        return text[:MESSAGE_CHARACTERS_MAX], verdict.error_type, verdict.is_recoverable

    # Batches.

    def start_batch(
        self,
        key: str,
        *,
        number: int | None = None,
        items_total: int | None = None,
        label: str | None = None,
        payload: Any = None,
        keeps_items: bool = False,
    ) -> Batch:
        """Begin a batch, or take it up again with all that it had.

        An interrupted or failed batch goes on with its item records. Errors: `ValueError` for a
        batch that is completed or already begun here, or a number that belongs to another key.
        """
        with self._writer.lock:
            self._writer.ready()
            self.begin_execution()
            number = self._roster.number_for(key, number)
            self._roster.refuse_started(key, number, may_reopen=keeps_items)
            if payload is not None:
                payload = plain_value(payload, f"the payload of batch {key!r}")
            self._writer.commit(
                e.BatchStarted(
                    self._writer.next_sequence,
                    self._writer.now_ns(),
                    number,
                    key,
                    label if label is not None else self._roster.label_of(number),
                    payload,
                    items_total,
                    keeps_items,
                )
            )
            self._roster.note(key, number)
            return self.batch(number)

    def batch(self, number: int) -> Batch:
        """A handle on a batch of this session."""
        planned = self._roster.planned(number)
        recorded = self.recorded(number)
        key = planned.key if planned else recorded.batch_id if recorded else str(number)
        label = planned.label if planned else recorded.label if recorded else None
        payload = planned.payload if planned else copied(recorded.payload) if recorded else None
        return Batch(self, self._writer, number, key, label or key, payload)

    def recorded(self, number: int) -> ActiveBatch | None:
        """All item records of a batch, live; `None` if it was never begun, or kept none."""
        return self._writer.state.recorded(number)

    def batches(
        self,
        source: Iterable[Any] | Callable[[], Iterable[Any]],
        *,
        key: Callable[[Any], str] | None = None,
        label: Callable[[Any], str] | None = None,
        plan: str = "frozen",
    ) -> Iterator[Batch]:
        """A job's loop without a job: a batch is completed when the loop asks for the next.

        The plan is sealed before the first batch starts and not asked for again. An exception in
        the loop's body leaves its batch processing; it is taken up again next time.
        """
        self.ensure_plan(source, key=key, label=label, plan=plan)
        for number in self.to_do():
            batch = self.start_batch(self.batch(number).key)
            yield batch
            if batch.status is BatchStatus.PROCESSING:
                batch.complete()

    def ensure_plan(
        self,
        source: Iterable[Any] | Callable[[], Iterable[Any]],
        *,
        key: Callable[[Any], str] | None = None,
        label: Callable[[Any], str] | None = None,
        plan: str = "frozen",
    ) -> int:
        """Seal the plan if it is not sealed, or add what is new to it (`plan="extend"`).

        Returns how many batches were added. A kill before the end leaves no part of it.
        """
        return self._roster.ensure_plan(source, key=key, label=label, plan=plan)

    def to_do(self) -> Iterator[int]:
        """Numbers of the planned batches to run now: interrupted, pending, then failed ones.

        Failed ones come if they may be tried again: recoverable, and given up in fewer than
        `max_recovery_attempts` runs.
        """
        return self._roster.to_do()

    def recoverable(self) -> list[int]:
        """Numbers of the failed batches that a run tries again by itself."""
        return self._roster.recoverable()

    @property
    def plan_size(self) -> int:
        """How many batches the plan holds."""
        return self._writer.state.planned

    def set_total_batches(self, total: int | None) -> None:
        """Say how many batches there will be, where no plan says it."""
        if total is not None:
            check_count("total_batches", total, least=0)
        with self._writer.lock:
            self._writer.ready()
            if self._writer.state.total_batches != total:
                self._writer.commit(
                    e.TotalBatchesSet(
                        self._writer.next_sequence, self._writer.now_ns(), e.NO_BATCH, total
                    )
                )

    def end_batches(
        self, endings: Iterable[Callable[[], e.BatchCompleted | e.BatchFailed]]
    ) -> None:
        """End several batches with one sync; each ending is asked for with the lock held."""
        with self._writer.lock:
            self._writer.ready()
            first = self._writer.next_sequence
            events: list[e.BatchEvent] = [
                msgspec.structs.replace(ending(), sequence=first + index)
                for index, ending in enumerate(endings)
            ]
            if events:
                self._writer.commit_all(events, durable=True)

    # Outputs.

    @property
    def outputs(self) -> Outputs:
        """The files that rows of its items are written to."""
        return self._writer.outputs

    def open_output(
        self,
        path: str | os.PathLike[str],
        slip_in_hand: Callable[[], Slip | None],
        around: Slip | None = None,
    ) -> Output:
        """A file for rows of items; see `Items.open`. A second time gives the same file.

        `around` are the rows of the item in whose function the loop runs that opens it.
        """
        writer = self._writer
        with writer.lock:
            writer.ready()
            full, name = writer.outputs.locate(path)
            file = writer.outputs.known(name, writer.state)
            if file is None:
                writer.check_turn()
                namesake = writer.outputs.namesake(path, name, writer.state)
                file = writer.outputs.open(
                    full, name, writer.state, may_be_ours=self._may_have_left_rows
                )
                if name not in writer.state.outputs:
                    # On the disk before any row is, so that the rows are known to be ours.
                    writer.commit(
                        e.OutputOpened(writer.next_sequence, writer.now_ns(), e.NO_BATCH, name),
                        durable=True,
                    )
                if file.cut_bytes:
                    say(
                        f"{self.name}: {counted(file.cut_bytes, 'byte')} behind the last"
                        f" acknowledged row cut off: {full}"
                    )
                if namesake is not None:
                    say(
                        f"{self.name}: the output {full} is a new file; an earlier run wrote"
                        f" {namesake}: a relative path counts from the current folder"
                    )
            return Output(writer.outputs, file, slip_in_hand, around)

    def _may_have_left_rows(self) -> bool:
        """Whether rows that nobody acknowledged may stand in an output that is opened now."""
        writer = self._writer
        return (
            not all_ended(writer.state, writer.turn.epoch)
            # Of the turn that goes on, the runs do not tell that it restored.
            or any(each.restored_from is not None for each in writer.archive.versions)
            # The outputs may have been copied after the store, and a run later.
            or any(deaths.is_copied(writer.folder, each.epoch) for each in writer.state.executions)
        )

    async def off_loop(self, work: Callable[..., R], *args: Any) -> R:
        """Do what records something, without keeping the event loop waiting for a disk or a thread.

        Errors: what the work raises.
        """
        if not self._writer.takes_at_once():
            return await aside(work, *args)
        try:
            return work(*args)
        finally:
            self._writer.lock.release()

    def is_to_blame(self, error: BaseException) -> bool:
        """Whether this was raised because the session cannot go on, and no body is at fault."""
        return getattr(error, "session_uid", None) == self._writer.state.uid

    def is_no_bodys(self, error: BaseException) -> bool:
        """Whether this ends the work, and no body is to blame for it: an outage does, too."""
        return isinstance(error, OutageError) or self.is_to_blame(error)

    # What makes this run this run.

    def keep_params(self, params: Any) -> None:
        """Keep what makes this run this run, or compare it with what was kept.

        Errors: `ParametersChangedError` with the difference.
        """
        plain = plain_value(params, "params")
        writer = self._writer
        with writer.lock:
            writer.ready()
            state = writer.state
            if not state.has_params:
                writer.commit(e.ParamsSet(writer.next_sequence, writer.now_ns(), e.NO_BATCH, plain))
            elif (different := difference(state.params, plain)) is not None:
                again = command(self.store_path, "restart", self.name)
                raise ParametersChangedError(
                    f"session {self.name!r} was made with other params: {different}",
                    hint=f"hand in the same, or begin anew: {again}, or use another name",
                )

    # Data, checkpoints, snapshots.

    def set_data(self, data: Any) -> None:
        """Replace the session's data as a whole; on return it is on the disk.

        Errors: `EncodingError` or `RecordTooLargeError` before anything is written.
        """
        plain = plain_value(data, "the session's data")
        with self._writer.lock:
            self._writer.ready()
            event = e.DataSet(self._writer.next_sequence, self._writer.now_ns(), e.NO_BATCH, plain)
            self._writer.commit(event, durable=True)

    def save_checkpoint(
        self,
        checkpoint_type: CheckpointType | str,
        data: Any = None,
        *,
        name: str | None = None,
        batch: Batch | None = None,
    ) -> str:
        """Set a typed mark with data and return its id; on return it is on the disk.

        Errors: `ConfigurationError` for an unknown type; `EncodingError` or `RecordTooLargeError`
            before anything is written.
        """
        kind = checkpoints.check_type(checkpoint_type)
        if name is not None:
            plain_value(name, "the checkpoint's name")
            if not isinstance(name, str) or len(name) > 200:  # pyright: ignore[reportUnnecessaryIsInstance]  # callers are not all typed
                raise ConfigurationError("a checkpoint's name is text of at most 200 characters")
        with self._writer.lock:
            self._writer.ready()
            self._writer.check_turn()
            checkpoint_id = checkpoints.write(
                self._writer.folder,
                kind,
                data,
                name=name,
                sequence=self._writer.state.sequence,
                created_ns=self._writer.now_ns(),
                identity=self._writer.identity,
                level=self._writer.archive.level,
            )
            self._writer.commit(
                e.CheckpointSaved(
                    self._writer.next_sequence,
                    self._writer.now_ns(),
                    batch.number if batch is not None else e.NO_BATCH,
                    checkpoint_id,
                    kind,
                    name,
                ),
                durable=True,
            )
            return checkpoint_id

    def flush(self) -> None:
        """Return when everything acknowledged so far is on the disk."""
        self._writer.flush()

    def snapshot(self) -> int:
        """Save the state as a whole; return the version that holds it."""
        return self._writer.snapshot(by_hand=True)

    def subscribe(self, maxlen: int = EVENT_BUFFER) -> Subscription:
        """All events from here on; the oldest of more than `maxlen` are dropped and counted."""
        subscription = Subscription(maxlen, self._writer.remove_subscription)
        self._writer.add_subscription(subscription)
        return subscription

    # Beginning again.

    def restart(self) -> None:
        """Begin the work anew; runs and checkpoints stay listed."""
        with self._writer.lock:
            self._writer.ready()
            self._writer.commit(
                e.Restarted(
                    self._writer.next_sequence,
                    self._writer.now_ns(),
                    e.NO_BATCH,
                    self._writer.state.runs,
                ),
                durable=True,
            )
            self._roster.forget()
            self._executing = False

    def put_back(self, batches: list[int], items: dict[int, list[Key]]) -> None:
        """Put failed batches and items back to pending, with fresh attempts.

        Errors: `ValueError` for what has not failed, before anything is written.
        """
        with self._writer.lock:
            self._writer.ready()
            self._commit_decision(
                e.Retried(
                    self._writer.next_sequence, self._writer.now_ns(), e.NO_BATCH, batches, items
                )
            )

    def restore(self, old: SessionState, version: int) -> int:
        """Make an older version the state again, as a new version; return its number."""
        with self._writer.lock:
            made = self._writer.restore(old, version)
            self._roster.forget()
            return made

    def clean(self, age_ns: int) -> tuple[int, int]:
        """Remove versions and checkpoints older than this, but the newest; return how many."""
        writer = self._writer
        with writer.lock:
            writer.ready()
            now_ns = writer.now_ns()
            old = [
                each.id
                for each in writer.state.checkpoints[:-1]
                if now_ns - each.created_ns > age_ns
            ]
            if old:
                writer.commit(
                    e.CheckpointsRemoved(writer.next_sequence, now_ns, e.NO_BATCH, old),
                    durable=True,
                )
                writer.snapshot()
                for checkpoint_id in old:
                    writer.folder.remove(checkpoints.path_of(checkpoint_id))
            decision = retention.decide_by_age(
                writer.archive.versions, older_than_ns=age_ns, now_ns=now_ns
            )
            return writer.let_go(decision), len(old)

    # Stopping and ending.

    def request_stop(self) -> None:
        """Ask loops to stop after the item in hand; safe in a signal handler (it takes no lock)."""
        self._stop = True

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._stop

    def complete(self) -> Outcome:
        """End the work: `completed`, or `failed` if batches stand as failed.

        Errors: `ValueError` while batches are begun and not ended, or wait to be begun.
        """
        with self._writer.lock:
            self._writer.ready()
            running = [b.batch_id for b in self._writer.state.active_batches.values()]
            if running:
                raise ConfigurationError(
                    f"{len(running)} batches are begun and not ended, for example {running[0]!r}",
                    hint="end them with complete() or fail() first",
                )
            left = self._roster.pending()
            if left:
                raise ConfigurationError(
                    f"{len(left)} batches of session {self.name!r} were never begun or are put back"
                    f" to be tried again, for example {self.batch(left[0]).key!r}",
                    hint="leave the session without complete() to carry on with them later",
                )
            self._writer.commit(
                e.SessionCompleted(self._writer.next_sequence, self._writer.now_ns(), e.NO_BATCH),
                durable=True,
            )
            return self._writer.state.outcome or Outcome.COMPLETED

    def end(self, outcome: Outcome, error: BaseException | str | None = None) -> None:
        """Close, saying how this run ended where the work itself is not ended."""
        self._outcome = outcome
        if error is not None:
            self._error_message = _with_hint(self.judge(error)[0], error)
        self.close()

    def close(self) -> None:
        """End this run and give the session free. A second time does nothing."""
        if self._writer.closed:
            return
        try:
            if self._executing:
                self._end_execution()
        finally:
            unregister(self._writer.folder.root, self)
            self._writer.close()

    def _end_execution(self) -> None:
        writer = self._writer
        with writer.lock:
            try:
                writer.ready()
                if not writer.state.executions:
                    return  # its beginning failed, so there is no run to end
                outcome = writer.state.outcome
                if outcome is None:
                    outcome = Outcome.STOPPED if self._outcome is None else self._outcome
                # A worker that was left behind may come before all is closed: rows behind a run
                # that ended by itself would count as somebody else's.
                writer.outputs.seal()
                writer.commit(
                    e.ExecutionEnded(
                        writer.next_sequence,
                        writer.now_ns(),
                        e.NO_BATCH,
                        self.epoch,
                        outcome,
                        self._error_message,
                    ),
                    durable=True,
                )
            except (SupersededError, ClosedError):
                return

    def give_way(self) -> None:
        """Make room for a newer session of the same name in this process: its run ends here."""
        if self.executing:
            self._outcome = Outcome.INTERRUPTED
            self._error_message = "it was left, and the same program began again"
            with contextlib.suppress(MilepostError):
                self._end_execution()
        self.supersede()

    def supersede(self) -> None:
        """Write nothing more, not even how the run ended: somebody else has the session now."""
        unregister(self._writer.folder.root, self)
        self._writer.supersede()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, (KeyboardInterrupt, GeneratorExit)):
            self.end(Outcome.STOPPED)
            return
        try:
            self.end(Outcome.INTERRUPTED, error)
        except MilepostError as failure:
            # The block's own error is what its user must see.
            error.add_note(f"milepost: closing session {self.name!r} failed too: {failure}")

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            if not self._writer.closed:
                self.close()


def _with_hint(message: str, error: BaseException | str) -> str:
    """What ended a run, as it is recorded: with what to try, on a line of its own."""
    hint = f"\nhint: {error.hint}" if isinstance(error, MilepostError) and error.hint else ""
    return message[: max(0, MESSAGE_CHARACTERS_MAX - len(hint))] + hint[:MESSAGE_CHARACTERS_MAX]
