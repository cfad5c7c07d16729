"""A user's file: never run, only checked, by pyright strict and mypy strict.

It holds the library to what its users see: items keep their types, jobs stay callable, loaded data
has the type that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import msgspec

import milepost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


@dataclass
class Place:
    """What a user works on."""

    id: int
    name: str


class Settings(msgspec.Struct):
    """What a user keeps."""

    cursor: int


def places() -> Iterator[Place]:
    """A source of items."""
    yield Place(1, "here")


# A loop that survives.

for url in milepost.resume(["a", "b"], "crawl"):
    assert_type(url, str)
for number in milepost.resume(range(3), "count", total=3, durability="disk"):
    assert_type(number, int)
for place in milepost.resume(places(), "places", key=lambda p: p.id, store=Path("here")):
    assert_type(place, Place)
with milepost.resume(
    places(), "places", key=lambda p: f"{p.id}", when_complete="restart", progress=True
) as items:
    assert_type(items, milepost.Items[Place])
    assert_type(items.key, str | int | None)
    assert_type(items.session, milepost.Session)
    assert_type(items.duplicates, int)
    for each in items:
        assert_type(each, Place)


# A job.


def list_regions() -> list[dict[str, str]]:
    """The batches of a job."""
    return [{"code": "11110"}]


@milepost.job(
    "ingest",
    batches=list_regions,
    key=lambda region: region["code"],
    label=lambda region: f"region {region['code']}",
    workers=4,
    attempts=3,
    plan="extend",
    backoff=milepost.Backoff(first_seconds=0.1),
)
def ingest(batch: milepost.Batch) -> None:
    """The work on one batch."""
    with batch.items(places(), key=lambda p: p.id, total=80) as found:
        for place in found:
            assert_type(place, Place)
    batch.count(network_requests=1)
    batch.update_progress(phase=milepost.BatchPhase.DATA_SAVING)
    batch.update_progress(phase="of my own")
    batch.update_progress(phase=milepost.Retrying(milepost.BatchPhase.DATA_COLLECTING))


@milepost.job("sum", batches=["a"])
def with_more(batch: milepost.Batch, extra: int = 0) -> int:
    """A body that tests call with more, and that returns something."""
    return len(batch.key) + extra


def use_job(batch: milepost.Batch) -> None:
    """A job is run, and stays the function it was."""
    result = ingest.run(store="checkpoints", workers=2, durability="process", progress=False)
    assert_type(result, milepost.JobResult)
    assert_type(result.exit_code, int)
    assert_type(result.failures, dict[str, str])
    assert_type(result.statistics.success_rate, float | None)
    result.raise_for_failures()
    assert_type(with_more(batch, extra=2), int)
    assert_type(with_more.name, str)


def show(session: milepost.Session) -> AbstractContextManager[object]:
    """A progress display of one's own."""
    assert_type(milepost.progress_line(session), str)
    return milepost.PlainProgress(session)


ingest.run(progress=show, total=80)
milepost.job("quiet", batches=iter("ab"), total=2, progress=False)(use_job)
milepost.job("shown", batches=["a"], progress=show)(use_job)


# A store by hand.

store = milepost.Store(
    "checkpoints",
    config=milepost.StoreConfig(max_state_history=3, backup_path="/mnt/backup"),
    tracker=milepost.TrackerConfig(checkpoint_interval_seconds=5),
    recovery=milepost.RecoveryConfig(max_recovery_attempts=5),
    classifier=lambda error: milepost.Verdict(milepost.BatchErrorType.NETWORK_ERROR, True),
    clock=milepost.ManualClock(),
)
with store.session("places", total_batches=250, durability="buffered") as session:
    assert_type(session, milepost.Session)
    for batch in session.batches(list_regions, key=lambda region: region["code"]):
        assert_type(batch, milepost.Batch)
        payload: dict[str, str] = batch.payload
    batch = session.start_batch("11110", number=0, items_total=80)
    batch.update_item("p-1", milepost.ItemStatus.COMPLETED)
    batch.update_item(7, milepost.ItemStatus.FAILED, ValueError("no"))
    batch.update_items(
        [("p-2", milepost.ItemStatus.COMPLETED), ("p-3", milepost.ItemStatus.FAILED, "HTTP 420")]
    )
    assert_type(batch.status_of("p-1"), milepost.ItemStatus | None)
    assert_type(batch.is_done(7), bool)
    assert_type(batch.updated_at, datetime | None)
    assert_type(batch.complete(), milepost.BatchStatus)
    batch.fail("gone", type=milepost.BatchErrorType.DATABASE_ERROR, recoverable=False)
    session.set_data({"cursor": 41})
    assert_type(
        session.save_checkpoint(milepost.CheckpointType.BATCH_PROGRESS, {"page": 7}, name="7"), str
    )
    assert_type(session.snapshot(), int)
    assert_type(session.state, milepost.SessionState)
    assert_type(session.statistics, milepost.SessionStatistics)
    with session.subscribe(maxlen=10) as subscription:
        assert_type(subscription, milepost.Subscription)
        assert_type(subscription.get(timeout_seconds=1), milepost.BatchEvent | None)
        assert_type(subscription.drain(), list[milepost.BatchEvent])
        assert_type(subscription.dropped, int)
        for event in subscription:
            assert_type(event.sequence, int)
    assert_type(session.complete(), milepost.Outcome)


