"""A concurrent loop that survives: threads, executors, tries, and every way to leave it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

import milepost
from milepost import Backoff, ItemStatus, SessionStatus
from milepost.session import mapping
from milepost.work.pool import Pool
from support.consumers import refused_in_a_thread
from support.faults import die, in_child
from support.watching import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from milepost.work.pool import Ended

pytestmark = pytest.mark.usefixtures("no_thread_left")

AT_ONCE = Backoff(first_seconds=0.0)
PATIENCE_SECONDS = 60.0


def mapped(
    function: Callable[[Any], Any],
    source: Any,
    store: Path,
    *,
    executor: Any = None,
    workers: int = 8,
    attempts: int = 3,
    give_up_after: int = 20,
    backoff: Backoff = AT_ONCE,
) -> milepost.Mapped[Any, Any]:
    make: Any = milepost.map  # with functions of all kinds
    made = make(
        function,
        source,
        "crawl",
        store=store,
        progress=False,
        executor=executor,
        workers=workers,
        attempts=attempts,
        give_up_after=give_up_after,
        backoff=backoff,
    )
    return cast("milepost.Mapped[Any, Any]", made)


def results(
    function: Callable[[Any], Any], source: Any, store: Path, **options: Any
) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    for pair in mapped(function, source, store, **options):
        found.append(pair)
    return sorted(found)


def view(store: Path) -> milepost.View:
    return milepost.Store(store).view("crawl")


def done(store: Path, count: int, source: Any = None) -> None:
    """All is done, exactly once as far as the store is concerned, and nothing is in doubt."""
    state = view(store).state
    assert state.total_items_processed == count
    assert milepost.check(state) == []
    if source is not None:
        assert results(str, source, store) == []


def test_every_item_once_and_nothing_again(tmp_path: Path) -> None:
    assert results(str, range(50), tmp_path) == [(n, str(n)) for n in range(50)]
    done(tmp_path, 50, range(50))
    assert view(tmp_path).judgement.status is SessionStatus.COMPLETED


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_so_many_run_at_once_and_no_more(tmp_path: Path, workers: int) -> None:
    together = threading.Barrier(workers)
    running: list[int] = []
    most: list[int] = []

    def work(number: int) -> int:
        running.append(number)
        most.append(len(running))
        together.wait(PATIENCE_SECONDS)  # it ends only when all are there
        running.remove(number)
        return number

    assert len(results(work, range(workers * 3), tmp_path, workers=workers)) == workers * 3
    assert max(most) == workers


def test_results_come_as_they_finish(tmp_path: Path) -> None:
    go = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert go.wait(PATIENCE_SECONDS)
        return number

    seen: list[int] = []
    for item, _ in mapped(work, range(3), tmp_path, workers=2):
        seen.append(item)
        if len(seen) == 2:
            go.set()
    assert seen[-1] == 0


def test_an_item_is_acknowledged_when_the_loop_asks_for_the_next(tmp_path: Path) -> None:
    before: int | None = None
    for item, _ in mapped(str, range(5), tmp_path, workers=2):
        recorded = view(tmp_path).state.active_batches[0]
        assert not recorded.is_done(item)
        assert before is None or recorded.is_done(before)
        before = item


def test_a_slow_body_bounds_what_is_begun(tmp_path: Path) -> None:
    begun: list[int] = []
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        begun.append(number)
        return number

    for count, _ in enumerate(mapped(work, source(), tmp_path, workers=3), 1):
        # What the body had, what it has, and twice the workers at most.
        assert len(begun) <= count + 6
        assert len(taken) <= count + 7
        if count == 10:
            break


def test_what_raises_is_tried_again_with_growing_waits(tmp_path: Path) -> None:
    tries: list[int] = []
    waits: list[int] = []

    class Told(Backoff, frozen=True):
        def delay_seconds(self, failures: int) -> float:
            waits.append(failures)
            return 0.0

    def work(number: int) -> int:
        tries.append(number)
        if number == 1 and tries.count(1) < 3:
            raise TimeoutError("too slow")
        return number

    assert results(work, range(3), tmp_path, backoff=Told()) == [(0, 0), (1, 1), (2, 2)]
    assert tries.count(1) == 3
    assert waits == [1, 2]
    done(tmp_path, 3)


def test_what_fails_for_good_is_recorded_and_not_given_out(tmp_path: Path) -> None:
    tries: list[int] = []

    def work(number: int) -> int:
        tries.append(number)
        if number == 1:
            raise TimeoutError("too slow")
        if number == 2:
            raise TypeError("a mistake")
        return number

    assert results(work, range(4), tmp_path, attempts=3) == [(0, 0), (3, 3)]
    assert (tries.count(1), tries.count(2)) == (3, 1)
    state = view(tmp_path).state
    failed = state.failed_batches[0].partial_progress.open
    assert failed[1].error_message == "TimeoutError: too slow"
    assert failed[1].error_type is milepost.BatchErrorType.TIMEOUT_ERROR
    assert not failed[2].is_recoverable
    assert view(tmp_path).judgement.status is SessionStatus.FAILED
    # The next run tries what may be tried, with fresh attempts, and nothing else.
    assert results(str, range(4), tmp_path) == [(1, "1")]


def test_retry_says_how_long_to_wait(tmp_path: Path) -> None:
    tries: list[str] = []

    def work(item: str) -> str:
        tries.append(item)
        if tries.count(item) == 1:
            raise milepost.Retry("busy", after=0.0 if item == "soon" else 3600.0)
        return item

    for item, _ in mapped(work, ["soon", "late"], tmp_path, backoff=Backoff(first_seconds=3600.0)):
        assert item == "soon"
        break
    assert tries.count("soon") == 2
    assert tries.count("late") == 1
    recorded = view(tmp_path).state.active_batches[0].open["late"]
    assert recorded.status is ItemStatus.PENDING
    assert recorded.error_message == "Retry: busy"


def test_retry_has_no_more_tries_than_others(tmp_path: Path) -> None:
    tries: list[int] = []

    def work(number: int) -> int:
        tries.append(number)
        raise milepost.Retry("busy", after=0.0)

    assert results(work, [1], tmp_path, attempts=4) == []
    assert len(tries) == 4
    assert view(tmp_path).judgement.status is SessionStatus.FAILED


def test_skip_leaves_an_item_out_for_good(tmp_path: Path) -> None:
    def work(number: int) -> int:
        if number % 2:
            raise milepost.Skip("odd")
        return number

    assert results(work, range(4), tmp_path) == [(0, 0), (2, 2)]
    state = view(tmp_path).state
    assert state.session_statistics.total_items_skipped == 2
    assert view(tmp_path).judgement.status is SessionStatus.COMPLETED
    assert results(str, range(4), tmp_path) == []


def test_the_body_may_say_what_became_of_an_item(tmp_path: Path) -> None:
    items = mapped(str, range(4), tmp_path)
    with items:
        for number, _ in items:
            with items.catching(KeyError):
                if number == 1:
                    raise KeyError("it")
                if number == 2:
                    raise milepost.Skip("two")
            if number == 3:
                items.fail("three")
    state = view(tmp_path).state
    batch = state.failed_batches[0].partial_progress
    assert {key: each.error_message for key, each in batch.open.items()} == {
        1: "KeyError: 'it'",
        3: "three",
    }
    assert batch.items_skipped == 1


def test_results_that_are_exceptions_are_results(tmp_path: Path) -> None:
    found = dict(results(lambda n: ValueError(n), range(3), tmp_path))  # noqa: PLW0108
    assert all(isinstance(each, ValueError) for each in found.values())
    done(tmp_path, 3)


def test_an_outage_puts_back_what_failed_in_a_row(tmp_path: Path) -> None:
    def work(number: int) -> int:
        if number >= 3:
            raise ConnectionError("down")
        return number

    with pytest.raises(milepost.OutageError, match="5 items in a row"):
        results(work, range(100), tmp_path, attempts=1, give_up_after=5, workers=1)
    found = view(tmp_path)
    assert found.judgement.status is SessionStatus.INTERRUPTED
    batch = found.state.active_batches[0]
    assert not [each for each in batch.open.values() if each.status is ItemStatus.FAILED]
    assert len(results(str, range(100), tmp_path)) == 97
    assert view(tmp_path).judgement.status is SessionStatus.COMPLETED


def test_success_between_failures_is_no_outage(tmp_path: Path) -> None:
    def work(number: int) -> int:
        if number % 2:
            raise ConnectionError("down")
        return number

    found = results(work, range(40), tmp_path, attempts=1, give_up_after=2, workers=1)
    assert len(found) == 20


# Ways to leave it.


def leave_by_break(store: Path) -> None:
    for _ in mapped(str, range(20), store, workers=4):
        break


def leave_by_return(store: Path) -> Any:
    for pair in mapped(str, range(20), store, workers=4):
        return pair
    return None


def leave_by_close(store: Path) -> None:
    items = mapped(str, range(20), store, workers=4)
    next(items)
    items.close()


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_return, leave_by_close])
def test_leaving_on_purpose_stops(tmp_path: Path, leave: Callable[[Path], Any]) -> None:
    gc.disable()  # it is closed now, and not at some later collection
    try:
        leave(tmp_path)
        found = view(tmp_path)
        assert found.judgement.status is SessionStatus.STOPPED
    finally:
        gc.enable()
    assert found.state.total_items_processed == 0
    assert len(results(str, range(20), tmp_path)) == 20
    done(tmp_path, 20)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_in_the_body_leaves_the_item_in_hand(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def body() -> None:
        with contextlib.closing(mapped(str, range(20), tmp_path, workers=4)) as items:
            for count, _ in enumerate(items):
                if count == 3:
                    raise error

    with pytest.raises(error):
        body()
    assert view(tmp_path).state.total_items_processed == 3
    assert len(results(str, range(20), tmp_path)) == 17


def test_an_exception_in_a_with_block_is_recorded_on_the_item(tmp_path: Path) -> None:
    def body(seen: list[int]) -> None:
        with mapped(str, range(9), tmp_path, workers=3) as items:
            for number, _ in items:
                seen.append(number)
                if len(seen) == 2:
                    raise ValueError("the body failed")

    seen: list[int] = []
    with pytest.raises(ValueError, match="the body failed"):
        body(seen)
    batch = view(tmp_path).state.active_batches[0]
    assert batch.open[seen[1]].error_message == "ValueError: the body failed"
    assert batch.is_done(seen[0])
    assert view(tmp_path).judgement.status is SessionStatus.INTERRUPTED


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_no_items_fault_ends_the_loop(tmp_path: Path, error: type[BaseException]) -> None:
    def work(number: int) -> int:
        if number == 5:
            raise error("the end")
        return number

    with pytest.raises(error):
        results(work, range(20), tmp_path, workers=2)
    # How many others had come back by then is the threads' own matter.
    assert 5 in [item for item, _ in results(str, range(20), tmp_path)]
    done(tmp_path, 20)


def test_a_source_that_raises_keeps_what_was_done(tmp_path: Path) -> None:
    def source() -> Iterator[int]:
        yield from range(10)
        raise OSError("the list broke off")

    seen: list[int] = []
    with pytest.raises(OSError, match="broke off"):
        for number, _ in mapped(str, source(), tmp_path, workers=1):
            seen.append(number)
    state = view(tmp_path).state
    assert state.total_items_processed >= len(seen) - 1
    assert view(tmp_path).judgement.status is SessionStatus.INTERRUPTED
    results(str, range(10), tmp_path)
    done(tmp_path, 10)


def test_a_stop_request_lets_what_runs_end(tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        items = mapped(str, range(100), tmp_path, workers=4)
        for number, _ in items:
            seen.append(number)
            if len(seen) == 5:
                items.session.request_stop()
    assert 5 <= len(seen) < 20
    assert view(tmp_path).state.total_items_processed == len(seen)
    assert view(tmp_path).judgement.status is SessionStatus.STOPPED
    assert len(results(str, range(100), tmp_path)) == 100 - len(seen)


def test_left_suspended_it_gives_way_to_a_new_one(tmp_path: Path) -> None:
    old = mapped(str, range(10), tmp_path, workers=2)
    next(old)
    assert len(results(str, range(10), tmp_path)) == 10
    with pytest.raises(milepost.SupersededError):
        next(old)
    done(tmp_path, 10)


def test_a_loop_may_become_a_map_and_back(tmp_path: Path) -> None:
    for number in milepost.resume(range(12), "crawl", store=tmp_path, progress=False):
        if number == 3:
            break
    with mapped(str, range(12), tmp_path, workers=2) as items:
        for count, _ in enumerate(items):
            if count == 4:
                break
    left = milepost.resume(range(12), "crawl", store=tmp_path, progress=False)
    assert len([number for number in left]) == 12 - 3 - 4  # noqa: C416  # a loop, not list()
    done(tmp_path, 12, range(12))


# Executors.


def test_an_executor_that_was_lent_is_left_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert len(results(str, range(10), tmp_path, executor=pool)) == 10
        assert pool.submit(str, 1).result() == "1"


def test_an_executor_that_was_made_is_shut_down(tmp_path: Path) -> None:
    made: list[ThreadPoolExecutor] = []

    def make() -> ThreadPoolExecutor:
        made.append(ThreadPoolExecutor(2))
        return made[-1]

    assert len(results(str, range(10), tmp_path, executor=make)) == 10
    assert len(made) == 1
    with pytest.raises(RuntimeError):
        made[0].submit(str, 1)


def test_an_executor_that_is_shut_down_already_loses_nothing(tmp_path: Path) -> None:
    pool = ThreadPoolExecutor(2)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        results(str, range(10), tmp_path, executor=pool)
    assert view(tmp_path).judgement.status is SessionStatus.INTERRUPTED
    assert len(results(str, range(10), tmp_path)) == 10


def test_what_is_no_executor_and_what_is_no_function(tmp_path: Path) -> None:
    wrong: Any = 4
    with pytest.raises(TypeError, match="executor="):
        mapped(str, range(3), tmp_path, executor=wrong)
    with pytest.raises(TypeError, match="a function of one item"):
        mapped(wrong, range(3), tmp_path)
    assert list(tmp_path.iterdir()) == []


def kill_on_five(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def processes() -> ProcessPoolExecutor:
    import multiprocessing

    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def test_what_kills_its_worker_process_is_failed_and_the_rest_is_done(tmp_path: Path) -> None:
    found = results(kill_on_five, range(9), tmp_path, workers=2, executor=processes)
    assert [number for number, _ in found] == [0, 1, 2, 3, 4, 6, 7, 8]
    only_five_is_failed(tmp_path)


WITH_LOKY = """
import loky, milepost, os, signal

