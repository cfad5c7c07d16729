"""A plain loop that survives, row by row of what it promises."""

from __future__ import annotations

import contextlib
import copy
import gc
import signal
import subprocess
import sys
import textwrap
import threading
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import ItemStatus, Outcome, SessionStatus
from milepost.session.writer import Writer
from support.consumers import refused_in_a_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def status(store: Path, name: str = "crawl") -> SessionStatus:
    return milepost.Store(store).view(name).judgement.status


def id_of(item: dict[str, int]) -> int:
    return item["id"]


def run_all(store: Path, source: Any, **options: Any) -> list[Any]:
    done: list[Any] = []
    for item in milepost.resume(source, "crawl", store=store, progress=False, **options):
        done.append(item)
    return done


def test_all_items_once(tmp_path: Path) -> None:
    assert run_all(tmp_path / "s", ["a", "b", "c"]) == ["a", "b", "c"]
    assert run_all(tmp_path / "s", ["a", "b", "c"]) == []
    assert status(tmp_path / "s") is SessionStatus.COMPLETED


def test_an_exception_leaves_the_item_in_hand_unacknowledged(tmp_path: Path) -> None:
    def crash() -> None:
        for item in milepost.resume("abcd", "crawl", store=tmp_path / "s", progress=False):
            if item == "c":
                raise RuntimeError("the body failed")

    with pytest.raises(RuntimeError, match="the body failed"):
        crash()
    view = milepost.Store(tmp_path / "s").view("crawl")
    assert view.judgement.status is SessionStatus.INTERRUPTED
    assert view.state.executions[-1].outcome is Outcome.INTERRUPTED
    assert view.state.executions[-1].in_flight == [(0, "c")]
    assert run_all(tmp_path / "s", "abcd") == ["c", "d"]


def test_an_exit_in_the_body_names_the_item_in_hand(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import sys, milepost
        for item in milepost.resume("abcd", "crawl", store="s"):
            if item == "c":
                sys.exit(4)
        """,
    )
    assert done.returncode == 4
    assert "item 'c' in hand" in done.stderr
    assert status(tmp_path / "s") is SessionStatus.INTERRUPTED
    assert run_all(tmp_path / "s", "abcd") == ["c", "d"]


def test_an_exit_with_a_chunk_in_hand_says_so_in_one_line(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import sys, milepost
        for chunk in milepost.resume("abcd", "crawl", store="s", chunk=3):
            sys.exit(4)
        """,
    )
    assert done.returncode == 4
    assert "left with 3 items in hand, item 'a' first; they run again" in done.stderr
    assert done.stderr.count("in hand") == 1


def test_break_stops_and_the_rerun_starts_with_the_item_in_hand(tmp_path: Path) -> None:
    for item in milepost.resume("abcd", "crawl", store=tmp_path / "s", progress=False):
        if item == "b":
            break
    assert status(tmp_path / "s") is SessionStatus.STOPPED
    assert run_all(tmp_path / "s", "abcd") == ["b", "c", "d"]


def test_a_loop_that_is_left_closes_now_and_not_at_some_garbage_collection(tmp_path: Path) -> None:
    gc.disable()
    try:
        for _ in milepost.resume("ab", "crawl", store=tmp_path / "s", progress=False):
            break
        assert status(tmp_path / "s") is SessionStatus.STOPPED
    finally:
        gc.enable()


def test_return_from_a_loop_stops_like_break(tmp_path: Path) -> None:
    def first() -> str:
        for item in milepost.resume("abcd", "crawl", store=tmp_path / "s", progress=False):
            return item
        return ""

    assert first() == "a"
    assert status(tmp_path / "s") is SessionStatus.STOPPED


def test_a_keyboard_interrupt_in_the_body_stops(tmp_path: Path) -> None:
    def body() -> None:
        with milepost.resume("ab", "crawl", store=tmp_path / "s", progress=False) as items:
            for _ in items:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        body()
    assert status(tmp_path / "s") is SessionStatus.STOPPED


