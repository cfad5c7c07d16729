"""Calls in executors: what has ended, what broke, what was lent and what was made."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from pickle import PicklingError
from types import FunctionType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from milepost.errors import ClosedError, ConfigurationError, OutageError
from milepost.types import BatchErrorType
from milepost.work import executors, far
from milepost.work.classify import Verdict
from milepost.work.executors import Threads, executor_named
from milepost.work.pool import Ended, Engine, Pool
from support.watching import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

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


def another(made: list[Broken]) -> Broken:
    """One more that breaks, noted among those that were made."""
    made.append(Broken())
    return made[-1]


def test_one_that_was_closed_makes_nothing_and_takes_nothing() -> None:
    made: list[Broken] = []
    engine = Engine(partial(another, made), 1)
    future = engine.submit(str)
    engine.close(wait=False)
    future.set_exception(BrokenExecutor("its processes were ended"))
    assert engine.has_broken(future)
    engine.rebuild(engine.generation)
    with pytest.raises(ClosedError):
        engine.submit(str)
    with pytest.raises(ClosedError):
        _ = engine.executor
    assert len(made) == 1


def test_that_a_call_broke_is_seen_with_no_executor_there() -> None:
    made: list[Broken] = []
    engine = Engine(partial(another, made), 1)
    future = engine.submit(str)
    future.set_exception(BrokenExecutor("a worker died"))
    engine.rebuild(engine.generation)  # another one saw it first
    assert engine.has_broken(future)
    assert len(made) == 1
    engine.close(wait=False)


def test_a_late_look_at_a_break_spares_the_new_one() -> None:
    engine = Engine(lambda: Threads(1), 1)
    before = engine.generation
    assert engine.submit(str, 1).result(PATIENCE_SECONDS) == "1"
    engine.rebuild(before)
    good = engine.executor
    engine.rebuild(before)
    assert engine.executor is good
    engine.close(wait=True)


def test_a_call_that_the_executor_dropped_is_an_outage() -> None:
    lent = Broken()
    pool = Pool(lent, 1)
    pool.submit("a", str)
    lent.calls[0].cancel()
    with pytest.raises(OutageError, match="the executor dropped what it had in hand"):
        pool.next_ended(PATIENCE_SECONDS)
    pool.close(wait=False)


def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(2)
    ran: list[str] = []
    with monkeypatch.context() as patch:

        def fail(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="start new thread"):
            threads.submit(ran.append, "refused")
    threads.submit(ran.append, "taken").result(PATIENCE_SECONDS)
    threads.shutdown(wait=True)
    assert ran == ["taken"]


def test_a_thread_that_is_begun_while_all_are_told_to_end_is_told_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = Threads(1)
    ending = threading.Thread(target=threads.shutdown, kwargs={"wait": False})
    begin = threading.Thread.start

    def beginning(thread: threading.Thread) -> None:
        if thread is not ending:
            begin(ending)
            time.sleep(0.05)  # it has come as far as it can
        begin(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", beginning)
        future = threads.submit(str, 1)
    ending.join()
    assert future.result(PATIENCE_SECONDS) == "1"
    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(str, 2)


@pytest.mark.parametrize(
    "name",
    [
        "thread",
        "dask://",
        "dask://x",
        "dask://x:",
        "dask://:8786",
        "dask://127.0.0.1:notaport",
        "dask://127.0.0.1:0",
        "dask://127.0.0.1:65536",
        "dask://tcp://127.0.0.1:8786",
        "dask://127.0.0.1:8786/status",
        "processes:4",
        "",
    ],
)
def test_a_name_of_no_executor(name: str) -> None:
    with pytest.raises(ConfigurationError, match="threads, processes or dask"):
        Pool(name, 1)


class FakeClient:
    """A Dask client as far as it is used here."""

    def __init__(self, address: str, timeout: float) -> None:
        self.status = "running"
        self.scheduler: Any = SimpleNamespace(address=address)
        self.was_closed = threading.Event()

    def get_executor(self, **options: Any) -> Executor:
        executor = Broken()
        vars(executor)["_client"] = self
        return executor

    def lose(self) -> None:
        self.status = "closed"
        self.scheduler = None

    def close(self) -> None:
        self.was_closed.set()


def dask(monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any]) -> None:
    """Have a module stand for Dask."""
    module = ModuleType("distributed")
    module.__spec__ = ModuleSpec("distributed", None)
    vars(module)["Client"] = make
    monkeypatch.setitem(sys.modules, "distributed", module)


@pytest.mark.parametrize("is_lent", [False, True])
def test_a_scheduler_that_is_gone_is_told_with_its_address(
    monkeypatch: pytest.MonkeyPatch, is_lent: bool
) -> None:
    client = FakeClient("tcp://127.0.0.1:8786", 1)
    dask(monkeypatch, lambda *args, **options: client)
    engine = Engine(client.get_executor() if is_lent else "dask://127.0.0.1:8786", 1)
    engine.submit(str)
    engine.check()
    client.lose()
    gone = "scheduler at tcp://127.0.0.1:8786 is gone"
    with pytest.raises(OutageError, match=gone):
        engine.check()
    with pytest.raises(OutageError, match=gone):
        engine.refuse_dropped(dropped())
    engine.close(wait=False)


def dropped() -> Future[Any]:
    future: Future[Any] = Future()
    future.cancel()
    return future


def test_what_a_lost_cluster_raises_for_a_call_is_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = FakeClient("tcp://127.0.0.1:8786", 1)
    lent = client.get_executor()

    def fail(*args: Any) -> Future[Any]:
        raise RuntimeError("the client is closed")

    monkeypatch.setattr(lent, "submit", fail)
    engine = Engine(lent, 1)
    with pytest.raises(RuntimeError, match="the client is closed"):
        engine.submit(str)
    client.lose()
    with pytest.raises(OutageError, match="is gone"):
        engine.submit(str)


def test_a_scheduler_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    client = FakeClient("tcp://127.0.0.1:8786", 1)

    def make(*args: Any, **options: Any) -> FakeClient:
        assert answers.wait(PATIENCE_SECONDS)
        return client

    dask(monkeypatch, make)
    monkeypatch.setattr(executors, "DASK_SECONDS", 0.05)
    with pytest.raises(ConfigurationError, match=r"at 127\.0\.0\.1:8786: it takes connections"):
        executor_named("dask://127.0.0.1:8786", 1)()
    answers.set()
    assert client.was_closed.wait(PATIENCE_SECONDS)  # it came after all, and is nobody's


def test_what_a_client_raises_while_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise TimeoutError("timed out trying")

    dask(monkeypatch, refuse)
    with pytest.raises(ConfigurationError, match="answers at x:1: timed out trying"):
        executor_named("dask://x:1", 1)()


class OddError(Exception):
    """An error that cannot travel."""

    def __init__(self, socket: Any, extra: int) -> None:
        super().__init__(f"socket {extra}")
        self.socket = socket


def fail_oddly(_: int) -> None:
    raise OddError(threading.Lock(), 4)


class Unloadable:
    """A result that pickles, and cannot be made again of that."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return Unloadable, ()