def kill_on_five(number):
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number

if __name__ == "__main__":
    make = lambda: loky.get_reusable_executor(2)
    for number, _ in milepost.map(
        kill_on_five, range(9), "crawl", store="s", workers=2, executor=make, progress=False
    ):
        print(number)
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL here")
def test_what_kills_its_loky_worker_is_failed_and_the_rest_is_done(tmp_path: Path) -> None:
    # As a program: loky keeps descriptors of a pool that broke.
    (tmp_path / "program.py").write_text(WITH_LOKY)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["0", "1", "2", "3", "4", "6", "7", "8"]
    only_five_is_failed(tmp_path / "s")


def only_five_is_failed(store: Path) -> None:
    failed = view(store).state.failed_batches[0].partial_progress.open
    assert list(failed) == [5]
    assert "poison" in str(failed[5].error_message)
    assert not failed[5].is_recoverable


def test_a_lent_executor_that_broke_is_told(tmp_path: Path) -> None:
    with (
        processes() as pool,
        pytest.raises(milepost.ConfigurationError, match="the executor broke"),
    ):
        results(kill_on_five, range(9), tmp_path, workers=2, executor=pool)
    assert set(range(9)) - {5} >= {number for number, _ in results(str, range(5), tmp_path)}


# Maps inside of other things.