async def watch(subscription: milepost.Subscription) -> None:
    assert_type(await subscription.aget(timeout_seconds=1), milepost.BatchEvent | None)
    async for event in subscription:
        assert_type(event.sequence, int)


# What was stored comes back as what was asked for.

assert_type(store.save_state("settings", {"cursor": 41}), int)
assert_type(store.load_state("settings"), Any)
assert_type(store.load_state("settings", default=None), Any)
assert_type(store.load_state("settings", type=Settings), Settings)
assert_type(store.load_state("settings", version=3, type=Settings), Settings)
assert_type(store.load_state("settings", type=Settings, default=None), Settings | None)
assert_type(store.load_state("numbers", type=list[int], default="none"), list[int] | str)
mark = store.save_checkpoint("places", "batch_progress", {"page": 7}, label="7")
assert_type(store.load_checkpoint(mark), Any)
assert_type(store.load_checkpoint(mark, type=Settings), Settings)
assert_type(store.checkpoints("places"), list[milepost.CheckpointInfo])


# What a store tells.

assert_type(store.sessions(), list[milepost.SessionInfo])
assert_type(store.versions("places"), list[milepost.VersionInfo])
assert_type(store.restart("places"), int)
assert_type(store.restore("places", 3), int)
assert_type(store.retry("places", keys=["a", 7]), milepost.RetryResult)
assert_type(store.cleanup(older_than=timedelta(days=1)), milepost.CleanupResult)
view = store.view("places")
assert_type(view, milepost.View)
state = store.load_progress("places")
assert_type(state, milepost.SessionState)
assert_type(state.current_batch, milepost.ActiveBatch | None)
assert_type(state.completed_batches, dict[int, milepost.CompletedBatch])
assert_type(state.failed_batches, dict[int, milepost.FailedBatch])
assert_type(state.estimated_completion, datetime | None)
assert_type(milepost.progress(state), float | None)
assert_type(milepost.remaining_ns(state), int | None)
assert_type(milepost.is_growing(state), bool)
assert_type(milepost.items_waiting(state), int)
assert_type(milepost.percent(0.5), str)
assert_type(milepost.check(state), list[milepost.Finding])
assert_type(milepost.item_counts(state), milepost.Counts)
for happened in store.events("places"):
    assert_type(happened.at_ns, int)


# Recovery.

service = milepost.RecoveryService(store)
detail = service.recover("places", by_progress=True)
assert_type(detail, milepost.RecoveryDetail)
assert_type(detail.recovery_result, milepost.BatchRecoveryResult)
assert_type(service.detect_and_recover(), milepost.RecoveryReport)
if state.recovery is not None:
    assert_type(state.recovery.result, milepost.BatchRecoveryResult | None)
    if isinstance(state.recovery.result, milepost.PartialRecovery):
        assert_type(state.recovery.result.remaining_batches, int | None)


# Errors tell facts.

try:
    store.session("places")
except milepost.AlreadyLockedError as error:
    assert_type(error.holder, dict[str, Any] | None)
    assert_type(error.hint, str)
except milepost.TruncatedError as error:
    assert_type(error.expected_bytes, int | None)
except milepost.MilepostError as error:
    assert_type(error.message, str)
    assert_type(error.healable, bool)
