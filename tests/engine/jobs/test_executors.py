"""Jobs and their executors: what is an executor's fault is no batch's."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost.jobs import remote
from milepost.jobs import tasks as tasks_module
from milepost.jobs import workers as workers_module
from milepost.jobs.outage import Outage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

PATIENCE_SECONDS = 60.0
KEYS = ["a", "b", "c", "d"]
COMPLETED = milepost.ItemStatus.COMPLETED


def work(batch: Any) -> Any:
    return [(f"item of {batch.key}", COMPLETED)]


def run(
    store: Path,
    executor: Any = None,
    *,
    function: Callable[[Any], Any] = work,
    workers: int = 2,
    in_loop: bool = False,
    **options: Any,
) -> milepost.JobResult:
    job = milepost.job("work", batches=KEYS, workers=workers, store=store, executor=executor)(
        function
    )
    if in_loop:
        return asyncio.run(job.run_async(progress=False, **options))
    return job.run(progress=False, **options)


def state_of(store: Path) -> milepost.SessionState:
    return milepost.Store(store).load_progress("work")


def goes_on(store: Path) -> None:
    """Nothing was failed, and a run with an executor that works does it all."""
    assert not state_of(store).failed_batches
    result = run(store, "threads")
    assert (result.exit_code, result.completed) == (0, len(KEYS))
    assert state_of(store).total_items_processed == len(KEYS)


class Fake(Executor):
    """An executor whose calls end as the test says."""

    def __init__(self, end: Callable[[Future[Any]], object]) -> None:
        self._end = end
        self.calls: list[Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.calls.append(future)
        self._end(future)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for each in self.calls:
            if not each.done():
                each.set_exception(BrokenExecutor("its processes were ended"))


def broken() -> Fake:
    return Fake(lambda future: future.set_exception(BrokenExecutor("a worker died")))


def dropping() -> Fake:
    def drop(future: Future[Any]) -> None:
        future.cancel()

    return Fake(drop)


def fail_to_make() -> Executor:
    raise OSError(12, "cannot fork")


def make_something_else() -> Any:
    return 5


def test_outcomes_that_nobody_would_record_are_refused(tmp_path: Path) -> None:
    def outcomes(batch: Any) -> Any:
        kinds = {"a": [("x", COMPLETED)], "b": {"x": COMPLETED}, "c": ("x", COMPLETED), "d": 5}
        return kinds[batch.key]

    async def outcomes_async(batch: Any) -> Any:
        return outcomes(batch)

    for number, function in enumerate((outcomes, outcomes_async)):
        result = run(tmp_path / str(number), function=function)
        assert sorted(result.failures) == ["a", "b", "c"]
        assert "recorded with an executor alone" in result.failures["a"]
    assert run(tmp_path / "s", "threads").completed == len(KEYS)


@pytest.mark.skipif(os.name == "nt", reason="signals to another process are not for Windows")
def test_a_second_ctrl_c_waits_for_no_process_that_hangs(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import milepost, os, pathlib, signal, threading, time

            @milepost.job("work", batches=["a"], workers=1, store="s", executor="processes")
            def work(batch):
                pathlib.Path("begun").touch()
                time.sleep({PATIENCE_SECONDS})

            def interrupt():
                while not os.path.exists("begun"):
                    time.sleep(0.01)
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.3)

            if __name__ == "__main__":
                threading.Thread(target=interrupt).start()
                work.run(progress=False)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=PATIENCE_SECONDS / 2,
    )
    assert done.returncode in (130, -2)


# What an executor does wrong.


@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize(
    ("make", "error"), [(fail_to_make, OSError), (make_something_else, TypeError)]
)
def test_one_that_cannot_be_made_ends_the_run_before_any_batch(
    tmp_path: Path, make: Any, error: type[Exception], in_loop: bool
) -> None:
    with pytest.raises(error):
        run(tmp_path, make, in_loop=in_loop)
    assert not state_of(tmp_path).active_batches
    goes_on(tmp_path)


@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_lent_one_that_broke(tmp_path: Path, workers: int, in_loop: bool) -> None:
    with pytest.raises(milepost.ConfigurationError, match="the executor broke"):
        run(tmp_path, broken(), workers=workers, in_loop=in_loop)
    goes_on(tmp_path)


def kill(batch: milepost.RemoteBatch) -> Any:
    if batch.key == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    return work(batch)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_lent_pool_whose_process_was_killed(tmp_path: Path) -> None:
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(milepost.ConfigurationError, match="the executor broke"),
    ):
        run(tmp_path, pool, function=kill)
    goes_on(tmp_path)


@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_lent_one_that_was_shut_down(tmp_path: Path, workers: int, in_loop: bool) -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        run(tmp_path, pool, workers=workers, in_loop=in_loop)
    goes_on(tmp_path)


def test_one_that_cannot_be_made_anew(tmp_path: Path) -> None:
    makers: list[Callable[[], Executor]] = [broken, fail_to_make]

    def make() -> Executor:
        return makers.pop(0)()

    with pytest.raises(OSError, match="cannot fork"):
        run(tmp_path, make, workers=1)
    goes_on(tmp_path)


@pytest.mark.parametrize("in_loop", [False, True])
def test_one_that_drops_its_calls_is_an_outage(tmp_path: Path, in_loop: bool) -> None:
    with pytest.raises(milepost.OutageError, match="dropped"):
        run(tmp_path, dropping(), in_loop=in_loop)
    goes_on(tmp_path)


def test_a_map_over_one_that_drops_its_calls_fails_no_item(tmp_path: Path) -> None:
    items = milepost.map(
        str, KEYS, "map", store=tmp_path, executor=dropping(), attempts=1, progress=False
    )
    with pytest.raises(milepost.OutageError, match="dropped"):
        next(items)
    again = milepost.map(str, KEYS, "map", store=tmp_path, progress=False)
    assert sorted(item for item, _ in again) == KEYS
    assert not again.failed


class OddError(Exception):
    """An error whose text raises."""

    def __str__(self) -> str:
        raise AttributeError("code")


@pytest.mark.parametrize("error", [OddError(), OSError({"code": 5}, "down")])
def test_an_error_that_cannot_be_looked_at_fails_its_own_work(
    tmp_path: Path, error: Exception
) -> None:
    def fail(what: Any) -> list[Any]:
        if what in {1, 2} or getattr(what, "key", "") in {"a", "b"}:
            raise error
        return []

    def outcomes(name: str, source: list[int], **options: Any) -> list[int]:
        items: Iterator[tuple[int, list[Any]]] = milepost.map(
            fail, source, name, store=tmp_path, attempts=1, progress=False, **options
        )
        return [item for item, _ in items]

    result = run(tmp_path, function=fail)
    assert sorted(result.failures) == ["a", "b"]
    assert all(type(error).__name__ in each for each in result.failures.values())
    assert outcomes("map", [1, 3]) == [3]
    with pytest.raises(milepost.OutageError, match=type(error).__name__):
        outcomes("out", [1, 2], give_up_after=2)


def test_what_the_function_raises_is_still_its_own(tmp_path: Path) -> None:
    def fail(batch: Any) -> Any:
        raise BrokenExecutor("a pool of its own")

    result = run(tmp_path, "threads", function=fail, attempts=1, give_up_after=0)
    assert sorted(result.failures) == KEYS


def test_a_thread_that_cannot_be_started_is_no_batchs_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name.startswith("milepost-map"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="start new thread"):
            run(tmp_path, in_loop=True)
    goes_on(tmp_path)


def cannot_start() -> None:
    raise OSError("no database")


def threads_that_cannot_start() -> Executor:
    return ThreadPoolExecutor(2, initializer=cannot_start)


def processes_that_cannot_start() -> Executor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=cannot_start)


@pytest.mark.parametrize(
    ("make", "workers", "in_loop"),
    [
        (threads_that_cannot_start, 1, False),
        (threads_that_cannot_start, 3, False),
        (threads_that_cannot_start, 3, True),
        (processes_that_cannot_start, 2, False),
    ],
)
def test_one_whose_workers_cannot_start_fails_no_batch(
    tmp_path: Path, make: Callable[[], Executor], workers: int, in_loop: bool
) -> None:
    with pytest.raises(milepost.ConfigurationError, match="workers cannot start"):
        run(tmp_path, make, workers=workers, in_loop=in_loop)
    goes_on(tmp_path)


@pytest.mark.parametrize("make", [threads_that_cannot_start, processes_that_cannot_start])
def test_a_map_over_one_whose_workers_cannot_start_fails_no_item(
    tmp_path: Path, make: Callable[[], Executor]
) -> None:
    items = milepost.map(str, KEYS, "map", store=tmp_path, executor=make, workers=2, progress=False)
    with pytest.raises(milepost.ConfigurationError, match="workers cannot start"):
        next(items)
    again = milepost.map(str, KEYS, "map", store=tmp_path, progress=False)
    assert sorted(item for item, _ in again) == KEYS
    assert not again.failed


def test_a_batch_that_breaks_what_can_start_is_poison(tmp_path: Path) -> None:
    """The workers of this one die of batch b only, and never of a call that does nothing."""

    class Dying(Fake):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            if any(getattr(each, "key", "") == "b" for each in args):
                future.set_exception(BrokenExecutor("a worker died"))
            else:
                future.set_result(fn(*args, **kwargs))
            return future

    result = run(tmp_path, lambda: Dying(lambda _: None))
    assert result.completed == len(KEYS) - 1
    assert list(result.failures) == ["b"]
    assert "poison: its worker process died 3 times in a row" in result.failures["b"]


def killed() -> Fake:
    """One whose workers the signal ends that stops the run, as one to the whole group does."""

    def end(future: Future[Any]) -> None:
        signal.raise_signal(signal.SIGTERM)
        future.set_exception(BrokenExecutor("a worker died"))

    return Fake(end)


@pytest.mark.parametrize("is_lent", [True, False])
def test_after_a_stop_a_break_begins_nothing_anew(tmp_path: Path, *, is_lent: bool) -> None:
    made: list[Fake] = []

    def make() -> Fake:
        made.append(killed())
        return made[-1]

    with pytest.raises(SystemExit):
        run(tmp_path, make() if is_lent else make, workers=1)
    assert [len(each.calls) for each in made] == [1]
    goes_on(tmp_path)


def test_a_map_begins_no_item_before_its_executor_is_made(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot fork"):
        for _ in milepost.map(
            str, [1], "work", store=tmp_path, executor=fail_to_make, progress=False
        ):
            pass
    assert not any(batch.items_known for batch in state_of(tmp_path).active_batches.values())


@pytest.mark.parametrize("is_lent", [True, False])
def test_after_a_stop_a_break_is_no_item_s_fault(tmp_path: Path, *, is_lent: bool) -> None:
    one_death = milepost.RecoveryConfig(max_recovery_attempts=1)
    with pytest.raises(SystemExit):
        for _ in milepost.map(
            str,
            [1],
            "work",
            store=milepost.Store(tmp_path, recovery=one_death),
            executor=killed() if is_lent else killed,
            progress=False,
        ):
            pass
    again = milepost.map(str, [1], "work", store=tmp_path, progress=False)
    assert [result for _, result in again] == ["1"]


def test_a_stop_of_another_session_in_a_body_stops_the_run(tmp_path: Path) -> None:
    """What its worker had in hand must not hold up the others."""
    other = milepost.Store(tmp_path / "other").session("other")
    runs: list[str] = []

    def body(batch: milepost.Batch) -> None:
        runs.append(batch.key)
        if batch.key == "a":  # one alone, for the session closes with it
            with other:
                other.request_stop()
                for _ in other.start_batch("b").items([1]):
                    pass

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", function=body, workers=1)
    for in_loop in (False, True):
        other = milepost.Store(tmp_path / f"other-{in_loop}").session("other")
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "s", function=body, in_loop=in_loop)
        assert milepost.Store(tmp_path / "s").load_progress("work").outcome is None
    assert runs


# At the end.


class Closing(Executor):
    """An executor of threads that notes how it was shut down."""

    def __init__(self, waited: list[bool]) -> None:
        self._inner = ThreadPoolExecutor(2)
        self._waited = waited

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._inner.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._waited.append(wait)
        self._inner.shutdown(wait, cancel_futures=cancel_futures)


def test_workers_with_nothing_in_hand_end_by_themselves(tmp_path: Path) -> None:
    waited: list[bool] = []
    run(tmp_path, lambda: Closing(waited))
    assert waited == [True]


def test_calls_that_wait_in_a_lent_one_never_begin_after_the_run(tmp_path: Path) -> None:
    is_first = threading.Semaphore(1)

    def end(future: Future[Any]) -> None:
        if is_first.acquire(blocking=False):
            future.set_exception(SystemExit(5))

    lent = Fake(end)
    with pytest.raises(SystemExit):
        run(tmp_path, lent, workers=len(KEYS))
    assert all(each.done() for each in lent.calls)
    goes_on(tmp_path)


# After the end.


def test_a_run_that_has_ended_hands_nothing_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call fails, which is an outage; the second hangs until the run has ended."""
    monkeypatch.setattr(workers_module, "GRACE_SECONDS", 0.05)
    made: list[Fake] = []
    both = threading.Barrier(2)

    def end(future: Future[Any]) -> None:
        if both.wait(PATIENCE_SECONDS) == 0:
            future.set_exception(ValueError("it"))

    def make() -> Fake:
        made.append(Fake(end))
        return made[-1]

    with pytest.raises(milepost.OutageError):
        run(tmp_path, make, attempts=1, give_up_after=1)
    left = [each for each in threading.enumerate() if each.name.startswith("milepost-worker")]
    for thread in left:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert len(made) == 1
    assert len(made[0].calls) == 2