def give(what: str) -> Any:
    makers: dict[str, Callable[[], Any]] = {
        "odd": lambda: Unloadable(1),
        "function": lambda: give,
        "no function": lambda: lambda: 1,
        "data": lambda: {"a": [1, (2, None)]},
    }
    return makers[what]()


def test_a_result_that_does_not_load_is_the_fault_of_its_call() -> None:
    pool = Pool("processes", 1)
    found: dict[str, Any] = {}
    for what in ("odd", "no function", "function", "data"):
        pool.submit(what, give, what)
        ended = pool.next_ended(PATIENCE_SECONDS)
        assert ended is not None
        assert not ended.is_break
        found[what] = ended.error or ended.value
    assert isinstance(found["odd"], TypeError)
    assert isinstance(found["no function"], (AttributeError, PicklingError))
    assert found["function"] is give
    assert found["data"] == {"a": [1, (2, None)]}
    pool.close(wait=True)


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "a", b"a", [1], {"a": 1}])
def test_a_result_comes_back_as_it_was(value: Any) -> None:
    assert far.opened(far.call(lambda: value)) == value


def test_a_result_that_pickle_cannot_take_travels_as_the_executor_has_it() -> None:
    def local() -> None: ...

    assert far.call(lambda: local) is local
    assert far.opened(local) is local


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
    before, lost = pool.clear()
    pool.rebuild()
    assert (before, lost) == ([], [])
    pool.submit("c", str, 1)
    ended = pool.next_ended(PATIENCE_SECONDS)
    assert ended is not None
    assert ended.value == "1"
    pool.close(wait=True)


