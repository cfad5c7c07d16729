"""A short run that touches everything a store writes, a step at a time, and what it must look like.

Each step is one call of the public face with one effect, so after a fault the store holds the state
after the last step that returned, or the one after the step that was in flight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import milepost
from milepost.storage.directory import LocalDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.storage.syscalls import Syscalls

WORK: Final = "work"
DATA: Final = "settings"
_DONE = milepost.ItemStatus.COMPLETED
_FAILED = milepost.ItemStatus.FAILED

Seen = dict[str, Any]


def store_at(
    path: str,
    system: Syscalls | None = None,
    *,
    clock: milepost.Clock | None = None,
    config: milepost.StoreConfig | None = None,
) -> milepost.Store:
    """A store that keeps little, snapshots only when asked, and leaves syncs to the calls."""
    return milepost.Store(
        config=config or milepost.StoreConfig(max_state_history=2),
        tracker=milepost.TrackerConfig(checkpoint_interval_seconds=1e9, sync_interval_seconds=30.0),
        clock=clock or milepost.ManualClock(),
        directory=LocalDirectory(path, system=system),
    )


class Run:
    """The objects that a run has in hand."""

    def __init__(
        self,
        path: str,
        system: Syscalls | None = None,
        *,
        durability: milepost.Durability = "process",
        config: milepost.StoreConfig | None = None,
    ) -> None:
        self.clock = milepost.ManualClock()
        self.store = store_at(path, system, clock=self.clock, config=config)
        self.durability: milepost.Durability = durability
        self.held: milepost.Session | None = None
        self.batch: milepost.Batch | None = None
        self.versions: list[int] = []

    @property
    def session(self) -> milepost.Session:
        assert self.held is not None
        return self.held

    @property
    def in_hand(self) -> milepost.Batch:
        assert self.batch is not None
        return self.batch

    def take(self, step: Step) -> None:
        """One step, a while after the one before."""
        self.clock.advance(7)
        step.act(self)

    def open(self) -> None:
        self.held = self.store.session(WORK, durability=self.durability)

    def start(self, key: str) -> None:
        self.batch = self.session.start_batch(key)

    def advance(self, done: str | None, taken: str | None) -> None:
        """As a loop does; each time as another one, which may end what those before it took."""
        self.in_hand.advance(done, taken, self.in_hand.begin_loop())

    def snapshot(self) -> None:
        self.versions.append(self.session.snapshot())

    def close(self) -> None:
        if self.held is not None:
            self.held.close()

    def restore(self) -> None:
        self.store.restore(WORK, self.versions[-1])


@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        name: What it does.
        act: The call.
        durable: Whether, on return, its effect and all before it survive a power cut.
    """

    name: str
    act: Callable[[Run], object]
    durable: bool = False


STEPS: Final[tuple[Step, ...]] = (
    Step("open", Run.open, durable=True),
    Step("total", lambda r: r.session.set_total_batches(5)),
    Step("plan", lambda r: r.session.ensure_plan(["a", "b", "c"]), durable=True),
    Step("start a", lambda r: r.start("a")),
    Step("item", lambda r: r.in_hand.update_item("p-1", _DONE)),
    Step(
        "items",
        lambda r: r.in_hand.update_items(
            [("p-2", _DONE), ("p-3", _FAILED, "HTTP 420"), (4, _DONE)]
        ),
    ),
    Step(
        "phase",
        lambda r: r.in_hand.update_progress(phase=milepost.BatchPhase.DATA_SAVING, items_total=4),
    ),
    Step("count", lambda r: r.in_hand.count(rows=80)),
    Step("end a", lambda r: r.in_hand.complete(), durable=True),
    Step("data", lambda r: r.session.set_data({"cursor": 41}), durable=True),
    Step(
        "checkpoint",
        lambda r: r.session.save_checkpoint(
            milepost.CheckpointType.BATCH_PROGRESS, {"page": 7}, name="seven"
        ),
        durable=True,
    ),
    Step("snapshot", Run.snapshot, durable=True),
    Step("start b", lambda r: r.start("b")),
    Step("take x", lambda r: r.advance(None, "x")),
    Step("x done", lambda r: r.advance("x", "y")),
    Step("flush", lambda r: r.session.flush(), durable=True),
    Step("y done", lambda r: r.advance("y", "z")),
    Step("snapshot again", Run.snapshot, durable=True),
    Step("z done", lambda r: r.advance("z", None)),
    Step("close", Run.close, durable=True),
    Step("open again", Run.open, durable=True),
    Step("start b again", lambda r: r.start("b")),
    Step("w done", lambda r: r.in_hand.update_item("w", _DONE)),
    Step("end b", lambda r: r.in_hand.complete(), durable=True),
    Step("retry", lambda r: r.store.retry(WORK), durable=True),
    Step("start a again", lambda r: r.start("a")),
    Step("p-3 done", lambda r: r.in_hand.update_item("p-3", _DONE)),
    Step("end a again", lambda r: r.in_hand.complete(), durable=True),
    Step("snapshot three", Run.snapshot, durable=True),
    Step("start c", lambda r: r.start("c")),
    Step("c fails", lambda r: r.in_hand.fail("no more"), durable=True),
    Step("snapshot four", Run.snapshot, durable=True),
    Step("data again", lambda r: r.session.set_data([1, 2]), durable=True),
    Step("restore", Run.restore, durable=True),
    Step("total again", lambda r: r.session.set_total_batches(3)),
    Step("complete", lambda r: r.session.complete(), durable=True),
    Step("close again", Run.close, durable=True),
    Step("save", lambda r: r.store.save_state(DATA, {"n": 1}), durable=True),
    Step("save again", lambda r: r.store.save_state(DATA, {"n": 2}), durable=True),
)