# Outages.


@pytest.mark.parametrize("is_async", [False, True])
def test_what_was_in_hand_at_an_outage_is_pending_again(tmp_path: Path, is_async: bool) -> None:
    count, limit = 6, 3
    together = threading.Barrier(count)
    begun = 0

    def fail(batch: milepost.Batch) -> None:
        together.wait(PATIENCE_SECONDS)
        raise ConnectionError("down")

    async def fail_async(batch: milepost.Batch) -> None:
        nonlocal begun
        begun += 1
        while begun < count:  # noqa: ASYNC110  # all of them are tasks of one loop
            await asyncio.sleep(0)
        raise ConnectionError("down")

    job = milepost.job(
        "work",
        batches=[f"{number}" for number in range(count)],
        workers=count,
        attempts=1,
        give_up_after=limit,
        store=tmp_path,
    )(fail_async if is_async else fail)
    for _ in range(4):  # more runs than a failed batch is tried in
        begun = 0
        with pytest.raises(milepost.OutageError):
            job.run(progress=False)
        assert not state_of(tmp_path).failed_batches


def test_what_is_in_hand_at_an_outage_may_still_end_in_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_module, "GRACE_SECONDS", PATIENCE_SECONDS)
    is_met = threading.Event()
    note = Outage.note

    def noting(outage: Outage, numbers: Any) -> None:
        try:
            note(outage, numbers)
        except milepost.OutageError:
            is_met.set()
            raise

    monkeypatch.setattr(Outage, "note", noting)

    @milepost.job("work", batches=KEYS[:3], workers=3, attempts=1, give_up_after=2, store=tmp_path)
    async def job(batch: milepost.Batch) -> None:
        if batch.key != "c":
            raise ConnectionError("down")
        while not is_met.is_set():  # noqa: ASYNC110  # it is set in a thread
            await asyncio.sleep(0.01)

    with pytest.raises(milepost.OutageError):
        job.run(progress=False)
    state = state_of(tmp_path)
    assert [each.batch_id for each in state.completed_batches.values()] == ["c"]
    assert not state.failed_batches


