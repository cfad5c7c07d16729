"""What `JobConfig` changes: off, another name, another word, no carrying on by itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import Batch, JobConfig, SessionStatus
from milepost.jobs.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def searching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings come from the folder of the test, and what is off works in a folder of its own."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with milepost.searching_from(tmp_path):
        yield


def says(folder: Path, text: str) -> None:
    (folder / "milepost.toml").write_text(text)


def left(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "temporary"))


def idle(batch: Batch) -> None:
    """A batch with nothing in it."""


def stop(batch: Batch) -> None:
    raise KeyboardInterrupt


def unfinished(store: Path, name: str = "work") -> None:
    with pytest.raises(KeyboardInterrupt):
        milepost.job(name, batches=["a", "b"], store=store)(stop).run(progress=False)


# Off.


@pytest.mark.parametrize("runs_in_loop", [False, True])
def test_a_job_that_is_off_works_the_same_and_keeps_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], runs_in_loop: bool
) -> None:
    says(tmp_path, "\nenabled = false\n")
    seen: list[str] = []
    folders: list[list[str]] = []

    @milepost.job("work", batches=["a", "b"], store=tmp_path / "s")
    def work(batch: Batch) -> None:
        batch.add_many("xy")
        with batch.items() as items:
            seen.extend(f"{batch.key}{item}" for item in items)
        folders.append(left(tmp_path))
        if batch.key == "b":
            raise ValueError("bad data")

    for _ in range(2):
        result = asyncio.run(work.run_async()) if runs_in_loop else work.run()
        assert (result.exit_code, result.completed, result.store) == (3, 1, "")
        with pytest.raises(milepost.JobFailedError) as caught:
            result.raise_for_failures()
        assert "milepost is off" in caught.value.hint
        assert left(tmp_path) == []
    assert seen == ["ax", "ay", "bx", "by"] * 2, "a second run begins anew"
    assert all(len(each) == 1 for each in folders)
    assert not (tmp_path / "s").exists()
    said = capsys.readouterr().err
    where = f"{tmp_path / 'milepost.toml'}:2"
    assert said.count(f"work: milepost is OFF (enabled = false in {where}): nothing is kept") == 2
    assert "NEW in" not in said
    assert "milepost retry" not in said


def test_it_says_so_also_where_it_is_told_to_be_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILEPOST_ENABLED", "off")
    loop = milepost.resume(["a", "b"], "loop", store=tmp_path / "s", progress=False)
    assert [item for item in loop] == ["a", "b"]  # noqa: C416  # a loop, and no list() of it
    said = capsys.readouterr().err
    expected = (
        "milepost: loop: milepost is OFF (enabled = false in $MILEPOST_ENABLED): nothing is kept,"
        " and a killed run begins anew"
    )
    assert said.splitlines() == [expected]


@pytest.mark.parametrize("way", ["end", "break", "raise", "with"])
def test_a_loop_that_is_off_leaves_nothing_however_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("MILEPOST_ENABLED", "0")
    for _ in range(2):
        loop = milepost.resume(["a", "b"], "loop", store=tmp_path / "s")
        seen: list[str] = []
        try:
            if way == "with":
                with loop as items:
                    for item in items:
                        seen.append(item)
                        raise RuntimeError("wrong")
            for item in loop:
                seen.append(item)
                assert len(left(tmp_path)) == 1
                if way == "break":
                    break
                if way == "raise":
                    raise RuntimeError("wrong")
        except RuntimeError:
            pass
        loop.close()
        assert seen == (["a", "b"] if way == "end" else ["a"])
        assert left(tmp_path) == []
    assert not (tmp_path / "s").exists()


def test_a_map_that_is_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILEPOST_ENABLED", "0")
    for _ in range(2):
        results = milepost.map(str.upper, ["a", "b"], "m", store=tmp_path / "s")
        assert {item: len(left(tmp_path)) for item, _ in results} == {"a": 1, "b": 1}
        assert left(tmp_path) == []
    assert not (tmp_path / "s").exists()


def test_what_was_done_before_stays_as_it_was(tmp_path: Path) -> None:
    unfinished(tmp_path / "s")
    before = milepost.Store(tmp_path / "s").load_progress("work")
    says(tmp_path, "enabled = false")
    job = milepost.job("work", batches=["a", "b"], store=tmp_path / "s")(idle)
    assert job.run().completed == 2
    assert milepost.Store(tmp_path / "s").load_progress("work") == before


def test_one_job_alone_is_off_and_code_can_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    says(tmp_path, '[job."one"]\nenabled = false')

    def run(name: str, config: JobConfig | None = None) -> str:
        job = milepost.job(name, batches=["a"], store=tmp_path / name, config=config)
        job(idle).run(progress=False)
        return capsys.readouterr().err

    assert f"OFF (enabled = false in {tmp_path / 'milepost.toml'}:2)" in run("one")
    assert run("two") == ""
    assert "OFF (enabled = false in the job's own config)" in run("x", JobConfig(enabled=False))
    monkeypatch.setenv("MILEPOST_ENABLED", "yes")
    assert run("one") == ""
    assert run("y", JobConfig(enabled=False)) == "", "the environment goes before the code"


SCRIPT = """
    import os, milepost
    loop = milepost.resume(["a", "b"], "loop", store="s")
    for item in loop:
        print(len(os.listdir(os.environ["TMPDIR"])), flush=True)
        if os.fork() == 0:
            raise SystemExit  # a child that ends as programs do
        os.wait()
        print(len(os.listdir(os.environ["TMPDIR"])), flush=True)
        raise SystemExit("left")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_end_of_the_interpreter_leaves_nothing_and_that_of_a_child_takes_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.py").write_text(textwrap.dedent(SCRIPT))
    says(tmp_path, "enabled = false")
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    ran = subprocess.run(
        [sys.executable, "x.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.stdout.split() == ["1", "1"], ran.stderr
    assert f"enabled = false in {tmp_path / 'milepost.toml'}:1" in ran.stderr, (
        "the file beside the main script counts"
    )
    assert left(tmp_path) == []
    assert not (tmp_path / "s").exists()


# Not carrying on.


def test_without_auto_resume_an_unfinished_session_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(tmp_path, "auto_resume = false")
    store = milepost.Store(tmp_path / "s")
    seen: list[str] = []

    def note(batch: Batch) -> None:
        seen.append(batch.key)

    job = milepost.job("work", batches=["a", "b"], store=tmp_path / "s")(note)
    unfinished(tmp_path / "s")  # what is new runs
    before = store.load_progress("work")
    with pytest.raises(milepost.UnfinishedError) as caught:
        job.run()
    assert f"auto_resume = false in {tmp_path / 'milepost.toml'}:1" in caught.value.message
    assert "MILEPOST_AUTO_RESUME=1" in caught.value.hint
    assert f"milepost restart work --store {tmp_path / 's'}" in caught.value.hint
    assert store.load_progress("work") == before
    assert store.view("work").judgement.status is SessionStatus.STOPPED, "it is not held open"
    assert seen == []

    store.restart("work")
    assert job.run().completed == 2, "what was begun anew is not unfinished"
    assert job.run().did_nothing, "and neither is what is complete"

    store.restart("work")
    unfinished(tmp_path / "s")
    monkeypatch.setenv("MILEPOST_AUTO_RESUME", "1")
    seen.clear()
    assert job.run().completed == 2
    assert seen == ["a", "b"]


def test_what_stops_says_what_carries_it_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again() -> str:
        return Place("work", tmp_path / "s", "buffered").again

    assert again() == "run it again to carry on"
    monkeypatch.setenv("MILEPOST_AUTO_RESUME", "0")
    assert again() == "run it again with MILEPOST_AUTO_RESUME=1 to carry on"


def test_without_auto_resume_an_unfinished_loop_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILEPOST_AUTO_RESUME", "off")

    def loop() -> milepost.Items[str]:
        return milepost.resume(["a", "b"], "loop", store=tmp_path / "s", progress=False)

    for _ in loop():
        break
    with pytest.raises(milepost.UnfinishedError, match=r"in \$MILEPOST_AUTO_RESUME"):
        next(iter(loop()))
    monkeypatch.delenv("MILEPOST_AUTO_RESUME")
    assert [item for item in loop()] == ["a", "b"]  # noqa: C416  # a loop, and no list() of it


# Names, words, and options of one job.


def test_a_session_may_have_another_name(tmp_path: Path) -> None:
    says(tmp_path, '[job."work"]\nbatch_name = "towns"')
    job = milepost.job("work", batches=["a"], store=tmp_path / "s")(idle)
    assert job.session == "towns"
    assert job.run(progress=False).name == "towns"
    for _ in milepost.resume(["a"], "work", store=tmp_path / "t", progress=False):
        pass
    assert milepost.Store(tmp_path / "s").names() == ["towns"]
    assert milepost.Store(tmp_path / "t").names() == ["towns"]
    says(tmp_path, 'batch_name = "a\\tb"')
    with pytest.raises(milepost.ConfigurationError) as caught:
        job.run()
    assert caught.value.message.startswith(f"{tmp_path / 'milepost.toml'}:1: the session name")


def test_a_batch_is_called_what_the_job_calls_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says(tmp_path, 'region_type = "city"')
    unfinished(tmp_path / "s")

    lines: list[str] = []

    @milepost.job("work", batches=["a", "b"], store=tmp_path / "s")
    def work(batch: Batch) -> None:
        lines.append(milepost.progress_line(batch.session))
        raise ValueError("bad data")

    capsys.readouterr()
    result = work.run()
    said = capsys.readouterr().err
    assert "resumed with 0 of 2 cities done" in said
    assert "ended with 2 cities failed, 0 cities completed" in said
    assert "2 failed cities left as is" in said
    assert "0/2 cities" in lines[0]
    with pytest.raises(milepost.JobFailedError, match="2 cities of 'work' failed"):
        result.raise_for_failures()


def test_options_of_a_run_go_before_the_file_and_the_file_before_the_decorator(
    tmp_path: Path,
) -> None:
    tries: list[str] = []

    @milepost.job(
        "work",
        batches=["a"],
        store=tmp_path / "s",
        attempts=1,
        backoff=milepost.Backoff(first_seconds=0.0),
    )
    def work(batch: Batch) -> None:
        tries.append(batch.key)
        raise ConnectionResetError("the line broke")

    def count(attempts: int | None = None) -> int:
        tries.clear()
        work.run(progress=False, when_complete="restart", attempts=attempts)
        return len(tries)

    assert count() == 1
    says(tmp_path, "[job.work]\nattempts = 2\n[job.other]\nattempts = 5\n")
    assert count() == 2
    assert count(attempts=3) == 3
    says(tmp_path, "[job.work]\ngive_up_after = 1\n")
    with pytest.raises(milepost.OutageError):
        count()


def test_the_file_says_how_many_batches_run_at_once(tmp_path: Path) -> None:
    says(tmp_path, "[job.work]\nworkers = 2\n")
    together = threading.Barrier(2, timeout=30)

    @milepost.job("work", batches=["a", "b"], store=tmp_path / "s", attempts=1)
    def work(batch: Batch) -> None:
        together.wait()

    assert work.run(progress=False).failures == {}


def test_the_file_says_it_for_a_map_and_the_call_goes_before_it(tmp_path: Path) -> None:
    says(tmp_path, "[job.work]\nattempts = 2\nworkers = 1\n")

    def tries(name: str, **options: Any) -> int:
        seen: list[int] = []

        def work(item: int) -> None:
            seen.append(item)
            raise ConnectionError("down")

        quick = milepost.Backoff(first_seconds=0.0)
        store = tmp_path / name
        for _ in milepost.map(
            work, [1], "work", store=store, backoff=quick, progress=False, **options
        ):
            pass
        return len(seen)

    assert tries("file") == 2
    assert tries("call", attempts=4) == 4
    (tmp_path / "milepost.toml").write_text("")
    assert tries("default") == 3


def test_the_file_names_what_the_batches_run_in(tmp_path: Path) -> None:
    says(tmp_path, '[job.work]\nexecutor = "threads"\n')
    kinds: list[str] = []

    @milepost.job("work", batches=["a"], store=tmp_path / "s", executor="processes")
    def work(batch: milepost.RemoteBatch) -> list[tuple[str, milepost.ItemStatus]]:
        kinds.append(type(batch).__name__)
        return []

    assert work.run(progress=False).failures == {}
    assert kinds == ["RemoteBatch"], "in another process it would not be seen here"


async def echo(item: int) -> int:
    return item


def test_tasks_take_threads_from_the_file_and_refuse_what_else_it_names(tmp_path: Path) -> None:
    async def mapped(name: str) -> list[int]:
        items = milepost.map(echo, range(3), name, store=tmp_path / "s", progress=False)
        return [result async for _, result in items]

    async def body(batch: Batch) -> None:
        """A batch with nothing in it."""

    says(tmp_path, '[job.m]\nexecutor = "threads"\n[job.j]\nexecutor = "threads"\n')
    assert sorted(asyncio.run(mapped("m"))) == [0, 1, 2]
    work = milepost.job("j", batches=["a"], store=tmp_path / "s", progress=False)(body)
    assert work.run().completed == 1
    says(tmp_path, '[job.m2]\nexecutor = "processes"\n[job.j]\nexecutor = "dask://h:1"\n')
    for line, call in ((2, lambda: asyncio.run(mapped("m2"))), (4, work.run)):
        with pytest.raises(milepost.ConfigurationError, match="a coroutine function") as caught:
            call()
        assert caught.value.message.startswith(f"{tmp_path / 'milepost.toml'}:{line}: ")
