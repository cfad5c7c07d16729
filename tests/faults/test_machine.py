"""A session driven at random, closed, killed and opened again, against a plain model of it."""

from __future__ import annotations

import copy
import shutil
import tempfile
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import milepost
from milepost.storage.directory import LocalDirectory
from support.faults import Faults

DONE, FAILED, SKIPPED, PENDING, IN_HAND = (
    milepost.ItemStatus.COMPLETED,
    milepost.ItemStatus.FAILED,
    milepost.ItemStatus.SKIPPED,
    milepost.ItemStatus.PENDING,
    milepost.ItemStatus.PROCESSING,
)
FINAL = {DONE, SKIPPED}
NAME = "모델 a/b"

KEYS = st.one_of(st.integers(0, 5), st.sampled_from(["0", "x", "길"]))
STATUSES = st.sampled_from([DONE, FAILED, SKIPPED, PENDING, IN_HAND])
BATCHES = st.sampled_from(["a", "b"])
DATA = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


class Work:
    """What a session knows, in dicts."""

    def __init__(self) -> None:
        self.batches: dict[str, dict[str, Any]] = {}
        self.data: Any = None
        self.outcome: milepost.Outcome | None = None
        self.sums = {DONE: 0, FAILED: 0, SKIPPED: 0}

    def in_state(self, *wanted: str) -> list[str]:
        return [key for key, each in self.batches.items() if each["state"] in wanted]

    def start(self, key: str) -> None:
        batch = self.batches.setdefault(key, {"items": {}, "begun": False, "counts": None})
        batch["state"] = "active"
        batch["begun"] = True
        self.outcome = None

    def update(self, key: str, item: milepost.Key, status: milepost.ItemStatus) -> None:
        items = self.batches[key]["items"]
        before = items.get(item)
        if before in FINAL:
            return
        if before is FAILED:
            self.sums[FAILED] -= 1
        items[item] = status
        if status in self.sums:
            self.sums[status] += 1

    def put_down(self, key: str) -> None:
        items = self.batches[key]["items"]
        for item, status in items.items():
            items[item] = PENDING if status is IN_HAND else status

    def run_ended(self) -> None:
        """A run is over, well or not: nothing is begun or in hand any more."""
        for key in self.in_state("active"):
            self.batches[key]["begun"] = False
            self.put_down(key)

    def counts(self, key: str, done: int, failed: int) -> None:
        batch = self.batches[key]
        before = batch["counts"] or (0, 0)
        batch["counts"] = (done, failed)
        self.sums[DONE] += done - before[0]
        self.sums[FAILED] += failed - before[1]

    def seen(self) -> dict[str, Any]:
        return {
            "batches": {
                key: (
                    batch["state"],
                    None if batch["state"] == "completed" else _plain(batch["items"]),
                )
                for key, batch in self.batches.items()
            },
            "data": self.data,
            "outcome": self.outcome,
            "sums": tuple(self.sums.values()),
        }


def _plain(items: dict[milepost.Key, milepost.ItemStatus]) -> dict[milepost.Key, str]:
    return {key: "done" if status in FINAL else status.name for key, status in items.items()}


def _seen(state: milepost.SessionState) -> dict[str, Any]:
    batches: dict[str, Any] = {}
    for name, group in (
        ("active", state.active_batches),
        ("pending", state.pending_batches),
    ):
        batches |= {each.batch_id: (name, _items(each)) for each in group.values()}
    for failed in state.failed_batches.values():
        batches[failed.batch_id] = ("failed", _items(failed.partial_progress))
    for completed in state.completed_batches.values():
        batches[completed.batch_id] = ("completed", None)
    sums = state.session_statistics
    return {
        "batches": batches,
        "data": state.data,
        "outcome": state.outcome,
        "sums": (sums.total_items_processed, sums.total_items_failed, sums.total_items_skipped),
    }


def _items(batch: milepost.ActiveBatch) -> dict[milepost.Key, str]:
    return {
        **dict.fromkeys(batch.done, "done"),
        **{item.item_id: item.status.name for item in batch.open.values()},
        **dict.fromkeys(batch.finished, "done"),
    }