# Functions that are not what their code is.

DECORATORS = """
    import functools

    def plain(function):
        @functools.wraps(function)
        def call(*args):
            return function(*args)
        return call

    cached = functools.lru_cache
"""

DECORATED = """
    import decorators, milepost

    @milepost.job("work", batches=["a", "b"], executor="processes")
    @decorators.{how}
    def work(batch):
        return [(f"item of {{batch.key}}", milepost.ItemStatus.COMPLETED)]
"""

RUN_A_FILE = """
    import importlib.util, os, sys

    if __name__ == "__main__":
        file = os.path.join(os.path.dirname(__file__), "a.job.py")
        spec = importlib.util.spec_from_file_location("milepost_job_a", file)
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        result = module.work.run(store=sys.argv[1], progress=False)
        print(result.exit_code, result.completed, result.failures)
"""


@pytest.mark.parametrize("how", ["plain", "cached"])
def test_a_decorated_function_is_found_in_its_own_file(tmp_path: Path, how: str) -> None:
    (tmp_path / "decorators.py").write_text(textwrap.dedent(DECORATORS))
    (tmp_path / "a.job.py").write_text(textwrap.dedent(DECORATED.format(how=how)))
    assert told(tmp_path, RUN_A_FILE).split(maxsplit=2)[:2] == ["0", "2"]


