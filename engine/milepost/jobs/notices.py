"""What a run tells its user on stderr: one line at the start, one at the end, and what matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from milepost.clock import utc
from milepost.errors import UnfinishedError
from milepost.model.estimate import batch_counts, item_counts
from milepost.storage import location
from milepost.text import counted, plural, say
from milepost.types import Outcome

if TYPE_CHECKING:
    from milepost.session.session import Session
    from milepost.types import Key


def say_start(session: Session, *, in_items: bool) -> None:
    """NEW or resumed, from where, and the absolute path; then what was met on the way."""
    say(start_line(session, in_items=in_items))
    if session.notice:
        say(f"{session.name}: {session.notice}")
    for each in session.poisoned:
        say(f"{session.name}: {each}")
    suspects = len(session.live.suspects)
    if suspects and not in_items:
        what = counted(suspects, session.batch_word) if suspects == 1 else f"{suspects:,} things"
        say(f"{session.name}: {what} in hand at the death before, to run alone first")
    for finding in session.findings:
        say(f"{session.name}: {'DAMAGE' if finding.is_error else 'note'}: {finding.message}")


def start_line(session: Session, *, in_items: bool) -> str:
    """The line that every start says."""
    state = session.live
    if not state.executions and not state.completed_batches:
        return f"{session.name}: NEW in {session.store_path}"
    items = item_counts(state)
    if in_items:
        done = f"{counted(items.completed + items.skipped, 'item')} done"
        failed = items.failed
    else:
        batches = batch_counts(state)
        total = state.total_batches
        word = session.batch_word
        done = (
            f"{batches.completed:,} of {total:,} {plural(word)} done"
            if total
            else f"no {word} done"
        )
        begun = (*state.active_batches.values(), *state.pending_batches.values())
        if items_done := sum(each.items_processed + each.items_skipped for each in begun):
            done += f" and {counted(items_done, 'item')} of others"
        failed = batches.failed
    extra = f", {failed:,} failed" if failed else ""
    died = " after its process died" if session.was_dead else ""
    return f"{session.name}: resumed{died} with {done}{extra}, from {session.store_path}"


def command(session: Session, verb: str) -> str:
    """The command to type, with the store where it would not be found by itself."""
    return location.command(session.store_path, verb, session.name)


def complete_line(session: Session) -> str:
    """What a run of a completed session says."""
    again = command(session, "restart")
    return f"{session.name}: complete since {_ended_at(session)}; to do it all again: {again}"


def ended_error(session: Session) -> UnfinishedError:
    """What refuses a run where one that has ended is an error."""
    if session.live.outcome is Outcome.FAILED:
        return UnfinishedError(
            f"{session.name}: ended with failures {_ended_at(session)}",
            hint=f"to try them again: {command(session, 'retry')}; to do it all again:"
            f" {command(session, 'restart')}",
        )
    return UnfinishedError(complete_line(session), hint=command(session, "restart"))


def _ended_at(session: Session) -> str:
    return f"{utc(session.live.ended_ns or session.live.updated_ns):%Y-%m-%d %H:%M:%S} UTC"


FAILURES_TOLD_MAX: Final = 3
"""More of them are counted, not named."""


def failure_line(session: Session, key: Key, reason: str) -> str:
    """Why a batch or an item failed, by its first line; `milepost show --failed` has all."""
    return f"{session.name}: failed: {key}: {reason.strip().partition(chr(10))[0]:.200}"


def waiting_line(session: Session, count: int, word: str) -> str:
    """What a run says of failures that it does not try again by itself."""
    what = counted(count, f"failed {word}")
    return f"{session.name}: {what} left as is; to try again: {command(session, 'retry')}"
