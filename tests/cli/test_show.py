from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import ItemStatus
from milepost.model.events import BatchAttemptFailed
from milepost_cli import output
from support.commands import run

if TYPE_CHECKING:
    from pathlib import Path


def test_json_has_all_that_is_promised(folder: Path, failed: str) -> None:
    told = run("show", failed, "-s", folder, "--json").json
    assert {
        "name",
        "status",
        "reason",
        "version",
        "total_batches",
        "batches",
        "items",
        "in_flight",
        "last_error",
        "writer",
        "eta",
        "statistics",
        "executions",
        "next_command",
        "findings",
        "damaged",
        "backup_error",
        "data",
        "checkpoints",
        "progress",
        "store",
    } <= told.keys()
    assert told["name"] == "places"
    assert told["status"] == "failed"
    assert told["reason"] == "1 batch failed"
    assert told["total_batches"] == 4
    assert told["batches"] == {"pending": 0, "processing": 0, "completed": 3, "failed": 1}
    assert told["items"] == {
        "pending": 1,
        "processing": 0,
        "completed": 16,
        "failed": 2,
        "skipped": 0,
        "waiting": 0,
        "growing": False,
    }
    assert told["progress"] == 1.0
    assert told["eta"] is None
    assert told["damaged"] is False
    assert told["findings"] == []
    assert told["writer"]["pid"] == os.getpid()
    assert told["writer"]["alive"] is False
    assert told["statistics"]["items_processed"] == 16
    assert told["statistics"]["items_failed"] == 2
    assert told["executions"][-1]["outcome"] == "failed"
    assert told["executions"][-1]["program"] == "milepost run places.py"
    assert told["next_command"] == f"milepost run places.py --store {folder}"


def test_with_auto_resume_off_the_next_command_says_that_it_is_meant(
    folder: Path, failed: str, interrupted: str
) -> None:
    again = f"milepost run places.py --store {folder}"
    for name, expected in (
        (interrupted, f"MILEPOST_AUTO_RESUME=1 {again}"),
        (failed, again),  # it has ended, so it is run in any case
    ):
        told = run("show", name, "-s", folder, "--json", env={"MILEPOST_AUTO_RESUME": "0"}).json
        assert told["next_command"] == expected


def test_what_was_mended_since_is_no_last_error(store: milepost.Store, folder: Path) -> None:
    with pytest.raises(RuntimeError), store.session("mended"):
        raise RuntimeError("the line was lost")
    assert run("show", "mended", "-s", folder, "--json").json["last_error"] is not None
    with store.session("mended") as session:
        session.complete()
    assert run("show", "mended", "-s", folder, "--json").json["last_error"] is None


# The last error.


def error_of(folder: Path, name: str) -> Any:
    return run("show", name, "-s", folder, "--json").json["last_error"]


def test_the_last_error_has_its_own_time_until_it_waits_to_be_run_again(
    folder: Path, store: milepost.Store
) -> None:
    with store.session("s", total_batches=2) as session:
        batch = session.start_batch("a", items_total=3)
        batch.update_item("x", ItemStatus.FAILED, ValueError("no number"))
        failed_ns = session.live.updated_ns
        batch.update_item("y", ItemStatus.COMPLETED)
        session.start_batch("b")
    error = error_of(folder, "s")
    assert (error["message"], error["item"]) == ("ValueError: no number", "x")
    assert error["at"] == output.iso_ns(failed_ns)
    store.retry("s")
    assert error_of(folder, "s") is None, "it waits, and nothing is wrong any more"
    with store.session("s") as session:
        session.start_batch("a").update_item("z", ItemStatus.COMPLETED)
        assert error_of(folder, "s") is None
    assert "last error" not in run("show", "s", "-s", folder).out


def test_a_batch_that_waits_for_its_next_try_tells_of_the_last(
    folder: Path, store: milepost.Store
) -> None:
    def attempt_failed(session: milepost.Session) -> None:
        event = BatchAttemptFailed(
            session.live.sequence + 1, 7, 0, "busy", milepost.BatchErrorType.NETWORK_ERROR, 60_000
        )
        session._writer.commit(event, durable=True)

    with store.session("s", total_batches=1) as session:
        session.start_batch("a")
        attempt_failed(session)
        error = error_of(folder, "s")
        assert (error["message"], error["at"]) == ("busy", output.iso_ns(7))
        assert "last error  batch a: busy" in run("show", "s", "-s", folder).out
    # That it was stopped since moved its time, and nobody noted when the try had failed.
    assert error_of(folder, "s")["at"] is None
    lines = run("show", "s", "-s", folder).out.splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("last error"))
    assert "never" not in lines[at + 1]
    with store.session("s") as session:
        session.start_batch("a")
        assert error_of(folder, "s") is None


