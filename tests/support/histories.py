"""Random histories of a session: events that could really have followed one another.

- `histories` draws whole ones, for properties of the fold and of everything behind it.
- `Story` tells one by hand, with sequence numbers and times filled in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import strategies as st

from milepost.model import events as e
from milepost.model import fold
from milepost.model.state import OutputRows
from milepost.types import (
    BatchErrorType,
    BatchPhase,
    CheckpointType,
    ItemStatus,
    Key,
    Outcome,
    RecoveryPriority,
    RecoveryReason,
    RecoveryStrategy,
    SessionKind,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from milepost.model.recoveries import BatchRecoveryResult
    from milepost.model.state import ActiveBatch, Phase, SessionState

START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000
UID = "0123456789abcdef0123456789abcdef"


class Story:
    """A session told event by event.

    Attributes:
        events: All of them, the creation first.
        state: What they fold into.
        now_ns: Time of the next event.
    """

    def __init__(
        self,
        *,
        item_cap: int = 10_000,
        name: str = "crawl",
        kind: SessionKind = SessionKind.WORK,
    ) -> None:
        self.now_ns = START_NS
        created = e.SessionCreated(1, START_NS, e.NO_BATCH, name, UID, kind, item_cap)
        self.events: list[e.BatchEvent] = [created]
        self.state = fold.new_state(created)
        self._epoch = 0
        self._numbers: dict[str, int] = {}

    def happen(self, make: Callable[..., e.BatchEvent], batch: int, *fields: Any) -> SessionState:
        """Make one event happen now."""
        event = make(self.state.sequence + 1, self.now_ns, batch, *fields)
        self.state = fold.apply(self.state, event)
        self.events.append(event)
        return self.state

    def wait(self, seconds: float) -> None:
        """Let time pass, or set the clock back."""
        self.now_ns += int(seconds * SECOND_NS)

    # The session.

    def run(self) -> SessionState:
        """A process begins to work."""
        self._epoch += 1
        identity = (self._epoch, "laptop", 4711, "boot", "123", "0.1.0", "crawl.py")
        return self.happen(e.ExecutionStarted, e.NO_BATCH, *identity)

    def stop(self, outcome: Outcome, error_message: str | None = None) -> SessionState:
        """It stops by itself."""
        return self.happen(e.ExecutionEnded, e.NO_BATCH, self._epoch, outcome, error_message)

    def die(self, cause: str = "", *, is_blamed: bool = True) -> SessionState:
        """It was found dead."""
        return self.happen(e.ExecutionDied, e.NO_BATCH, self._epoch, is_blamed, cause)

    def recover(
        self,
        strategy: RecoveryStrategy = RecoveryStrategy.RESUME_CURRENT_BATCH,
        *,
        batches: Sequence[int] = (),
        reset: Sequence[int] = (),
        result: BatchRecoveryResult | None = None,
    ) -> SessionState:
        """It is made ready to be carried on."""
        head = (RecoveryReason.INTERRUPTED_BATCH, RecoveryPriority.MEDIUM, strategy)
        before = self.state.runs if strategy is RecoveryStrategy.FULL_RESTART else 0
        tail = (None, 0, result, None, before)
        return self.happen(e.Recovered, e.NO_BATCH, *head, list(batches), list(reset), *tail)

    def complete(self) -> SessionState:
        """The work is ended."""
        return self.happen(e.SessionCompleted, e.NO_BATCH)

    def plan(self, count: int) -> SessionState:
        """So many batches are planned, after those that are."""
        first = self.state.planned
        path = f"segments/plan.{first}-{first + count - 1}.00.zst"
        return self.happen(e.PlanSealed, e.NO_BATCH, path, first, count)

    def total(self, total_batches: int | None) -> SessionState:
        """The number of batches becomes known."""
        return self.happen(e.TotalBatchesSet, e.NO_BATCH, total_batches)

    # Batches.

    def start(self, number: int = 0, **fields: Any) -> ActiveBatch:
        """A batch is begun, or taken up again."""
        given = {"label": None, "payload": None, "items_total": None, "keeps_items": False}
        values = (given | fields).values()
        return self.happen(e.BatchStarted, number, f"b{number}", *values).active_batches[number]

    def item(
        self, key: Key | None, status: ItemStatus, taken: Key | None = None, *, batch: int = 0
    ) -> SessionState:
        """An item changes, and the next one may be taken."""
        error = "it broke" if status is ItemStatus.FAILED else None
        return self.happen(e.ItemUpdated, batch, key, status, taken, error)

    def items(self, *changes: tuple[Key, ItemStatus], batch: int = 0) -> SessionState:
        """Many items change at once."""
        return self.happen(e.ItemsUpdated, batch, [e.ItemChange(*each) for each in changes])

    def done(self, *keys: Key, batch: int = 0) -> SessionState:
        """Items are completed."""
        return self.items(*((key, ItemStatus.COMPLETED) for key in keys), batch=batch)

    def add(self, *items: Key, payloads: list[Any] | None = None, batch: int = 0) -> SessionState:
        """Items are found on the way."""
        return self.happen(e.ItemsAdded, batch, list(items), payloads)

    def finish(
        self,
        *changes: tuple[Key, ItemStatus],
        taken: Sequence[Key] = (),
        rows: Sequence[OutputRows] = (),
        batch: int = 0,
    ) -> SessionState:
        """Items end, others are taken, and rows go with them."""
        ended = [e.ItemChange(*each) for each in changes]
        return self.happen(e.ItemsEnded, batch, ended, list(taken), list(rows))

    def advance(
        self, through: int, taken: int = 0, *, rows: Sequence[OutputRows] = (), batch: int = 0
    ) -> SessionState:
        """Items known by their position are done in their order, and others taken."""
        digest = f"{through:032x}"
        return self.happen(e.PositionsAdvanced, batch, through, digest, taken, list(rows))

    def output(self, path: str, length_bytes: int = 0) -> SessionState:
        """Rows will be written to a file."""
        return self.happen(e.OutputOpened, e.NO_BATCH, path, length_bytes)

    def rows(self, path: str, size_bytes: int) -> OutputRows:
        """So many bytes more in an output, for what acknowledges them."""
        start = self.state.outputs[path].length_bytes
        return OutputRows(path, start, start + size_bytes, size_bytes)

    def params(self, params: Any) -> SessionState:
        """What makes this run this run is said."""
        return self.happen(e.ParamsSet, e.NO_BATCH, params)

    def progress(
        self,
        processed: int | None = None,
        failed: int | None = None,
        *,
        batch: int = 0,
        phase: Phase | None = None,
        items_total: int | None = None,
    ) -> SessionState:
        """A batch tells how far it is."""
        return self.happen(e.ProgressUpdated, batch, processed, failed, phase, items_total)

    def end(self, number: int = 0) -> SessionState:
        """A batch ends well."""
        return self.happen(e.BatchCompleted, number)

    def give_up(self, number: int = 0, *, is_recoverable: bool = True) -> SessionState:
        """A batch is given up."""
        kind = BatchErrorType.NETWORK_ERROR
        return self.happen(e.BatchFailed, number, "it broke", kind, is_recoverable)

    def attempt_failed(self, number: int = 0) -> SessionState:
        """A try of a batch failed and another follows."""
        kind = BatchErrorType.TIMEOUT_ERROR
        return self.happen(e.BatchAttemptFailed, number, "too slow", kind, 500)

    def retry(self, batches: list[int], items: dict[int, list[Key]] | None = None) -> SessionState:
        """Failed work is put back by hand."""
        return self.happen(e.Retried, e.NO_BATCH, batches, items or {})

    def restart(self) -> SessionState:
        """The work begins anew."""
        return self.happen(e.Restarted, e.NO_BATCH, self.state.runs)


def folded(events: list[e.BatchEvent]) -> SessionState:
    """The state after all of them."""
    first = events[0]
    assert isinstance(first, e.SessionCreated)
    state = fold.new_state(first)
    for event in events[1:]:
        state = fold.apply(state, event)
    return state


class History(NamedTuple):
    """A random history.

    Attributes:
        events: All events, the creation first.
        done: Batch number to the items that were ever acknowledged, since the last restart.
    """

    events: list[e.BatchEvent]
    done: dict[int, set[Key]]


keys: st.SearchStrategy[Key] = st.one_of(
    st.integers(0, 5), st.sampled_from(["0", "1", "a", "b", "c", "서울"])
)
statuses = st.sampled_from(ItemStatus)
errors = st.sampled_from(BatchErrorType)
messages = st.none() | st.text(max_size=8)
phases: st.SearchStrategy[Phase] = st.sampled_from(BatchPhase) | st.text(max_size=8)
plain_values = st.none() | st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2)
item_changes = st.builds(e.ItemChange, keys, statuses, messages, st.none() | errors, st.booleans())


@st.composite
def histories(draw: st.DrawFn, *, most: int = 40) -> History:
    """A history of up to so many events, every one of which fits what came before it."""
    story = Story(item_cap=draw(st.sampled_from([0, 1, 2, 3, 10_000])))
    done: dict[int, set[Key]] = {}
    for _ in range(draw(st.integers(0, most))):
        # Time mostly goes on; now and then somebody sets the clock back, or a night passes.
        story.wait(draw(st.sampled_from([0, 0.001, 1, 1, 60, 40_000, -5, -3_600])))
        possible = [each for each in _ACTIONS if each(draw, story, done, look=True)]
        draw(st.sampled_from(possible))(draw, story, done, look=False)
    return History(story.events, done)


def _run(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        story.run()
    return True


def _stop(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        story.stop(draw(st.sampled_from(Outcome)), draw(messages))
    return story.state.execution is not None


def _total(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        story.total(draw(st.none() | st.integers(0, 12)))
    return True


def _plan(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        story.plan(draw(st.integers(0, 3)))
    # A batch begun by hand must not have a number that the plan would give away.
    return max(_begun(story), default=-1) < story.state.planned


def _start(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        state = story.state
        closed = {n for n, each in state.completed_batches.items() if each.progress is None}
        number = draw(st.sampled_from([n for n in range(8) if n not in closed]))
        story.start(
            number,
            label=draw(messages),
            payload=draw(st.none() | st.dictionaries(st.text(max_size=3), st.integers(0, 9))),
            items_total=draw(st.none() | st.integers(0, 20)),
            keeps_items=draw(st.booleans()),
        )
    return len(story.state.completed_batches) < 8


def _item(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    active = _active(story, counted=False)
    if not look:
        number = draw(st.sampled_from(active))
        key = draw(st.none() | keys)
        status = draw(statuses)
        details = (draw(messages), draw(st.none() | errors), draw(st.booleans()))
        story.happen(e.ItemUpdated, number, key, status, draw(st.none() | keys), *details)
        if key is not None and status in {ItemStatus.COMPLETED, ItemStatus.SKIPPED}:
            done.setdefault(number, set()).add(key)
    return bool(active)


def _items(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    active = _active(story, counted=False)
    if not look:
        number = draw(st.sampled_from(active))
        changes = draw(st.lists(item_changes, max_size=6))
        story.happen(e.ItemsUpdated, number, changes)
        for each in changes:
            if each.status in {ItemStatus.COMPLETED, ItemStatus.SKIPPED}:
                done.setdefault(number, set()).add(each.key)
    return bool(active)


def _add(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    active = _active(story, counted=False, positional=False)
    if not look:
        found = draw(st.lists(keys, max_size=4))
        payloads = draw(
            st.none() | st.lists(plain_values, min_size=len(found), max_size=len(found))
        )
        story.add(*found, payloads=payloads, batch=draw(st.sampled_from(active)))
    return bool(active)


def _finish(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    active = _active(story, counted=False)
    if not look:
        number = draw(st.sampled_from(active))
        changes = draw(st.lists(item_changes, max_size=4))
        taken = draw(st.lists(keys, max_size=3))
        story.happen(e.ItemsEnded, number, changes, taken, _rows(draw, story))
        for each in changes:
            if each.status in {ItemStatus.COMPLETED, ItemStatus.SKIPPED}:
                done.setdefault(number, set()).add(each.key)
    return bool(active)


def _advance(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    active = [
        number
        for number in _active(story, counted=False)
        if story.state.active_batches[number].is_positional
        or not story.state.active_batches[number].items_known
    ]
    if not look:
        number = draw(st.sampled_from(active))
        batch = story.state.active_batches[number]
        most = batch.position
        while batch.status_of(most) is ItemStatus.PROCESSING:
            most += 1
        through = draw(st.integers(0, most))
        done.setdefault(number, set()).update(range(batch.position, through))
        taken = draw(st.integers(0, 4))
        story.advance(through, taken, rows=_rows(draw, story), batch=number)
    return bool(active)


def _output(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    fresh = [path for path in ("../rows.txt", "../out/rows.gz") if path not in story.state.outputs]
    if not look:
        story.output(draw(st.sampled_from(fresh)), draw(st.sampled_from([0, 0, 7])))
    return bool(fresh)


def _rows(draw: st.DrawFn, story: Story) -> list[OutputRows]:
    outputs = sorted(story.state.outputs)
    wanted = draw(st.lists(st.sampled_from(outputs), unique=True)) if outputs else []
    return [story.rows(path, draw(st.integers(0, 99))) for path in wanted]


def _params(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        story.params(draw(plain_values))
    return not story.state.has_params


def _progress(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    active = _active(story, counted=True)
    if not look:
        story.progress(
            draw(st.none() | st.integers(0, 20)),
            draw(st.none() | st.integers(0, 20)),
            batch=draw(st.sampled_from(active)),
            phase=draw(st.none() | phases),
            items_total=draw(st.none() | st.integers(0, 20)),
        )
    return bool(active)


def _phase(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        number = draw(st.sampled_from(sorted(story.state.active_batches)))
        story.progress(batch=number, phase=draw(phases))
    return bool(story.state.active_batches)


def _count(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        number = draw(st.sampled_from(sorted(story.state.active_batches)))
        names = st.sampled_from(["network_requests", "pages"])
        story.happen(
            e.CountersAdded, number, draw(st.dictionaries(names, st.integers(0, 9), max_size=2))
        )
    return bool(story.state.active_batches)


def _attempt(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        story.attempt_failed(draw(st.sampled_from(sorted(story.state.active_batches))))
    return bool(story.state.active_batches)


def _end(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        story.end(draw(st.sampled_from(sorted(story.state.active_batches))))
    return bool(story.state.active_batches)


def _give_up(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        number = draw(st.sampled_from(sorted(story.state.active_batches)))
        story.give_up(number, is_recoverable=draw(st.booleans()))
    return bool(story.state.active_batches)


def _retry(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    failed = story.state.failed_batches
    if not look:
        batches = draw(st.lists(st.sampled_from(sorted(failed)), unique=True))
        items: dict[int, list[Key]] = {}
        for number in draw(st.lists(st.sampled_from(sorted(failed)), unique=True)):
            records = failed[number].partial_progress.open.values()
            items[number] = [r.item_id for r in records if r.status is ItemStatus.FAILED]
        story.retry(batches, items)
    return bool(failed)


def _die(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        story.die(draw(st.text(max_size=8)), is_blamed=draw(st.booleans()))
    return story.state.execution is not None


def _recover(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        state = story.state
        strategy = draw(st.sampled_from(RecoveryStrategy))
        if strategy is RecoveryStrategy.RESTART_FAILED_BATCHES:
            again = st.lists(st.sampled_from([*sorted(state.failed_batches), -1]), unique=True)
            story.recover(strategy, batches=[n for n in draw(again) if n >= 0])
        elif strategy is RecoveryStrategy.PARTIAL_RECOVERY:
            first = draw(st.integers(0, 8))
            reset = sorted(number for number in _begun(story) if number >= first)
            story.recover(strategy, reset=reset)
            for number in reset:
                done.pop(number, None)
        else:
            story.recover(strategy)
            if strategy is RecoveryStrategy.FULL_RESTART:
                done.clear()
    return True


def _complete(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        story.complete()
    state = story.state
    planned = state.completed_batches.keys() | state.failed_batches.keys()
    return not (state.active_batches or state.pending_batches) and planned >= {
        *range(state.planned)
    }


def _data(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        story.happen(e.DataSet, e.NO_BATCH, draw(st.dictionaries(st.text(max_size=3), keys)))
    return True


def _checkpoint(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        mark = (f"{story.state.sequence:032x}", draw(st.sampled_from(CheckpointType)))
        number = draw(st.sampled_from([e.NO_BATCH, *story.state.active_batches]))
        story.happen(e.CheckpointSaved, number, *mark, draw(messages))
    return True


def _forget(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        ids = [each.id for each in story.state.checkpoints]
        story.happen(
            e.CheckpointsRemoved, e.NO_BATCH, draw(st.lists(st.sampled_from(ids), unique=True))
        )
    return bool(story.state.checkpoints)


def _cap(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        story.happen(e.ItemCapChanged, e.NO_BATCH, draw(st.integers(0, 4)))
    return True


def _restart(draw: st.DrawFn, story: Story, done: dict[int, set[Key]], *, look: bool) -> bool:
    if not look:
        story.restart()
        done.clear()
    return True


def _active(story: Story, *, counted: bool, positional: bool = True) -> list[int]:
    """Active batches that track items (also by position), or those that only report counts."""
    found: list[int] = []
    for number, batch in story.state.active_batches.items():
        if batch.is_positional and not positional:
            continue
        has_items = bool(batch.items_known) and not batch.is_counted
        if (counted and not has_items) or (not counted and not batch.is_counted):
            found.append(number)
    return sorted(found)


def _begun(story: Story) -> list[int]:
    state = story.state
    return [
        *state.completed_batches,
        *state.active_batches,
        *state.failed_batches,
        *state.pending_batches,
    ]


_ACTIONS = [
    *(_run, _stop, _total, _plan, _start, _item, _items, _progress, _phase, _count, _attempt),
    *(_end, _give_up, _retry, _complete, _data, _checkpoint, _forget, _cap, _restart),
    *(_die, _recover, _add, _finish, _advance, _output, _params),
    # What happens most of the time.
    *(_start, _item, _item, _items, _items, _finish, _advance, _advance, _end),
]
