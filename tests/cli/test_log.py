from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any, get_args

import pytest

import milepost
from milepost.model import events as e
from milepost.model.state import OutputRows
from milepost_cli import words
from support.commands import run

if TYPE_CHECKING:
    from pathlib import Path


def test_one_event_a_line_in_plain_words(folder: Path, interrupted: str) -> None:
    ran = run("log", interrupted, "-s", folder)
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split(maxsplit=4) for line in ran.out.splitlines()]
    assert all(line[2] == "UTC" for line in lines)
    sequences = [int(line[3]) for line in lines]
    assert sequences == list(range(sequences[0], sequences[0] + len(lines)))
    told = [line[4] for line in lines]
    assert told[0] == "3 batches in all" or told[1] == "3 batches in all"
    assert "b0: batch begun, 2 items" in told
    assert "b0: 2 items at once: 1 completed, 1 skipped" in told
    assert "b1: item d processing" in told
    assert "data set" in told
    assert told[-1] == "run ended: interrupted: RuntimeError: the line was lost"


def test_a_number_and_the_text_of_it_are_told_apart(store: milepost.Store, folder: Path) -> None:
    with store.session("keys", total_batches=1) as session:
        batch = session.start_batch("b")
        for key in (1, "1", -1, "-1", "01", "one"):
            batch.update_item(key, milepost.ItemStatus.FAILED, "no")
        batch.complete()
    spelt = ["1", '"1"', "-1", '"-1"', "01", "one"]
    log = run("log", "keys", "-s", folder).out
    assert all(f"b: item {key} failed: no" in log for key in spelt)
    show = run("show", "keys", "-s", folder, "--failed").out
    assert all(f"    item {key}: no" in show for key in spelt)


def test_json_is_one_object_a_line(folder: Path, interrupted: str) -> None:
    ran = run("log", interrupted, "-s", folder, "--json")
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert all({"event", "sequence", "at", "batch", "batch_key"} <= each.keys() for each in events)
    item = next(each for each in events if each["event"] == "ItemUpdated")
    assert (item["batch"], item["batch_key"], item["key"], item["status"]) == (
        1,
        "b1",
        "c",
        "completed",
    )
    assert events[-1]["batch"] is None


def test_limit_keeps_the_latest(folder: Path, interrupted: str) -> None:
    everything = run("log", interrupted, "-s", folder).out.splitlines()
    assert run("log", interrupted, "-s", folder, "-n", "2").out.splitlines() == everything[-2:]
    assert run("log", interrupted, "-s", folder, "--limit", "0").out == ""
    assert run("log", interrupted, "-s", folder, "-n", "-1").code == 2


def test_messages_cannot_act_on_the_terminal(
    store: milepost.Store, folder: Path, failed: str
) -> None:
    ran = run("log", failed, "-s", folder)
    assert "\x1b" not in ran.out
    with store.session("bad", total_batches=1) as session:
        session.start_batch("b\x1b[2J\nforged line").fail("x\x9b\ny")
    ran = run("log", "bad", "-s", folder)
    assert "b\\x1b[2J\\nforged line: batch failed: x\\x9b y" in ran.out


def test_a_journal_that_is_being_written_can_be_read(store: milepost.Store, folder: Path) -> None:
    with store.session("live", total_batches=1) as session:
        batch = session.start_batch("b")
        for number in range(20):
            batch.update_item(number, milepost.ItemStatus.COMPLETED)
            assert run("log", "live", "-s", folder, "-n", "1").out.endswith(
                f"b: item {number} completed\n"
            )


def test_there_are_words_for_every_event() -> None:
    names = {kind.__name__ for kind in get_args(milepost.BatchEvent)}
    assert names == set(words._WORDS)


def test_growing_work_and_outputs_are_told(growing: str, folder: Path) -> None:
    ran = run("log", growing, "-s", folder)
    told = [line.split(maxsplit=4)[4] for line in ran.out.splitlines()]
    for sentence in (
        "params set",
        "output ../rows.txt opened",
        'only: 5 items found on the way: a, 1, "1" and 2 more',
        "only: item a taken",
        "only: item a completed, item 1 taken, 6 bytes to ../rows.txt",
        "only: item 1 failed: TimeoutError: too slow (timeout_error)",
    ):
        assert sentence in told
    events = [
        json.loads(line) for line in run("log", growing, "-s", folder, "--json").out.splitlines()
    ]
    (added,) = (each for each in events if each["event"] == "ItemsAdded")
    assert added["keys"] == ["a", 1, "1", "b", "c"]
    assert added["payloads"] == [None, None, None, {"depth": 2}, None]
    (ended,) = (each for each in events if each["event"] == "ItemsEnded" and each["rows"])
    assert ended["rows"] == [
        {
            "path": "../rows.txt",
            "start_bytes": 0,
            "length_bytes": 6,
            "checksum": zlib.crc32("서울".encode()),
        }
    ]
    assert ended["taken"] == [1]


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (e.ItemsAdded(1, 2, 0, ["a"]), "1 item found on the way: a"),
        (e.ItemsEnded(1, 2, 0), "nothing in hand"),
        (
            e.ItemsEnded(
                1,
                2,
                0,
                [e.ItemChange(n, milepost.ItemStatus(2 + n % 2)) for n in range(3)],
                [7, 8],
                [OutputRows("a", 0, 1, 0), OutputRows("b", 5, 1_239, 0)],
            ),
            "3 items: 2 completed, 1 failed, items 7, 8 taken, 1 byte to a, 1,234 bytes to b",
        ),
        (e.PositionsAdvanced(1, 2, 0, 0, "d"), "items are known by their position"),
        (e.PositionsAdvanced(1, 2, 0, 0, "d", 1), "item 0 taken"),
        (e.PositionsAdvanced(1, 2, 0, 1, "d"), "the first item done"),
        (
            e.PositionsAdvanced(1, 2, 0, 5_000, "d", 16, [OutputRows("a", 1, 3, 0)]),
            "the first 5,000 items done, items 5000 to 5015 taken, 2 bytes to a",
        ),
        (e.OutputOpened(1, 2, -1, "a", 9), "output a opened, behind the 9 bytes in it"),
    ],
)
def test_the_words_of_what_ends_in_one_record(event: e.BatchEvent, sentence: str) -> None:
    assert words.describe(milepost.plain(event), "") == sentence


