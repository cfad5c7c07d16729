"""What a session's status is, and why: one judge for everybody who asks."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from milepost.types import Outcome, SessionKind

if TYPE_CHECKING:
    from milepost.model.state import SessionState


class SessionStatus(enum.Enum):
    """Where a session stands."""

    PENDING = "pending"
    """Never run, or put back by `retry` or `restart`."""
    RUNNING = "running"
    """A living process writes it."""
    STOPPED = "stopped"
    """Unfinished; somebody stopped it on purpose."""
    INTERRUPTED = "interrupted"
    """Unfinished; its writer is surely gone."""
    STALE = "stale"
    """Unfinished; a writer on another host has been silent too long."""
    COMPLETED = "completed"
    """Ended, nothing failed."""
    FAILED = "failed"
    """Ended; batches failed for good."""


class Presence(enum.Enum):
    """Whether the writer of a session is there."""

    ALIVE = "alive"
    """It holds the session's lock."""
    GONE = "gone"
    """It is surely not there."""
    UNKNOWN = "unknown"
    """It is on another host, and was not silent for long enough to count as gone."""
    SILENT = "silent"
    """It is on another host, and was silent too long."""


class Judgement(NamedTuple):
    """A status and the reason for it.

    Attributes:
        status: Where the session stands.
        reason: Why, for people.
    """

    status: SessionStatus
    reason: str


def _in_hand(state: SessionState) -> str:
    # What was in flight is put down once the death has been recorded.
    count = sum(batch.items_processing for batch in state.active_batches.values())
    count = count or len(state.executions[-1].in_flight)
    return f", with {count:,} {'item' if count == 1 else 'items'} in hand" if count else ""


def _first_line(text: str) -> str:
    # An error's other lines are its details, and what to try.
    return next(iter(text.strip().splitlines()), "")


def judge(state: SessionState, presence: Presence, *, is_copy: bool = False) -> Judgement:
    """The status of a session, from its state and whether its writer is there.

    `is_copy` says that the latest run wrote another folder, of which this one is a copy.
    """
    latest = state.executions[-1] if state.executions else None
    if presence is Presence.ALIVE:
        return Judgement(SessionStatus.RUNNING, "a process is writing it")
    if presence is Presence.UNKNOWN:
        return Judgement(
            SessionStatus.RUNNING,
            "a process on another host writes it, as far as can be seen from here",
        )
    if state.kind is SessionKind.DATA:
        return Judgement(SessionStatus.COMPLETED, "data alone")
    if state.outcome is Outcome.COMPLETED:
        return Judgement(SessionStatus.COMPLETED, "all work is done")
    if state.outcome is not None:
        count = len(state.failed_batches)
        return Judgement(
            SessionStatus.FAILED, f"{count:,} {'batch' if count == 1 else 'batches'} failed"
        )
    if latest is None:
        return Judgement(SessionStatus.PENDING, "it was never run")
    if not state.has_run:
        return Judgement(SessionStatus.PENDING, "it was begun anew and not run since")
    if latest.outcome is None:
        # It was killed, lost its power, or its disk took no more.
        who = f"process {latest.pid} on {latest.host}"
        if is_copy:
            # Of the original nothing is known here: the process may live.
            why = f"this is a copy of a session that {who} was writing"
            return Judgement(SessionStatus.INTERRUPTED, why + _in_hand(state))
        if presence is Presence.SILENT:
            status, how = SessionStatus.STALE, "has been silent too long"
        elif latest.error_message:
            status, how = SessionStatus.INTERRUPTED, f"died: {_first_line(latest.error_message)}"
        else:
            status, how = SessionStatus.INTERRUPTED, "ended and could not record it"
        return Judgement(status, f"{who} {how}" + _in_hand(state))
    if latest.outcome is Outcome.STOPPED:
        return Judgement(SessionStatus.STOPPED, "it was stopped on purpose")
    if latest.outcome is Outcome.INTERRUPTED:
        why = _first_line(latest.error_message or "") or "a signal ended it"
        return Judgement(SessionStatus.INTERRUPTED, why)
    return Judgement(
        SessionStatus.PENDING,
        "it was begun anew, or work was put back or added, since its last run",
    )