def test_an_error_of_another_life_is_none_of_this_one(
    folder: Path, store: milepost.Store, interrupted: str
) -> None:
    assert error_of(folder, interrupted) is not None
    store.restart(interrupted)
    assert error_of(folder, interrupted) is None
    with store.session(interrupted) as session:
        session.start_batch("b0")
        assert error_of(folder, interrupted) is None
        version = session.snapshot()
    with pytest.raises(TimeoutError), store.session(interrupted) as session:
        session.start_batch("b1", number=1)
        raise TimeoutError("later")
    assert error_of(folder, interrupted)["message"] == "TimeoutError: later"
    store.restore(interrupted, version)
    assert error_of(folder, interrupted) is None
    with pytest.raises(OSError, match="new"), store.session(interrupted) as session:
        session.start_batch("b0")
        raise OSError("new")
    assert error_of(folder, interrupted)["message"] == "OSError: new"


def test_what_the_next_run_would_meet_again_is_told_with_what_to_do(
    folder: Path, store: milepost.Store
) -> None:
    hint = "move it away, or use another name"
    refusal = milepost.OutputError("rows.txt holds what is not of this session", hint=hint)
    with pytest.raises(milepost.OutputError), store.session("s", total_batches=1) as session:
        session.start_batch("b")
        raise refusal
    told = run("show", "s", "-s", folder, "--json").json
    assert told["reason"] == f"OutputError: {refusal.message}"
    assert told["last_error"]["message"] == told["reason"]
    assert told["last_error"]["hint"] == told["executions"][-1]["hint"] == hint
    assert f"{refusal.message}; hint: {hint}\n" in run("log", "s", "-s", folder).out
    lines = run("show", "s", "-s", folder).out.splitlines()
    assert f"            hint: {hint}" in lines
    again = f"milepost run places.py --store {folder}"
    assert lines[-1] == f"next (when that is mended)  {again}"
    with store.session("s") as session:
        session.start_batch("b")
    assert run("show", "s", "-s", folder).out.splitlines()[-1] == f"next        {again}"


def test_a_hint_is_kept_where_the_message_is_too_long(folder: Path, store: milepost.Store) -> None:
    with pytest.raises(milepost.OutputError), store.session("s", total_batches=1) as session:
        session.start_batch("b")
        raise milepost.OutputError("x" * 5_000, hint="move it away")
    assert error_of(folder, "s")["hint"] == "move it away"
    assert len(store.load_progress("s").executions[-1].error_message or "") == 2_000


# How much, and how long.


def test_without_a_total_there_is_no_percentage(store: milepost.Store, folder: Path) -> None:
    with store.session("s", total_batches=1) as session:
        batch = session.start_batch("items")
        batch.update_items([(n, ItemStatus.COMPLETED) for n in range(23)])
        text = run("show", "s", "-s", folder).out
        listed = run("list", "-s", folder).out
    assert "batches     0 of 1 completed, 1 processing\n" in text
    assert "items       23 completed; total unknown\n" in text
    assert "23 items done, total unknown" in listed
    assert "%" not in text + listed


def test_only_what_is_all_done_is_100_percent(store: milepost.Store, folder: Path) -> None:
    with store.session("s", total_batches=1) as session:
        batch = session.start_batch("items", items_total=301)
        batch.update_items([(n, ItemStatus.COMPLETED) for n in range(300)])
        assert "(99% finished)" in run("show", "s", "-s", folder).out
        assert "99%" in run("list", "-s", folder).out
        assert "·  99% ·" in milepost.progress_line(session)


def test_items_that_wait_to_be_tried_again_are_told_and_nothing_is_forecast(
    store: milepost.Store, folder: Path
) -> None:
    with store.session("s", total_batches=1) as session:
        batch = session.start_batch("items", items_total=20)
        batch.update_items([(n, ItemStatus.COMPLETED) for n in range(10)])
        batch.update_items([(n, ItemStatus.PROCESSING) for n in range(10, 20)])
        for number in range(10, 20):
            batch.update_item(number, ItemStatus.PENDING, milepost.Retry("busy", after=30))
        told = run("show", "s", "-s", folder, "--json").json
        text = run("show", "s", "-s", folder).out
        line = milepost.progress_line(session)
    assert (told["items"]["pending"], told["items"]["waiting"], told["eta"]) == (10, 10, None)
    assert "10 pending in batches that were begun, 10 of them wait to be tried again" in text
    assert "; no estimate while items wait to be tried again" in text
    assert line.endswith(" · 10 wait to be tried again")


