"""What kills its process again and again is failed as poison; its innocent neighbours never are.

The deaths are real: each run is a forked process that ends by SIGKILL.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

import milepost
from milepost.storage.host import this_process
from support.faults import Ended, die, in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="a death in the middle needs a forked process"
)

COMPLETED, FAILED = milepost.ItemStatus.COMPLETED, milepost.ItemStatus.FAILED
PROCESSING = milepost.ItemStatus.PROCESSING
KILLER = 17
NEIGHBOURS = {16, 18, 19}
EXIT_FAILED = 3
RUNS_MAX = 20

Tell = "Callable[[bytes], None]"


def runs_until_the_end(body: Callable[[int, Callable[[bytes], None]], None]) -> list[Ended]:
    """Run it by hand again and again, as somebody would, until it ends by itself."""
    ended: list[Ended] = []
    for run in range(RUNS_MAX):

        def once(tell: Callable[[bytes], None], run: int = run) -> None:
            body(run, tell)

        ended.append(in_child(once))
        assert ended[-1].code == 0, "it raised"
        if ended[-1].signal == 0:
            return ended
        assert ended[-1].signal == signal.SIGKILL
    raise AssertionError(f"it did not come to an end within {RUNS_MAX} runs")


def told(ended: Ended) -> list[str]:
    return ended.told.decode().split()


# Jobs.


class Crew:
    """A job of 30 batches and four workers; in its first run it dies with four batches in hand."""

    def __init__(self, path: Path, work: Callable[[milepost.Batch], None]) -> None:
        self.store = milepost.Store(path / "store")
        self._work = work
        self._never = threading.Event()
        self._waiting = threading.Semaphore(0)

    def run(self, run: int, tell: Callable[[bytes], None]) -> None:
        def body(batch: milepost.Batch) -> None:
            if run == 0 and batch.number in NEIGHBOURS:
                self._begin(batch)
                self._waiting.release()
                self._never.wait()
            if run == 0 and batch.number == KILLER:
                for _ in NEIGHBOURS:
                    self._waiting.acquire()
            if run > 0:
                done = len(self.store.load_progress("crew").completed_batches)
                tell(f"{batch.key}:begins:{done}\n".encode())
            self._work(batch)
            if run > 0:
                tell(f"{batch.key}:ends\n".encode())

        job = milepost.job("crew", batches=range(30), workers=4, store=self.store)(body)
        result = job.run(progress=False)
        assert result.exit_code == EXIT_FAILED

    def _begin(self, batch: milepost.Batch) -> None:
        """Have something in hand, where the job's batches have items or counts."""

    def check(self, ended: list[Ended]) -> milepost.SessionState:
        state = self.store.load_progress("crew")
        assert list(state.failed_batches) == [KILLER]
        assert len(state.completed_batches) == 29
        assert milepost.check(state) == []
        # One death together, three alone, and the run that comes to the end.
        assert len(ended) == 5
        # Run 1: what was in hand runs alone, one after another; each end is on the disk before.
        assert told(ended[1]) == ["16:begins:16", "16:ends", "17:begins:17"]
        assert told(ended[2]) == told(ended[3]) == ["17:begins:17"]
        assert told(ended[4])[:4] == ["18:begins:17", "18:ends", "19:begins:18", "19:ends"]
        return state


def test_a_batch_that_kills_its_process_is_failed_and_all_else_is_done(tmp_path: Path) -> None:
    def work(batch: milepost.Batch) -> None:
        if batch.number == KILLER:
            die()

    crew = Crew(tmp_path, work)
    ended: list[Ended] = []

    def run(number: int, tell: Callable[[bytes], None]) -> None:
        for suspect in crew.store.load_progress("crew").suspects if number else ():
            assert suspect.batch == KILLER or suspect.deaths == 0
        crew.run(number, tell)

    ended = runs_until_the_end(run)
    state = crew.check(ended)
    failed = state.failed_batches[KILLER]
    assert not failed.is_recoverable
    assert failed.error_message.startswith("poison: its process died 3 times in a row")