def sleep_and_heed_nothing(begun: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(begun).touch()
    time.sleep(PATIENCE_SECONDS)


@pytest.mark.skipif(os.name == "nt", reason="on Windows no process can refuse to be ended")
def test_a_process_that_does_not_heed_its_end_is_killed(tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    pool = Pool("processes", 1)
    begun = tmp_path / "begun"
    pool.submit("a", sleep_and_heed_nothing, str(begun))
    wait_until(begun.exists)
    (worker,) = set(multiprocessing.active_children()) - before
    until = time.monotonic() + PATIENCE_SECONDS / 2  # before it would end by itself
    pool.close(wait=False)
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < until:
            os.kill(worker.pid or 0, 0)


class WithoutKill:
    """A process as loky's are."""

    def __init__(self, process: Any) -> None:
        self._process = process

    def __getattr__(self, name: str) -> Any:
        if name == "kill":
            raise AttributeError(name)
        return getattr(self._process, name)


@pytest.mark.skipif(os.name == "nt", reason="on Windows no process can refuse to be ended")
def test_a_process_that_knows_no_kill_is_killed(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    process = multiprocessing.get_context("spawn").Process(
        target=sleep_and_heed_nothing, args=(str(begun),)
    )
    process.start()
    wait_until(begun.exists)
    executor = Broken()
    executor._processes = {1: WithoutKill(process)}  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    engine = Engine(lambda: executor, 1)
    engine.make()
    engine.close(wait=False)
    process.join(PATIENCE_SECONDS / 2)
    assert process.exitcode == -signal.SIGKILL


def test_closing_is_interrupted_by_a_signal() -> None:
    pool = Pool(None, 1)
    begun, hang = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        hang.wait()

    try:
        pool.submit("a", wait)
        assert begun.wait(PATIENCE_SECONDS)
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            pool.close(wait=True)
    finally:
        hang.set()


def test_closing_waits_for_no_maker() -> None:
    made: list[Broken] = []
    makes, goes_on = threading.Event(), threading.Event()

    def make() -> Broken:
        makes.set()
        assert goes_on.wait(PATIENCE_SECONDS)
        return another(made)

    def use() -> None:
        with pytest.raises(ClosedError):
            engine.make()

    engine = Engine(make, 1)
    with ThreadPoolExecutor(1) as threads:
        used = threads.submit(use)
        assert makes.wait(PATIENCE_SECONDS)
        engine.close(wait=False)
        goes_on.set()
        used.result(PATIENCE_SECONDS)
    assert [each.was_shut_down for each in made] == [True]


# Who is at fault.


def cannot_start() -> None:
    raise OSError("no database")


def threads_that_cannot_start() -> Executor:
    return ThreadPoolExecutor(1, initializer=cannot_start)


def ended_of(pool: Pool, function: Callable[..., Any], *args: Any) -> Ended:
    pool.submit("it", function, *args)
    ended = pool.next_ended(PATIENCE_SECONDS)
    assert ended is not None
    return ended


def test_threads_that_cannot_start_are_a_break() -> None:
    pool = Pool(threads_that_cannot_start, 1)
    assert ended_of(pool, str).is_break
    pool.close(wait=True)


def raise_broken() -> None:
    raise BrokenExecutor("a pool of its own")


@pytest.mark.parametrize("executor", ["threads", lambda: ThreadPoolExecutor(1), "processes"])
def test_a_broken_pool_of_the_function_s_own_is_no_break(executor: Any) -> None:
    pool = Pool(executor, 1)
    ended = ended_of(pool, raise_broken)
    assert isinstance(ended.error, BrokenExecutor)
    assert not ended.is_break
    pool.close(wait=True)


def test_that_its_workers_cannot_start_is_the_executor_s_fault() -> None:
    pool = Pool(threads_that_cannot_start, 1)
    with pytest.raises(ConfigurationError, match="workers cannot start") as caught:
        pool.prove()
    assert isinstance(caught.value.__cause__, BrokenExecutor)
    assert "__main__" in caught.value.hint
    pool.close(wait=True)


@pytest.mark.parametrize("executor", [None, "processes"])
def test_an_executor_that_works_is_proved(executor: str | None) -> None:
    pool = Pool(executor, 1)
    pool.prove()
    pool.close(wait=True)


def test_a_proof_that_the_executor_dropped_is_an_outage() -> None:
    lent = Broken()
    engine = Engine(lent, 1)
    with pytest.raises(OutageError, match="the executor dropped"):
        engine.prove(lambda future: future.cancel())


def raise_what_is_known_there_only() -> None:
    module: Any = ModuleType("known_there")
    module.PluginError = type("PluginError", (ConnectionError,), {"__module__": "known_there"})
    sys.modules["known_there"] = module
    raise module.PluginError("down")


def test_an_error_whose_class_is_known_only_there_is_its_text_and_its_judgement() -> None:
    pool = Pool("processes", 1)
    ended = ended_of(pool, raise_what_is_known_there_only)
    assert not ended.is_break
    assert isinstance(ended.error, far.FarError)
    assert ended.error.message == "PluginError: down"
    assert ended.error.verdict == Verdict(BatchErrorType.NETWORK_ERROR, is_recoverable=True)
    assert ended_of(pool, str, 1).value == "1"
    pool.close(wait=True)


def test_a_call_that_does_not_load_there_is_at_fault_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module: Any = ModuleType("known_here")
    module.function = FunctionType((lambda: 1).__code__, {"__name__": "known_here"}, "function")
    module.function.__qualname__ = "function"
    monkeypatch.setitem(sys.modules, "known_here", module)
    pool = Pool("processes", 1)
    ended = ended_of(pool, module.function)
    assert not ended.is_break
    assert isinstance(ended.error, ModuleNotFoundError)
    assert ended_of(pool, str, 1).value == "1"
    pool.close(wait=True)


def test_a_call_that_cannot_travel_is_at_fault_itself() -> None:
    pool = Pool("processes", 1)
    ended = ended_of(pool, lambda: 1)
    assert not ended.is_break
    assert isinstance(ended.error, (AttributeError, PicklingError))
    pool.close(wait=True)


class SilentError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_error_that_has_no_text_travels() -> None:
    def fail() -> None:
        raise SilentError

    with pytest.raises(SilentError):
        far.opened(far.call(fail))


def test_a_call_that_gives_back_what_has_yet_to_be_run_is_at_fault() -> None:
    with pytest.raises(TypeError, match="the function returned a generator"):
        far.opened(far.call(lambda: (each for each in "abc")))


def test_what_ends_while_another_thread_closes_the_pool_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Pool(None, 1)
    pool.submit("a", str, 1)
    refuse_dropped = Engine.refuse_dropped

    def late(engine: Engine, future: Future[Any]) -> None:
        refuse_dropped(engine, future)
        pool.close(wait=True)

    monkeypatch.setattr(Engine, "refuse_dropped", late)
    ended = pool.next_ended(PATIENCE_SECONDS)
    assert ended is not None
    assert ended.value == "1"


def test_a_call_that_is_cancelled_while_the_pool_is_closed_is_no_outage() -> None:
    class Lent(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            futures.append(Future())
            return futures[-1]

    futures: list[Future[Any]] = []
    pool = Pool(Lent(), 1)
    pool.submit("a", str, 1)
    futures[0].cancel()
    pool._is_closed = True  # by another thread, which has not come as far as to forget the call
    assert pool.next_ended(0) is None


def test_a_call_that_comes_when_its_executor_was_closed_is_told_so() -> None:
    class Closing(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            engine.close(wait=False)
            raise RuntimeError("cannot schedule new futures after shutdown")

    engine = Engine(Closing(), 1)
    with pytest.raises(ClosedError):
        engine.submit(str, 1)


def test_a_call_that_is_handed_in_while_the_pool_is_closed_never_begins() -> None:
    class Late(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            pool.close(wait=True)
            futures.append(Future())
            return futures[-1]

    futures: list[Future[Any]] = []
    pool = Pool(Late(), 1)
    pool.submit("a", str, 1)
    assert futures[0].cancelled()