# Much at once.


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (range(7424, 7488), "batch items: items 7424 to 7487"),
        ([f"k{n}" for n in range(64)], "64 items of batch items: k0, k1, k2 and 61 more"),
        ([*range(8), 9], "9 items of batch items: 0, 1, 2 and 6 more"),
    ],
    ids=["range", "words", "gap"],
)
def test_many_items_in_hand_are_one_line_and_the_same_suspects_are_not_said_twice(
    keys: list[milepost.Key], line: str, doomed: milepost.Store, folder: Path
) -> None:
    session = doomed.session("s", total_batches=2)
    batch = session.start_batch("items")
    batch.update_items([(key, ItemStatus.PROCESSING) for key in keys])
    assert f"in flight   {line}\n" in run("show", "s", "-s", folder).out
    session.start_batch("other").update_item("one", ItemStatus.PROCESSING)
    session.supersede()
    told = run("show", "s", "-s", folder, "--json").json
    assert len(told["in_flight"]) == len(told["suspects"]) == len(keys) + 1
    lines = run("show", "s", "-s", folder).out.splitlines()
    at = lines.index(f"suspects    {line}")
    assert lines[at + 1] == "            batch other: item one"
    assert lines[at + 2].startswith("            in hand at a death; ")
    assert not any(each.startswith("was in hand") for each in lines)


# The whole of it.


def test_times_in_json_are_utc(folder: Path, failed: str) -> None:
    told = run("show", failed, "-s", folder, "--json").json
    moment = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
    for time in (
        told["created_at"],
        told["updated_at"],
        told["ended_at"],
        told["writer"]["since"],
        told["executions"][-1]["started_at"],
        told["last_error"]["at"],
    ):
        assert moment.fullmatch(time)


def test_an_interrupted_session_says_what_a_person_needs_at_night(
    folder: Path, interrupted: str
) -> None:
    ran = run("show", interrupted, "-s", folder)
    assert (ran.code, ran.err) == (0, "")
    assert "crawl: interrupted, RuntimeError: the line was lost" in ran.out
    assert "1 of 3 completed" in ran.out
    assert "last error  RuntimeError: the line was lost" in ran.out
    assert "2 completed; 1 skipped, 1 was in hand" in ran.out
    assert "was in hand batch b1: item d" in ran.out
    assert "in flight" not in ran.out
    assert f"process {os.getpid()} on" in ran.out
    assert ran.out.splitlines()[-1] == f"next        milepost run places.py --store {folder}"


def test_what_was_in_hand_when_an_exception_ended_the_run(folder: Path, interrupted: str) -> None:
    told = run("show", interrupted, "-s", folder, "--json").json
    assert told["in_flight"] == [
        {"batch": "b1", "batch_number": 1, "item": "d", "started_at": None}
    ]
    assert told["last_error"]["message"] == "RuntimeError: the line was lost"
    assert told["data"] == {"cursor": 41}
    assert [mark["name"] for mark in told["checkpoints"]] == ["page 7"]
    assert told["eta"] is None or told["eta"]["at"] is None


def test_a_session_that_is_being_written_says_so(store: milepost.Store, folder: Path) -> None:
    with store.session("live", total_batches=2) as session:
        batch = session.start_batch("b", items_total=10)
        batch.update_items([(n, ItemStatus.COMPLETED) for n in range(5)])
        batch.update_item("x", ItemStatus.PROCESSING)
        told = run("show", "live", "-s", folder, "--json").json
        text = run("show", "live", "-s", folder).out
    assert "5 completed; 1 in flight, 4 pending" in text
    assert "in flight   batch b: item x" in text
    assert told["status"] == "running"
    assert told["writer"]["alive"] is True
    assert [each["item"] for each in told["in_flight"]] == ["x"]
    assert told["items"]["processing"] == 1
    assert told["in_flight"][0]["started_at"] is not None
    assert told["eta"]["remaining_seconds"] > 0
    assert told["eta"]["at"] > told["updated_at"]
    assert told["statistics"]["items_per_second"] > 0
    assert told["executions"][-1]["items_processed"] == 5
    assert told["next_command"] is None


def test_a_killed_writer_is_seen_with_what_it_had_in_hand(
    store: milepost.Store, folder: Path
) -> None:
    child = os.fork()
    if child == 0:
        session = store.session("dead", total_batches=1)
        session.start_batch("b").update_item("x", ItemStatus.PROCESSING)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    told = run("show", "dead", "-s", folder, "--json").json
    assert told["status"] == "interrupted"
    assert told["reason"].endswith("ended and could not record it, with 1 item in hand")
    assert [each["item"] for each in told["in_flight"]] == ["x"]
    assert told["writer"] == told["writer"] | {"pid": child, "alive": False}


