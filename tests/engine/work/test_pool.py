"""Calls in executors: what has ended, what broke, what was lent and what was made."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from milepost.errors import ConfigurationError
from milepost.work.executors import Threads
from milepost.work.pool import Engine, Pool

pytestmark = pytest.mark.usefixtures("no_thread_left")
PATIENCE_SECONDS = 60.0


class Broken(Executor):
    """An executor that breaks with its first call, and refuses all others."""

    def __init__(self) -> None:
        self.calls: list[Future[Any]] = []
        self.was_shut_down = False

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.calls:
            raise BrokenExecutor("broken")
        self.calls.append(Future())
        return self.calls[0]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.was_shut_down = True


def test_what_ends_comes_with_its_token() -> None:
    pool = Pool(None, 3)
    for number in range(10):
        pool.submit(number, str, number)
    found = [pool.next_ended(PATIENCE_SECONDS) for _ in range(10)]
    assert {(each.token, each.value) for each in found if each} == {(n, str(n)) for n in range(10)}
    assert pool.next_ended(0) is None
    pool.close(wait=True)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_a_call_raises_comes_as_its_end(error: type[BaseException]) -> None:
    def fail() -> None:
        raise error("it")

    pool = Pool(None, 1)
    pool.submit("a", fail)
    ended = pool.next_ended(PATIENCE_SECONDS)
    assert ended is not None
    assert isinstance(ended.error, error)
    pool.submit("b", str, 1)  # its thread goes on
    ended = pool.next_ended(PATIENCE_SECONDS)
    assert ended is not None
    assert ended.value == "1"
    pool.close(wait=True)


def test_closing_waits_for_what_runs_and_drops_what_has_not_begun() -> None:
    begun = threading.Event()
    go = threading.Event()
    ran: list[str] = []

    def work(name: str) -> None:
        begun.set()
        assert go.wait(PATIENCE_SECONDS)
        ran.append(name)

    pool = Pool(None, 1)
    pool.submit("a", work, "a")
    assert begun.wait(PATIENCE_SECONDS)
    pool.submit("b", work, "b")
    closing = threading.Thread(target=lambda: pool.close(wait=True))
    closing.start()
    go.set()
    closing.join(PATIENCE_SECONDS)
    assert ran == ["a"]


def test_closing_without_waiting_leaves_what_hangs_behind() -> None:
    go = threading.Event()
    pool = Pool(None, 1)
    pool.submit("a", go.wait, PATIENCE_SECONDS)
    pool.close(wait=False)
    assert pool.next_ended(0) is None
    go.set()  # its end is nobody's


def test_a_result_is_kept_no_longer_than_it_is_wanted() -> None:
    class Big:
        pass

    pool = Pool(None, 1)
    pool.submit("a", Big)
    ended = pool.next_ended(PATIENCE_SECONDS)
    assert ended is not None
    kept = weakref.ref(ended.value)
    pool.submit("b", str)
    assert pool.next_ended(PATIENCE_SECONDS) is not None
    del ended
    gc.collect()
    assert kept() is None
    pool.close(wait=True)


def test_after_a_break_what_was_lost_is_told_and_a_new_one_is_made() -> None:
    made: list[Broken | ThreadPoolExecutor] = [Broken(), ThreadPoolExecutor(1)]
    first = made[0]
    assert isinstance(first, Broken)
    pool = Pool(lambda: made.pop(0), 2)
    pool.submit("a", str, 1)
    pool.submit("b", str, 2)  # refused, which counts as lost as well
    first.calls[0].set_exception(BrokenExecutor("a worker died"))
    found = [pool.next_ended(PATIENCE_SECONDS), pool.next_ended(PATIENCE_SECONDS)]
    assert all(isinstance(each.error, BrokenExecutor) for each in found if each)
    pool.rebuild()
    assert first.was_shut_down
    pool.submit("a", str, 1)
    ended = pool.next_ended(PATIENCE_SECONDS)
    assert ended is not None
    assert ended.value == "1"
    pool.close(wait=True)


def test_of_many_who_see_a_break_the_first_mends_it() -> None:
    made: list[Threads] = []

    def make() -> Threads:
        made.append(Threads(1))
        return made[-1]

    engine = Engine(make, 1)
    assert engine.submit(str, 1).result(PATIENCE_SECONDS) == "1"
    seen = engine.generation
    engine.rebuild(seen)
    assert engine.submit(str, 1).result(PATIENCE_SECONDS) == "1"
    engine.rebuild(seen)  # this one saw the same break, later
    assert engine.submit(str, 1).result(PATIENCE_SECONDS) == "1"
    assert len(made) == 2
    engine.close(wait=True)


def test_one_that_was_lent_cannot_be_made_anew_and_is_not_shut_down() -> None:
    lent = Broken()
    pool = Pool(lent, 1)
    pool.submit("a", str)
    with pytest.raises(ConfigurationError, match="broke"):
        pool.rebuild()
    pool.close(wait=False)
    assert not lent.was_shut_down


def test_a_maker_of_something_else() -> None:
    wrong: Any = lambda: 4  # noqa: E731
    pool = Pool(wrong, 1)
    with pytest.raises(TypeError, match="no concurrent"):
        pool.submit("a", str)


@pytest.mark.parametrize("name", ["thread", "dask://", "processes:4", ""])
def test_a_name_of_no_executor(name: str) -> None:
    with pytest.raises(ConfigurationError, match="threads, processes or dask"):
        Pool(name, 1)


class OddError(Exception):
    """An error that cannot travel."""

    def __init__(self, socket: Any, extra: int) -> None:
        super().__init__(f"socket {extra}")
        self.socket = socket


def fail_oddly(_: int) -> None:
    raise OddError(threading.Lock(), 4)


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_processes_tell_what_was_raised_and_that_one_died() -> None:
    pool = Pool("processes", 1)
    pool.submit("a", fail_oddly, 1)
    ended = pool.next_ended(PATIENCE_SECONDS)
    assert ended is not None
    assert "OddError: socket 4" in str(ended.error)
    pool.submit("b", die, 1)
    ended = pool.next_ended(PATIENCE_SECONDS)
    assert ended is not None
    assert isinstance(ended.error, BrokenExecutor)
    before, lost = pool.rebuild()
    assert (before, lost) == ([], [])
    pool.submit("c", str, 1)
    ended = pool.next_ended(PATIENCE_SECONDS)
    assert ended is not None
    assert ended.value == "1"
    pool.close(wait=True)