def summary(state: milepost.SessionState) -> Seen:
    """What a state says of the work, without times, runs and versions.

    What is in hand counts as pending: a run that died leaves it so, and the next one puts it down.
    """

    def items(batch: milepost.ActiveBatch) -> dict[Any, str]:
        found = dict.fromkeys(batch.done, "completed")
        for item in (*batch.open.values(), *batch.finished.values()):
            found[item.item_id] = milepost.label(item.status)
        return {key: "pending" if each == "processing" else each for key, each in found.items()}

    def open_batch(batch: milepost.ActiveBatch) -> Any:
        counters = dict(batch.counters)
        return batch.batch_id, items(batch), batch.current_phase, batch.items_total, counters

    sums = state.session_statistics
    return {
        "total": state.total_batches,
        "planned": state.planned,
        "active": {n: open_batch(each) for n, each in state.active_batches.items()},
        "pending": {n: open_batch(each) for n, each in state.pending_batches.items()},
        "failed": {
            n: open_batch(each.partial_progress) for n, each in state.failed_batches.items()
        },
        "completed": {
            n: (each.batch_id, each.items_processed) for n, each in state.completed_batches.items()
        },
        "sums": (sums.total_items_processed, sums.total_items_failed, sums.total_items_skipped),
        "checkpoints": [(each.checkpoint_type, each.name) for each in state.checkpoints],
        "outcome": state.outcome,
        "data": state.data,
    }


def look(store: milepost.Store) -> Seen:
    """What a store holds, read without a lock; checkpoints are loaded to prove their files."""
    if not store.exists():
        return {}
    found: Seen = {}
    for name in store.names():
        view = store.view(name)
        assert not view.is_lossy, view.findings
        assert store.disagreements(name) == []
        for mark in store.checkpoints(name):
            assert store.load_checkpoint(mark.id) == {"page": 7}
        found[name] = summary(view.state)
    return found


def expected(path: str, *, durability: milepost.Durability = "process") -> list[Seen]:
    """What the store holds before any step, and after each, in a run without faults."""
    run = Run(path, durability=durability)
    found: list[Seen] = [{}]
    for step in STEPS:
        run.take(step)
        found.append(look(run.store))
    return found


def write_on(store: milepost.Store) -> None:
    """Prove that the session can be written, quicker than `go_on`."""
    with store.session(WORK) as session:
        session.set_data("on")
    assert look(store)[WORK]["data"] == "on"


def go_on(store: milepost.Store) -> None:
    """Prove that the work can be carried on and ended, and that this is kept."""
    with store.session(WORK) as session:
        session.set_total_batches(None)
        for key in ("a", "b", "c") if session.plan_size else ("a",):
            if not session.is_done(key):
                again = session.start_batch(key)
                again.update_item("late", _DONE)
                again.complete()
        last = session.start_batch("last")
        last.update_item("late", _DONE)
        assert last.complete() is milepost.BatchStatus.COMPLETED
        session.set_data("late")
        # What the workload had planned and not begun is left out: the work is all that there is.
        for number in [n for n in session.to_do() if n not in session.live.failed_batches]:
            session.start_batch(session.batch(number).key).complete()
        session.complete()
        held = summary(session.state)
    seen = summary(store.load_progress(WORK))
    assert seen == held
    assert seen["data"] == "late"
    assert not seen["active"]
    with store.session(WORK) as session:
        assert not [each for each in session.findings if each.is_error]
        assert summary(session.state) == held