def test_growing_work_is_told_as_the_least_that_it_is(growing: str, folder: Path) -> None:
    told = run("show", growing, "-s", folder, "--json", "--batches").json
    assert told["items"] == {
        "pending": 3,
        "processing": 0,
        "completed": 1,
        "failed": 1,
        "skipped": 0,
        "waiting": 0,
        "growing": True,
    }
    assert told["progress"] == 0.4
    assert told["eta"]["is_at_least"] is True
    assert told["params"] == {"model": "big"}
    assert told["positions"] == []
    assert told["outputs"] == [
        {
            "path": str(folder.parent / "rows.txt"),
            "name": "../rows.txt",
            "acknowledged_bytes": 6,
            "found_bytes": 6,
        }
    ]
    (batch,) = told["batch_list"]
    assert (batch["items_total"], batch["growing"], batch["position"]) == (5, True, None)
    text = run("show", growing, "-s", folder, "--batches").out
    assert "0 of 1 completed, 1 processing (at most 40% finished)" in text
    assert "1 completed; 1 failed, at least 3 pending in batches that were begun" in text
    assert re.search(r"of work; at least \S+ left", text)
    assert 'params      {"model": "big"}' in text
    rows = folder.parent / "rows.txt"
    assert f"outputs     {rows}: 6 bytes acknowledged\n" in text
    rows.write_text("abc")
    short = run("show", growing, "-s", folder).out
    assert f"{rows}: 6 bytes acknowledged; DAMAGED: only 3 bytes are there" in short
    rows.unlink()
    gone = run("show", growing, "-s", folder).out
    assert f"{rows}: 6 bytes acknowledged; GONE: put it back" in gone
    assert "1 of at least 5 items, 1 failed" in text
    assert "position" not in text


def test_work_that_does_not_grow_says_nothing_of_the_least(folder: Path, interrupted: str) -> None:
    told = run("show", interrupted, "-s", folder, "--json", "--batches").json
    assert told["eta"] is None or told["eta"]["is_at_least"] is False
    assert {each["growing"] for each in told["batch_list"]} == {False}
    assert (told["params"], told["outputs"], told["positions"]) == (None, [], [])
    text = run("show", interrupted, "-s", folder, "--batches").out
    assert not re.search("at least|at most|params|outputs|position", text)


def test_items_known_by_position_are_told_as_a_number(store: milepost.Store, folder: Path) -> None:
    with store.session("ranks", total_batches=1) as session:
        batch = session.start_batch("only")
        with batch.items("abcdef", key="position") as items:
            for number, _item in enumerate(items):
                if number == 1:
                    items.fail("no")
                if number == 4:
                    break
        told = run("show", "ranks", "-s", folder, "--json", "--batches").json
        text = run("show", "ranks", "-s", folder).out
    assert told["positions"] == [{"batch": "only", "batch_number": 0, "position": 4, "failed": 1}]
    assert told["batch_list"][0]["position"] == 4
    assert "position    all before item 4 of the source have ended, 1 of them failed" in text


def test_failure_cannot_be_taken_for_success(store: milepost.Store, folder: Path) -> None:
    with store.session("bad", total_batches=250) as session:
        for number in range(250):
            session.start_batch(f"b{number}").fail("no")
        session.complete()
    assert "0 of 250 completed, 250 failed (all tried)" in run("show", "bad", "-s", folder).out
    assert "0 of 250 batches (250 failed), 0 items" in run("list", "-s", folder).out


def test_what_was_found_and_not_run_is_not_all_tried(store: milepost.Store, folder: Path) -> None:
    items = milepost.resume("ab", "crawl", store=store, progress=False)
    for item in items:
        if item == "a":
            items.add("c")
            items.session.batch(0).update_item("c", milepost.ItemStatus.PROCESSING)
    assert "0 of 1 completed, 1 failed (not all tried)" in run("show", "crawl", "-s", folder).out
    assert "not all tried" in run("list", "-s", folder).out


def test_nothing_is_next_for_completed_work(store: milepost.Store, folder: Path) -> None:
    with store.session("done", total_batches=0) as session:
        session.complete()
    told = run("show", "done", "-s", folder, "--json").json
    assert told["status"] == "completed"
    assert told["next_command"] is None
    assert "next " not in run("show", "done", "-s", folder).out