def test_an_item_that_kills_its_process_is_failed_and_its_batch_goes_on(tmp_path: Path) -> None:
    def work(batch: milepost.Batch) -> None:
        with batch.items(range(3)) as items:
            for item in items:
                if (batch.number, item) == (KILLER, 1):
                    die()

    class WithItems(Crew):
        def _begin(self, batch: milepost.Batch) -> None:
            batch.update_item(0, PROCESSING)

    crew = WithItems(tmp_path, work)
    ended = runs_until_the_end(crew.run)
    state = crew.store.load_progress("crew")
    batch = state.failed_batches[KILLER].partial_progress
    assert [batch.status_of(item) for item in range(3)] == [COMPLETED, FAILED, COMPLETED]
    assert (batch.open[1].error_message or "").startswith("poison: ")
    assert not batch.open[1].is_recoverable
    assert sorted(state.completed_batches) == [n for n in range(30) if n != KILLER]
    assert state.session_statistics.total_items_processed == 30 * 3 - 1
    assert milepost.check(state) == []
    assert [each.signal for each in ended] == [signal.SIGKILL] * 4 + [0]
    # In the last run the other suspects go first, alone; the batch of the poison is none any more.
    last = told(ended[4])
    assert last[:4] == ["18:begins:17", "18:ends", "19:begins:18", "19:ends"]
    assert "17:ends" in last


def test_a_batch_that_only_reports_counts_and_gets_nowhere_is_failed(tmp_path: Path) -> None:
    def work(batch: milepost.Batch) -> None:
        batch.update_progress(processed=5, items_total=10)
        if batch.number == KILLER:
            die()
        batch.update_progress(processed=10)

    class WithCounts(Crew):
        def _begin(self, batch: milepost.Batch) -> None:
            batch.update_progress(processed=2, items_total=10)

    crew = WithCounts(tmp_path, work)
    state = crew.check(runs_until_the_end(crew.run))
    assert state.failed_batches[KILLER].partial_progress.items_processed == 5


def test_a_batch_that_gets_on_between_its_deaths_is_never_failed(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "store")

    def run(number: int, tell: Callable[[bytes], None]) -> None:
        @milepost.job("slow", batches=["only"], store=store)
        def slow(batch: milepost.Batch) -> None:
            batch.update_progress(processed=number, items_total=8)
            if number < 8:
                die()

        slow.run(progress=False).raise_for_failures()

    assert len(runs_until_the_end(run)) == 9
    assert list(store.load_progress("slow").completed_batches) == [0]


# Loops.


def test_a_poison_item_of_a_loop_is_passed_over_in_the_end(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "store")

    def run(number: int, tell: Callable[[bytes], None]) -> None:
        for item in milepost.resume(range(10), "loop", store=store, progress=False):
            tell(f"{item}\n".encode())
            if item == 4:
                die()

    ended = runs_until_the_end(run)
    assert [told(each) for each in ended] == [list("01234"), ["4"], ["4"], list("56789")]
    state = store.load_progress("loop")
    batch = state.failed_batches[0].partial_progress
    assert batch.items_processed == 9
    assert batch.status_of(4) is FAILED
    assert store.view("loop").judgement.status is milepost.SessionStatus.FAILED


def test_several_poison_items_each_have_their_own_deaths(tmp_path: Path) -> None:
    store = milepost.Store(
        tmp_path / "store", recovery=milepost.RecoveryConfig(max_recovery_attempts=2)
    )

    def run(number: int, tell: Callable[[bytes], None]) -> None:
        for item in milepost.resume(range(6), "loop", store=store, progress=False):
            if item in {1, 4}:
                die()

    assert len(runs_until_the_end(run)) == 5
    batch = store.load_progress("loop").failed_batches[0].partial_progress
    assert sorted(batch.open) == [1, 4]
    assert batch.items_processed == 4


def test_retry_gives_fresh_attempts(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "store")

    def run(number: int, tell: Callable[[bytes], None]) -> None:
        for item in milepost.resume(range(3), "loop", store=store, progress=False):
            if item == 1:
                die()

    assert len(runs_until_the_end(run)) == 4
    assert len(runs_until_the_end(run)) == 1, "it is left alone"
    assert store.retry("loop").items == 1
    assert len(runs_until_the_end(run)) == 4
    assert store.load_progress("loop").failed_batches[0].partial_progress.status_of(1) is FAILED


# Sessions by hand.


def test_an_item_in_a_session_by_hand(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "store")

    def run(number: int, tell: Callable[[bytes], None]) -> None:
        with store.session("by hand") as session:
            batch = session.start_batch("b")
            for key in "xyz":
                if batch.status_of(key) in {COMPLETED, FAILED}:
                    continue
                batch.update_item(key, PROCESSING)
                if key == "y":
                    die()
                batch.update_item(key, COMPLETED)
            batch.complete()
            session.complete()

    assert len(runs_until_the_end(run)) == 4
    batch = store.load_progress("by hand").failed_batches[0].partial_progress
    assert [batch.status_of(key) for key in "xyz"] == [COMPLETED, FAILED, COMPLETED]
    assert batch.open["y"].attempts == 4, "taken three times, and failed without being taken"


