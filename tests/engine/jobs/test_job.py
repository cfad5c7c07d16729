"""A job: batches of items, tries, workers, runs one after another."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import Backoff, Batch, ItemStatus, Job, Outcome, SessionStatus
from milepost.journal.writer import JournalWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

AT_ONCE = Backoff(first_seconds=0.0)


def make(function: Callable[[Batch], None], store: Path, **options: Any) -> Job[[Batch], None]:
    options.setdefault("batches", ["a", "b", "c"])
    return milepost.job("work", store=store, backoff=AT_ONCE, **options)(function)


def code_of(region: dict[str, Any]) -> Any:
    return region["code"]


def run(job: Job[[Batch], None], **options: Any) -> milepost.JobResult:
    return job.run(progress=False, **options)


def view(store: Path) -> milepost.View:
    return milepost.Store(store).view("work")


@pytest.mark.parametrize("workers", [1, 4])
def test_every_batch_once_and_nothing_again(tmp_path: Path, workers: int) -> None:
    seen: list[str] = []
    job = make(lambda batch: seen.append(batch.key), tmp_path, workers=workers)
    result = run(job)
    assert sorted(seen) == ["a", "b", "c"]
    assert (result.exit_code, result.completed, result.outcome) == (0, 3, Outcome.COMPLETED)
    result.raise_for_failures()
    again = run(job)
    assert again.did_nothing
    assert again.exit_code == 0
    assert len(seen) == 3


def test_the_decorated_function_stays_callable() -> None:
    @milepost.job("work", batches=["a"])
    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    assert double(4) == 8
    assert double.__doc__ == "Twice the number."
    assert repr(double) == "<Job 'work'>"


def test_a_batch_knows_what_it_is_about(tmp_path: Path) -> None:
    seen: list[tuple[str, int, str, Any]] = []
    make(
        lambda batch: seen.append((batch.key, batch.number, batch.label, batch.payload)),
        tmp_path,
        batches=lambda: [{"code": 11110, "name": "종로구"}, {"code": 11140, "name": "중구"}],
        key=code_of,
    ).run(progress=False)
    assert seen == [
        ("11110", 0, "종로구", {"code": 11110, "name": "종로구"}),
        ("11140", 1, "중구", {"code": 11140, "name": "중구"}),
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failed_batch_is_recorded_and_the_run_goes_on(tmp_path: Path, workers: int) -> None:
    def work(batch: Batch) -> None:
        if batch.key == "b":
            raise ValueError("bad data")

    result = run(make(work, tmp_path, workers=workers))
    assert result.exit_code == 3
    assert result.failures == {"b": "ValueError: bad data"}
    assert result.completed == 2
    with pytest.raises(milepost.JobFailedError, match="bad data") as caught:
        result.raise_for_failures()
    assert caught.value.failures == result.failures
    assert view(tmp_path).judgement.status is SessionStatus.FAILED


def test_recoverable_errors_are_tried_again_and_every_try_is_recorded(tmp_path: Path) -> None:
    tries: list[str] = []

    def work(batch: Batch) -> None:
        tries.append(batch.key)
        if batch.key == "b" and tries.count("b") < 3:
            raise ConnectionResetError("the line broke")

    result = run(make(work, tmp_path, attempts=3))
    assert result.exit_code == 0
    assert tries == ["a", "b", "b", "b", "c"]
    failed = [
        event
        for event in milepost.Store(tmp_path).events("work")
        if type(event).__name__ == "BatchAttemptFailed"
    ]
    assert len(failed) == 2


def test_tries_end_and_mistakes_get_none(tmp_path: Path) -> None:
    tries: list[str] = []

    def work(batch: Batch) -> None:
        tries.append(batch.key)
        raise TimeoutError if batch.key == "a" else KeyError(batch.key)

    run(make(work, tmp_path, attempts=2, batches=["a", "b"]))
    assert tries == ["a", "a", "b"]


def test_failed_batches_come_last_in_three_runs_and_then_wait_for_retry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = True
    seen: list[str] = []

    def work(batch: Batch) -> None:
        seen.append(batch.key)
        if batch.key == "a" and broken:
            raise ConnectionError("the service is down")

    job = make(work, tmp_path, attempts=1)
    assert [run(job).exit_code for _ in range(3)] == [3, 3, 3]
    assert seen == ["a", "b", "c", "a", "a"]
    assert job.run().did_nothing
    assert f"milepost retry work --store {tmp_path}" in capsys.readouterr().err
    failed = view(tmp_path).state.failed_batches[0]
    assert failed.retry_count == 3
    assert failed.error_type is milepost.BatchErrorType.NETWORK_ERROR
    assert milepost.Store(tmp_path).retry("work").batches == ["a"]
    assert view(tmp_path).judgement.status is SessionStatus.PENDING
    broken = False
    assert run(job).exit_code == 0
    assert view(tmp_path).judgement.status is SessionStatus.COMPLETED


def test_items_go_on_inside_an_interrupted_batch(tmp_path: Path) -> None:
    seen: list[str] = []
    raising = True

    def work(batch: Batch) -> None:
        with batch.items([f"{batch.key}{n}" for n in range(4)]) as items:
            for item in items:
                seen.append(item)
                if item == "b2" and raising:
                    raise SystemExit(1)

    job = make(work, tmp_path)
    with pytest.raises(SystemExit):
        run(job)
    assert view(tmp_path).judgement.status is SessionStatus.INTERRUPTED
    assert view(tmp_path).state.active_batches[1].items_processed == 2
    raising = False
    assert run(job).exit_code == 0
    assert seen[:7] == ["a0", "a1", "a2", "a3", "b0", "b1", "b2"]
    assert seen[7:] == ["b2", "b3", "c0", "c1", "c2", "c3"]


def test_an_item_that_failed_for_good_fails_its_batch_and_keeps_the_rest(tmp_path: Path) -> None:
    def work(batch: Batch) -> None:
        for item in ("x", "y", "z"):
            failed = batch.key == "b" and item == "y"
            batch.update_item(
                item,
                milepost.ItemStatus.FAILED if failed else milepost.ItemStatus.COMPLETED,
                "HTTP 420" if failed else None,
            )

    result = run(make(work, tmp_path))
    assert list(result.failures) == ["b"]
    assert "HTTP 420" in result.failures["b"]
    partial = view(tmp_path).state.failed_batches[1].partial_progress
    assert (partial.items_processed, partial.items_failed) == (2, 1)


def test_a_body_may_end_its_batch_itself(tmp_path: Path) -> None:
    def work(batch: Batch) -> None:
        if batch.key == "b":
            batch.fail("not today", recoverable=False)
        else:
            batch.complete()

    result = run(make(work, tmp_path))
    assert result.failures == {"b": "not today"}


def test_the_plan_is_frozen(tmp_path: Path) -> None:
    asked: list[int] = []
    seen: list[str] = []

    def regions() -> list[str]:
        asked.append(1)
        return ["a", "b"] if len(asked) == 1 else ["x"]

    def work(batch: Batch) -> None:
        seen.append(batch.key)
        if batch.key == "b" and seen.count("b") == 1:
            raise KeyboardInterrupt

    job = make(work, tmp_path, batches=regions)
    with pytest.raises(KeyboardInterrupt):
        run(job)
    assert view(tmp_path).judgement.status is SessionStatus.STOPPED
    run(job)
    assert len(asked) == 1
    assert seen == ["a", "b", "b"]


def test_a_failure_while_the_plan_is_made_starts_it_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def regions() -> Any:
        asked.append(1)
        yield "a"
        if len(asked) == 1:
            raise ConnectionError("the listing broke off")
        yield "b"

    seen: list[str] = []
    job = make(lambda batch: seen.append(batch.key), tmp_path, batches=regions)
    with pytest.raises(ConnectionError):
        run(job)
    assert seen == []
    assert run(job).completed == 2
    assert seen == ["a", "b"]


def test_extend_adds_what_is_new_and_keeps_the_rest(tmp_path: Path) -> None:
    listed = ["a", "b"]
    seen: list[str] = []
    job = make(
        lambda batch: seen.append(batch.key), tmp_path, batches=lambda: listed, plan="extend"
    )
    run(job)
    listed[:] = ["c", "b"]
    result = run(job)
    assert seen == ["a", "b", "c"]
    assert result.completed == 3
    assert run(job).did_nothing


def test_two_batches_with_one_key_are_an_error_before_any_work(tmp_path: Path) -> None:
    seen: list[str] = []
    job = make(lambda batch: seen.append(batch.key), tmp_path, batches=["a", "b", "a"])
    with pytest.raises(milepost.ConfigurationError, match="'a'"):
        run(job)
    assert seen == []


def test_a_batch_without_a_key_and_a_payload_that_cannot_be_stored(tmp_path: Path) -> None:
    with pytest.raises(milepost.ConfigurationError, match="dict"):
        run(make(lambda _: None, tmp_path / "1", batches=[{"code": 1}]))
    bad = [{"code": "a", "where": object()}]
    with pytest.raises(milepost.EncodingError, match=r"batch 'a'.*where"):
        run(make(lambda _: None, tmp_path / "2", batches=bad, key=code_of))


def test_an_empty_plan_completes_and_is_not_asked_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def regions() -> list[str]:
        asked.append(1)
        return []

    job = make(lambda _: None, tmp_path, batches=regions)
    assert run(job).exit_code == 0
    assert run(job).did_nothing
    assert len(asked) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"attempts": 0},
        {"workers": True},
        {"total": -1},
        {"plan": "melted"},
        {"when_complete": "again"},
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(milepost.ConfigurationError):
        make(lambda _: None, tmp_path / "s", **options)
    with pytest.raises(milepost.ConfigurationError):
        run(make(lambda _: None, tmp_path / "s"), **options)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("options", [{"batches": None}, {"batches": 5}, {"key": "id"}])
def test_arguments_of_a_wrong_kind_are_refused_at_once(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(options))}.* not "):
        make(lambda _: None, tmp_path / "s", **options)


def test_a_function_that_lists_no_batches_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"what a function for them returns.* not None"):
        run(make(lambda _: None, tmp_path, batches=lambda: None))
    assert run(make(lambda _: None, tmp_path)).completed == 3


def test_the_total_is_known_while_the_batches_are_still_listed(tmp_path: Path) -> None:
    seen: list[int | None] = []

    def regions() -> Any:
        for key in "ab":
            seen.append(milepost.Store(tmp_path).load_progress("work").total_batches)
            yield key

    assert run(make(lambda _: None, tmp_path, batches=regions, total=5)).completed == 2
    assert seen == [5, 5]
    assert view(tmp_path).state.total_batches == 2  # the plan knows better
    assert run(make(lambda _: None, tmp_path, batches=regions), total=9).did_nothing
    assert view(tmp_path).state.total_batches == 2


def test_the_decorator_says_what_is_shown_unless_the_run_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    @contextlib.contextmanager
    def show(session: milepost.Session) -> Generator[None]:
        shown.append(session.name)
        yield

    job = make(lambda _: None, tmp_path, progress=show)
    job.run()
    assert shown == ["work"]
    assert "NEW" in capsys.readouterr().err
    run(job, when_complete="restart")
    assert shown == ["work"]
    assert capsys.readouterr().err == ""


def test_workers_really_run_at_once_and_each_batch_once(tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=20)
    seen: list[str] = []

    def work(batch: Batch) -> None:
        if batch.number < 4:
            together.wait()
        seen.append(batch.key)

    keys = [str(n) for n in range(40)]
    assert run(make(work, tmp_path, workers=4, batches=keys)).completed == 40
    assert sorted(seen, key=int) == keys


def test_results_of_many_workers_share_syncs(tmp_path: Path) -> None:
    def work(batch: Batch) -> None:
        for n in range(5):
            batch.update_item(n, milepost.ItemStatus.COMPLETED)

    keys = [str(n) for n in range(60)]
    result = run(make(work, tmp_path, workers=8, batches=keys))
    assert result.statistics.total_items_processed == 300
    state = view(tmp_path).state
    assert milepost.check(state) == []
    assert len(state.completed_batches) == 60


@pytest.mark.parametrize("workers", [1, 4])
def test_an_error_of_the_store_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def full(*_: object) -> None:
        monkeypatch.undo()
        raise milepost.StorageFullError("no room left", operation="write", path="journal")

    def work(batch: Batch) -> None:
        if batch.key == "a":
            monkeypatch.setattr(JournalWriter, "append", full)
            batch.update_item("x", ItemStatus.COMPLETED)

    with pytest.raises(milepost.StorageFullError):
        run(make(work, tmp_path, workers=workers))
    found = view(tmp_path)
    assert found.judgement.status is SessionStatus.INTERRUPTED
    assert found.state.failed_batches == {}
    assert run(make(lambda _: None, tmp_path, workers=workers)).outcome is Outcome.COMPLETED


def test_an_error_of_another_store_is_the_bodys(tmp_path: Path) -> None:
    def work(batch: Batch) -> None:
        if batch.key == "a":
            raise milepost.StorageFullError("no room left", operation="write", path="elsewhere")

    result = run(make(work, tmp_path, attempts=1))
    assert list(result.failures) == ["a"]


def test_a_store_may_be_named_when_it_is_run(tmp_path: Path) -> None:
    job = make(lambda _: None, tmp_path / "declared")
    run(job, store=tmp_path / "given")
    assert not (tmp_path / "declared").exists()
    assert milepost.Store(tmp_path / "given").names() == ["work"]


def test_when_complete(tmp_path: Path) -> None:
    seen: list[str] = []
    job = make(lambda batch: seen.append(batch.key), tmp_path, batches=["a"])
    run(job)
    with pytest.raises(milepost.UnfinishedError):
        run(job, when_complete="error")
    run(job, when_complete="restart")
    assert seen == ["a", "a"]
    assert view(tmp_path).state.restarts == 1


def script(tmp_path: Path, workers: int) -> str:
    return textwrap.dedent(
        f"""
        import milepost, os, time

        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        @milepost.job("work", batches=[str(n) for n in range(8)], workers={workers}, store="s")
        def work(batch):
            with batch.items([f"{{batch.key}}-{{n}}" for n in range(20)]) as items:
                for item in items:
                    time.sleep(0.005)
                    os.write(log, f"{{item}}\\n".encode())  # whole lines, from every thread

        work.run(progress=False)
        """
    )


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(("signal_name", "code"), [("SIGINT", (130, -2)), ("SIGTERM", (143,))])
def test_a_signal_lets_every_worker_finish_its_item(
    tmp_path: Path, workers: int, signal_name: str, code: tuple[int, ...]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(script(tmp_path, workers))
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, str(program)], cwd=tmp_path) as started:
        deadline = time.monotonic() + 60
        while not log.exists() or log.read_text().count("\n") < 10:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        started.send_signal(getattr(signal, signal_name))
        assert started.wait(timeout=60) in code
    done = log.read_text().split()
    assert len(done) < 160
    state = milepost.Store(tmp_path / "s").load_progress("work")
    assert state.total_items_processed == len(done)  # finished items are acknowledged, all of them
    stopped = signal_name == "SIGINT"
    expected = SessionStatus.STOPPED if stopped else SessionStatus.INTERRUPTED
    assert view(tmp_path / "s").judgement.status is expected
    subprocess.run([sys.executable, str(program)], cwd=tmp_path, check=True, timeout=60)
    done = log.read_text().split()
    assert len(done) == len(set(done)) == 160


@pytest.mark.parametrize("workers", [1, 2])
def test_a_body_that_exits_ends_the_run_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    def work(batch: Batch) -> None:
        if batch.key == "b":
            sys.exit(3)

    with pytest.raises(SystemExit) as caught:
        make(work, tmp_path, workers=workers).run()
    assert caught.value.code == 3
    assert "batch 'b' called for the end of the program: SystemExit(3)" in capsys.readouterr().err
    found = view(tmp_path)
    assert found.judgement.status is SessionStatus.INTERRUPTED
    assert [each.batch_id for each in found.state.active_batches.values()] == ["b"]
    assert run(make(lambda _: None, tmp_path)).completed == 3


def test_a_worker_that_does_not_end_is_left_behind(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import milepost, os, signal, threading, time
            import milepost.jobs.runner as runner
            import milepost.jobs.signals as signals
            runner.GRACE_SECONDS = signals.GRACE_SECONDS = 0.3

            @milepost.job("work", batches=["a", "b"], workers=2, store="s")
            def work(batch):
                os.kill(os.getpid(), signal.SIGINT) if batch.key == "b" else None
                time.sleep(30)

            work.run(progress=False)
            """
        )
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, capture_output=True, check=False, timeout=60
    )
    assert done.returncode in {130, -2}, done.stderr
    assert time.monotonic() - began < 25
    assert view(tmp_path / "s").judgement.status is SessionStatus.STOPPED
    assert len(view(tmp_path / "s").state.active_batches) == 2


def test_a_plan_of_very_many_batches(tmp_path: Path) -> None:
    count = 1_000_000
    seen: list[str] = []

    def work(batch: Batch) -> None:
        seen.append(batch.key)
        if len(seen) == 3:
            raise KeyboardInterrupt

    job = make(work, tmp_path, batches=lambda: (str(n) for n in range(count)))
    with pytest.raises(KeyboardInterrupt):
        run(job)
    state = view(tmp_path).state
    assert state.total_batches == count
    assert [part.count for part in state.plan] == [200_000] * 5
    with pytest.raises(KeyboardInterrupt):
        seen[:] = ["", ""]
        run(job)
    assert seen[2] == "2"


def test_a_generator_function_is_no_job() -> None:
    def generator(batch: Batch) -> Any:
        yield batch

    async def asynchronous(batch: Batch) -> Any:
        yield batch

    for function in (generator, asynchronous):
        with pytest.raises(milepost.ConfigurationError, match="generator function"):
            milepost.job("work", batches=["a"])(function)