def test_retry_is_next_where_a_run_would_not_try_again(store: milepost.Store, folder: Path) -> None:
    with store.session("two words", total_batches=1) as session:
        session.start_batch("b").fail("no", recoverable=False)
        session.complete()
    told = run("show", "two words", "-s", folder, "--json").json
    assert told["next_command"] == f"milepost retry 'two words' --store {folder}"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("crawl.py", "MILEPOST_STORE={} python crawl.py"),
        ("a b.py …", "MILEPOST_STORE={} python 'a b.py' …"),
        ("my-crawl", "MILEPOST_STORE={} my-crawl"),
        ("python -m crawl …", "MILEPOST_STORE={} python -m crawl …"),
        ("", None),
        ("-c", None),
        ("-c …", None),
    ],
)
def test_the_next_command_is_what_ran_it_last(
    program: str, expected: str | None, folder: Path
) -> None:
    with milepost.Store(folder, program=program).session("s", total_batches=1):
        pass
    told = run("show", "s", "-s", folder, "--json").json
    assert told["status"] == "stopped"
    assert told["next_command"] == (expected and expected.format(folder))


def test_error_messages_cannot_act_on_the_terminal(folder: Path, failed: str) -> None:
    for option in ("--failed", "--batches"):
        ran = run("show", failed, "-s", folder, option)
        assert "\x1b" not in ran.out
    assert (
        "TimeoutError: too \\x1b[31mslow (timeout_error)"
        in run("show", failed, "-s", folder, "--failed").out
    )


def test_failed_lists_batches_and_items_with_why(folder: Path, failed: str) -> None:
    told = run("show", failed, "-s", folder, "--failed", "--json").json
    (batch,) = told["failures"]
    assert batch["batch"] == "b3"
    assert batch["recoverable"] is True
    assert [(each["item"], each["type"], each["recoverable"]) for each in batch["items"]] == [
        ("p-1", "timeout_error", True),
        (7, "validation_error", False),
    ]
    assert "failures" not in run("show", failed, "-s", folder, "--json").json


def test_a_reason_of_many_lines_is_one_line(store: milepost.Store, folder: Path) -> None:
    reason = "a worker died\n\nThe exit codes are {SIGKILL(-9)}\n"
    with contextlib.suppress(TimeoutError), store.session("s", total_batches=1) as session:
        batch = session.start_batch("b", number=0)
        batch.update_item("p", ItemStatus.FAILED, ValueError(reason))
        raise TimeoutError(reason)
    line = "a worker died The exit codes are {SIGKILL(-9)} ("
    by_hand = "ValueError: " + line + "validation_error), only tried again by hand"
    shown = run("show", "s", "-s", folder, "--failed").out
    assert f"    item p: {by_hand}\n" in shown
    assert re.search(rf"^last error +.*{re.escape(line[:-2])}", shown, re.MULTILINE)
    assert f"item p failed: ValueError: {line}" in run("log", "s", "-s", folder).out
    told = run("show", "s", "-s", folder, "--failed", "--json").json
    assert told["failures"][0]["items"][0]["message"] == f"ValueError: {reason}"


def test_batches_lists_what_was_begun(folder: Path, failed: str) -> None:
    told = run("show", failed, "-s", folder, "--batches", "--json").json
    assert [(each["key"], each["status"]) for each in told["batch_list"]] == [
        ("b0", "completed"),
        ("b1", "completed"),
        ("b2", "completed"),
        ("b3", "failed"),
    ]
    assert told["batch_list"][0]["label"] == "구 0"
    assert told["batch_list"][3]["items_processed"] == 1
    text = run("show", failed, "-s", folder, "--batches").out
    assert re.search(r"^  0  b0  구 0  completed  5/5 items$", text, re.MULTILINE)
    assert re.search(r"^  3  b3 +failed +1/4 items, 2 failed ", text, re.MULTILINE)


def test_checkpoints_are_listed_newest_first(
    folder: Path, store: milepost.Store, interrupted: str
) -> None:
    newest = store.save_checkpoint(interrupted, "batch_error", {"page": 8})
    lines = run("show", interrupted, "-s", folder, "--checkpoints").out.splitlines()
    at = lines.index("checkpoints, the newest first:")
    assert lines[at + 1].split()[:2] == [newest, "batch_error"]
    assert "page 7" in lines[at + 2]


def test_data_alone_is_shown(store: milepost.Store, folder: Path) -> None:
    store.save_state("settings", {"cursor": 41, "text": "지역"})
    ran = run("show", "settings", "-s", folder)
    assert ran.code == 0
    assert 'data        {"cursor": 41, "text": "지역"}' in ran.out
    assert run("show", "settings", "-s", folder, "--json").json["next_command"] is None