class SessionMachine(RuleBasedStateMachine):
    """Every rule does the same to the session and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="milepost-machine-")
        self.clock = milepost.ManualClock()
        self.system = Faults()
        self.store = milepost.Store(
            config=milepost.StoreConfig(max_state_history=2),
            # A small cap, so that details are forgotten all the time.
            tracker=milepost.TrackerConfig(
                checkpoint_interval_seconds=1e9,
                sync_interval_seconds=30.0,
                max_detailed_progress_items=3,
            ),
            clock=self.clock,
            directory=LocalDirectory(f"{self.folder}/store", system=self.system),
        )
        self.model = Work()
        self.marks: list[tuple[str, Any]] = []
        self.versions: dict[int, Work] = {}
        self.handles: dict[str, milepost.Batch] = {}
        self.session: milepost.Session

    @initialize()
    def begin(self) -> None:
        self.session = self.store.session(NAME)
        self.start("a")
        for item, status in ((1, DONE), (2, FAILED), (3, PENDING), (4, IN_HAND)):
            self._handle("a").update_item(item, status)
            self.model.update("a", item, status)

    def teardown(self) -> None:
        if hasattr(self, "session"):
            self.session.close()
        shutil.rmtree(self.folder)

    def _tracked(self) -> list[str]:
        active = self.model.in_state("active")
        return [key for key in active if self.model.batches[key]["counts"] is None]

    # The work.

    @rule(key=BATCHES)
    def start(self, key: str) -> None:
        batch = self.model.batches.get(key)
        if batch and (
            batch["state"] == "completed" or (batch["state"] == "active" and batch["begun"])
        ):
            with pytest.raises(milepost.ConfigurationError):
                self.session.start_batch(key)
            return
        self.handles[key] = self.session.start_batch(key)
        self.model.start(key)

    @precondition(lambda self: self._tracked())
    @rule(data=st.data(), item=KEYS, status=STATUSES)
    def update_item(self, data: st.DataObject, item: milepost.Key, status: Any) -> None:
        key = data.draw(st.sampled_from(self._tracked()))
        self._handle(key).update_item(item, status, "no" if status is FAILED else None)
        self.model.update(key, item, status)

    @precondition(lambda self: self._tracked())
    @rule(data=st.data(), updates=st.lists(st.tuples(KEYS, STATUSES), max_size=5))
    def update_items(self, data: st.DataObject, updates: list[tuple[Any, Any]]) -> None:
        key = data.draw(st.sampled_from(self._tracked()))
        self._handle(key).update_items(updates)
        for item, status in updates:
            self.model.update(key, item, status)

    @precondition(lambda self: self._tracked())
    @rule(data=st.data(), done=KEYS | st.none(), taken=KEYS | st.none())
    def advance(
        self, data: st.DataObject, done: milepost.Key | None, taken: milepost.Key | None
    ) -> None:
        key = data.draw(st.sampled_from(self._tracked()))
        handle = self._handle(key)
        handle.advance(done, taken, handle.begin_loop())
        for item, status in ((done, DONE), (taken, IN_HAND)):
            if item is not None:
                self.model.update(key, item, status)

    @precondition(lambda self: self.model.in_state("active"))
    @rule(data=st.data(), counts=st.tuples(st.integers(0, 9), st.integers(0, 9)))
    def update_progress(self, data: st.DataObject, counts: tuple[int, int]) -> None:
        key = data.draw(st.sampled_from(self.model.in_state("active")))
        if self.model.batches[key]["items"]:
            with pytest.raises(ValueError, match="one by one"):
                self._handle(key).update_progress(processed=counts[0], failed=counts[1])
            return
        self._handle(key).update_progress(processed=counts[0], failed=counts[1])
        self.model.counts(key, *counts)

    @precondition(lambda self: self.model.in_state("active"))
    @rule(data=st.data())
    def end_batch(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.model.in_state("active")))
        batch = self.model.batches[key]
        self.model.put_down(key)
        batch["state"] = "failed" if FAILED in batch["items"].values() else "completed"
        self._handle(key).complete()

    @precondition(lambda self: self.model.in_state("active"))
    @rule(data=st.data())
    def fail_batch(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.model.in_state("active")))
        self._handle(key).fail(TimeoutError("too slow"))
        self.model.put_down(key)
        self.model.batches[key]["state"] = "failed"

    @rule()
    def complete(self) -> None:
        if self.model.in_state("active", "pending"):
            with pytest.raises(milepost.ConfigurationError):
                self.session.complete()
            return
        failed = self.model.in_state("failed")
        self.model.outcome = milepost.Outcome.FAILED if failed else milepost.Outcome.COMPLETED
        assert self.session.complete() is self.model.outcome

    def _handle(self, key: str) -> milepost.Batch:
        """A batch is written through any handle on it, also in a run that did not start it."""
        number = next(
            number
            for number, batch in self.session.live.active_batches.items()
            if batch.batch_id == key
        )
        return self.session.batch(number)

    # What is saved.

    @rule(data=DATA)
    def set_data(self, data: Any) -> None:
        self.session.set_data(data)
        self.model.data = data

    @rule(data=DATA, kind=st.sampled_from(list(milepost.CheckpointType)))
    def checkpoint(self, data: Any, kind: milepost.CheckpointType) -> None:
        self.marks.append((self.session.save_checkpoint(kind, data), data))

    @rule()
    def flush(self) -> None:
        self.session.flush()

    @rule(seconds=st.integers(0, 4000))
    def snapshot(self, seconds: int) -> None:
        self.clock.advance(seconds)
        version = self.session.snapshot()
        self.versions[version] = copy.deepcopy(self.model)

    # Lives.

    @rule()
    def reopen(self) -> None:
        self.session.close()
        self._open_again()

    @rule()
    def kill(self) -> None:
        """What a kill leaves: nothing more is written, and the system takes the lock back."""
        before = len(self.system.calls)
        self.session.supersede()
        assert len(self.system.calls) == before
        self._open_again()

    @rule()
    def open_over(self) -> None:
        """In one process the newer session takes over."""
        older = self.session
        self._open_again()
        with pytest.raises(milepost.SupersededError):
            older.set_data("never")

    def _open_again(self) -> None:
        self.session = self.store.session(NAME)
        self.model.run_ended()
        assert not [each for each in self.session.findings if each.is_error]

    @rule()
    def restart(self) -> None:
        version = self.store.restart(NAME)
        self.model = Work()
        self.versions[version] = copy.deepcopy(self.model)

    @rule()
    def retry(self) -> None:
        failed = self.model.in_state("failed")
        with_failures = [
            key
            for key in self.model.in_state("active", "failed")
            if FAILED in self.model.batches[key]["items"].values()
        ]
        result = self.store.retry(NAME)
        assert sorted(result.batches) == sorted(failed)
        for key in with_failures:
            for item, status in self.model.batches[key]["items"].items():
                if status is FAILED:
                    self.model.batches[key]["items"][item] = PENDING
                    self.model.sums[FAILED] -= 1
        for key in failed:
            self.model.batches[key]["state"] = "pending"
            self.model.batches[key]["begun"] = False
        if failed or with_failures:
            self.model.outcome = None

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(self.versions)))
        kept = {each.version for each in self.store.versions(NAME)}
        try:
            made = self.store.restore(NAME, version)
        except milepost.SnapshotNotFoundError:
            assert version not in kept  # a backup may have it longer
            return
        assert made not in self.versions
        self.model = copy.deepcopy(self.versions[version])
        self.model.run_ended()
        self.versions[made] = copy.deepcopy(self.model)

    # What must hold.

    @invariant()
    def the_session_is_as_the_model(self) -> None:
        if hasattr(self, "session"):
            assert _seen(self.session.state) == self.model.seen()
            assert [each.id for each in self.session.state.checkpoints] == [
                m[0] for m in self.marks
            ]

    @invariant()
    def the_disk_is_as_the_model(self) -> None:
        if not hasattr(self, "session"):
            return
        view = self.store.view(NAME)
        assert not view.is_lossy
        assert _seen(view.state) == self.model.seen()
        for found, data in self.marks[-1:]:
            assert self.store.load_checkpoint(found) == data


TestSession = SessionMachine.TestCase
TestSession.settings = settings(
    settings(), stateful_step_count=50, max_examples=max(30, settings().max_examples // 2)
)
