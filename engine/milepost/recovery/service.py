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
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from milepost.clock import utc
from milepost.errors import (
    AlreadyLockedError,
    MilepostError,
    RecoveryError,
    SupersededError,
    UnrecoverableError,
)
from milepost.model.estimate import progress
from milepost.recovery.analysis import (
    NoRecoveryNeeded,
    RecoveryStatus,
    RequiresRecovery,
    Unrecoverable,
    analyze,
    share_done,
)
from milepost.recovery.strategies import BatchRecoveryResult, Decision, decide
from milepost.types import (
    RecoveryConfig,
    RecoveryPriority,
    RecoveryReason,
    RecoveryStrategy,
)

if TYPE_CHECKING:
    from milepost.session.session import Session
    from milepost.session.view import View
    from milepost.store import Store


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
        statuses: What was found, by session.
        failures: Why a session could not be judged or made ready, by session.
    """

    healthy_sessions: int = 0
    sessions_requiring_recovery: int = 0
    successful_recoveries: int = 0
    failed_recoveries: int = 0
    unrecoverable_sessions: int = 0
    recovery_details: list[RecoveryDetail] = []
    statuses: dict[str, RecoveryStatus] = {}
    failures: dict[str, str] = {}


class RecoveryMonitorResult(msgspec.Struct, frozen=True, kw_only=True):
    """How the work goes since its latest recovery.

    Attributes:
        session_id: Of which session.
        overall_progress: Share of the session that is finished, 0 to 1; `None` if its size is
            unknown.
        current_batch_progress: Share of the batches in hand that is finished, 0 to 1; `None` with
            nothing in hand, or where its size is unknown.
        items_since_recovery: Items finished since then; from the beginning where there was none.
        batches_since_recovery: Batches completed since then.
        recovery_successful: Whether any work was acknowledged since.
        recovered_at: When it was recovered; `None` if never.
        estimated_completion: When it should be done; `None` if that is unknown.
    """

    session_id: str
    overall_progress: float | None
    current_batch_progress: float | None
    items_since_recovery: int
    batches_since_recovery: int
    recovery_successful: bool
    recovered_at: datetime | None
    estimated_completion: datetime | None


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
        return analyze(view, self.config, now_ns=self.store.now_ns()), view

    def detect(self) -> tuple[list[Found], dict[str, str]]:
        """All sessions, the most urgent first, and why some could not be judged."""
        found: list[Found] = []
        failures: dict[str, str] = {}
        for name in self.store.names():
            try:
                found.append(Found(name, self.analyze(name)))
            except MilepostError as error:
                failures[name] = error.message
        return sorted(found, key=_urgency), failures

    def detect_and_recover(self, *, dry_run: bool = False) -> RecoveryReport:
        """Judge all sessions and make ready those that want it.

        With `dry_run`, or with `auto_recovery_enabled` off, nothing is changed.
        """
        found, failures = self.detect()
        report = RecoveryReport(
            statuses={each.name: each.status for each in found}, failures=failures
        )
        for name, status in found:
            if isinstance(status, NoRecoveryNeeded):
                report.healthy_sessions += 1
            elif isinstance(status, Unrecoverable):
                report.unrecoverable_sessions += 1
            else:
                report.sessions_requiring_recovery += 1
                if not (status.is_held or dry_run) and self.config.auto_recovery_enabled:
                    self._recover_into(report, name)
        return report

    def _recover_into(self, report: RecoveryReport, name: str) -> None:
        try:
            report.recovery_details.append(self.recover(name))
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
        cause: str = "",
    ) -> RecoveryDetail:
        """Make one session ready to be carried on, by the strategy for it or by a forced one.

        `cause` is what the caller knows of the death of its process. On return it is on the disk.
        Errors: `RecoveryError` where nothing is to be done or the session is held back;
            `AlreadyLockedError` where it lives; `UnrecoverableError`; `ConfigurationError` for a
            strategy that cannot be carried out.
        """
        began = time.monotonic()
        is_forced = strategy is not None or from_batch is not None
        status = self._wanted(name, is_forced=is_forced)
        with self.store.session(name, execute=False) as session:
            poisoned = session.settle_death(cause)
            state = session.state
            mark = state.recovery
            decision = decide(
                state, status.reason, self.config, strategy=strategy, from_batch=from_batch
            )
            if mark is not None and mark.sequence == state.sequence and not is_forced:
                return self._detail(
                    name, status, decision, poisoned, utc(mark.at_ns), 0, ready=True
                )
            self._carry_out(session, status, decision, began)
            duration_ms = int((time.monotonic() - began) * 1000)
            at = utc(self.store.now_ns())
            return self._detail(name, status, decision, poisoned, at, duration_ms, ready=False)

    def _wanted(self, name: str, *, is_forced: bool) -> RequiresRecovery:
        status = self.analyze(name)
        if isinstance(status, Unrecoverable):
            raise UnrecoverableError(status.reason, attempts=status.tried, hint=status.hint)
        if isinstance(status, NoRecoveryNeeded):
            if not is_forced:
                raise RecoveryError(f"session {name!r} needs no recovery: {status.detail}")
            return RequiresRecovery(
                reason=RecoveryReason.REQUESTED,
                priority=RecoveryPriority.LOW,
                detail="somebody asked for it",
            )
        if status.is_held and not (is_forced and status.reason is not RecoveryReason.DAMAGED):
            raise RecoveryError(
                f"session {name!r} is left alone: {status.detail}", hint=status.hint
            )
        return status

    @staticmethod
    def _carry_out(
        session: Session, status: RequiresRecovery, decision: Decision, began: float
    ) -> None:
        if decision.strategy is RecoveryStrategy.FULL_RESTART:
            session.restart()
        session.record_recovery(
            status.reason,
            status.priority,
            decision.strategy,
            batches=decision.batches,
            reset=decision.reset,
            from_batch=decision.from_batch,
            duration_ms=int((time.monotonic() - began) * 1000),
        )

    @staticmethod
    def _detail(
        name: str,
        status: RequiresRecovery,
        decision: Decision,
        poisoned: list[str],
        at: datetime,
        duration_ms: int,
        *,
        ready: bool,
    ) -> RecoveryDetail:
        return RecoveryDetail(
            session_id=name,
            recovery_reason=status.reason,
            recovery_priority=status.priority,
            recovery_strategy=decision.strategy,
            recovery_result=decision.result,
            recovery_duration_ms=duration_ms,
            recovered_at=at,
            poisoned=poisoned,
            was_ready=ready,
        )

    def monitor(self, name: str) -> RecoveryMonitorResult:
        """How the work of a session goes since its latest recovery; from any process.

        Errors: `SessionNotFoundError`, `FormatError`.
        """
        state = self.store.load_progress(name)
        mark = state.recovery
        shares = [share_done(each) for each in state.active_batches.values() if each.items_total]
        items = state.items_finished - (mark.items_finished if mark else 0)
        batches = len(state.completed_batches) - (mark.batches_completed if mark else 0)
        return RecoveryMonitorResult(
            session_id=name,
            overall_progress=progress(state),
            current_batch_progress=sum(shares) / len(shares) if shares else None,
            items_since_recovery=max(0, items),
            batches_since_recovery=max(0, batches),
            recovery_successful=items > 0 or batches > 0,
            recovered_at=mark.recovered_at if mark else None,
            estimated_completion=state.estimated_completion,
        )


def _urgency(found: Found) -> tuple[int, str]:
    status = found.status
    return (-status.priority if isinstance(status, RequiresRecovery) else 1, found.name)
