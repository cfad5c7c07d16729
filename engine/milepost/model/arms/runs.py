"""Executions: begun and ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from milepost.model.arms.shared import put_down, stop_running
from milepost.model.state import Execution
from milepost.types import Key, Outcome, SessionKind

if TYPE_CHECKING:
    from milepost.model import events as e
    from milepost.model.state import SessionState

EXECUTIONS_LISTED: Final = 100
"""Older runs are counted, not listed, so that a session run every minute does not grow for ever."""


def execution_started(state: SessionState, event: e.ExecutionStarted) -> SessionState:
    end_execution(state, state.updated_ns, None, None)
    state.kind = SessionKind.WORK
    state.executions.append(
        Execution(
            epoch=event.epoch,
            started_ns=event.at_ns,
            host=event.host,
            pid=event.pid,
            boot_id=event.boot_id,
            process_started=event.process_started,
            release=event.release,
            program=event.program,
            # Until its end these hold what was there at its start.
            items_processed=state.session_statistics.total_items_processed,
            items_failed=state.session_statistics.total_items_failed,
        )
    )
    surplus = len(state.executions) - EXECUTIONS_LISTED
    if surplus > 0:
        del state.executions[:surplus]
        state.executions_forgotten += surplus
    return state


def execution_ended(state: SessionState, event: e.ExecutionEnded) -> SessionState:
    end_execution(state, event.at_ns, event.outcome, event.error_message)
    return state


def end_execution(
    state: SessionState, until_ns: int, outcome: Outcome | None, error_message: str | None
) -> None:
    """Close the latest run, if it is open, and put down all that was in hand."""
    in_flight: list[tuple[int, Key]] = []
    for number, batch in state.active_batches.items():
        if batch.resumed_ns:
            stop_running(batch, until_ns)
        in_flight.extend((number, key) for key in put_down(batch))
    execution = state.execution
    if execution is None:
        return
    sums = state.session_statistics
    sums.active_ns += max(0, until_ns - execution.started_ns)
    sums.updated_ns = until_ns
    execution.ended_ns = until_ns
    execution.outcome = outcome
    execution.error_message = error_message
    # A batch that reports counts may have begun to count anew.
    execution.items_processed = max(0, sums.total_items_processed - execution.items_processed)
    execution.items_failed = max(0, sums.total_items_failed - execution.items_failed)
    execution.in_flight = in_flight