def test_an_event_of_a_newer_release_is_still_told() -> None:
    fields: dict[str, Any] = {"event": "Unheard", "sequence": 9}
    assert "Unheard" in words.describe(fields, "")


def test_every_kind_of_event_has_a_sentence(store: milepost.Store, folder: Path) -> None:
    with store.session("all", total_batches=None) as session:
        session.ensure_plan(["a", "b"])
        first = session.start_batch("a")
        first.update_progress(phase=milepost.BatchPhase.DATA_SAVING, items_total=9)
        first.count(network_requests=2)
        first.attempt_failed(TimeoutError("slow"), 1.5)
        first.begin_again()
        first.complete()
        session.start_batch("b").fail(ValueError("bad"))
        session.complete()
    store.retry("all")
    store.restart("all")
    out = run("log", "all", "-s", folder).out
    for sentence in (
        "plan sealed: 2 batches",
        "a: progress: phase data_saving, 9 items in all",
        "a: counted network_requests +2",
        "a: attempt failed: TimeoutError: slow (timeout_error); next try in 1.5s",
        "a: batch completed",
        "b: batch failed: ValueError: bad (validation_error); trying again will not help",
        "session ended",
        "run ended: failed",
        "put back: 1 batch, 0 items",
        "begun anew",
    ):
        assert sentence in out


def test_deaths_and_recoveries_are_told(
    store: milepost.Store, folder: Path, dead: str, elsewhere: str, failed: str
) -> None:
    service = milepost.RecoveryService(store)
    service.recover(dead, cause="killed by SIGKILL, at most 29 MiB of memory")
    out = run("log", dead, "-s", folder).out
    assert " died: killed by SIGKILL, at most 29 MiB of memory\n" in out
    resumed = "resume current batch, batch b1 goes on after 3 items"
    assert f"recovered (interrupted batch): {resumed}\n" in out
    service.recover(failed, from_batch=2)
    out = run("log", failed, "-s", folder).out
    partial = "partial recovery, what was begun from batch 2 on begins anew"
    assert (
        f"recovered (recoverable failures): {partial}; 2 batches completed, 2 to be done\n" in out
    )
    store.unlock(elsewhere)
    service.recover(elsewhere)
    out = run("log", elsewhere, "-s", folder).out
    assert " died without a word; nothing it had in hand is to blame\n" in out


def test_the_scan_that_a_recovery_was_part_of_is_told(
    store: milepost.Store, folder: Path, dead: str, failed: str
) -> None:
    store.save_state("settings", 1)
    milepost.RecoveryService(store).detect_and_recover()
    out = run("log", dead, "-s", folder).out
    assert "; the scan so far: 1 of 2 sessions made ready, 1 with nothing to do\n" in out
    out = run("log", failed, "-s", folder).out
    again = "restart failed batches, 1 failed batch to be tried again"
    assert f"{again}; the scan so far: 2 of 2 sessions made ready, 1 with" in out
    event = json.loads(run("log", failed, "-s", folder, "--json").out.splitlines()[-1])
    assert event["result"] == {"kind": "restarted_failed", "batch_numbers": [3]}
    assert event["report"] == {
        "healthy_sessions": 1,
        "sessions_requiring_recovery": 2,
        "successful_recoveries": 2,
        "failed_recoveries": 0,
        "unrecoverable_sessions": 0,
    }
    shown = run("show", failed, "-s", folder, "--json").json
    assert shown["recovery"]["result"] == event["result"]


def test_a_recovery_of_a_release_that_noted_no_result_is_told() -> None:
    event = e.Recovered(
        9,
        0,
        -1,
        milepost.RecoveryReason.REQUESTED,
        milepost.RecoveryPriority.LOW,
        milepost.RecoveryStrategy.PARTIAL_RECOVERY,
        reset=[2, 3],
        from_batch=2,
    )
    told = words.describe(milepost.plain(event), "")
    assert told == "recovered (requested): partial recovery, from batch 2, 2 batches to begin anew"


def test_poison_is_told_with_what_is_known(store: milepost.Store, folder: Path, dead: str) -> None:
    config = milepost.RecoveryConfig(max_recovery_attempts=1)
    milepost.RecoveryService(store, config).recover(dead, cause="killed by SIGKILL")
    out = run("log", dead, "-s", folder).out
    assert "b1: item f failed: poison: its process died 1 time" in out
    assert "this alone in hand (killed by SIGKILL) (" in out


def test_poison_is_told_with_the_phase_where_somebody_told_it(
    store: milepost.Store, doomed: milepost.Store, folder: Path
) -> None:
    session = doomed.session("s", total_batches=1)
    batch = session.start_batch("b")
    batch.update_progress(phase=milepost.BatchPhase.DATA_SAVING)
    batch.update_item("f", milepost.ItemStatus.PROCESSING)
    session.supersede()
    milepost.RecoveryService(store, milepost.RecoveryConfig(max_recovery_attempts=1)).recover("s")
    assert "this alone in hand (phase data_saving)" in run("log", "s", "-s", folder).out