# Functions that only look as if they worked.


FLAKY = """
import os, milepost

if not os.path.exists({flag!r}):
    open({flag!r}, "w").close()
    {first}

@milepost.job("flaky", batches=["a"], store={store!r})
def ingest(batch):
    return []
"""


@pytest.mark.parametrize(
    ("first", "error"),
    [("raise ConnectionError('down')", ConnectionError), ("import no_such_thing", ImportError)],
)
def test_a_file_whose_first_import_fails_is_read_anew(
    tmp_path: Path, first: str, error: type[Exception]
) -> None:
    file, flag = tmp_path / "my-job.py", tmp_path / "flag"
    file.write_text(FLAKY.format(flag=str(flag), first=first, store=str(tmp_path / "s")))
    name = f"milepost_job_{error.__name__}"
    function = remote._ByName(name, "ingest", str(file))
    task = milepost.RemoteBatch(key="a", number=0, label="a", payload=None)
    with pytest.raises(error):
        function(task)
    try:
        assert function(task) == []
    finally:
        del sys.modules[name]


async def coroutine(batch: Any) -> None: ...


def generator(batch: Any) -> Iterator[Any]:
    yield batch.key, COMPLETED


async def async_generator(batch: Any) -> AsyncIterator[Any]:
    yield batch.key, COMPLETED


