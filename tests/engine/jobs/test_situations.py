"""The table of situations, row by row: what milepost does when something happens.

Each row has a test of its name here, as small as it can be; what there is to say beyond that is
tested where it belongs.
"""

from __future__ import annotations

import collections
import gc
import itertools
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import Backoff, ItemStatus, SessionStatus
from support.consumers import refused_in_a_thread
from support.faults import die, in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE_SECONDS = 60.0
AT_ONCE = Backoff(first_seconds=0.0)
needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="a death in the middle needs a fork"
)


def loop(source: Any, store: Path, **options: Any) -> milepost.Items[Any]:
    return milepost.resume(source, "work", store=store, **options)


def all_of(items: Any) -> list[Any]:
    found: list[Any] = []
    for item in items:
        found.append(item)
    return found


def status(store: Path) -> SessionStatus:
    gc.collect()
    return milepost.Store(store).view("work").judgement.status


def state(store: Path) -> milepost.SessionState:
    return milepost.Store(store).load_progress("work")


def job(function: Callable[[milepost.Batch], None], store: Path, **options: Any) -> Any:
    options.setdefault("batches", ["a", "b", "c"])
    return milepost.job("work", store=store, backoff=AT_ONCE, attempts=1, **options)(function)


def program(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    script = folder / "program.py"
    script.write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


# Exception or `break` in a plain loop.


def raise_on_b(store: Path) -> None:
    for item in loop("abc", store):
        if item == "b":
            raise RuntimeError("the body failed")


def test_exception_in_a_plain_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError):
            raise_on_b(tmp_path)
        assert status(tmp_path) is SessionStatus.INTERRUPTED
    assert "catching" in capsys.readouterr().err
    assert all_of(loop("abc", tmp_path)) == ["b", "c"]


def test_break_in_a_plain_loop(tmp_path: Path) -> None:
    for item in loop("abc", tmp_path):
        if item == "b":
            break
    assert status(tmp_path) is SessionStatus.STOPPED
    assert all_of(loop("abc", tmp_path)) == ["b", "c"]


def test_exception_inside_with(tmp_path: Path) -> None:
    def body() -> None:
        with loop("abc", tmp_path) as items:
            for _ in items:
                raise TimeoutError("too slow")

    with pytest.raises(TimeoutError):
        body()
    assert state(tmp_path).active_batches[0].open["a"].error_message == "TimeoutError: too slow"


@needs_fork
def test_the_process_dies(tmp_path: Path) -> None:
    def once(tell: Callable[[bytes], None]) -> None:
        for item in loop("abc", tmp_path, progress=False):
            tell(item.encode())
            if item == "b":
                die()

    told = [in_child(once).told for _ in range(4)]
    assert told == [b"ab", b"b", b"b", b"c"]  # three deaths, then it is passed over
    failed = state(tmp_path).failed_batches[0].partial_progress.open
    assert failed["b"].error_message is not None
    assert "poison" in failed["b"].error_message


@pytest.mark.parametrize(
    ("name", "codes", "expected"),
    [
        ("SIGINT", {130, -signal.SIGINT}, SessionStatus.STOPPED),
        ("SIGTERM", {143}, SessionStatus.INTERRUPTED),
    ],
    ids=["ctrl_c", "sigterm"],
)
def test_signal_finishes_the_item_in_hand(
    tmp_path: Path, name: str, codes: set[int], expected: SessionStatus
) -> None:
    ended = program(
        tmp_path,
        f"""
        import milepost, os, signal
        for item in milepost.resume("abc", "work", store="s"):
            if item == "b":
                os.kill(os.getpid(), signal.{name})
            print(item, flush=True)
        """,
    )
    assert ended.returncode in codes
    assert ended.stdout.split() == ["a", "b"]
    assert status(tmp_path / "s") is expected
    assert all_of(loop("abc", tmp_path / "s")) == ["c"]


def test_second_ctrl_c_at_once(tmp_path: Path) -> None:
    ended = program(
        tmp_path,
        """
        import milepost, os, signal, time
        for item in milepost.resume("abc", "work", store="s"):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        """,
    )
    assert ended.returncode in {130, -signal.SIGINT}
    assert all_of(loop("abc", tmp_path / "s")) == ["a", "b", "c"]


def test_handlers_are_set_in_the_main_thread_only_and_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for _ in loop("a", tmp_path):
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    thread = threading.Thread(target=lambda: all_of(loop("ab", tmp_path)))
    thread.start()
    thread.join()
    assert state(tmp_path).total_items_processed == 2