def test_a_failing_backup_is_shown(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("in the way")
    config = milepost.StoreConfig(backup_path=str(tmp_path / "backup"))
    with milepost.Store(folder, config=config).session("s", total_batches=1) as session:
        session.start_batch("b").complete()
        session.snapshot()
    told = run("show", "s", "-s", folder, "--json").json
    assert told["backup_error"]
    assert "backup      FAILING: " in run("show", "s", "-s", folder).out


def newest(folder: Path, kind: str, name: str) -> Path:
    files = (folder / "sessions" / name / kind).iterdir()
    return max(files, key=lambda file: int(file.name.split(".")[0]))


def test_damage_made_good_by_a_backup_is_shown_and_is_12(folder: Path, failed: str) -> None:
    snapshot = newest(folder, "snapshots", failed)
    snapshot.write_bytes(snapshot.read_bytes()[:-1])
    ran = run("show", failed, "-s", folder)
    assert ran.code == 12
    assert "16 completed" in ran.out
    assert "found       DAMAGE: " in ran.out
    assert "error: session 'places' has damaged files, but nothing that was ack" in ran.err
    assert "Traceback" not in ran.err


def test_damage_that_cost_acknowledged_work_shows_what_is_sure(folder: Path) -> None:
    config = milepost.StoreConfig(backup_enabled=False)
    store = milepost.Store(folder, config=config)
    with store.session("s", total_batches=2) as session:
        batch = session.start_batch("b")
        session.snapshot()
        batch.update_items([(n, ItemStatus.COMPLETED) for n in range(5)])
        session.flush()
        batch.complete()
    newest(folder, "snapshots", "s").unlink()
    journal = newest(folder, "journal", "s")
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    ran = run("show", "s", "-s", folder, "--json")
    assert ran.code == 12
    assert ran.json["damaged"] is True
    assert any(each["is_error"] for each in ran.json["findings"])
    assert ran.json["next_command"] == f"milepost restore s --store {folder}"
    assert ran.error["type"] == "DamagedError"
    assert ran.error["exit_code"] == 12
    assert ran.json["next_command"] in ran.error["hint"]
    accepted = run(*ran.json["next_command"].split()[1:])
    assert accepted.code == 0
    assert run("show", "s", "-s", folder).code == 0


def test_a_session_without_any_readable_snapshot_is_12_and_no_traceback(
    folder: Path, failed: str
) -> None:
    for file in folder.rglob("*.zst"):
        file.write_bytes(b"nothing")
    ran = run("show", failed, "-s", folder)
    assert (ran.code, ran.out) == (12, "")
    assert "error: no snapshot of this session can be read" in ran.err


def test_show_batches_lists_the_planned_ones_by_name(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "s")
    regions = [{"code": "11110", "name": "Jongno"}, {"code": "11140", "name": "Jung"}]
    with store.session("places") as session:
        for _ in session.batches(regions, key=lambda region: str(region["code"])):
            break
    ran = run("show", "places", "--batches", "-s", tmp_path / "s", "--json")
    assert [(b["key"], b["label"], b["status"]) for b in ran.json["batch_list"]] == [
        ("11110", "Jongno", "processing"),
        ("11140", "Jung", "pending"),
    ]
    assert "Jung" in run("show", "places", "--batches", "-s", tmp_path / "s").out


def test_a_death_shows_its_suspects_and_its_recovery(
    store: milepost.Store, folder: Path, dead: str
) -> None:
    told = run("show", dead, "-s", folder, "--json").json
    suspect = {
        "batch": "b1",
        "batch_number": 1,
        "item": "f",
        "deaths": 1,
        "last_death": None,
        "in_hand": False,
    }
    assert told["suspects"] == [suspect]
    assert told["recovery"] is None
    detail = milepost.RecoveryService(store).recover(dead, cause="killed by SIGKILL")
    told = run("show", dead, "-s", folder, "--json").json
    assert told["suspects"] == [suspect | {"last_death": "killed by SIGKILL"}]
    assert told["recovery"] == {
        "at": detail.recovered_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "sequence": told["sequence"],
        "reason": "interrupted_batch",
        "priority": "high",
        "strategy": "resume_current_batch",
        "result": {"kind": "resumed", "batches": {"b1": 3}},
    }
    # What was in hand at the death is told until it is in hand again.
    assert [each["item"] for each in told["in_flight"]] == ["f"]
    assert told["last_error"]["message"] == "killed by SIGKILL"
    lines = run("show", dead, "-s", folder).out.splitlines()
    at = lines.index("suspects    batch b1: item f, alone at the last death (killed by SIGKILL)")
    assert lines[at + 1].strip().startswith("in hand at a death")
    assert lines[at + 2].startswith("recovery    20")
    assert lines[at + 2].endswith(": interrupted batch, so resume current batch")


def _agree(told: dict[str, Any]) -> list[milepost.Key]:
    """What was or is in hand, once it is sure that the sums and the list say the same."""
    assert told["items"]["processing"] == len(told["in_flight"])
    return [each["item"] for each in told["in_flight"]]


def test_what_is_in_hand_is_what_the_sums_say(
    store: milepost.Store, doomed: milepost.Store, folder: Path
) -> None:
    """From the run over its death and recovery to the next run, and never more than there is."""

    def told(status: str, processing: int, pending: int) -> list[milepost.Key]:
        found = run("show", "work", "-s", folder, "--json").json
        assert found["status"] == status
        assert found["items"] == found["items"] | {"processing": processing, "pending": pending}
        listed = run("list", "-s", folder, "--json").json["sessions"][0]
        assert (listed["items"], listed["in_flight"]) == (found["items"], found["in_flight"])
        return _agree(found)

    def words() -> str:
        return run("show", "work", "-s", folder).out

    session = doomed.session("work", total_batches=2)
    batches = [session.start_batch(key, items_total=4) for key in "ab"]
    for batch in batches:
        batch.update_item(f"{batch.key}-0", ItemStatus.COMPLETED)
        batch.update_item(f"{batch.key}-1", ItemStatus.PROCESSING)
    assert told("running", 2, 4) == ["a-1", "b-1"]
    assert "2 in flight, 4 pending" in words()
    session.supersede()
    assert told("interrupted", 2, 4) == ["a-1", "b-1"]
    service = milepost.RecoveryService(store)
    service.recover("work")
    assert told("interrupted", 2, 4) == ["a-1", "b-1"]
    assert "2 were in hand, 4 pending" in words()
    assert "suspects    batch a: item a-1" in words()
    assert words().count("a-1") == 1, "it is the same that was in hand"
    assert "in flight" not in words()
    with store.session("work") as session:
        assert told("running", 0, 6) == []
        assert "in hand" not in words().replace("in hand at a death", "")
        session.start_batch("a").update_item("a-1", ItemStatus.PROCESSING)
        assert told("running", 1, 5) == ["a-1"]
    # Stopped on purpose; then begun anew from its first batch: what was reset was never in hand.
    assert told("stopped", 1, 5) == ["a-1"]
    service.recover("work", from_batch=0)
    assert told("stopped", 0, 8) == []


def test_a_copy_of_a_running_session_says_so_and_declares_nobody_dead(
    store: milepost.Store, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    script = (
        "import sys, milepost\n"
        f"session = milepost.Store({str(folder)!r}).session('s', total_batches=1)\n"
        "batch = session.start_batch('b')\n"
        "batch.update_item('x', milepost.ItemStatus.PROCESSING)\n"
        "print('in', flush=True)\n"
        "sys.stdin.read()\n"
        "session.close()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        shutil.copytree(folder, copy)
        told = run("show", "s", "-s", copy, "--json").json
        text = run("show", "s", "-s", copy).out
        assert run("show", "s", "-s", folder, "--json").json["status"] == "running"
        process.communicate("")
    who = f"process {process.pid} on {told['writer']['host']}"
    why = f"this is a copy of a session that {who} was writing, with 1 item in hand"
    assert (told["status"], told["reason"]) == ("interrupted", why)
    assert told["writer"] == told["writer"] | {"alive": False, "wrote_original": True}
    assert f"writer      {who} wrote the original of this copy, since 20" in text
    assert "was in hand batch b: item x" in text
    assert "ended" not in text
    assert _agree(told) == ["x"]
    # The copy goes on by itself: made ready it is still one, run it is a session like any other.
    there = milepost.Store(copy)
    milepost.RecoveryService(there).recover("s")
    told = run("show", "s", "-s", copy, "--json").json
    assert (told["reason"], told["suspects"]) == (why, [])
    assert told["writer"]["wrote_original"] is False
    with there.session("s") as session:
        session.start_batch("b").complete()
        session.complete()
    assert "copy" not in run("show", "s", "-s", copy).out.replace(str(copy), "")
    # The original ended well.
    told = run("show", "s", "-s", folder, "--json").json
    assert told["status"] == "stopped"
    assert told["writer"]["wrote_original"] is False


def test_suspects_of_a_run_that_goes_on(
    store: milepost.Store, doomed: milepost.Store, folder: Path
) -> None:
    session = doomed.session("work", total_batches=3)
    for key in "ab":
        session.start_batch(key).update_item(f"{key}-1", ItemStatus.PROCESSING)
    session.start_batch("c")
    session.supersede()
    with store.session("work") as session:

        def lines() -> list[str]:
            lines = run("show", "work", "-s", folder).out.splitlines()
            (at,) = (i for i, line in enumerate(lines) if line.startswith("suspects"))
            return [line[12:] for line in lines[at : at + 4]]

        end = "in hand at a death; the others wait until each has run alone"
        batch = session.start_batch("a")
        batch.update_item("a-1", ItemStatus.PROCESSING)
        rest = ["batch b: item b-1 will run alone next", "batch c will run alone next"]
        assert lines() == ["batch a: item a-1 runs alone now", *rest, end]
        batch.update_item("a-1", ItemStatus.COMPLETED)
        batch.complete()
        session.start_batch("b").complete()
        session.start_batch("c")
        assert lines()[:2] == ["batch c runs alone now", end]
        told = run("show", "work", "-s", folder, "--json").json["suspects"]
        assert [(each["batch"], each["in_hand"]) for each in told] == [("c", True)]
    assert lines()[:2] == [
        "batch c",
        "in hand at a death; the next run begins with each of them alone",
    ]


def test_a_session_without_deaths_shows_nothing_of_them(folder: Path, failed: str) -> None:
    told = run("show", failed, "-s", folder, "--json").json
    assert (told["suspects"], told["recovery"], told["unlock_command"]) == ([], None, None)
    text = run("show", failed, "-s", folder).out
    assert "suspects" not in text
    assert "recovery" not in text


def test_a_writer_on_another_host_is_shown_with_the_way_to_take_over(
    folder: Path, elsewhere: str
) -> None:
    told = run("show", elsewhere, "-s", folder, "--json").json
    assert told["status"] == "running"
    assert told["writer"] == told["writer"] | {"host": "desk", "pid": 17, "presence": "unknown"}
    assert told["next_command"] is None
    assert told["unlock_command"] == f"milepost unlock elsewhere --store {folder}"
    text = run("show", elsewhere, "-s", folder).out
    assert "process 17 on desk writes it, as far as can be seen from here, since 20" in text
    assert f"            if it is surely gone: {told['unlock_command']}" in text
    assert run(*told["unlock_command"].split()[1:]).code == 0
    assert run("show", elsewhere, "-s", folder, "--json").json["status"] == "interrupted"


def test_a_writer_that_has_been_silent_too_long_is_stale(folder: Path, elsewhere: str) -> None:
    soon = {"MILEPOST_STALE_AFTER_SECONDS": "0.000001"}
    assert run("recover", "-s", folder).code == 0  # remembers what it sees
    told = run("show", elsewhere, "-s", folder, "--json", env=soon).json
    assert (told["status"], told["writer"]["presence"]) == ("stale", "silent")
    assert told["unlock_command"] is None
    assert told["next_command"] == f"milepost recover --session elsewhere --store {folder}"
    text = run("show", elsewhere, "-s", folder, env=soon).out
    assert "process 17 on desk wrote it last, and has been silent too long, since 20" in text


def test_poison_is_followed_by_retry(store: milepost.Store, folder: Path, dead: str) -> None:
    config = milepost.RecoveryConfig(max_recovery_attempts=1)
    milepost.RecoveryService(store, config).recover(dead)
    with store.session(dead) as session:
        session.start_batch("b1").complete()
        session.start_batch("b2", number=2).complete()
        session.complete()
    told = run("show", dead, "-s", folder, "--failed", "--json").json
    assert told["status"] == "failed"
    assert told["next_command"] == f"milepost retry dead --store {folder}"
    (item,) = told["failures"][0]["items"]
    assert item["recoverable"] is False
    assert item["message"].startswith("poison: its process died 1 time")


def test_how_often_is_tried_again_is_a_setting(folder: Path, failed: str) -> None:
    # The batch failed once; with one run allowed no further run takes it up by itself.
    once = {"MILEPOST_MAX_RECOVERY_ATTEMPTS": "1"}
    told = run("show", failed, "-s", folder, "--json", env=once).json
    assert told["next_command"] == f"milepost retry places --store {folder}"


def test_a_state_that_does_not_add_up_goes_back_to_where_it_was_saved(
    store: milepost.Store, folder: Path, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = milepost.Finding(rule="sums", message="one and one is three")

    def check(_state: milepost.SessionState) -> list[milepost.Finding]:
        return [finding]

    monkeypatch.setattr(milepost, "check", check)
    told = run("show", dead, "-s", folder, "--json")
    assert told.code == 12
    version = told.json["version"]
    assert told.json["next_command"] == f"milepost restore dead {version} --store {folder}"


@pytest.mark.skipif(os.name == "nt", reason="links to folders want rights there")
def test_an_output_is_found_from_a_store_that_is_named_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    items = milepost.resume("ab", "crawl", store=tmp_path / "link", progress=False)
    out = items.open(tmp_path / "rows.txt")
    for item in items:
        out.write(item)
    told = run("show", "crawl", "-s", tmp_path / "link").out
    assert f"{tmp_path / 'rows.txt'}: 2 bytes acknowledged\n" in told
