"""`recover` without execution: what it finds, says and makes ready."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost import ItemStatus
from support.commands import run, start, tree

if TYPE_CHECKING:
    from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lose_work(folder: Path, name: str) -> None:
    """Damage a session without backups so that acknowledged work is missing."""
    store = milepost.Store(folder, config=milepost.StoreConfig(backup_enabled=False))
    with store.session(name, total_batches=2) as session:
        batch = session.start_batch("b")
        session.snapshot()
        batch.update_items([(n, ItemStatus.COMPLETED) for n in range(5)])
        session.flush()
        batch.complete()
    parts = folder / "sessions" / name
    newest = max((parts / "snapshots").iterdir(), key=lambda file: int(file.name.split(".")[0]))
    newest.unlink()
    for journal in (parts / "journal").iterdir():
        data = bytearray(journal.read_bytes())
        data[len(data) // 2] ^= 1
        journal.write_bytes(data)


def urgent(store: milepost.Store, name: str, done: int) -> None:
    """A dead session of which so many of ten items are done."""
    session = store.session(name, total_batches=1)
    batch = session.start_batch("b", items_total=10)
    batch.update_items([(n, ItemStatus.COMPLETED) for n in range(done)])
    session.supersede()


def test_it_says_what_it_found_and_makes_it_ready(
    store: milepost.Store, folder: Path, dead: str
) -> None:
    ran = run("recover", "-s", folder)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "dead: interrupted batch, high priority"
    assert lines[1].endswith("ended and could not record it, with 1 item in hand")
    assert lines[2:] == [
        "  made ready: batch b1 goes on after 3 items",
        f"  next: milepost run places.py --store {folder}",
    ]
    assert ran.err == "1 session: 1 made ready\n"
    mark = store.load_progress(dead).recovery
    assert mark is not None
    assert mark.reason is milepost.RecoveryReason.INTERRUPTED_BATCH
    again = run("recover", "-s", folder)
    assert "  was made ready before: batch b1 goes on after 3 items" in again.out
    assert store.load_progress(dead).recovery == mark


def test_a_dry_run_changes_nothing_at_all(
    folder: Path, dead: str, failed: str, interrupted: str, elsewhere: str
) -> None:
    before, bytes_before = tree(folder), contents(folder)
    ran = run("recover", "--dry-run", "-s", folder)
    told = run("recover", "--dry-run", "-s", folder, "--json").json
    assert (tree(folder), contents(folder)) == (before, bytes_before)
    assert ran.code == 0
    assert "  would make it ready: batch b1 goes on after 3 items" in ran.out
    assert "  would make it ready: 1 failed batch to be tried again" in ran.out
    assert told["dry_run"] is True
    assert told["recovery_details"] == []
    assert told["proposals"][dead] == {"kind": "resumed", "batches": {"b1": 3}}
    assert told["proposals"][failed] == {"kind": "restarted_failed", "batch_numbers": [3]}
    assert run("recover", "-s", folder).code == 0
    assert contents(folder) != bytes_before, "what would have been done is done without --dry-run"


def test_the_most_urgent_come_first(store: milepost.Store, folder: Path) -> None:
    for name, done in (("a-low", 0), ("b-high", 6), ("c-medium", 2), ("d-high", 9)):
        urgent(store, name, done)
    order = ["b-high", "d-high", "c-medium", "a-low"]
    told = run("recover", "-s", folder, "--json").json
    assert list(told["statuses"]) == order
    assert [each["session_id"] for each in told["recovery_details"]] == order


def test_json_is_one_object(store: milepost.Store, folder: Path, dead: str) -> None:
    store.save_state("settings", 1)
    told = run("recover", "-s", folder, "--json").json
    assert told["store"] == str(folder)
    assert told["dry_run"] is False
    assert told["statuses"][dead]["kind"] == "required"
    assert told["statuses"][dead]["reason"] == "interrupted_batch"
    assert told["statuses"]["settings"]["kind"] == "none"
    (detail,) = told["recovery_details"]
    assert detail["recovery_strategy"] == "resume_current_batch"
    assert detail["recovery_result"] == {"kind": "resumed", "batches": {"b1": 3}}
    assert detail["recovered_at"].endswith("Z")
    assert (told["healthy_sessions"], told["successful_recoveries"]) == (1, 1)
    assert told["next_commands"] == {dead: f"milepost run places.py --store {folder}"}


def test_what_is_held_stays_and_says_what_to_type(
    store: milepost.Store, folder: Path, dead: str
) -> None:
    lose_work(folder, "lossy")
    before = {name: each for name, each in tree(folder).items() if "lossy" in name}
    ran = run("recover", "-s", folder)
    assert ran.code == 12
    assert "lossy: LEFT ALONE, damaged, high priority" in ran.out
    assert "  hint: put the file back from another copy, or accept the loss and go on" in ran.out
    assert f"milepost restore lossy --store {folder}" in ran.out
    assert "  made ready: batch b1" in ran.out, "one that is held stops no other"
    assert ran.err == "2 sessions: 1 made ready, 1 left alone\n"
    assert {name: each for name, each in tree(folder).items() if "lossy" in name} == before
    accepted = run("restore", "lossy", "-s", folder)
    assert accepted.code == 0
    assert run("recover", "-s", folder).code == 0


def test_one_that_does_not_add_up_is_held_until_somebody_decides(
    store: milepost.Store, folder: Path
) -> None:
    with store.session("odd") as session:
        session.start_batch("b").update_item("p", ItemStatus.COMPLETED)
        session._writer.state.session_statistics.total_items_failed += 5
        session.end(milepost.Outcome.INTERRUPTED)
    assert run("recover", "-s", folder).code == 12
    shown = run("show", "odd", "-s", folder)
    assert shown.code == 12
    assert "does not add up" in shown.err
    decided = f"milepost recover --session odd --strategy resume --store {folder}"
    assert decided in shown.err
    ran = run("recover", "--session", "odd", "--strategy", "resume", "-s", folder)
    assert (ran.code, ran.err) == (0, "1 session: 1 made ready\n")
    assert "LEFT ALONE" not in ran.out


def test_one_that_cannot_be_read_is_12_with_what_was_tried(
    store: milepost.Store, folder: Path, dead: str, failed: str
) -> None:
    for part in ("sessions", "backups"):
        for file in (folder / part).rglob(f"{failed}/**/*.zst"):
            file.write_bytes(b"nothing")
    ran = run("recover", "-s", folder)
    assert ran.code == 12
    assert "places: UNRECOVERABLE, " in ran.out
    assert "  tried " in ran.out
    assert "  made ready: batch b1" in ran.out
    told = run("recover", "-s", folder, "--json")
    assert (told.code, told.json["unrecoverable_sessions"]) == (12, 1)
    assert told.json["statuses"][failed]["tried"]


def test_a_session_of_a_newer_milepost_is_1_and_stops_nothing(
    store: milepost.Store, folder: Path, dead: str, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = milepost.RecoveryService.judge

    def refused(service: milepost.RecoveryService, name: str) -> object:
        if name == failed:
            raise milepost.UnsupportedVersionError("written by a newer milepost")
        return judge(service, name)

    monkeypatch.setattr(milepost.RecoveryService, "judge", refused)
    ran = run("recover", "-s", folder)
    assert ran.code == 1
    assert "places: FAILED, written by a newer milepost" in ran.out
    assert "  made ready: batch b1" in ran.out


def test_living_and_stopped_ones_are_left_alone(store: milepost.Store, folder: Path) -> None:
    with store.session("stopped", total_batches=1):
        pass
    with store.session("live", total_batches=1):
        before = tree(folder)
        process = start("recover", "-s", folder)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "stopped: nothing to do, it was stopped on purpose" in out
    assert "live: nothing to do, a process is writing it" in out
    assert err == "2 sessions: 2 with nothing to do\n"
    after = tree(folder)
    assert all(after[path] == each for path, each in before.items() if "sessions/stopped" in path)


def test_the_silence_of_another_host_counts_over_several_looks(
    folder: Path, elsewhere: str
) -> None:
    told = run("recover", "-s", folder, "--json").json["statuses"][elsewhere]
    assert told["kind"] == "none"
    seen = list((folder / "sessions" / elsewhere / "leases").glob("*.seen"))
    assert seen, "the next look could not tell how long it has been silent"


def test_a_living_one_that_does_nothing_is_told_of_and_is_no_damage(
    store: milepost.Store, folder: Path
) -> None:
    with store.session("live", total_batches=1):
        process = start("recover", "-s", folder, env={"MILEPOST_STALLED_AFTER_SECONDS": "0.000001"})
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "live: LEFT ALONE, stalled, low priority" in out
    assert err == "1 session: 1 left alone\n"


def test_recovery_that_is_switched_off_only_reports(folder: Path, dead: str) -> None:
    before = contents(folder)
    off = {"MILEPOST_AUTO_RECOVERY_ENABLED": "off"}
    ran = run("recover", "-s", folder, env=off)
    assert ran.code == 0
    assert "  would make it ready: batch b1 goes on after 3 items" in ran.out
    assert "auto_recovery_enabled is off, so nothing was changed" in ran.err
    assert contents(folder) == before


def test_only_the_sessions_that_were_named(
    store: milepost.Store, folder: Path, dead: str, failed: str, interrupted: str
) -> None:
    told = run("recover", "-s", folder, "--session", dead, "--session", interrupted, "--json").json
    assert set(told["statuses"]) == {dead, interrupted}
    assert store.load_progress(failed).recovery is None
    ran = run("recover", "-s", folder, "--session", dead, "--session", "nope")
    assert (ran.code, ran.out) == (10, "")
    assert "'nope'" in ran.err


# Forced.


def test_with_auto_resume_off_the_named_target_says_that_it_is_meant(
    here: Path, folder: Path, dead: str
) -> None:
    (here / "x.py").write_text(
        f"import milepost\n@milepost.job({dead!r}, batches=['b'])\ndef work(batch): pass\n"
    )
    words = ["recover", "x.py", "--dry-run", "-s", str(folder), "--json"]
    again = f"milepost run x.py --store {folder}"
    assert run(*words).json["next_commands"] == {dead: again}
    told = run(*words, env={"MILEPOST_AUTO_RESUME": "0"}).json
    assert told["next_commands"] == {dead: f"MILEPOST_AUTO_RESUME=1 {again}"}


def test_from_batch_begins_anew_from_there(
    store: milepost.Store, folder: Path, failed: str
) -> None:
    forced = ["recover", "-s", str(folder), "--session", failed, "--from-batch", "1"]
    before = contents(folder)
    ran = run(*forced, "--dry-run")
    assert ran.code == 0
    assert "  would make it ready: what was begun from batch 1 on begins anew; 1 batch" in ran.out
    assert contents(folder) == before
    told = run(*forced, "--json").json
    assert told["recovery_details"][0]["recovery_result"] == {
        "kind": "partial",
        "completed_batches": 1,
        "restart_from_batch": 1,
        "remaining_batches": 3,
    }
    state = store.load_progress(failed)
    assert list(state.completed_batches) == [0]
    assert not state.failed_batches


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("resume", milepost.RecoveryStrategy.RESUME_CURRENT_BATCH),
        ("restart-failed", milepost.RecoveryStrategy.RESTART_FAILED_BATCHES),
        ("partial", milepost.RecoveryStrategy.PARTIAL_RECOVERY),
        ("full", milepost.RecoveryStrategy.FULL_RESTART),
    ],
)
def test_each_strategy_has_a_word(
    word: str,
    expected: milepost.RecoveryStrategy,
    store: milepost.Store,
    folder: Path,
    failed: str,
) -> None:
    assert run("recover", "-s", folder, "--session", failed, "--strategy", word).code == 0
    mark = store.load_progress(failed).recovery
    assert mark is not None
    assert mark.strategy is expected


def test_by_progress_the_thresholds_decide(store: milepost.Store, folder: Path) -> None:
    urgent(store, "little", 2)
    before = contents(folder)
    forced = ["recover", "-s", str(folder), "--session", "little", "--strategy", "by-progress"]
    told = "what was begun from batch 0 on begins anew; 0 batches completed, 1 to be done"
    assert f"  would make it ready: {told}\n" in run(*forced, "--dry-run").out
    assert contents(folder) == before
    assert f"  made ready: {told}\n" in run(*forced).out
    assert f"  was made ready before: {told}\n" in run(*forced).out
    assert store.load_progress("little").pending_batches[0].items_finished == 0


def test_a_strategy_that_cannot_be_is_told_and_changes_nothing(folder: Path, dead: str) -> None:
    before = contents(folder)
    forced = ["recover", "-s", str(folder), "--session", dead]
    assert run(*forced, "--from-batch", "9").code == 2
    assert run(*forced, "--strategy", "restart-failed").code == 2
    assert run(*forced, "--strategy", "resume", "--from-batch", "1").code == 2
    assert run(*forced, "--strategy", "by-progress", "--from-batch", "1").code == 2
    assert contents(folder) == before


@pytest.mark.parametrize(
    "words",
    [
        ["--strategy", "full"],
        ["--strategy", "by-progress"],
        ["--from-batch", "0"],
        ["--from-batch", "0", "--session", "a", "--session", "b"],
        ["--strategy", "full", "--session", "a", "--watch"],
        ["--strategy", "full", "--session", "a", "places.py"],
        ["--watch", "--dry-run"],
        ["--jobs", "0"],
        ["--delay", "-1"],
        ["--max-attempts", "0"],
        ["--strategy", "hope", "--session", "a"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_told_before_anything_is_done(
    words: list[str], folder: Path, dead: str
) -> None:
    before = contents(folder)
    ran = run("recover", *words, "-s", folder)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert "\nhint: " in ran.err
    assert contents(folder) == before


def test_a_living_session_cannot_be_forced(store: milepost.Store, folder: Path) -> None:
    with store.session("live", total_batches=2) as session:
        process = start(
            "recover", "-s", folder, "--session", "live", "--strategy", "full", "--json"
        )
        out, err = process.communicate(timeout=60)
        session.flush()
    assert (process.returncode, out) == (11, "")
    assert str(os.getpid()) in err


def test_the_limit_of_the_command_line_decides_what_is_poison(
    store: milepost.Store, doomed: milepost.Store, folder: Path, dead: str
) -> None:
    run("recover", "-s", folder, "--max-attempts", "2")
    assert not _poisoned(store, dead), "one death is not two"
    _die_with(doomed, dead, "f")
    ran = run("recover", "-s", folder, "--max-attempts", "2", "--json")
    (told,) = ran.json["recovery_details"][0]["poisoned"]
    assert "'f'" in told
    assert _poisoned(store, dead)


def _die_with(store: milepost.Store, name: str, key: str) -> None:
    session = store.session(name)
    session.start_batch("b1").update_item(key, ItemStatus.PROCESSING)
    session.supersede()


def _poisoned(store: milepost.Store, name: str) -> bool:
    item = store.load_progress(name).active_batches[1].open["f"]
    return item.status is ItemStatus.FAILED


def test_no_store_is_10_and_makes_none(tmp_path: Path) -> None:
    for words in ([], ["--dry-run"], ["--watch"]):
        ran = run("recover", *words, "-s", tmp_path / "none")
        assert (ran.code, ran.out) == (10, "")
        assert "error: there is no store at" in ran.err
    assert not (tmp_path / "none").exists()


def test_names_cannot_act_on_the_terminal(store: milepost.Store, folder: Path) -> None:
    session = store.session("x", total_batches=1)
    session.start_batch("b\x1b[31m")
    session.supersede()
    ran = run("recover", "-s", folder)
    assert "batch b\\x1b[31m goes on" in ran.out
    assert "\x1b" not in ran.out + ran.err
