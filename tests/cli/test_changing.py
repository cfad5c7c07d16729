"""`retry`, `restart` and `restore`: the commands that change a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import milepost
from milepost import ItemStatus
from support.commands import run, start, tree

if TYPE_CHECKING:
    from pathlib import Path


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