def test_an_exception_inside_with_is_recorded_on_the_item(tmp_path: Path) -> None:
    def body() -> None:
        with milepost.resume("abc", "crawl", store=tmp_path / "s", progress=False) as items:
            for item in items:
                if item == "b":
                    raise TimeoutError("too slow")

    with pytest.raises(TimeoutError):
        body()
    state = milepost.Store(tmp_path / "s").load_progress("crawl")
    item = state.active_batches[0].open["b"]
    assert item.status is ItemStatus.FAILED
    assert item.error_message == "TimeoutError: too slow"
    assert item.error_type is milepost.BatchErrorType.TIMEOUT_ERROR


def fail_on_b(store: Path, seen: list[str]) -> None:
    with milepost.resume("abc", "crawl", store=store, progress=False) as items:
        for item in items:
            seen.append(item)
            if item == "b":
                raise TimeoutError("too slow")


def test_failed_items_come_after_pending_ones_in_three_runs_and_then_wait(tmp_path: Path) -> None:
    runs: list[list[str]] = []
    for _ in range(4):
        seen: list[str] = []
        with contextlib.suppress(TimeoutError):
            fail_on_b(tmp_path / "s", seen)
        runs.append(seen)
    assert runs == [["a", "b"], ["c", "b"], ["b"], []]
    assert status(tmp_path / "s") is SessionStatus.FAILED
    milepost.Store(tmp_path / "s").retry("crawl", keys=["b"])
    assert run_all(tmp_path / "s", "abc") == ["b"]
    assert status(tmp_path / "s") is SessionStatus.COMPLETED


def test_what_cannot_be_tried_again_waits_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        with milepost.resume("ab", "crawl", store=tmp_path / "s") as items:
            for item in items:
                if item == "a":
                    raise ValueError("bad data")

    with pytest.raises(ValueError, match="bad data"):
        body()
    done: list[str] = []
    for item in milepost.resume("ab", "crawl", store=tmp_path / "s"):
        done.append(item)
    assert done == ["b"]
    told = capsys.readouterr().err
    assert "ended with 1 failed item" in told
    assert "milepost retry crawl" in told
    assert status(tmp_path / "s") is SessionStatus.FAILED


def test_an_item_that_raised_before_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        for item in milepost.resume("ab", "crawl", store=tmp_path / "s"):
            if item == "b":
                raise RuntimeError

    for _ in range(2):
        with pytest.raises(RuntimeError):
            body()
    assert "item 'b' raised in the run before" in capsys.readouterr().err


def test_every_start_says_new_or_resumed_and_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for item in milepost.resume("abc", "crawl", store=tmp_path / "s"):
        if item == "b":
            break
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"milepost: crawl: NEW in {tmp_path / 's'}"
    for _ in milepost.resume("abc", "crawl", store=tmp_path / "s"):
        pass
    told = capsys.readouterr().err
    assert f"resumed with 1 item done, from {tmp_path / 's'}" in told
    assert "complete, 3 items" in told
    for _ in milepost.resume("abc", "crawl", store=tmp_path / "s"):
        pass
    assert "complete since" in capsys.readouterr().err


def test_duplicates_run_once_and_are_counted(tmp_path: Path) -> None:
    items = milepost.resume(["a", "b", "a", "a"], "crawl", store=tmp_path / "s", progress=False)
    done: list[str] = []
    for item in items:
        done.append(item)
    assert done == ["a", "b"]
    assert items.duplicates == 2
    again = milepost.resume(["a", "b", "a", "c"], "crawl", store=tmp_path / "s", progress=False)
    done = []
    for item in again:
        done.append(item)
    assert done == ["c"]
    assert again.duplicates == 1


def test_new_keys_run_and_vanished_ones_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all(tmp_path / "s", ["a", "b"])
    done: list[str] = []
    for item in milepost.resume(["b", "c"], "crawl", store=tmp_path / "s"):
        done.append(item)
    assert done == ["c"]
    assert "1 key of earlier runs no longer in the source" in capsys.readouterr().err


