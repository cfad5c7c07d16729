"""Every storage call of a short run in turn: die there, tear a write there, fail there.

Afterwards the store opens, holds the state after the last call that returned or the one in flight,
and can be carried on to its end. A session that met an error is as it was before the failed call,
and goes on with the next one, without being opened again.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

import milepost
from support.faults import NEEDS_SPACE, Call, Fault, Faults, in_child
from support.workload import STEPS, Run, expected, go_on, look, store_at, summary, write_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.workload import Seen

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="a death in the middle needs a forked process"
)

DURABILITIES: tuple[milepost.Durability, ...] = ("process", "disk", "buffered")


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    return expected(str(tmp_path_factory.mktemp("clean") / "store"))


def _calls_of_a_run(path: Path, durability: milepost.Durability = "process") -> list[Call]:
    system = Faults()
    run = Run(str(path), system, durability=durability)
    for step in STEPS:
        run.take(step)
    return system.calls


def test_the_run_makes_every_kind_of_call(tmp_path: Path) -> None:
    made = {call.name for call in _calls_of_a_run(tmp_path / "store", "disk")}
    kinds = {"open_new", "pwrite", "sync", "sync_folder", "rename", "remove", "make_folder"}
    assert made >= kinds | {"allocate", "truncate"}


def _run_and_die(
    path: str, at: int, fault: Fault, durability: milepost.Durability = "process"
) -> int:
    """How many steps returned before the death at that call."""

    def body(tell: Callable[[bytes], None]) -> None:
        run = Run(path, Faults(at=at, fault=fault), durability=durability)
        for step in STEPS:
            run.take(step)
            tell(b".")

    ended = in_child(body)
    assert (ended.signal, ended.code) in {(signal.SIGKILL, 0), (0, 0)}
    return len(ended.told)


def _check_after_death(path: str, wanted: list[Seen], returned: int, at: int) -> None:
    store = store_at(path, Faults())
    seen = look(store)
    # Opening makes the session before it sets anything: an empty one is on the way to the first.
    assert seen in wanted[returned : returned + 2] or (not seen and returned == 0)
    _write(store, at)


def _write(store: milepost.Store, at: int) -> None:
    """Every store is written; every third is worked on to its end."""
    if at % 3:
        write_on(store)
    else:
        go_on(store)


@pytest.mark.parametrize("fault", ["crash", "torn"])
def test_death_at_every_call(tmp_path: Path, wanted: list[Seen], fault: Fault) -> None:
    calls = _calls_of_a_run(tmp_path / "counted")
    for at, call in enumerate(calls):
        if fault == "torn" and call.name != "pwrite":
            continue
        path = str(tmp_path / f"{fault}-{at}")
        returned = _run_and_die(path, at, fault)
        try:
            _check_after_death(path, wanted, returned, at)
        except BaseException as error:
            error.add_note(f"{fault} at call {at}: {call}; {returned} steps had returned")
            raise


class _Retrier:
    """Takes the steps of a run, each again where it failed, and checks what a failure leaves."""

    def __init__(self, run: Run, wanted: list[Seen]) -> None:
        self.run = run
        self.wanted = wanted
        self.failures: list[BaseException] = []

    def take(self, index: int, *, tries: int = 3) -> None:
        """One step, until it comes through."""
        step = STEPS[index]
        for _ in range(tries):
            try:
                self.run.take(step)
            except milepost.MilepostError as error:
                self.failures.append(error)
                # Opening, closing and saving are more than one event each; the rest is not there.
                if not step.name.startswith(("open", "close", "save")):
                    self._check_held(self.wanted[index], step.name)
            else:
                self._check_held(self.wanted[index + 1], step.name)
                return
        raise AssertionError(f"{step.name!r} does not come back to life")

    def _check_held(self, wanted: Seen, name: str) -> None:
        held = self.run.held
        if held is not None and "work" in wanted:
            assert summary(held.state) == wanted["work"], name


@pytest.mark.parametrize("fault", ["eio", "enospc"])
@pytest.mark.parametrize("durability", DURABILITIES)
def test_an_error_at_every_call(
    tmp_path: Path, wanted: list[Seen], fault: Fault, durability: milepost.Durability
) -> None:
    calls = _calls_of_a_run(tmp_path / "counted", durability)
    raised = 0
    for at, call in enumerate(calls):
        if (durability != "process" and at % 5) or not _can_fail(call, fault):
            continue
        path = str(tmp_path / f"{fault}-{at}")
        system = Faults(at=at, fault=fault)
        retrier = _Retrier(Run(path, system, durability=durability), wanted)
        try:
            taken = _take_until_after(retrier, system, at)
            raised += len(retrier.failures)
            assert look(store_at(path)) == wanted[taken]
            _write(store_at(path, Faults()), at)
        except BaseException as error:
            error.add_note(f"{fault} at call {at}: {call}; raised: {retrier.failures!r}")
            raise
        finally:
            retrier.run.close()
    assert raised >= 10


def _can_fail(call: Call, fault: Fault) -> bool:
    return fault == "eio" or call.name in NEEDS_SPACE or call.name == "sync"


def _take_until_after(retrier: _Retrier, system: Faults, at: int) -> int:
    """Take steps until the fault is a few steps behind; close. How many were taken."""
    left = 3
    for index in range(len(STEPS)):
        retrier.take(index)
        left -= len(system.calls) > at
        if left == 0:
            retrier.run.close()
            return index + 1
    return len(STEPS)


class _FullDisk:
    """Refuses calls while `is_full`: all that need space, or only those for bytes."""

    def __init__(self, system: Faults, refused: frozenset[str]) -> None:
        self.is_full = False
        self._refused = refused
        system.failing = self._refuse

    def _refuse(self, call: Call) -> int | None:
        return errno.ENOSPC if self.is_full and call.name in self._refused else None


@pytest.mark.parametrize("refused", [NEEDS_SPACE, frozenset({"pwrite", "allocate"})])
@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_disk_that_stays_full_for_some_calls(
    tmp_path: Path, wanted: list[Seen], durability: milepost.Durability, refused: frozenset[str]
) -> None:
    for full_at in range(len(STEPS)):
        path = str(tmp_path / f"full-{full_at}")
        system = Faults()
        disk = _FullDisk(system, refused)
        retrier = _Retrier(Run(path, system, durability=durability), wanted)
        try:
            for index in range(full_at):
                retrier.take(index)
            disk.is_full = True
            came_through = any(_comes_through(retrier, full_at) for _ in range(3))
            disk.is_full = False
            until = min(full_at + 3, len(STEPS))
            if durability == "buffered" and STEPS[full_at].name.startswith("close"):
                continue  # what waited in memory is lost with the close that said so
            for index in range(full_at + came_through, until):
                # The first call may be the one that tells of what the background met.
                retrier.take(index, tries=2 if index == full_at else 1)
            retrier.run.close()
            assert look(store_at(path)) == wanted[until]
        except BaseException as error:
            error.add_note(f"full at {STEPS[full_at].name!r}; raised: {retrier.failures!r}")
            raise
        finally:
            disk.is_full = False
            retrier.run.close()


def _comes_through(retrier: _Retrier, index: int) -> bool:
    """The step either says that there is no room, with nothing changed, or did not need any."""
    try:
        retrier.take(index, tries=1)
    except AssertionError:
        assert isinstance(retrier.failures[-1], milepost.StorageFullError), STEPS[index].name
        return False
    return True


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_failed_call_that_is_not_repeated_stays_out(
    tmp_path: Path, durability: milepost.Durability, *, is_first: bool
) -> None:
    system = Faults()
    store = store_at(str(tmp_path / "store"), system)
    session = store.session("work", execute=False, durability=durability)
    session.set_data("good")
    if is_first:
        session.snapshot()  # so that the failed event would be the first of its journal
    # A journal's own beginning is synced before its first event.
    good_syncs = iter([True] * is_first)

    def fail_once(call: Call) -> int | None:
        if call.name != "sync" or next(good_syncs, False):
            return None
        system.failing = None
        return errno.EIO

    system.failing = fail_once
    with pytest.raises(milepost.DurabilityLostError):
        session.set_data("failed")
    assert session.data == "good"
    session.flush()
    assert session.data == "good"
    session.close()
    assert store.load_state("work") == "good"