@pytest.mark.parametrize("how", ["here", "in a loop", "threads", "async def"])
@pytest.mark.parametrize("hidden", [coroutine, generator, async_generator])
def test_a_function_that_returns_what_has_yet_to_be_run_fails(
    tmp_path: Path, hidden: Callable[[Any], Any], how: str
) -> None:
    def plain(batch: Any) -> Any:
        return hidden(batch)

    async def waiting(batch: Any) -> Any:
        return hidden(batch)

    result = run(
        tmp_path,
        "threads" if how == "threads" else None,
        function=waiting if how == "async def" else plain,
        in_loop=how == "in a loop",
        give_up_after=0,
    )
    assert sorted(result.failures) == KEYS
    kind = hidden.__name__.replace("_", " ")
    assert (
        f"the function of batch 'a' returned a{'n' * (kind[0] == 'a')} {kind}, so nothing"
        in (result.failures["a"])
    )


# A cluster.

SILENT = """
    import socket, sys
    import milepost
    from milepost.work import executors

    executors.DASK_SECONDS = 0.5
    with socket.create_server(("127.0.0.1", 0)) as server:  # it accepts, and never answers
        address = f"dask://127.0.0.1:{server.getsockname()[1]}"
        job = milepost.job("work", batches=["a"], store=sys.argv[1], executor=address)(print)
        try:
            job.run(progress=False)
        except milepost.ConfigurationError as error:
            print(error)
"""

STOPPED = """
    import os, signal, sys, threading, time
    import milepost

    STORE = sys.argv[1]
    KEYS = ["a", "b", "c"]

    def work(batch):
        with open(f"{STORE}-{batch.key}", "a") as begun:
            begun.write(f"{os.getpid()}\\n")
        if batch.key == "a" and len(pids("a")) == 1:  # its first call: until it is stopped
            while not os.path.exists(f"{STORE}-stopped"):
                time.sleep(0.01)
        return [(f"item of {batch.key}", milepost.ItemStatus.COMPLETED)]

    def pids(key):
        try:
            with open(f"{STORE}-{key}") as begun:
                return begun.read().splitlines()
        except FileNotFoundError:
            return []

    def stop():
        while not pids("a"):
            time.sleep(0.01)
        victim = int(pids("a")[0])
        os.kill(victim, signal.SIGSTOP)
        with open(f"{STORE}-stopped", "w"):
            pass
        while len(pids("a")) < 2:
            time.sleep(0.01)
        os.kill(victim, signal.SIGCONT)  # its result comes late

    if __name__ == "__main__":
        import dask, distributed

        dask.config.set({"distributed.scheduler.worker-ttl": "1s"})
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        )
        with cluster:
            threading.Thread(target=stop, daemon=True).start()
            address = cluster.scheduler_address.replace("tcp://", "dask://")
            job = milepost.job("work", batches=KEYS, workers=3, store=STORE, executor=address)(work)
            result = job.run(progress=False)
            state = milepost.Store(STORE).load_progress("work")
            print(result.exit_code, len(set(pids("a"))), state.total_items_processed)
"""


def told(folder: Path, program: str) -> str:
    """What a program says; in one of its own, as what Dask warns of is no error there."""
    script = folder / "program.py"
    script.write_text(textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "store")],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_scheduler_that_accepts_and_never_answers(tmp_path: Path) -> None:
    assert "no Dask scheduler answers at 127.0.0.1:" in told(tmp_path, SILENT)
    assert not state_of(tmp_path / "store").active_batches


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP here")
def test_the_late_result_of_a_lost_worker_counts_once(tmp_path: Path) -> None:
    exit_code, workers, items = told(tmp_path, STOPPED).split()
    assert (exit_code, items) == ("0", "3")
    assert int(workers) >= 2