def test_a_batch_of_a_loop_over_batches_by_hand(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "store")

    def run(number: int, tell: Callable[[bytes], None]) -> None:
        with store.session("by hand") as session:
            for batch in session.batches(["a", "b", "c"]):
                if batch.key == "b":
                    die()
            session.complete()

    assert len(runs_until_the_end(run)) == 4
    state = store.load_progress("by hand")
    assert (list(state.completed_batches), list(state.failed_batches)) == ([0, 2], [1])


def die_with(store: milepost.Store, batches: dict[str, Iterable[str]]) -> None:
    """A run that dies with these batches and these items of them in hand."""

    def body(tell: Callable[[bytes], None]) -> None:
        session = store.session("by hand")
        for name, keys in batches.items():
            batch = session.start_batch(name)
            batch.update_items([(key, PROCESSING) for key in keys])
        session.flush()
        die()

    assert in_child(body).signal == signal.SIGKILL


def test_what_dies_together_is_never_failed_however_often(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "store")
    for _ in range(5):
        die_with(store, {"a": "xy", "b": "z"})
    with store.session("by hand") as session:
        assert session.poisoned == []
        suspects = {(each.batch, each.key): each.deaths for each in session.state.suspects}
    assert suspects == {(0, "x"): 0, (0, "y"): 0, (1, "z"): 0}


def test_what_was_in_flight_in_several_batches_is_told_apart_alone(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "store")
    die_with(store, {"a": "x", "b": "y"})
    for _ in range(3):
        die_with(store, {"b": "y"})
    with store.session("by hand", execute=False) as session:
        (line,) = session.settle_death("killed by SIGKILL, at most 90 MiB")
        state = session.state
    assert "item 'y' of batch 'b' is failed: poison" in line
    assert "killed by SIGKILL, at most 90 MiB" in line
    assert state.active_batches[1].status_of("y") is FAILED
    assert state.active_batches[0].status_of("x") is milepost.ItemStatus.PENDING
    assert [(each.batch, each.key, each.deaths) for each in state.suspects] == [(0, "x", 0)]


def test_a_batch_and_an_item_of_it_that_are_both_poison_fail_once(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "store")
    die_with(store, {"a": "x"})
    die_with(store, {"a": ""})
    with store.session("by hand", execute=False) as session:
        # The limit was lowered since.
        (line,) = session.settle_death(limit=1)
        assert "batch 'a' is failed" in line
        assert list(session.state.failed_batches) == [0]


# What is no death.


def test_a_power_cut_is_not_counted(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "store")
    rebooted = milepost.Store(
        tmp_path / "store",
        identify=lambda: msgspec.structs.replace(this_process(), boot_id="the next boot"),
        clock=milepost.ManualClock(),
    )
    die_with(store, {"a": "x"})
    with rebooted.session("by hand", execute=False) as session:
        session.settle_death()
        assert session.state.suspects == []
        assert session.state.executions[0].in_flight == [(0, "x")]


def test_an_iterator_left_suspended_and_opened_again_did_not_die(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "store")
    left: list[milepost.Items[str]] = []
    for _ in range(5):
        loop = milepost.resume(["a", "b"], "loop", store=store, progress=False)
        assert next(loop) == "a"
        left.append(loop)
    state = store.load_progress("loop")
    assert state.suspects == []
    assert state.active_batches[0].status_of("a") is PROCESSING
    for loop in left:
        loop.close()


def test_a_run_that_ended_and_could_not_record_it_did_not_die(tmp_path: Path) -> None:
    import errno

    from milepost.storage.directory import LocalDirectory
    from support.faults import NEEDS_SPACE, Faults

    system = Faults()
    store = milepost.Store(directory=LocalDirectory(str(tmp_path / "store"), system=system))
    session = store.session("full")
    session.start_batch("b").update_item("x", PROCESSING)
    session.flush()
    system.failing = lambda call: (
        errno.ENOSPC if call.name in NEEDS_SPACE and not call.path.endswith(".beat") else None
    )
    with pytest.raises(milepost.StorageError):
        session.close()
    system.failing = None
    assert store.load_progress("full").execution is not None
    # Another process: in this one it would be ours anyway.

    def body(tell: Callable[[bytes], None]) -> None:
        with milepost.Store(tmp_path / "store").session("full", execute=False) as again:
            again.settle_death()
            tell(str(len(again.state.suspects)).encode())

    assert in_child(body).told == b"0"


def test_a_death_is_known_before_it_is_recorded(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "store")
    for _ in range(2):
        die_with(store, {"a": "x"})
    assert store.load_progress("by hand").suspects[0].deaths == 1
    (suspect,) = store.view("by hand").suspects
    assert (suspect.key, suspect.deaths) == ("x", 2)