def test_any_item_failed_for_good_in_a_batch(tmp_path: Path) -> None:
    def body(batch: milepost.Batch) -> None:
        with batch.items(range(3)) as items:
            for item in items:
                if (batch.key, item) == ("b", 1):
                    items.fail(TypeError("a mistake"))

    result = job(body, tmp_path).run()
    assert result.exit_code == 3
    assert (result.completed, list(result.failures)) == (2, ["b"])
    assert state(tmp_path).failed_batches[1].partial_progress.items_processed == 2


def test_a_plain_loop_ends_with_failed_items(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = loop("abc", tmp_path)
    for item in items:
        with items.catching():
            if item == "b":
                raise TypeError("a mistake")
    assert status(tmp_path) is SessionStatus.FAILED
    told = capsys.readouterr().err
    assert "ended with 1 failed item, 2 completed" in told
    assert "work: failed: b: TypeError: a mistake" in told


def test_run_again_with_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def once(source: str) -> list[str]:
        seen: list[str] = []
        items = loop(source, tmp_path)
        for item in items:
            seen.append(item)
            if item == "b":
                items.fail(TimeoutError("too slow"))
        return seen

    assert [once("ab"), once("abc"), once("abc"), once("abc")] == [
        ["a", "b"],
        ["c", "b"],  # first what is pending
        ["b"],
        [],  # in three runs, and no more
    ]
    assert "milepost retry" in capsys.readouterr().err
    milepost.Store(tmp_path).retry("work")
    assert all_of(loop("abc", tmp_path)) == ["b"]


def test_run_again_after_completion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    all_of(loop("ab", tmp_path))
    capsys.readouterr()
    assert all_of(loop("ab", tmp_path)) == []
    said = capsys.readouterr().err
    assert "complete since" in said
    assert "milepost restart work" in said
    assert job(lambda _: None, tmp_path / "j").run().exit_code == 0
    again = job(lambda _: None, tmp_path / "j").run()
    assert (again.exit_code, again.did_nothing) == (0, True)


@pytest.mark.parametrize("kind", ["loop", "map", "job"])
def test_params_differ(tmp_path: Path, kind: str) -> None:
    def once(params: Any) -> None:
        if kind == "loop":
            all_of(loop("ab", tmp_path, params=params))
        elif kind == "map":
            all_of(milepost.map(str, "ab", "work", store=tmp_path, params=params))
        else:
            job(lambda _: None, tmp_path, params=params).run()

    once({"model": "small", "size": 4})
    once({"model": "small", "size": 4})
    with pytest.raises(milepost.ParametersChangedError, match="large") as caught:
        once({"model": "large", "size": 4})
    assert "size" not in str(caught.value)
    assert "restart" in caught.value.hint


def test_plan_frozen(tmp_path: Path) -> None:
    asked: list[str] = []

    def batches() -> list[str]:
        asked.append("again")
        return ["a", "b", "c"][: len(asked) + 1]

    def stop(_: milepost.Batch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job(stop, tmp_path, batches=batches).run()
    assert job(lambda _: None, tmp_path, batches=batches).run().completed == 2
    assert len(asked) == 1
    assert job(lambda _: None, tmp_path, batches=batches, plan="extend").run().completed == 3


def test_source_of_a_keyed_loop_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    all_of(loop("abc", tmp_path))
    assert all_of(loop("dbe", tmp_path)) == ["d", "e"]  # also in a completed session
    assert "2 keys of earlier runs no longer in the source" in capsys.readouterr().err


def test_source_of_a_loop_by_position_changed(tmp_path: Path) -> None:
    all_of(loop("abc", tmp_path, key="position"))
    with pytest.raises(milepost.InputChangedError):
        all_of(loop("axcd", tmp_path, key="position"))
    assert all_of(loop("abcd", tmp_path, key="position")) == ["d"]


def test_duplicate_keys_in_a_plan(tmp_path: Path) -> None:
    with pytest.raises(milepost.ConfigurationError, match="'a'"):
        job(lambda _: None, tmp_path, batches=["a", "b", "a"]).run()


def test_duplicate_keys_in_items(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert all_of(loop("abab", tmp_path)) == ["a", "b"]
    assert "2 duplicate keys passed over" in capsys.readouterr().err


@pytest.mark.parametrize("item", [True, 1.5, None, b"a", {"id": 1}])
def test_item_neither_str_nor_int_and_no_key(tmp_path: Path, item: Any) -> None:
    with pytest.raises(TypeError, match="text or a whole number"):
        all_of(loop([item, "a"], tmp_path))
    assert state(tmp_path).active_batches[0].items_known == 0


def test_one_and_the_text_one_are_two_keys(tmp_path: Path) -> None:
    assert all_of(loop([1, "1"], tmp_path)) == [1, "1"]


def test_save_state_alone(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path)
    store.save_state("work", {"cursor": 41})
    status = milepost.RecoveryService(store).analyze("work")
    assert status == milepost.NoRecoveryNeeded(detail="it holds data alone")
    assert store.load_state("work") == {"cursor": 41}


def test_session_batches(tmp_path: Path) -> None:
    def body() -> None:
        with milepost.Store(tmp_path).session("work") as session:
            for batch in session.batches(["a", "b", "c"]):
                if batch.key == "b":
                    raise RuntimeError

    with pytest.raises(RuntimeError):
        body()
    found = state(tmp_path)
    assert list(found.completed_batches) == [0]
    assert [each.batch_id for each in found.active_batches.values()] == ["b"]


# `list(resume(x))`, a prefetching consumer, another thread pulling.


def unpacked(items: Any) -> Any:
    return [*items]


def by_threads(how: str) -> Callable[[Any], Any]:
    def consume(items: Any) -> Any:
        from multiprocessing.pool import ThreadPool

        with ThreadPool(2) as pool:
            return list(getattr(pool, how)(str, items))

    return consume


REFUSED: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "tuple": tuple,
    "sorted": sorted,
    "star": unpacked,
    "pool_map": by_threads("map"),
    "pool_imap": by_threads("imap"),
}


@pytest.mark.parametrize("consume", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("shape", ["resume", "map", "chunk", "position"])
def test_a_consumer_that_pulls_ahead_is_refused(
    tmp_path: Path, consume: Callable[[Any], Any], shape: str
) -> None:
    made: dict[str, Callable[[], Any]] = {
        "resume": lambda: loop(range(5), tmp_path),
        "map": lambda: milepost.map(str, range(5), "work", store=tmp_path),
        "chunk": lambda: loop(range(5), tmp_path, chunk=2),
        "position": lambda: loop(range(5), tmp_path, key="position"),
    }
    items = made[shape]()
    with pytest.raises(milepost.ConsumerError):
        consume(items)
    items.close()
    assert not tmp_path.joinpath("sessions").exists() or not state(tmp_path).total_items_processed


def by_tqdm(items: Any) -> list[Any]:
    tqdm: Any = pytest.importorskip("tqdm")
    return all_of(tqdm.tqdm(items, disable=False))


def by_enumerate(items: Any) -> list[Any]:
    return [item for _, item in enumerate(items)]


def by_zip(items: Any) -> list[Any]:
    return [item for item, _ in zip(items, itertools.count(), strict=False)]


def by_comprehension(items: Any) -> list[Any]:
    return [item for item in items]  # noqa: C416  # a loop, and not list()


def by_generator(items: Any) -> list[Any]:
    return all_of(item for item in items)


FINE = [by_enumerate, by_zip, by_tqdm, by_comprehension, by_generator]


@pytest.mark.parametrize("consume", FINE)
def test_a_consumer_that_pulls_one_by_one_is_fine(
    tmp_path: Path, consume: Callable[[Any], list[Any]]
) -> None:
    assert consume(loop(range(5), tmp_path)) == [*range(5)]
    assert status(tmp_path) is SessionStatus.COMPLETED


def by_groups(items: Any) -> Any:
    """`itertools.batched`, which an old Python does not have."""
    found: list[Any] = []
    while group := [each for each in itertools.islice(items, 2)]:  # noqa: C416  # the same
        found.append(group)
    return found


def by_islice(items: Any) -> Any:
    return list[Any](itertools.islice(items, 5))


def by_set(items: Any) -> Any:
    return set(items)


def by_deque(items: Any) -> Any:
    return collections.deque(items)


def by_list_of_enumerate(items: Any) -> Any:
    return list[Any](enumerate[Any](items))


def by_executor(items: Any) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        return [*pool.map(str, items)]


def by_gather(items: Any) -> Any:
    import asyncio

    async def work(item: int) -> int:
        return item

    async def main() -> list[int]:
        return await asyncio.gather(*[work(item) for item in items])

    return asyncio.run(main())


UNSEEN = [by_groups, by_islice, by_executor, by_gather, by_set, by_deque, by_list_of_enumerate]


@pytest.mark.parametrize("consume", UNSEEN)
def test_what_cannot_be_seen_is_what_the_page_says(
    tmp_path: Path, consume: Callable[[Any], Any]
) -> None:
    """Should one of these be refused one day, docs/consumers.md is to say so."""
    items = loop(range(5), tmp_path)
    assert len(consume(items)) in {3, 5}
    items.close()
    assert state(tmp_path).total_items_processed >= 4


def test_chunk_and_map_are_the_way(tmp_path: Path) -> None:
    assert all_of(loop(range(5), tmp_path / "c", chunk=2)) == [[0, 1], [2, 3], [4]]
    assert len(all_of(milepost.map(str, range(5), "work", store=tmp_path / "m"))) == 5


def test_another_thread_pulling(tmp_path: Path) -> None:
    items = loop("abc", tmp_path)
    assert refused_in_a_thread(items)


def test_iterator_left_suspended_then_opened_again(tmp_path: Path) -> None:
    old = loop("abc", tmp_path)
    next(old)
    assert all_of(loop("abc", tmp_path)) == ["a", "b", "c"]
    with pytest.raises(milepost.SupersededError):
        next(old)


@pytest.mark.parametrize("shape", ['resume("abc"', 'map(str, "abc"'])
def test_interpreter_exit_closes_cleanly(tmp_path: Path, shape: str) -> None:
    ended = program(
        tmp_path,
        f"""
        import milepost
        items = milepost.{shape}, "work", store="s", progress=False)
        next(items)
        """,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert status(tmp_path / "s") is SessionStatus.STOPPED


@needs_fork
def test_use_after_fork(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("a")

        def child(tell: Callable[[bytes], None]) -> None:
            try:
                batch.update_item("x", ItemStatus.COMPLETED)
            except milepost.ClosedError:
                tell(b"refused ")
            for name in os.listdir("/proc/self/fd"):
                try:
                    if os.readlink(f"/proc/self/fd/{name}").startswith(str(tmp_path)):
                        tell(b"open ")
                except OSError:
                    continue

        assert in_child(child).told == b"refused "
        batch.update_item("x", ItemStatus.COMPLETED)


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_store_folder_moved_or_deleted_while_in_use(tmp_path: Path, how: str) -> None:
    store = tmp_path / "store"
    session = milepost.Store(store).session("work")
    batch = session.start_batch("a")
    if how == "moved":
        store.rename(tmp_path / "elsewhere")
    else:
        shutil.rmtree(store)
    with pytest.raises(milepost.MilepostError):
        batch.complete()
    with pytest.raises(milepost.MilepostError):
        session.close()
    assert not store.exists()


# More than one loop, and signals.


def test_ctrl_c_stops_a_loop_and_the_loop_in_its_body(tmp_path: Path) -> None:
    ended = program(
        tmp_path,
        """
        import milepost, os, signal
        for outer in milepost.resume("ab", "work", store="s"):
            for inner, _ in milepost.map(str, range(9), "inner", store="s", workers=1):
                os.kill(os.getpid(), signal.SIGINT)
            print("never", flush=True)
        """,
    )
    assert ended.returncode in {130, -signal.SIGINT}
    assert ended.stdout == ""
    assert status(tmp_path / "s") is SessionStatus.STOPPED
    inner = milepost.Store(tmp_path / "s").view("inner")
    assert inner.judgement.status is SessionStatus.STOPPED
    assert inner.state.total_items_processed >= 1


def test_ctrl_c_stops_the_loop_that_took_the_place_of_a_suspended_one(tmp_path: Path) -> None:
    ended = program(
        tmp_path,
        """
        import milepost, os, signal
        old = milepost.resume("abc", "work", store="s")
        next(old)
        for item in milepost.resume("abc", "work", store="s"):
            os.kill(os.getpid(), signal.SIGINT)
            print(item, flush=True)
        """,
    )
    assert ended.returncode in {130, -signal.SIGINT}
    assert ended.stdout.split() == ["a"]
    assert all_of(loop("abc", tmp_path / "s")) == ["b", "c"]


def test_a_loop_that_was_dropped_in_another_thread_swallows_no_ctrl_c(tmp_path: Path) -> None:
    held = [loop("abc", tmp_path)]
    next(held[0])
    thread = threading.Thread(target=held.clear)  # as a collector does, in whatever thread it runs
    thread.start()
    thread.join()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert all_of(loop("abc", tmp_path)) == ["a", "b", "c"]


def test_loops_that_end_in_any_order_put_the_handlers_back(tmp_path: Path) -> None:
    for order in itertools.permutations(range(3)):
        loops = [
            milepost.resume(
                "ab", f"{number}", store=tmp_path, progress=False, when_complete="restart"
            )
            for number in range(3)
        ]
        for each in loops:
            next(each)
        for number in order:
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
            loops[number].close()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
