"""The recovery service: finds the sessions that want it, judges them, and makes them ready.

- The scan goes through all sessions in the order of their priorities; one that cannot be read, or
  is taken by somebody else meanwhile, never stops it.
- Making ready is a handful of events: the death, what it poisoned, the recovery. Each stands for
  itself, so a recovery that is killed in between is done again from where it was.
- Nothing is executed here. Who runs the work is above.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from milepost.clock import utc
from milepost.errors import (
    AlreadyLockedError,
    MilepostError,
    RecoveryError,
    SupersededError,
    UnrecoverableError,
)
from milepost.model import consistency
from milepost.model.recoveries import BatchRecoveryResult, RecoverySums
from milepost.model.status import SessionStatus
from milepost.recovery.analysis import (
    NoRecoveryNeeded,
    RecoveryStatus,
    RequiresRecovery,
    Unrecoverable,
    analyze,
    hold_back,
)
from milepost.recovery.monitor import RecoveryMonitorResult, measure
from milepost.recovery.strategies import decide, is_forced
from milepost.storage.lease import LOCK_NAME
from milepost.types import (
    RecoveryConfig,
    RecoveryPriority,
    RecoveryReason,
    RecoveryStrategy,
    SessionKind,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from milepost.model.state import RecoveryMark
    from milepost.session.view import View
    from milepost.store import Store


_EVENTS_COMPARED_MAX: Final = 20_000
"""Comparing snapshot and journal never holds up a restart for more than a tenth of a second."""


class RecoveryDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One recovery.

    Attributes:
        session_id: Of which session.
        recovery_reason: Why.
        recovery_priority: How urgent it was.
        recovery_strategy: How.
        recovery_result: What it came to.
        recovery_duration_ms: How long it took.
        recovered_at: When.
        poisoned: What was failed because it killed its process again and again, for people.
        was_ready: Whether nothing had happened since the recovery before, so nothing was done.
    """

    session_id: str
    recovery_reason: RecoveryReason
    recovery_priority: RecoveryPriority
    recovery_strategy: RecoveryStrategy
    recovery_result: BatchRecoveryResult
    recovery_duration_ms: int
    recovered_at: datetime
    poisoned: list[str] = []
    was_ready: bool = False


class RecoveryReport(msgspec.Struct, kw_only=True):
    """What a scan of a store found and did.

    Attributes:
        healthy_sessions: Sessions that need nothing.
        sessions_requiring_recovery: Sessions that want it, the held ones too.
        successful_recoveries: Sessions that were made ready.
        failed_recoveries: Sessions where that raised.
        unrecoverable_sessions: Sessions of which nothing can be read.
        recovery_details: One for each that was made ready, in the order of their priorities.
        statuses: What was found, by session, the most urgent first.
        proposals: What a recovery would come to, by session, where none was wanted.
        failures: Why a session could not be judged or made ready, by session.
    """

    healthy_sessions: int = 0
    sessions_requiring_recovery: int = 0
    successful_recoveries: int = 0
    failed_recoveries: int = 0
    unrecoverable_sessions: int = 0
    recovery_details: list[RecoveryDetail] = []
    statuses: dict[str, RecoveryStatus] = {}
    proposals: dict[str, BatchRecoveryResult] = {}
    failures: dict[str, str] = {}


class Found(NamedTuple):
    """One session of a scan.

    Attributes:
        name: The session's name.
        status: What it needs.
    """

    name: str
    status: RecoveryStatus


