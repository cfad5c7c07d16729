"""`retry`, `restart` and `restore`: the commands that change a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import milepost
from milepost import ItemStatus
from support.commands import run, start, tree

if TYPE_CHECKING:
    from pathlib import Path

COMPLETED = ItemStatus.COMPLETED


def counts(store: milepost.Store, name: str) -> milepost.Counts:
    return milepost.item_counts(store.load_progress(name))


def test_retry_puts_all_that_failed_back(store: milepost.Store, folder: Path, failed: str) -> None:
    ran = run("retry", failed, "-s", folder)
    assert (ran.code, ran.err) == (0, "")
    assert "put back to pending: 1 batch with 2 failed items" in ran.out
    assert f"next: milepost run places.py --store {folder}" in ran.out
    assert counts(store, failed).failed == 0
    assert store.view(failed).judgement.status is milepost.SessionStatus.PENDING


def test_retry_of_one_item_leaves_the_other(
    store: milepost.Store, folder: Path, failed: str
) -> None:
    told = run("retry", failed, "p-1", "-s", folder, "--json").json
    assert (told["batches"], told["items"]) == (["b3"], 1)
    assert counts(store, failed).failed == 1


def test_a_key_that_is_a_number_is_found(store: milepost.Store, folder: Path, failed: str) -> None:
    assert run("retry", failed, "7", "-s", folder, "--json").json["items"] == 1
    (batch,) = store.load_progress(failed).pending_batches.values()
    assert batch.open[7].status is ItemStatus.PENDING
    assert batch.open["p-1"].status is ItemStatus.FAILED


def test_retry_of_one_kind_of_error(store: milepost.Store, folder: Path, failed: str) -> None:
    ran = run("retry", failed, "--error-type", "timeout_error", "-s", folder, "--json")
    assert ran.json["items"] == 1
    assert run("retry", failed, "--error-type", "nonsense", "-s", folder).code == 2


def test_retry_of_a_key_that_did_not_fail_changes_nothing(folder: Path, failed: str) -> None:
    ran = run("retry", failed, "p-0", "-s", folder)
    assert (ran.code, ran.out) == (10, "")
    assert "error: nothing that failed in session 'places' has the key 'p-0'" in ran.err
    assert run("show", failed, "-s", folder, "--json").json["items"]["failed"] == 2


def poisoned(store: milepost.Store, name: str) -> None:
    """End the dead session with its item failed as poison."""
    config = milepost.RecoveryConfig(max_recovery_attempts=1)
    milepost.RecoveryService(store, config).recover(name, cause="killed by SIGKILL")
    with store.session(name) as session:
        session.start_batch("b1").complete()
        session.start_batch("b2", number=2).complete()
        session.complete()


@pytest.mark.parametrize(
    "chosen", [["f"], ["b1"], ["--error-type", "unknown_error"], []], ids=" ".join
)
def test_retry_gives_poison_in_a_finished_session_another_chance(
    chosen: list[str], store: milepost.Store, folder: Path, dead: str
) -> None:
    poisoned(store, dead)
    assert store.view(dead).judgement.status is milepost.SessionStatus.FAILED
    assert (
        run("retry", dead, "-s", folder, "--error-type", "timeout_error", "--json").json["items"]
        == 0
    )
    told = run("retry", dead, *chosen, "-s", folder, "--json").json
    assert (told["batches"], told["items"]) == (["b1"], 1)
    assert told["next_command"] == f"milepost run places.py --store {folder}"
    state = store.load_progress(dead)
    assert state.pending_batches[1].open["f"].status is ItemStatus.PENDING
    assert state.suspects == []
    assert counts(store, dead).completed == 4
    # It begins with a clean record: the deaths before do not count against it again.
    with store.session(dead) as session:
        batch = session.start_batch("b1")
        batch.update_item("f", ItemStatus.COMPLETED)
        batch.complete()
        session.complete()
    assert store.view(dead).judgement.status is milepost.SessionStatus.COMPLETED


def test_retry_with_nothing_failed_says_so(folder: Path, interrupted: str) -> None:
    ran = run("retry", interrupted, "-s", folder)
    assert ran.code == 0
    assert "nothing failed" in ran.out


def test_restart_begins_anew_and_can_be_undone(
    store: milepost.Store, folder: Path, failed: str
) -> None:
    ran = run("restart", failed, "-s", folder, "--json")
    assert ran.code == 0
    assert counts(store, failed).completed == 0
    undo = ran.json["undo_command"]
    assert undo == f"milepost restore {failed} {ran.json['version']} --store {folder}"
    assert run(*undo.split()[1:]).code == 0
    assert counts(store, failed).completed == 16
    ran = run("list", "-s", folder)
    assert ran.code == 0
    assert "DAMAGED" not in ran.out


def test_restart_says_what_is_given_up(folder: Path, failed: str) -> None:
    out = run("restart", failed, "-s", folder).out
    assert "begun anew as version" in out
    assert "given up: 3 of 4 batches (1 failed), 16 items (2 failed)" in out
    assert "next: milepost run places.py" in out
    assert "undo: milepost restore places" in out


RESTARTS = [["restart", "tree"], ["recover", "--session", "tree", "--strategy", "full"]]


@pytest.mark.parametrize("words", RESTARTS, ids=lambda words: words[0])
def test_what_begins_anew_says_which_files_are_in_the_way(
    words: list[str], store: milepost.Store, folder: Path, growing: str
) -> None:
    rows = folder.parent / "rows.txt"
    assert str(rows) not in run(*words, "--dry-run", "-s", folder).out
    lines = [line.strip() for line in run(*words, "-s", folder).out.splitlines()]
    at = lines.index(f"move away first, it has the rows of before: {rows}")
    assert lines[at + 1] == f"next: milepost run places.py --store {folder}"
    store.restore(growing, max(each.version for each in store.versions(growing)) - 1)
    rows.unlink()
    assert "move away" not in run(*words, "-s", folder).out, "it is not there any more"


def test_json_says_which_files_are_in_the_way(folder: Path, growing: str) -> None:
    rows = str(folder.parent / "rows.txt")
    told = run("recover", "--session", growing, "--strategy", "full", "-s", folder, "--json").json
    assert told["move_away"] == {growing: [rows]}
    (undo,) = (each for each in run("restart", growing, "-s", folder).out.splitlines()[-1:])
    assert undo.startswith("undo: ")
    assert run("restore", growing, "2", "-s", folder, "--json").json["move_away"] == []
    assert run("restore", growing, "1", "-s", folder, "--json").json["move_away"] == [rows]
    assert run("restore", growing, "2", "-s", folder, "--json").json["move_away"] == []
    assert run("restart", growing, "-s", folder, "--json").json["move_away"] == [rows]


def test_restart_counts_what_was_there_when_its_turn_began(
    store: milepost.Store, folder: Path, interrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = milepost.Store.view

    def late(self: milepost.Store, name: str) -> milepost.View:
        seen = view(self, name)
        with store.session(name, execute=False) as session:  # another writer gets on
            session.start_batch("b2", number=2, items_total=1).update_item("z", COMPLETED)
        return seen

    monkeypatch.setattr(milepost.Store, "view", late)
    out = run("restart", interrupted, "-s", folder).out
    assert "given up: 1 of 3 batches, 3 items\n" in out


def test_with_auto_resume_off_the_next_command_is_one_that_is_not_refused(
    folder: Path, failed: str
) -> None:
    off = {"MILEPOST_AUTO_RESUME": "0"}
    again = f"milepost run places.py --store {folder}"
    meant = f"MILEPOST_AUTO_RESUME=1 {again}"
    for words, expected in (
        (["retry", failed], meant),  # it is unfinished again
        (["restart", failed], again),
        (["restore", failed, "2"], again),  # there it had ended
    ):
        told = run(*words, "-s", folder, "--json", env=off).json
        assert told["next_command"] == expected, words


@pytest.mark.parametrize("words", [["restart"], ["restore", "1"]], ids=lambda words: words[0])
def test_a_dry_run_changes_no_file(words: list[str], folder: Path, failed: str) -> None:
    before = tree(folder)
    ran = run(words[0], failed, *words[1:], "--dry-run", "-s", folder)
    assert ran.code == 0
    assert "would" in ran.out
    told = run(words[0], failed, *words[1:], "--dry-run", "-s", folder, "--json").json
    assert told["dry_run"] is True
    assert told["new_version"] is None
    assert tree(folder) == before


def test_restore_makes_an_older_version_the_state(store: milepost.Store, folder: Path) -> None:
    first = store.save_state("settings", {"cursor": 1})
    store.save_state("settings", {"cursor": 2})
    told = run("restore", "settings", str(first), "-s", folder, "--json").json
    assert told["new_version"] == 3
    assert store.load_state("settings") == {"cursor": 1}
    assert store.load_state("settings", version=2) == {"cursor": 2}


def test_restore_can_be_undone(store: milepost.Store, folder: Path, interrupted: str) -> None:
    # The last version is older than the last event: the state to go back to is in no version yet.
    lines = run("restore", interrupted, "1", "-s", folder).out.splitlines()
    assert counts(store, interrupted).completed == 0
    assert lines[-1].startswith("undo: milepost restore crawl ")
    assert run(*lines[-1].split()[2:]).code == 0
    assert counts(store, interrupted).completed == 2
    assert store.load_state(interrupted) == {"cursor": 41}
    dry = run("restore", interrupted, "1", "-s", folder, "--dry-run", "--json").json
    assert dry["undo_command"] is None


def test_a_version_that_is_not_there_is_10(folder: Path, failed: str) -> None:
    for more in ([], ["--dry-run"]):
        ran = run("restore", failed, "99", "-s", folder, *more)
        assert (ran.code, ran.out) == (10, "")
        assert "error: there is no version 99\n\nhint: there are: 1, 2\n" in ran.err
    assert run("restore", failed, "0", "-s", folder).code == 2
    assert run("restore", failed, "x", "-s", folder).code == 2


@pytest.mark.parametrize(
    "words", [["retry"], ["restart"], ["restore", "1"]], ids=lambda words: words[0]
)
def test_a_session_that_somebody_writes_is_11(
    words: list[str], store: milepost.Store, folder: Path
) -> None:
    with store.session("live", total_batches=1):
        process = start(words[0], "live", *words[1:], "-s", folder, "--json")
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (11, "")
        assert '"type": "AlreadyLockedError"' in err
        assert '"holder": {"host": ' in err
