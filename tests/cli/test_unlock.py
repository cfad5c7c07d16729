from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import milepost
from support.commands import run, start

if TYPE_CHECKING:
    from pathlib import Path


def test_it_says_who_held_it_and_gives_it_free(
    store: milepost.Store, folder: Path, elsewhere: str
) -> None:
    assert store.view(elsewhere).judgement.status is milepost.SessionStatus.RUNNING
    ran = run("unlock", elsewhere, "-s", folder)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("elsewhere: unlocked; it was held by process 17 on desk since 20")
    assert store.view(elsewhere).judgement.status is milepost.SessionStatus.INTERRUPTED
    with store.session(elsewhere) as session:
        assert session.was_dead


def test_json_is_one_object(folder: Path, elsewhere: str) -> None:
    told = run("unlock", elsewhere, "-s", folder, "--json").json
    assert told.keys() == {"name", "unlocked", "holder", "next_command"}
    assert (told["name"], told["unlocked"]) == (elsewhere, True)
    assert told["holder"] == told["holder"] | {
        "host": "desk",
        "pid": 17,
        "presence": "unknown",
        "alive": True,
    }
    assert told["holder"]["since"].endswith("Z")
    again = run("unlock", elsewhere, "-s", folder, "--json").json
    assert again["unlocked"] is False


def test_what_nobody_holds_needs_no_unlocking(folder: Path, dead: str) -> None:
    ran = run("unlock", dead, "-s", folder)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "dead: nothing to unlock, nobody holds it",
        f"next: milepost run places.py --store {folder}",
    ]


def test_a_living_writer_of_this_host_is_11_and_says_whom_to_stop(
    store: milepost.Store, folder: Path
) -> None:
    with store.session("live", total_batches=1) as session:
        process = start("unlock", "live", "-s", folder)
        out, err = process.communicate(timeout=60)
        session.flush()
    assert (process.returncode, out) == (11, "")
    assert f"written by process {os.getpid()} on {platform.node()}" in err
    assert err.endswith(f"\nhint: it lives: stop process {os.getpid()} on {platform.node()}\n")


def test_the_holder_is_in_the_error_under_json(store: milepost.Store, folder: Path) -> None:
    with store.session("live", total_batches=1):
        process = start("unlock", "live", "-s", folder, "--json")
        _, err = process.communicate(timeout=60)
    assert process.returncode == 11
    assert f'"pid": {os.getpid()}' in err