def test_failed_items_put_back_and_gone_from_the_source_do_not_keep_the_loop_from_its_end(
    tmp_path: Path,
) -> None:
    with contextlib.suppress(TimeoutError):
        fail_on_b(tmp_path / "s", [])
    run_all(tmp_path / "s", "ac")
    store = milepost.Store(tmp_path / "s")
    assert store.retry("crawl").items == 1
    assert run_all(tmp_path / "s", "ac") == []
    assert status(tmp_path / "s") is SessionStatus.COMPLETED
    assert store.load_progress("crawl").pending_batches == {}


def test_one_and_the_text_one_are_two_keys(tmp_path: Path) -> None:
    assert run_all(tmp_path / "s", [1, "1", 2]) == [1, "1", 2]


@pytest.mark.parametrize("bad", [None, 1.5, True, ("a", 1), {"id": 1}, b"x"])
def test_an_item_that_is_no_key_is_a_type_error_before_any_work(tmp_path: Path, bad: Any) -> None:
    done: list[Any] = []
    with pytest.raises(TypeError, match="text or a whole number") as caught:
        for item in milepost.resume([bad, "a"], "crawl", store=tmp_path / "s", progress=False):
            done.append(item)
    assert done == []
    assert any("key=" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("source", "options"),
    [(5, {}), (None, {}), (str.upper, {}), (["a"], {"key": "id"}), (["a"], {"total": -1})],
)
def test_arguments_that_cannot_be_leave_nothing_in_the_store(
    tmp_path: Path, source: Any, options: dict[str, Any]
) -> None:
    with pytest.raises((TypeError, ValueError), match=r" not | must be "):
        milepost.resume(source, "crawl", store=tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


class OldSequence:
    """What could be looped over before there was `__iter__`."""

    def __getitem__(self, index: int) -> str:
        return "ab"[index]


def test_everything_a_for_loop_takes_is_a_source(tmp_path: Path) -> None:
    for name, source in {"1": "ab", "2": iter("ab"), "3": dict.fromkeys("ab")}.items():
        assert run_all(tmp_path / name, source) == ["a", "b"]
    assert run_all(tmp_path / "4", OldSequence()) == ["a", "b"]


def test_a_key_function(tmp_path: Path) -> None:
    source = [{"id": 1}, {"id": 2}]
    assert run_all(tmp_path / "s", source, key=id_of) == source
    assert run_all(tmp_path / "s", source, key=id_of) == []


def test_restart_and_error_when_complete(tmp_path: Path) -> None:
    run_all(tmp_path / "s", "ab")
    with pytest.raises(milepost.UnfinishedError, match="complete since"):
        run_all(tmp_path / "s", "ab", when_complete="error")
    assert run_all(tmp_path / "s", "ab", when_complete="restart") == ["a", "b"]
    with pytest.raises(milepost.ConfigurationError, match="when_complete"):
        run_all(tmp_path / "s", "ab", when_complete="again")


def leave_found(store: Path, when_complete: Any = "stop") -> None:
    """A run that ends while another loop has what was found on the way in hand."""
    with milepost.resume(["a", "b"], "crawl", store=store, when_complete=when_complete) as items:
        for item in items:
            if item == "a":
                items.add_many(["c", "d"])
                items.session.batch(0).update_item("c", ItemStatus.PROCESSING)


def test_what_was_found_and_is_not_done_is_told_and_run_next_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_found(tmp_path)
    assert status(tmp_path) is SessionStatus.FAILED
    told = capsys.readouterr().err
    assert "crawl: ended with 3 completed\n" in told
    assert "crawl: 1 item found on the way not done; to do it, run it again\n" in told
    assert run_all(tmp_path, ["a", "b"]) == ["c"]
    assert status(tmp_path) is SessionStatus.COMPLETED


def test_what_a_body_does_to_an_item_changes_nothing_that_is_recorded(tmp_path: Path) -> None:
    def crawl(found: list[Any], *, changes: bool) -> None:
        empty: list[Any] = []
        with milepost.resume(empty, "crawl", store=tmp_path, progress=False) as items:
            if changes:
                items.add({"url": "a", "tags": []}, key="a")
            for item in items:
                found.append(copy.deepcopy(item))
                if changes:
                    item["tags"].append(object())
                    items.session.snapshot()
                    raise ConnectionError("down")

    found: list[Any] = []
    with pytest.raises(ConnectionError):
        crawl(found, changes=True)
    crawl(found, changes=False)
    assert found == [{"url": "a", "tags": []}] * 2


def test_what_a_body_does_to_a_payload_changes_nothing_that_is_recorded(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b", payload={"url": "a"})
        batch.payload["page"] = object()
        session.snapshot()
        assert session.batch(0).payload == {"url": "a"}


class Unshown(contextlib.AbstractContextManager[Any]):
    """A progress display whose end raises."""

    def __exit__(self, *_: object) -> None:
        raise OSError("no terminal")


@pytest.mark.parametrize("is_raised", [True, False])
def test_a_display_that_cannot_end_keeps_no_session_open(
    tmp_path: Path, *, is_raised: bool
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def shown(_: Any) -> Unshown:
        return Unshown()

    items = milepost.resume("ab", "crawl", store=tmp_path, progress=shown)
    with pytest.raises(ValueError if is_raised else OSError), items:
        for _ in items:
            if is_raised:
                raise ValueError("a")
    assert signal.getsignal(signal.SIGINT) == before
    assert run_all(tmp_path, "ab") == (["b"] if is_raised else [])


def test_a_file_that_is_a_source_is_not_closed_by_a_loop_that_is_left(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("a\nb\nc\n")
    with open(tmp_path / "lines", encoding="utf-8") as lines:
        for _ in milepost.resume(lines, "crawl", store=tmp_path / "s", progress=False):
            break
        assert list(lines) == ["b\n", "c\n"]


def test_a_skip_with_a_reason_that_is_no_text(tmp_path: Path) -> None:
    skip: Any = milepost.Skip
    with milepost.resume("a", "crawl", store=tmp_path, progress=False) as items:
        for _ in items:
            with items.catching():
                raise skip(404)
    assert run_all(tmp_path, "a") == []


@pytest.mark.parametrize("when_complete", ["restart", "error"])
def test_what_was_found_is_put_back_first_where_an_end_is_an_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], when_complete: str
) -> None:
    leave_found(tmp_path, when_complete)
    told = capsys.readouterr().err
    retry = f"milepost retry crawl --store {tmp_path}"
    assert f"not done; to do it, {retry}, and run it again\n" in told
    with pytest.raises(milepost.UnfinishedError, match="ended with failures") as caught:
        run_all(tmp_path, ["a", "b"], when_complete="error")
    assert f"to try them again: {retry};" in (caught.value.hint or "")
    milepost.Store(tmp_path).retry("crawl")
    assert run_all(tmp_path, ["a", "b"], when_complete=when_complete) == ["c"]


def test_an_empty_source_completes(tmp_path: Path) -> None:
    assert run_all(tmp_path / "s", []) == []
    assert status(tmp_path / "s") is SessionStatus.COMPLETED


def test_a_source_that_raises_keeps_what_was_done(tmp_path: Path) -> None:
    def source() -> Iterator[str]:
        yield "a"
        yield "b"
        raise ConnectionError("the listing broke off")

    with pytest.raises(ConnectionError):
        run_all(tmp_path / "s", source())
    assert milepost.Store(tmp_path / "s").load_progress("crawl").total_items_processed == 2
    assert run_all(tmp_path / "s", "abc") == ["c"]


def test_a_slow_source_is_asked_only_after_the_item_is_acknowledged(tmp_path: Path) -> None:
    seen: list[int] = []

    def source() -> Iterator[str]:
        for item in "abc":
            state = milepost.Store(tmp_path / "s").load_progress("crawl")
            seen.append(state.total_items_processed)
            yield item

    run_all(tmp_path / "s", source())
    assert seen == [0, 1, 2]


# Consumers.


def star(items: Any) -> None:
    [*items]  # noqa: B018  # pyright: ignore[reportUnusedExpression]  # it raises


def star_call(items: Any) -> None:
    print(*items)


def contains(items: Any) -> bool:
    return "a" in items


CONSUMERS: list[Any] = [list, tuple, sorted, star, star_call, contains, "".join]


@pytest.mark.parametrize("consume", CONSUMERS, ids=lambda consume: str(consume.__name__))
def test_consumers_that_pull_all_at_once_are_refused(tmp_path: Path, consume: Any) -> None:
    items = milepost.resume("abc", "crawl", store=tmp_path / "s", progress=False)
    with pytest.raises(milepost.ConsumerError):
        consume(items)
    items.close()
    assert run_all(tmp_path / "s", "abc") == ["a", "b", "c"]


def test_unpacking_is_refused(tmp_path: Path) -> None:
    items = milepost.resume("abc", "crawl", store=tmp_path / "s", progress=False)
    with pytest.raises(milepost.ConsumerError):
        _a, _b, _c = items
    items.close()


def test_another_thread_is_refused(tmp_path: Path) -> None:
    items = milepost.resume("abc", "crawl", store=tmp_path / "s", progress=False)
    assert next(items) == "a"
    assert refused_in_a_thread(items)
    items.close()
    assert run_all(tmp_path / "s", "abc") == ["a", "b", "c"]


@pytest.mark.parametrize("how", ["map", "imap", "imap_unordered"])
def test_pools_that_pull_ahead_are_refused(tmp_path: Path, how: str) -> None:
    with ThreadPool(2) as pool:
        items = milepost.resume("abc", "crawl", store=tmp_path / "s", progress=False)
        with pytest.raises(milepost.ConsumerError):
            list(getattr(pool, how)(str.upper, items))
        items.close()
    assert run_all(tmp_path / "s", "abc") == ["a", "b", "c"]


@pytest.mark.parametrize("how", ["map", "imap", "imap_unordered"])
def test_pools_of_processes_end_with_the_refusal_and_do_not_hang(tmp_path: Path, how: str) -> None:
    done = run_script(
        tmp_path,
        f"""
        import multiprocessing, milepost
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                for _ in pool.{how}(abs, milepost.resume(range(10), "crawl", store="s")):
                    raise AssertionError("nothing may come")
        """,
    )
    assert done.returncode == 1
    assert "ConsumerError" in done.stderr
    assert not (tmp_path / "s").exists()


def test_consumers_that_pull_one_by_one_are_fine(tmp_path: Path) -> None:
    source = ["a", "b", "c"]
    seen: list[Any] = []
    for index, item in enumerate(
        milepost.resume(source, "crawl", store=tmp_path / "1", progress=False)
    ):
        seen.append((index, item))
    for item, number in zip(
        milepost.resume(source, "crawl", store=tmp_path / "2", progress=False),
        range(3),
        strict=False,
    ):
        seen.append((item, number))
    assert seen == [(0, "a"), (1, "b"), (2, "c"), ("a", 0), ("b", 1), ("c", 2)]
    done = [item.upper() for item in milepost.resume("xy", "x", store=tmp_path / "1")]
    assert done == ["X", "Y"]


def test_a_length_hint_from_elsewhere_refuses_nothing(tmp_path: Path) -> None:
    import operator

    items = milepost.resume(["a", "b"], "crawl", store=tmp_path / "s", progress=False)
    assert operator.length_hint(items) == 2
    seen: list[str] = []
    for item in items:
        seen.append(item)
    assert seen == ["a", "b"]


# One process, several iterators.


def test_a_suspended_iterator_gives_way_to_a_new_one(tmp_path: Path) -> None:
    old = milepost.resume("abc", "crawl", store=tmp_path / "s", progress=False)
    assert next(old) == "a"
    assert run_all(tmp_path / "s", "abc") == ["a", "b", "c"]
    with pytest.raises(milepost.SupersededError):
        next(old)


def test_another_thread_of_the_process_is_locked_out(tmp_path: Path) -> None:
    with milepost.Store(tmp_path / "s").session("crawl"):
        caught: list[BaseException] = []

        def open_too() -> None:
            try:
                milepost.Store(tmp_path / "s").session("crawl")
            except milepost.AlreadyLockedError as error:
                caught.append(error)

        thread = threading.Thread(target=open_too)
        thread.start()
        thread.join()
        assert len(caught) == 1


# Whole programs.


def run_script(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(body))
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_interpreter_exit_closes_a_suspended_loop_cleanly(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import milepost
        items = milepost.resume("abc", "crawl", store="s")
        next(items)
        """,
    )
    assert done.returncode == 0, done.stderr
    assert status(tmp_path / "s") is SessionStatus.STOPPED


def test_a_named_iterator_in_a_program_that_died_of_an_exception_is_interrupted(
    tmp_path: Path,
) -> None:
    done = run_script(
        tmp_path,
        """
        import milepost
        items = milepost.resume("abc", "crawl", store="s")
        for item in items:
            raise RuntimeError("boom")
        """,
    )
    assert done.returncode == 1
    assert "boom" in done.stderr
    assert status(tmp_path / "s") is SessionStatus.INTERRUPTED


def test_ctrl_c_finishes_the_item_in_hand(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import milepost, os, signal, time
        for item in milepost.resume("abcd", "crawl", store="s"):
            if item == "b":
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            print(item, flush=True)
        """,
    )
    assert done.returncode in {130, -2}
    assert done.stdout.split() == ["a", "b"]
    assert status(tmp_path / "s") is SessionStatus.STOPPED
    assert run_all(tmp_path / "s", "abcd") == ["c", "d"]


def test_a_second_ctrl_c_drops_the_item_in_hand_at_once(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import milepost, os, signal, time
        for item in milepost.resume("abcd", "crawl", store="s"):
            if item == "b":
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(30)
            print(item, flush=True)
        """,
    )
    assert done.stdout.split() == ["a"]
    assert status(tmp_path / "s") is SessionStatus.STOPPED
    assert run_all(tmp_path / "s", "abcd") == ["b", "c", "d"]


def test_an_item_that_does_not_end_is_dropped_after_the_grace(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import milepost, os, signal, time
        import milepost.jobs.signals as signals
        signals.GRACE_SECONDS = 0.3
        for item in milepost.resume("abcd", "crawl", store="s"):
            if item == "b":
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(30)
            print(item, flush=True)
        """,
    )
    assert done.stdout.split() == ["a"]
    assert status(tmp_path / "s") is SessionStatus.STOPPED


def test_sigterm_finishes_the_item_in_hand_and_exits_143(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import milepost, os, signal
        for item in milepost.resume("abcd", "crawl", store="s"):
            if item == "b":
                os.kill(os.getpid(), signal.SIGTERM)
            print(item, flush=True)
        """,
    )
    assert done.returncode == 143
    assert done.stdout.split() == ["a", "b"]
    assert status(tmp_path / "s") is SessionStatus.INTERRUPTED


def test_handlers_of_the_program_are_left_alone_and_ours_are_put_back(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import milepost, signal
        mine = lambda *_: None
        signal.signal(signal.SIGTERM, mine)
        for item in milepost.resume("ab", "crawl", store="s"):
            assert signal.getsignal(signal.SIGTERM) is mine
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        """,
    )
    assert done.returncode == 0, done.stderr


def test_an_item_that_met_a_full_disk_did_not_raise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals: list[milepost.StorageFullError] = []
    plain = Writer.commit

    def commit(*given: Any, **options: Any) -> None:
        if refusals:
            raise refusals.pop()
        plain(*given, **options)

    monkeypatch.setattr(Writer, "commit", commit)

    def work() -> None:
        for item in milepost.resume("abc", "crawl", store=tmp_path / "s"):
            if item == "b":
                refusals[:] = coming

    coming = [milepost.StorageFullError("no space left on device")]
    with pytest.raises(milepost.StorageFullError):
        work()
    coming.clear()
    capsys.readouterr()
    work()
    assert "raised in the run before" not in capsys.readouterr().err