def test_a_map_in_each_batch_of_a_job_with_workers(tmp_path: Path) -> None:
    @milepost.job("work", batches=range(6), workers=4, store=tmp_path)
    def work(batch: milepost.Batch) -> None:
        for _ in batch.map(str, range(10), workers=3):
            pass

    assert work.run(progress=False).statistics.total_items_processed == 60
    assert milepost.check(milepost.Store(tmp_path).load_progress("work")) == []


def test_a_map_in_the_body_of_a_map(tmp_path: Path) -> None:
    outer: list[int] = []
    for number, _ in mapped(str, range(3), tmp_path, workers=2):
        inner = milepost.map(str, range(4), f"inner-{number}", store=tmp_path, progress=False)
        for _ in inner:
            pass
        outer.append(number)
    assert sorted(outer) == [0, 1, 2]
    done(tmp_path, 3)
    assert milepost.Store(tmp_path).load_progress("inner-0").total_items_processed == 4


def test_rows_go_with_their_items_into_two_outputs(tmp_path: Path) -> None:
    class Work:
        first: Any

        def __call__(self, number: int) -> int:
            self.first.write(f"{number}\n")
            if number == 3:
                raise TypeError("a mistake, after a row")
            return number

    work = Work()
    with mapped(work, range(8), tmp_path / "s", workers=3) as items:
        work.first = items.open(tmp_path / "first.txt")
        second = items.open(tmp_path / "second.txt")
        for _, number in items:
            second.write(f"{number}\n")
    expected = [0, 1, 2, 4, 5, 6, 7]
    for name in ("first.txt", "second.txt"):
        rows = (tmp_path / name).read_text().split()
        assert sorted(int(row) for row in rows) == expected


