"""A recovery that dies, tears a write or meets an error at each of its storage calls in turn.

Done again it comes to the same, and the work is carried on to the same end as if nothing had been.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

import milepost
from milepost import ItemStatus, RecoveryConfig, RecoveryService, RecoveryStrategy
from support.faults import NEEDS_SPACE, Call, Faults, die, in_child
from support.workload import WORK, store_at, summary

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="a death in the middle needs a forked process"
)

BATCHES: Final = ["a", "b", "c", "d"]


def _begun(session: milepost.Session) -> milepost.Batch:
    """Batch a is done, b failed, c is in hand."""
    session.ensure_plan(BATCHES)
    done = session.start_batch("a")
    done.update_item(1, ItemStatus.COMPLETED)
    done.complete()
    failed = session.start_batch("b")
    failed.update_items([(1, ItemStatus.COMPLETED), (2, ItemStatus.FAILED, "HTTP 503")])
    failed.fail("HTTP 503")
    return session.start_batch("c", items_total=9)


def _items(session: milepost.Session) -> None:
    batch = _begun(session)
    batch.update_item(1, ItemStatus.COMPLETED)
    batch.update_item(2, ItemStatus.PROCESSING)


def _counts(session: milepost.Session) -> None:
    _begun(session).update_progress(processed=1)


def _ended(session: milepost.Session) -> None:
    _begun(session).complete()
    session.start_batch("d").complete()
    session.complete()


class Scenario(NamedTuple):
    """A session whose process died, and how it is recovered.

    Attributes:
        work: What it had done.
        forced: What the caller of the recovery asks for.
        limit: How many deaths are too many.
    """

    work: Callable[[milepost.Session], None]
    forced: dict[str, Any]
    limit: int = 3


SCENARIOS: Final = {
    "resume": Scenario(_items, {}),
    "poison": Scenario(_items, {}, 1),
    "a poison batch": Scenario(_counts, {}, 1),
    "few counts": Scenario(_counts, {}),
    "failures": Scenario(_ended, {}),
    "forced failures": Scenario(_items, {"strategy": RecoveryStrategy.RESTART_FAILED_BATCHES}),
    "from a batch": Scenario(_items, {"from_batch": 1}),
    "full": Scenario(_items, {"strategy": RecoveryStrategy.FULL_RESTART}),
}


def _service(path: str, scenario: Scenario, system: Faults | None = None) -> RecoveryService:
    config = RecoveryConfig(max_recovery_attempts=scenario.limit)
    return RecoveryService(store_at(path, system or Faults()), config)


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    return SCENARIOS[request.param]


@pytest.fixture
def dead(tmp_path: Path, scenario: Scenario) -> str:
    """A store with the session of a scenario, left by a killed process."""
    path = str(tmp_path / "dead")

    def body(tell: Callable[[bytes], None]) -> None:
        session = store_at(path, Faults()).session(WORK)
        scenario.work(session)
        die()

    assert in_child(body).signal == signal.SIGKILL
    return path


def _looks(state: milepost.SessionState) -> dict[str, Any]:
    """What a state says of the work and of its recovery, without times and turns."""
    mark = state.recovery
    return {
        **summary(state),
        "attempts": {
            (number, key): (item.attempts, item.error_message)
            for number, batch in state.active_batches.items()
            for key, item in batch.open.items()
        },
        "retries": {number: batch.retry_count for number, batch in state.pending_batches.items()},
        "suspects": state.suspects,
        "runs": [(each.outcome, each.error_message, each.in_flight) for each in state.executions],
        "restarts": state.restarts,
        "item cap": state.item_cap,
        "mark": mark and (mark.strategy, mark.batches_completed, mark.items_done),
    }


def _finish(path: str) -> dict[str, Any]:
    """Carry the work on to its end."""
    store = store_at(path, Faults())
    with store.session(WORK) as session:
        session.ensure_plan(BATCHES)
        for number in session.to_do():
            batch = session.start_batch(session.batch(number).key)
            recorded = batch.recorded
            if recorded is None or not recorded.is_counted:
                for key in (1, 2, 3):
                    if batch.status_of(key) not in {ItemStatus.COMPLETED, ItemStatus.FAILED}:
                        batch.update_item(key, ItemStatus.COMPLETED)
            batch.complete()
        session.complete()
    view = store.view(WORK)
    assert not [each for each in view.findings if each.is_error]
    assert milepost.check(view.state) == []
    assert store.disagreements(WORK) == []
    return summary(view.state)


class Clean(NamedTuple):
    """What a recovery without faults does.

    Attributes:
        calls: What it asks of the system.
        recovered: The state after it.
        finished: The state at the end of the work.
    """

    calls: list[Call]
    recovered: dict[str, Any]
    finished: dict[str, Any]


@pytest.fixture
def clean(dead: str, scenario: Scenario, tmp_path: Path) -> Clean:
    path = shutil.copytree(dead, tmp_path / "clean").as_posix()
    system = Faults()
    _service(path, scenario, system).recover(WORK, **scenario.forced)
    recovered = _looks(store_at(path).load_progress(WORK))
    return Clean(system.calls, recovered, _finish(path))


def _recover_again(path: str, scenario: Scenario, clean: Clean) -> None:
    """Once more after the fault: it comes to the same, and a third time does nothing at all."""
    service = _service(path, scenario)
    service.recover(WORK, **scenario.forced)
    state = service.store.load_progress(WORK)
    assert _looks(state) == clean.recovered
    if "from_batch" not in scenario.forced:
        assert service.recover(WORK, **scenario.forced).was_ready
        assert service.store.load_progress(WORK) == state
    assert _finish(path) == clean.finished


@pytest.mark.parametrize("fault", ["crash", "torn"])
def test_a_recovery_that_dies_at_any_call_is_done_again(
    dead: str, scenario: Scenario, clean: Clean, fault: Any, tmp_path: Path
) -> None:
    deaths = 0
    chosen = [at for at, call in enumerate(clean.calls) if fault != "torn" or call.name == "pwrite"]
    for at in chosen:
        call = clean.calls[at]
        path = shutil.copytree(dead, tmp_path / str(at)).as_posix()

        def body(tell: Callable[[bytes], None], path: str = path, at: int = at) -> None:
            service = _service(path, scenario, Faults(at=at, fault=fault))
            service.recover(WORK, **scenario.forced)

        ended = in_child(body)
        deaths += ended.signal == signal.SIGKILL
        try:
            assert (ended.signal, ended.code) in {(signal.SIGKILL, 0), (0, 0)}
            _recover_again(path, scenario, clean)
        except BaseException as error:
            error.add_note(f"{fault} at call {at}: {call}")
            raise
        shutil.rmtree(path)
    # The background may be a call quicker or slower.
    assert deaths >= len(chosen) - 3


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_recovery_that_meets_an_error_is_done_again(
    dead: str, scenario: Scenario, clean: Clean, number: int, tmp_path: Path
) -> None:
    raised = 0
    for at, call in enumerate(clean.calls):
        if at % 3 or (number == errno.ENOSPC and call.name not in NEEDS_SPACE):
            continue
        path = shutil.copytree(dead, tmp_path / str(at)).as_posix()
        system = Faults(at=at, fault="eio" if number == errno.EIO else "enospc")
        try:
            _service(path, scenario, system).recover(WORK, **scenario.forced)
        except milepost.MilepostError:
            raised += 1
        try:
            _recover_again(path, scenario, clean)
        except BaseException as error:
            error.add_note(f"{errno.errorcode[number]} at call {at}: {call}")
            raise
        shutil.rmtree(path)
    assert raised
