"""The watcher: what it carries on, what it leaves alone, and what it lives through."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any

import pytest
import watchfiles

import milepost
from support.watching import (
    AT_ONCE,
    Told,
    Watching,
    program,
    turns,
    wait_until,
    watch_to_the_end,
    watcher_of,
    watching,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")

WORK = """
import os, sys, time
import milepost

name = os.environ["MILEPOST_SESSION"]

def loop(count=6):
    return milepost.resume(range(count), name, progress=False)

def runs():
    with open(f"runs-{name}", "a+") as file:
        file.write("x")
        file.seek(0)
        return len(file.read())
"""
FINISH = "for item in loop(): pass\n"
DIE = "os._exit(5)\n"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> milepost.Store:
    monkeypatch.chdir(tmp_path)
    return milepost.Store(tmp_path / "store", recovery=AT_ONCE)


def target(folder: Path, text: str, pattern: str = "*") -> milepost.Target:
    name = f"{len(list(folder.iterdir()))}.py"
    return milepost.Target(pattern, program(folder, WORK + text, name))


def dead(store: milepost.Store, *names: str, done: int = 2, total: int = 6) -> None:
    """Sessions whose process died with so many items done."""
    text = (
        "import os, sys, milepost\n"
        "for name in sys.argv[3:]:\n"
        "    loop = milepost.resume(range(int(sys.argv[2])), name, progress=False)\n"
        "    globals()[name] = loop\n"
        "    for item in loop:\n"
        "        if item == int(sys.argv[1]): break\n"
        "os._exit(9)\n"
    )
    # Kept in a global, so that leaving the loop is not leaving it on purpose.
    words = [sys.executable, "-c", text, str(done), str(total), *names]
    subprocess.run(words, check=False, env={**os.environ, "MILEPOST_STORE": store.path})
    for name in names:
        assert status(store, name) is milepost.SessionStatus.INTERRUPTED


def status(store: milepost.Store, name: str = "work") -> milepost.SessionStatus:
    return store.view(name).judgement.status


def alive(store: milepost.Store, name: str = "work") -> bool:
    writer = store.view(name).writer
    return writer is not None and bool(writer["alive"])


# What it carries on.


def test_dead_sessions_are_carried_on_to_their_end_each_in_a_process(
    store: milepost.Store, tmp_path: Path
) -> None:
    dead(store, "a", "b")
    rows, told = watch_to_the_end(store, target(tmp_path, FINISH))
    for name in ("a", "b"):
        assert status(store, name) is milepost.SessionStatus.COMPLETED
        row = rows[name]
        assert (row.doing, row.runs, row.pid, row.exit_code) == ("fine", 1, None, 0)
        kinds = [each.event for each in told.notices if each.session == name]
        assert kinds == ["found", "started", "ended", "found"]
        started, ended = told.wait("started", name), told.wait("ended", name)
        assert started.pid == ended.pid
        assert ended.exit_code == 0
        assert store.load_progress(name).recovery is not None


def test_what_is_known_of_a_childs_death_is_kept(store: milepost.Store, tmp_path: Path) -> None:
    dead(store, "work")
    text = "first = runs() == 1\nfor item in loop():\n    if first: os.kill(os.getpid(), 9)\n"
    watch_to_the_end(store, target(tmp_path, text))
    executions = store.load_progress("work").executions
    # Of the death before it came the watcher knows nothing; of that of its child it does.
    assert [each.error_message for each in executions][::2] == [None, None]
    assert str(executions[1].error_message).startswith("killed by SIGKILL, at most")


def test_what_is_alive_stopped_finished_held_or_nobodys_is_left_alone(
    store: milepost.Store, tmp_path: Path
) -> None:
    dead(store, "damaged", "nobodys")
    for name in os.listdir(os.path.join(store.folder_of("damaged"), "journal")):
        os.unlink(os.path.join(store.folder_of("damaged"), "journal", name))
    for item in milepost.resume(range(3), "stopped", store=store, progress=False):
        if item == 1:
            break
    for item in milepost.resume(range(3), "finished", store=store, progress=False):
        assert item < 3
    store.save_state("data", 1)
    before = turns(store)
    with store.session("alive"):
        rows, told = watch_to_the_end(store, target(tmp_path, FINISH, "[!n]*"))
    assert {name: row.doing for name, row in rows.items()} == {
        "alive": "fine",
        "damaged": "held",
        "data": "fine",
        "finished": "fine",
        "nobodys": "no target",
        "stopped": "fine",
    }
    assert not told.of("started")
    assert {name: turn for name, turn in turns(store).items() if name != "alive"} == before


def test_what_was_stopped_and_begun_anew_is_carried_on(
    store: milepost.Store, tmp_path: Path
) -> None:
    for name in ("by-hand", "by-service"):
        for item in milepost.resume(range(6), name, store=store, progress=False):
            if item == 1:
                break
    with watching(store, target(tmp_path, FINISH)) as found:
        for name in ("by-hand", "by-service"):
            assert found.told.wait("found", name).session_status is milepost.SessionStatus.STOPPED
        assert not found.told.of("started")
        store.restart("by-hand")
        full = milepost.RecoveryStrategy.FULL_RESTART
        milepost.RecoveryService(store, AT_ONCE).recover("by-service", strategy=full)
        for name in ("by-hand", "by-service"):
            assert found.told.wait("ended", name).exit_code == 0
            assert store.load_progress(name).total_items_processed == 6


def test_all_is_shown_again_while_nothing_changes(store: milepost.Store, tmp_path: Path) -> None:
    dead(store, "work")
    text = "import pathlib\nfor item in loop():\n    while not pathlib.Path('go').exists(): pass\n"
    with watching(store, target(tmp_path, text)) as found:
        found.told.wait("started")
        running = [each for each in found.told.ticks if each and each[0].doing == "running"]
        seen = len(running) + 3
        wait_until(
            lambda: sum(rows[0].doing == "running" for rows in found.told.ticks if rows) >= seen
        )
        assert len(found.told.of("found")) == 1, "while nothing was news"
        (tmp_path / "go").touch()
        found.told.wait("ended")


def test_the_first_target_that_fits_counts(store: milepost.Store, tmp_path: Path) -> None:
    dead(store, "crawl-1", "crawl-2", "Crawl-3")
    note = "open(f'{name}-{TAG}', 'w').close()\n" + FINISH
    watch_to_the_end(
        store,
        target(tmp_path, "TAG = 'special'\n" + note, "crawl-2"),
        target(tmp_path, "TAG = 'usual'\n" + note, "crawl-*"),
        target(tmp_path, "TAG = 'rest'\n" + note, "*"),
    )
    made = {path.name for path in tmp_path.iterdir() if "rawl-" in path.name}
    assert made == {"crawl-1-usual", "crawl-2-special", "Crawl-3-rest"}


def test_the_most_urgent_come_first_and_so_many_at_once(
    store: milepost.Store, tmp_path: Path
) -> None:
    dead(store, "little", done=0)
    dead(store, "much", done=5)
    dead(store, "some", done=2)
    _, told = watch_to_the_end(store, target(tmp_path, FINISH), jobs=1)
    kinds = [(each.event, each.session) for each in told.notices if each.pid is not None]
    assert kinds == [
        (event, name) for name in ("much", "some", "little") for event in ("started", "ended")
    ]


def test_more_than_one_runs_at_once_but_no_more_than_allowed(
    store: milepost.Store, tmp_path: Path
) -> None:
    dead(store, *"abcde")
    # Each waits until another one is at work as well, so one at a time would never end.
    text = "open(f'at-{name}', 'w').close()\n" + FINISH
    text = (
        "open(f'at-{name}', 'w').close()\n"
        "while sum(each.startswith('at-') for each in os.listdir()) < 2: time.sleep(0.01)\n"
        + FINISH
    )
    _, told = watch_to_the_end(store, target(tmp_path, text), jobs=2)
    at_work = most = 0
    for each in told.notices:
        at_work += {"started": 1, "ended": -1}.get(each.event, 0)
        most = max(most, at_work)
    assert most == 2


def test_failed_batches_are_tried_again_in_so_many_runs(
    store: milepost.Store, tmp_path: Path
) -> None:
    text = (
        "@milepost.job(name, batches=range(3), attempts=1)\n"
        "def job(batch):\n"
        "    if batch.key == '1': raise ConnectionError('no network')\n"
        "sys.exit(job.run(progress=False).exit_code)\n"
    )
    store.session("work", execute=False).close()
    rows, told = watch_to_the_end(store, target(tmp_path, text))
    assert (rows["work"].runs, rows["work"].exit_code) == (3, 3)
    assert not told.of("gave_up")
    assert status(store) is milepost.SessionStatus.FAILED


def test_a_session_that_was_just_made_is_left_to_its_maker_for_a_moment(
    store: milepost.Store, tmp_path: Path
) -> None:
    store.session("work", execute=False).close()
    rows, told = watch_to_the_end(store, target(tmp_path, FINISH))
    assert told.ticks[0][0].doing == "waiting"
    assert rows["work"].runs == 1


def test_with_recovery_off_it_only_tells(store: milepost.Store, tmp_path: Path) -> None:
    dead(store, "work")
    before = turns(store)
    config = milepost.RecoveryConfig(auto_recovery_enabled=False)
    rows, told = watch_to_the_end(store, target(tmp_path, FINISH), config=config)
    assert rows["work"].doing == "ready"
    assert [each.event for each in told.notices] == ["watching", "found"]
    assert turns(store) == before


# Giving up.


def test_work_that_never_gets_on_waits_longer_each_time_and_is_given_up(
    store: milepost.Store, tmp_path: Path
) -> None:
    dead(store, "hopeless", "fine")
    config = milepost.RecoveryConfig(max_recovery_attempts=3, recovery_delay_seconds=0.01)
    rows, told = watch_to_the_end(
        store, target(tmp_path, DIE, "hopeless"), target(tmp_path, FINISH), config=config
    )
    assert (rows["hopeless"].doing, rows["hopeless"].runs) == ("given up", 4)
    assert "4 starts in a row without progress; the last: exit code 5" in rows["hopeless"].detail
    assert [each.wait_seconds for each in told.of("waiting")] == [0.01, 0.02, 0.04]
    assert len(told.of("gave_up")) == 1
    assert rows["fine"].doing == "fine"


@pytest.mark.parametrize(
    "text",
    [
        # It begins its own session anew each time, and dies at another place.
        (
            "milepost.Store().restart(name)\n"
            "last = (3, 1, 2, 3, 0)[runs() % 5]\n"
            "for item in loop():\n    if item == last: os._exit(5)\n"
        ),
        # It says that all is well, and works on something else.
        "for item in milepost.resume(range(3), 'other', progress=False): pass\n",
        # What it starts goes on without it, and dies.
        (
            "if os.fork(): os._exit(0)\n"
            "import milepost\nsession = milepost.Store().session(name)\nos._exit(5)\n"
        ),
    ],
    ids=["restarts", "other", "forks"],
)
def test_whatever_it_does_it_comes_to_an_end(
    store: milepost.Store, tmp_path: Path, text: str
) -> None:
    dead(store, "work")
    told = Told()
    found = Watching(
        watcher_of(store, target(tmp_path, text), told=told, keeps_watching=True), told
    )
    found.start()
    told.wait("gave_up", "work")
    found.watcher.stop(signal.SIGTERM)
    assert found.join() == signal.SIGTERM
    assert len(told.of("started", "work")) <= 9


def test_what_was_given_up_is_taken_up_when_somebody_took_it_in_hand(
    store: milepost.Store, tmp_path: Path
) -> None:
    dead(store, "work")
    text = f"if not os.path.exists('mended'): {DIE}" + FINISH
    with watching(store, target(tmp_path, text)) as found:
        found.told.wait("gave_up")
        (tmp_path / "mended").touch()
        store.restart("work")
        found.told.wait_until(
            lambda: any(each.exit_code == 0 for each in found.told.of("ended", "work"))
        )
    assert status(store) is milepost.SessionStatus.COMPLETED


def test_a_command_that_does_not_exist_gives_up_that_session_alone(
    store: milepost.Store, tmp_path: Path
) -> None:
    dead(store, "a", "b")
    missing = milepost.Target("a", ("no-such-program",))
    rows, told = watch_to_the_end(store, missing, target(tmp_path, FINISH))
    (given_up,) = told.of("gave_up")
    assert given_up.session == "a"
    assert "cannot start 'no-such-program'" in given_up.message
    assert (rows["a"].doing, rows["a"].runs) == ("given up", 0)
    assert rows["b"].doing == "fine"


class Refusing(milepost.Store):
    """A store in which a session cannot be opened so many times."""

    refusals = 0

    def session(self, name: str, **more: Any) -> milepost.Session:
        if name == "a" and self.refusals:
            self.refusals -= 1
            raise milepost.StorageFullError("no room left", operation="write", path="x")
        return super().session(name, **more)


@pytest.mark.parametrize(("refusals", "doing"), [(2, "fine"), (99, "given up")])
def test_a_session_that_cannot_be_made_ready_is_tried_again_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int, doing: str
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Refusing(tmp_path / "store", recovery=AT_ONCE)
    dead(store, "a", "b")
    store.refusals = refusals
    rows, _ = watch_to_the_end(store, target(tmp_path, FINISH))
    assert rows["a"].doing == doing
    assert ("no room left" in rows["a"].detail) == (doing == "given up")
    assert rows["b"].doing == "fine"


def test_a_session_that_cannot_be_read_is_told_and_the_others_go_on(
    store: milepost.Store, tmp_path: Path
) -> None:
    store.config = milepost.StoreConfig(backup_enabled=False)
    dead(store, "bad", "good")
    for place in (store.folder_of("bad"), os.path.join(store.path, "backups")):
        for folder, _, names in os.walk(place):
            for name in names:
                if name.endswith(".zst") and ("bad" in folder):
                    (tmp_path / "x").touch()
                    shutil.copy(tmp_path / "x", os.path.join(folder, name))
    rows, told = watch_to_the_end(store, target(tmp_path, FINISH))
    assert rows["bad"].doing == "unreadable"
    assert len(told.of("found", "bad")) == 1
    assert rows["good"].doing == "fine"


# Who else is there.


def test_there_is_one_watcher_a_store(store: milepost.Store) -> None:
    store.session("work").close()
    with watching(store) as found:
        found.told.wait("watching")
        with pytest.raises(milepost.AlreadyLockedError, match="another process watches"):
            watcher_of(store, told=Told()).run()
    assert watcher_of(store, told=Told()).run() is None


def test_a_store_that_is_not_there_is_an_error(store: milepost.Store) -> None:
    with pytest.raises(milepost.StoreNotFoundError):
        watcher_of(store, told=Told()).run()
    assert not store.exists()


def test_who_runs_it_by_hand_meanwhile_is_left_alone_and_followed(
    store: milepost.Store, tmp_path: Path
) -> None:
    """A by-hand run is quicker than the child, which ends as locked: that is no failure."""
    dead(store, "work")
    by_hand = (
        "import os, time, milepost\\n"
        "for item in milepost.resume(range(6), 'work', progress=False):\\n"
        "    open('by-hand', 'w').write(str(os.getpid()))\\n"
        "    time.sleep(600)\\n"
    )
    text = (
        "import subprocess\n"
        "if runs() == 1:\n"
        f"    subprocess.Popen([sys.executable, '-c', '''{by_hand}'''], start_new_session=True)\n"
        "    while not os.path.exists('by-hand') or not open('by-hand').read(): time.sleep(0.01)\n"
        "    os._exit(11)\n" + FINISH
    )
    with watching(store, target(tmp_path, text.replace("\\\\n", "\n"))) as found:
        told = found.told
        assert told.wait("ended").exit_code == 11
        told.wait_until(lambda: told.of("found", "work")[-1].message.endswith("writing it"))
        assert not told.of("waiting")
        os.kill(int((tmp_path / "by-hand").read_text()), signal.SIGKILL)
        assert told.wait("ended", count=2).exit_code == 0
    assert status(store) is milepost.SessionStatus.COMPLETED
    assert len(told.of("started")) == 2


def test_the_death_of_somebody_elses_process_is_found_without_file_events(
    store: milepost.Store, tmp_path: Path
) -> None:
    store.save_state("settings", 1)  # a store to watch
    text = "for item in milepost.resume(range(6), 'new', progress=False):\n    time.sleep(600)\n"
    command = program(tmp_path, "import time, milepost\n" + text, "by-hand.py")
    with watching(store, target(tmp_path, FINISH), uses_file_events=False) as found:
        found.told.wait("watching")
        process = subprocess.Popen(command, env={**os.environ, "MILEPOST_STORE": store.path})
        found.told.wait_until(
            lambda: any("writing it" in each.message for each in found.told.of("found", "new"))
        )
        process.kill()
        process.wait()
        assert found.told.wait("ended", "new").exit_code == 0
    assert status(store, "new") is milepost.SessionStatus.COMPLETED


def test_a_session_that_is_deleted_is_forgotten(store: milepost.Store) -> None:
    for name in ("a", "b"):
        store.session(name).close()
    with watching(store) as found:
        found.told.wait_until(lambda: len(found.told.of("found")) == 2)
        shutil.rmtree(store.folder_of("a"))
        found.told.wait_until(lambda: [row.session for row in found.told.ticks[-1]] == ["b"])


def test_what_is_stalled_is_told_and_never_touched(store: milepost.Store, tmp_path: Path) -> None:
    config = milepost.RecoveryConfig(stalled_after_seconds=0.01)
    with (
        store.session("work") as session,
        watching(store, target(tmp_path, FINISH), config=config) as found,
    ):
        found.told.wait_until(lambda: _stalled(found.told))
        assert found.rows()["work"].doing == "held"
        session.set_data("still here")
    assert not found.told.of("started")


def test_a_child_that_is_stalled_is_told_and_never_touched(
    store: milepost.Store, tmp_path: Path
) -> None:
    dead(store, "work")
    config = milepost.RecoveryConfig(stalled_after_seconds=0.5, recovery_delay_seconds=0)
    text = "for item in loop(): \n    while not os.path.exists('go'): time.sleep(0.01)\n"
    with watching(store, target(tmp_path, text), config=config) as found:
        found.told.wait_until(lambda: _stalled(found.told))
        assert found.rows()["work"].doing == "running"
        (tmp_path / "go").touch()
        assert found.told.wait("ended").exit_code == 0


def _stalled(told: Told) -> bool:
    return any(
        isinstance(each.status, milepost.RequiresRecovery)
        and each.status.reason is milepost.RecoveryReason.STALLED
        for each in told.of("found", "work")
    )


# What goes wrong around it.


@pytest.mark.parametrize("uses_file_events", [True, False])
def test_a_store_that_vanishes_is_told_once_and_taken_up_when_it_is_back(
    store: milepost.Store, tmp_path: Path, uses_file_events: bool
) -> None:
    store.session("one").close()
    away = tmp_path / "away"
    with watching(store, target(tmp_path, FINISH), uses_file_events=uses_file_events) as found:
        told = found.told
        told.wait("found", "one")
        os.rename(store.path, away)
        assert "there is no store" in told.wait("trouble").message
        assert not os.path.exists(store.path), "nothing is made anew"
        # What comes back is another folder, and has new work.
        other = milepost.Store(tmp_path / "other", recovery=AT_ONCE)
        dead(other, "two")
        os.rename(other.path, store.path)
        assert told.wait("trouble", count=2).message.endswith("is back")
        assert told.wait("ended", "two").exit_code == 0
        assert len(told.of("trouble")) == 2
        # It is the only watcher of the new folder, too.
        with pytest.raises(milepost.AlreadyLockedError):
            watcher_of(store, told=Told()).run()
    assert [row.session for row in found.watcher.rows()] == ["two"]


def test_a_store_that_vanishes_under_a_child_gives_nothing_up(
    store: milepost.Store, tmp_path: Path
) -> None:
    dead(store, "work")
    text = f"if runs() == 1:\n    os.rename({store.path!r}, 'away')\n    os._exit(1)\n" + FINISH
    with watching(store, target(tmp_path, text)) as found:
        found.told.wait("ended")
        found.told.wait("trouble")
        os.rename(tmp_path / "away", store.path)
        assert found.told.wait("ended", count=2).exit_code == 0
    assert len(found.told.of("trouble")) == 2
    assert not found.told.of("gave_up")


def test_without_watching_a_store_that_vanishes_ends_it(
    store: milepost.Store, tmp_path: Path
) -> None:
    dead(store, "work")
    text = f"os.rename({store.path!r}, 'away')\nos._exit(1)\n"
    _, told = watch_to_the_end(store, target(tmp_path, text))
    assert len(told.of("trouble")) == 1


def test_where_file_events_are_refused_it_is_told_once_and_the_timer_takes_over(
    store: milepost.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_paths: str, **_how: object) -> Iterator[object]:
        raise OSError(28, "OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", refuse)
    store.session("one").close()
    with watching(store, target(tmp_path, FINISH)) as found:
        assert "OS file watch limit reached" in found.told.wait("trouble").message
        dead(store, "two")
        assert found.told.wait("ended", "two").exit_code == 0
    assert len(found.told.of("trouble")) == 1


# Signals.


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGINT, milepost.SessionStatus.STOPPED),
        (signal.SIGTERM, milepost.SessionStatus.INTERRUPTED),
    ],
)
def test_a_signal_is_passed_on_and_clean_saves_are_awaited(
    store: milepost.Store, tmp_path: Path, number: int, expected: milepost.SessionStatus
) -> None:
    dead(store, "a", "b", done=1, total=10_000)
    text = "for item in loop(10_000):\n    open(f'at-{name}', 'w').close()\n    time.sleep(0.01)\n"
    with watching(store, target(tmp_path, text)) as found:
        wait_until(lambda: all((tmp_path / f"at-{name}").exists() for name in "ab"))
        found.watcher.stop(number)
        assert found.join() == number
    for name in ("a", "b"):
        assert status(store, name) is expected
        assert store.load_progress(name).execution is None
    assert found.told.of("stopping")[0].message == "waiting for 2 sessions to save and end"
    assert not found.told.of("waiting")
    assert len(found.told.of("started")) == 2


def test_the_second_signal_is_passed_on_too_and_the_third_kills(
    store: milepost.Store, tmp_path: Path
) -> None:
    dead(store, "work")
    text = (
        "import signal\n"
        "for each in (2, 15):\n"
        "    signal.signal(each, lambda number, _: open(f'heard-{number}', 'a').close())\n"
        "open('at-work', 'w').close()\n"
        "while True: time.sleep(0.01)\n"
    )
    with watching(store, target(tmp_path, text)) as found:
        wait_until((tmp_path / "at-work").exists)
        found.watcher.stop(signal.SIGTERM)
        wait_until((tmp_path / "heard-15").exists)
        found.watcher.stop(signal.SIGINT)
        wait_until((tmp_path / "heard-2").exists)
        found.watcher.stop(signal.SIGINT)
        assert found.join() == signal.SIGTERM
    assert found.told.wait("ended").exit_code == 137


def test_a_signal_with_nothing_at_work_ends_it_at_once(store: milepost.Store) -> None:
    store.session("work").close()
    with watching(store) as found:
        found.told.wait("watching")
        found.watcher.stop(signal.SIGTERM)
        assert found.join() == signal.SIGTERM
    assert not found.told.of("stopping")


def test_the_output_of_a_child_goes_where_it_is_sent(store: milepost.Store, tmp_path: Path) -> None:
    dead(store, "work")

    def log(name: str) -> IO[bytes]:
        return (tmp_path / f"{name}.log").open("ab")

    rows, _ = watch_to_the_end(
        store,
        target(tmp_path, "print('out', flush=True)\nprint('err', file=sys.stderr)\n" + FINISH),
        open_output=log,
    )
    assert rows["work"].doing == "fine"
    assert (tmp_path / "work.log").read_text().splitlines()[:2] == ["out", "err"]