class RecoveryService:
    """Judges the sessions of one store, and makes ready those that want to be carried on."""

    def __init__(self, store: Store, config: RecoveryConfig | None = None) -> None:
        """`config` replaces the store's own `RecoveryConfig`."""
        self.store = store
        self.config = config or store.recovery

    def analyze(self, name: str) -> RecoveryStatus:
        """Judge one session; it is read, not locked.

        Errors: `SessionNotFoundError`; `UnsupportedVersionError` for a newer milepost's session.
        """
        return self.judge(name)[0]

    def judge(self, name: str) -> tuple[RecoveryStatus, View | None]:
        """What `analyze` says, and what was read; `None` where nothing can be."""
        try:
            view = self.store.view(name)
        except UnrecoverableError as error:
            return Unrecoverable(
                reason=error.message, tried=list(error.attempts or []), hint=error.hint
            ), None
        return self._judged(view), view

    def _judged(self, view: View) -> NoRecoveryNeeded | RequiresRecovery:
        store, name = self.store, view.state.session_id
        status = analyze(view, self.config, store=store.path, now_ns=store.now_ns())
        if isinstance(status, NoRecoveryNeeded) or status.is_held:
            return status
        if not self.config.consistency_check_enabled:
            return status
        findings = [
            *consistency.check(view.state),
            *store.disagreements(name, events_max=_EVENTS_COMPARED_MAX),
        ]
        return hold_back(status, findings, session=name, store=store.path)

    def propose(
        self,
        name: str,
        *,
        strategy: RecoveryStrategy | None = None,
        from_batch: int | None = None,
        by_progress: bool = False,
    ) -> tuple[RequiresRecovery, BatchRecoveryResult]:
        """Why `recover` would act, and what it would come to, from a look alone.

        Errors: as `recover`, but for those that only a try can tell.
        """
        status, view = self._wanted(
            name, is_forced=is_forced(strategy, from_batch, by_progress=by_progress)
        )
        decision = decide(
            view.state,
            status.reason,
            self.config,
            strategy=strategy,
            from_batch=from_batch,
            by_progress=by_progress,
        )
        return status, decision.result

    def detect(
        self, names: Iterable[str] | None = None, *, note: bool = False
    ) -> tuple[list[Found], dict[str, str]]:
        """All sessions or these, the most urgent first, and why some could not be judged.

        With `note`, signs of life of writers elsewhere are remembered, so that a later look can
        tell how long they have been silent.
        """
        found: list[Found] = []
        failures: dict[str, str] = {}
        for name in self.store.names() if names is None else names:
            try:
                if note:
                    self.store.presence(name, note=True)
                found.append(Found(name, self.analyze(name)))
            except Exception as error:  # one session must not stop the scan
                failures[name] = f"{error}"
        return sorted(found, key=_urgency), failures

    def detect_and_recover(
        self, names: Iterable[str] | None = None, *, dry_run: bool = False
    ) -> RecoveryReport:
        """Judge all sessions or these, and make ready those that want it.

        With `dry_run`, or with `auto_recovery_enabled` off, nothing is changed.
        """
        found, failures = self.detect(names, note=not dry_run)
        report = RecoveryReport(
            statuses={each.name: each.status for each in found}, failures=failures
        )
        # All are counted before the first is made ready: each recovery keeps the counts.
        for _, status in found:
            if isinstance(status, NoRecoveryNeeded):
                report.healthy_sessions += 1
            elif isinstance(status, Unrecoverable):
                report.unrecoverable_sessions += 1
            else:
                report.sessions_requiring_recovery += 1
        act = self._recover_into
        if dry_run or not self.config.auto_recovery_enabled:
            act = self._propose_into
        for name, status in found:
            if isinstance(status, RequiresRecovery) and not status.is_held:
                act(report, name)
        return report

    def _propose_into(self, report: RecoveryReport, name: str) -> None:
        try:
            report.proposals[name] = self.propose(name)[1]
        except MilepostError as error:  # it changed since it was judged
            report.failures[name] = error.message

    def _recover_into(self, report: RecoveryReport, name: str) -> None:
        try:
            report.recovery_details.append(self.recover(name, report=_with_one_more(report)))
            report.successful_recoveries += 1
        except (AlreadyLockedError, SupersededError):
            # Somebody else took it up between our look and now: it is in good hands.
            report.sessions_requiring_recovery -= 1
            report.healthy_sessions += 1
            report.statuses[name] = NoRecoveryNeeded(detail="another process took it up")
        except Exception as error:  # one session must not stop the scan
            report.failed_recoveries += 1
            report.failures[name] = f"{error}"

    def recover(
        self,
        name: str,
        *,
        strategy: RecoveryStrategy | None = None,
        from_batch: int | None = None,
        by_progress: bool = False,
        cause: str = "",
        report: RecoverySums | None = None,
    ) -> RecoveryDetail:
        """Make one session ready to be carried on, by the strategy for it or by a forced one.

        With `by_progress` the thresholds decide, also where that does acknowledged work again.
        `cause` is what the caller knows of the death of its process, `report` the scan that this is
        part of; both are kept. On return it is on the disk.
        Errors: `RecoveryError` where nothing is to be done or the session is held back;
            `AlreadyLockedError` where it lives; `UnrecoverableError`; `ConfigurationError` for a
            strategy that cannot be carried out.
        """
        began = time.monotonic()
        status, view = self._wanted(
            name, is_forced=is_forced(strategy, from_batch, by_progress=by_progress)
        )
        with self.store.session(name, execute=False, waits=False) as session:
            if session.live.sequence != view.state.sequence:
                raise _taken_up(name)
            poisoned = session.settle_death(cause, limit=self.config.max_recovery_attempts)
            decision = decide(
                session.live,
                status.reason,
                self.config,
                strategy=strategy,
                from_batch=from_batch,
                by_progress=by_progress,
            )
            if decision.done_by is not None:
                return _ready(name, decision.done_by, decision.result, poisoned)
            duration_ms = int((time.monotonic() - began) * 1000)
            session.record_recovery(
                status.reason,
                status.priority,
                decision.strategy,
                batches=decision.batches,
                reset=decision.reset,
                from_batch=decision.from_batch,
                duration_ms=duration_ms,
                result=decision.result,
                report=report,
            )
            return RecoveryDetail(
                session_id=name,
                recovery_reason=status.reason,
                recovery_priority=status.priority,
                recovery_strategy=decision.strategy,
                recovery_result=decision.result,
                recovery_duration_ms=duration_ms,
                recovered_at=utc(session.live.updated_ns),
                poisoned=poisoned,
            )

    def _wanted(self, name: str, *, is_forced: bool) -> tuple[RequiresRecovery, View]:
        view = self.store.view(name)
        if view.judgement.status is SessionStatus.RUNNING:
            raise AlreadyLockedError(
                f"session {name!r} lives: {view.judgement.reason}",
                operation="lock",
                path=LOCK_NAME,
                holder=view.writer,
                hint="a living session is never touched; stop its process first",
            )
        status = self._judged(view)
        if isinstance(status, RequiresRecovery):
            # Who forces it has looked; but what is lost is accepted by a restore alone.
            if status.is_held and (status.reason is RecoveryReason.DAMAGED or not is_forced):
                raise RecoveryError(
                    f"session {name!r} is left alone: {status.detail}", hint=status.hint
                )
            return status, view
        if not is_forced or view.state.kind is SessionKind.DATA:
            raise RecoveryError(f"session {name!r} needs no recovery: {status.detail}")
        requested = RequiresRecovery(
            reason=RecoveryReason.REQUESTED,
            priority=RecoveryPriority.LOW,
            detail="somebody asked for it",
        )
        return requested, view

    def monitor(self, name: str) -> RecoveryMonitorResult:
        """How the work of a session goes since its latest recovery; from any process.

        Errors: `SessionNotFoundError`, `FormatError`.
        """
        return measure(self.store.load_progress(name))