# Deaths.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a death in the middle needs a fork")
def test_what_was_in_hand_at_a_death_runs_alone_and_poison_is_failed(tmp_path: Path) -> None:
    def run(number: int, tell: Callable[[bytes], None]) -> None:
        together = threading.Barrier(4)
        running: list[int] = []

        def work(item: int) -> int:
            running.append(item)
            if number == 0 and item < 4:
                together.wait(PATIENCE_SECONDS)
            if item == 2:
                tell(f"{len(running)} ".encode())
                die()
            if number == 0 and item < 4:
                threading.Event().wait()  # they have not ended when it dies
            running.remove(item)
            return item

        for _ in mapped(work, range(12), tmp_path, workers=4):
            pass

    at_death: list[bytes] = []
    for number in range(10):
        ended = in_child(functools.partial(run, number))
        if not ended.signal:
            break
        at_death.append(ended.told)
    assert at_death == [b"4 ", b"1 ", b"1 ", b"1 "]  # once together, then three times alone
    failed = view(tmp_path).state.failed_batches[0].partial_progress
    assert list(failed.open) == [2]
    assert "poison" in str(failed.open[2].error_message)
    assert failed.items_processed == 11


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a death in the middle needs a fork")
def test_a_suspect_that_is_tried_again_runs_alone_again(tmp_path: Path) -> None:
    def run(_tell: Callable[[bytes], None]) -> None:
        for _ in mapped(lambda _: die(), [0], tmp_path, workers=1):
            pass

    assert in_child(run).signal
    running: set[int] = set()
    beside: list[set[int]] = []
    again = threading.Event()

    def work(item: int) -> int:
        running.add(item)
        try:
            if item == 0:
                beside.append(running - {0})
                if len(beside) == 1:
                    raise milepost.Retry("once more", after=0.01)
                again.set()
            else:  # one gives its worker free while the other still has its own
                again.wait(0.05 if item == 1 else 0.3)
        finally:
            running.discard(item)
        return item

    results(work, range(6), tmp_path, workers=2)
    assert beside == [set(), set()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a death in the middle needs a fork")
def test_a_suspect_that_never_comes_again_keeps_nobody_waiting(tmp_path: Path) -> None:
    def run(tell: Callable[[bytes], None]) -> None:
        together = threading.Barrier(3)

        def work(item: int) -> int:
            together.wait(PATIENCE_SECONDS)
            if item == 2:
                die()
            threading.Event().wait()
            return item

        for _ in mapped(work, range(3), tmp_path, workers=3):
            pass

    assert in_child(run).signal
    together = threading.Barrier(3)
    alone: list[int] = []

    def work(item: int) -> int:
        if item > 2:
            together.wait(PATIENCE_SECONDS)  # they run together, or this never returns
        else:
            alone.append(item)
        return item

    # The first of the three is not in the source any more; the others run alone still.
    found = [item for item, _ in mapped(work, [*range(10, 16), 1, 2], tmp_path, workers=3)]
    assert sorted(found) == [1, 2, *range(10, 16)]
    assert alone == [1, 2]


# Consumers.


def unpacked(items: Any) -> Any:
    return [*items]


@pytest.mark.parametrize("consume", [list, tuple, sorted, dict, unpacked])
def test_consumers_that_pull_all_at_once(tmp_path: Path, consume: Callable[[Any], Any]) -> None:
    items = mapped(str, range(5), tmp_path)
    with pytest.raises(TypeError):
        consume(items)
    items.close()
    assert len(results(str, range(5), tmp_path)) == 5


def test_another_thread_is_refused(tmp_path: Path) -> None:
    items = mapped(str, range(5), tmp_path)
    assert refused_in_a_thread(items)
    items.close()
    assert len(results(str, range(5), tmp_path)) == 5


def test_the_interpreters_exit_ends_a_suspended_map(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import milepost\n"
        "items = milepost.map(str, range(50), 'crawl', store='s', progress=False)\n"
        "next(items)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert view(tmp_path / "s").judgement.status is SessionStatus.STOPPED


# Signals, to programs of their own.

PROGRAM = """
import milepost, os, signal, sys, time
import milepost.jobs.signals
milepost.jobs.signals.GRACE_SECONDS = {grace}

def work(number):
    if number == 3:
        with open("begun", "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        {then}
    return number

if __name__ == "__main__":
    for number, _ in milepost.map(
        work, range(9), "crawl", store="s", workers=2, executor="{executor}", progress=False
    ):
        pass
"""
ENDS = "while not os.path.exists('go'): time.sleep(0.005)"
HANGS = "time.sleep(600)"


@contextlib.contextmanager
def started(
    folder: Path, executor: str, then: str, grace: float
) -> Generator[tuple[subprocess.Popen[bytes], int]]:
    """A map whose fourth item is in hand, and the process that has it."""
    script = folder / "program.py"
    script.write_text(PROGRAM.format(executor=executor, then=then, grace=grace))
    words = [sys.executable, "-W", "error", str(script)]
    with subprocess.Popen(words, cwd=folder, start_new_session=True) as running:
        try:
            begun = folder / "begun"
            wait_until(lambda: begun.exists() and begun.read_text().endswith("\n"))
            yield running, int(begun.read_text().split()[0])
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


@pytest.mark.skipif(os.name == "nt", reason="signals to a group are not for Windows")
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_ctrl_c_lets_what_runs_end(tmp_path: Path, executor: str) -> None:
    with started(tmp_path, executor, ENDS, grace=PATIENCE_SECONDS) as (running, _):
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does it: to all of them
        (tmp_path / "go").touch()
        assert running.wait(PATIENCE_SECONDS) == -signal.SIGINT
    found = view(tmp_path / "s")
    assert found.judgement.status is SessionStatus.STOPPED
    assert found.state.executions[-1].in_flight == []
    assert found.state.active_batches[0].is_done(3)


@pytest.mark.skipif(os.name == "nt", reason="signals to a group are not for Windows")
@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_what_hangs_is_dropped_after_the_grace(tmp_path: Path, executor: str, name: str) -> None:
    with started(tmp_path, executor, HANGS, grace=0.3) as (running, worker):
        running.send_signal(getattr(signal, name))
        assert running.wait(PATIENCE_SECONDS) == (-signal.SIGINT if name == "SIGINT" else 143)
        wait_until(lambda: not is_running(worker))
    found = view(tmp_path / "s")
    stopped = name == "SIGINT"
    expected = SessionStatus.STOPPED if stopped else SessionStatus.INTERRUPTED
    assert found.judgement.status is expected
    assert not found.state.active_batches[0].is_done(3)


@pytest.mark.skipif(os.name == "nt", reason="signals to a group are not for Windows")
def test_worker_processes_do_not_outlive_who_made_them(tmp_path: Path) -> None:
    with started(tmp_path, "processes", HANGS, grace=0.3) as (running, worker):
        running.kill()
        running.wait(PATIENCE_SECONDS)
        wait_until(lambda: not is_running(worker))


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waited for does not."""
    try:
        os.kill(pid, 0)
        return " Z " not in (Path("/proc") / str(pid) / "stat").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # it ended just now, or the system does not tell
        return not Path("/proc/self").exists()


@pytest.mark.parametrize("why", ["no room", "a stop"])
def test_what_is_due_and_may_not_begin_keeps_nothing_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    now = [0.0]
    tries: list[str] = []
    waits: list[float] = []
    is_full, go = threading.Event(), threading.Event()
    wait_for_end = Pool.next_ended

    def next_ended(pool: Pool, timeout_seconds: float) -> Ended | None:
        if is_full.is_set():
            waits.append(timeout_seconds)
            if len(waits) == 5:
                go.set()
        return wait_for_end(pool, timeout_seconds)

    def work(item: str) -> str:
        tries.append(item)
        if item != "due":
            if item == last:
                now[0] = 60.0  # what waits to be tried again is due from now on
                is_full.set()
            assert go.wait(PATIENCE_SECONDS)
        elif tries.count(item) == 1:
            if why == "a stop":
                assert is_full.wait(PATIENCE_SECONDS)
                made.session.request_stop()
            raise milepost.Retry("later", after=30.0 if why == "no room" else 0.0)
        return item

    monkeypatch.setattr(mapping, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Pool, "next_ended", next_ended)
    items = ["due", "busy"] if why == "a stop" else ["due", "busy", "next"]
    last = items[-1]
    made = mapped(work, items, tmp_path, workers=2)
    expected = pytest.raises(KeyboardInterrupt) if why == "a stop" else contextlib.nullcontext()
    with expected:
        for _ in made:
            pass
    assert len(waits) >= 5
    assert min(waits[:5]) > 0.0
    assert tries.count("due") == (1 if why == "a stop" else 2)


def test_what_a_slow_source_gave_starts_before_it_is_asked_again(tmp_path: Path) -> None:
    started = [threading.Event() for _ in range(5)]

    def source() -> Iterator[int]:
        for number, event in enumerate(started):
            yield number
            assert event.wait(timeout=60)

    def work(number: int) -> int:
        started[number].set()
        return number

    assert sorted(results(work, source(), tmp_path)) == [(n, n) for n in range(5)]


def test_a_slow_source_is_not_asked_for_all_it_has_before_a_result_is_given_out(
    tmp_path: Path,
) -> None:
    asked: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    given: list[int] = []
    ended = threading.Event()
    for item, _ in mapped(lambda _: ended.set(), source(), tmp_path, workers=20):
        given.append(item)
        assert ended.wait(timeout=60)
        assert len(asked) <= len(given) + 2 * 20
    assert sorted(given) == list(range(100))


@pytest.mark.parametrize("shape", ["map", "async map"])
def test_a_map_that_is_closed_while_it_is_asked_says_so(tmp_path: Path, shape: str) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(_: int) -> None:
        begun.set()
        go_on.wait(timeout=60)

    async def wait_async(_: int) -> None:
        begun.set()
        await asyncio.sleep(3_600)

    if shape == "map":
        items = mapped(wait, [1, 2], tmp_path, workers=1)

        def close() -> None:
            begun.wait(timeout=60)
            go_on.set()
            items.close()

        closing = threading.Thread(target=close)
        closing.start()
        with contextlib.suppress(milepost.ClosedError):
            for _ in items:
                pass
        closing.join()
        return

    async def run() -> None:
        found = milepost.map(wait_async, [1], "work", store=tmp_path, progress=False)

        async def pull() -> None:
            async for _ in found:
                pass

        pulling = asyncio.create_task(pull())
        while not begun.is_set():  # noqa: ASYNC110  # it is set in a task of any kind
            await asyncio.sleep(0)
        await found.aclose()
        with pytest.raises(milepost.ClosedError, match="closed while the next item was waited for"):
            await pulling

    asyncio.run(run())