def _ready(
    name: str, mark: RecoveryMark, result: BatchRecoveryResult, poisoned: list[str]
) -> RecoveryDetail:
    return RecoveryDetail(
        session_id=name,
        recovery_reason=mark.reason,
        recovery_priority=mark.priority,
        recovery_strategy=mark.strategy,
        recovery_result=result,
        recovery_duration_ms=0,
        recovered_at=mark.recovered_at,
        poisoned=poisoned,
        was_ready=True,
    )


def _with_one_more(report: RecoveryReport) -> RecoverySums:
    """How the scan stands once the session in hand is made ready."""
    return RecoverySums(
        healthy_sessions=report.healthy_sessions,
        sessions_requiring_recovery=report.sessions_requiring_recovery,
        successful_recoveries=report.successful_recoveries + 1,
        failed_recoveries=report.failed_recoveries,
        unrecoverable_sessions=report.unrecoverable_sessions,
    )


def _taken_up(name: str) -> AlreadyLockedError:
    return AlreadyLockedError(
        f"another process took session {name!r} up in the meantime",
        operation="lock",
        path=LOCK_NAME,
        holder=None,
        hint="look at it again",
    )


def _urgency(found: Found) -> tuple[int, str]:
    status = found.status
    return (-status.priority if isinstance(status, RequiresRecovery) else 1, found.name)
