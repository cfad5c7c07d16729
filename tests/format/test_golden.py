"""Stores and bytes of released formats stay readable, and a layout does not change unnoticed."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import msgspec
import pytest
import zstandard

import milepost
from milepost import ItemStatus, SessionStatus, Store
from milepost.journal import record
from milepost.model import events as e
from milepost.model.recoveries import PartialRecovery, RecoverySums
from milepost.model.state import BatchMetrics, OutputRows, Retrying
from milepost.storage import frame
from milepost.storage.lease import Lease, decode_lease, encode_lease
from milepost.types import BatchErrorType, BatchPhase

FIXTURES = Path(__file__).parent.parent / "fixtures" / "format"
V1 = FIXTURES / "v1"
V1_FOLD3 = FIXTURES / "v1_fold3"


@pytest.fixture
def v1(tmp_path: Path) -> Store:
    shutil.copytree(V1, tmp_path / "v1")
    return Store(tmp_path / "v1", clock=milepost.ManualClock())


def test_the_sample_of_format_1_reads_as_it_was_written(v1: Store) -> None:
    assert v1.names() == ["killed", "settings", "지역-수집"]
    state = v1.load_progress("지역-수집")
    assert [state.completed_batches[n].batch_id for n in (0, 2)] == ["a", "c"]
    first, counted = state.completed_batches[0], state.completed_batches[2]
    assert (first.items_processed, first.items_skipped) == (1, 1)
    assert first.performance_metrics is not None
    assert first.performance_metrics.network_requests_count == 3
    assert first.performance_metrics.counters == {"rows": 2}
    assert (counted.items_processed, counted.items_failed) == (5, 1)
    assert state.pending_batches[1].error_message == "TimeoutError: too slow"
    assert state.pending_batches[1].error_type is BatchErrorType.TIMEOUT_ERROR
    assert state.planned == 4
    assert state.data == {"cursor": [41, None, "다음"]}
    assert milepost.check(state) == []
    assert v1.view("지역-수집").judgement.status is SessionStatus.STOPPED
    (mark,) = v1.checkpoints("지역-수집")
    assert mark.name == "page seven"
    assert v1.load_checkpoint(mark.id) == {"page": 7}
    assert v1.load_state("settings") == {"cursor": 42}
    assert v1.load_state("settings", version=1) == {"cursor": 41}


def test_the_killed_session_of_the_sample_goes_on(v1: Store) -> None:
    assert v1.view("killed").judgement.status is SessionStatus.INTERRUPTED
    with v1.session("killed") as session:
        batch = session.start_batch("only")
        assert [batch.is_done(n) for n in range(6)] == [True] * 4 + [False] * 2
        assert session.state.executions[0].in_flight == [(0, 4)]
        batch.update_items([(n, ItemStatus.COMPLETED) for n in range(4, 10)])
        batch.complete()
        session.complete()
    assert v1.view("killed").judgement.status is SessionStatus.COMPLETED


def test_the_sealed_plan_of_the_sample_is_carried_on(v1: Store) -> None:
    with v1.session("지역-수집") as session:
        seen = [(batch.key, batch.payload["name"]) for batch in session.batches([])]
    assert seen == [("b", "region b"), ("d", "region d")]


@pytest.fixture
def fold3(tmp_path: Path) -> Store:
    shutil.copytree(V1_FOLD3, tmp_path / "v1_fold3")
    return Store(tmp_path / "v1_fold3" / "store", clock=milepost.ManualClock())


def test_the_sample_of_fold_3_reads_as_it_was_written(fold3: Store) -> None:
    assert fold3.names() == ["ranks", "tree"]
    state = fold3.load_progress("tree")
    assert (state.has_params, state.params) == (True, {"model": "big", "depth": [1, None]})
    batch = state.active_batches[0]
    assert (batch.items_total, batch.items_added, batch.items_expected) == (1, 3, 4)
    assert batch.queued == {}
    assert batch.is_done("a")
    assert batch.is_done(7)
    failed, in_hand = batch.open["b"], batch.open["z"]
    assert (failed.status, failed.is_added, failed.payload) == (ItemStatus.FAILED, True, "later")
    assert (in_hand.status, in_hand.is_added, in_hand.payload) == (
        ItemStatus.PROCESSING,
        True,
        None,
    )
    assert state.outputs["../rows.txt"] == OutputRows("../rows.txt", 10, 23, 0x84A04C9A)
    assert state.outputs["../rows.txt.gz"] == OutputRows("../rows.txt.gz", 0, 22, 0x252602A4)
    ranks = fold3.load_progress("ranks").active_batches[0]
    assert (ranks.is_positional, ranks.position, ranks.digested) == (True, 3, 3)
    assert ranks.digest == "9ccb4fa7fce3345f1ec63a19965bfc74"
    assert ranks.done == set()
    assert {key: item.status for key, item in ranks.open.items()} == {
        1: ItemStatus.FAILED,
        3: ItemStatus.PROCESSING,
    }
    for name in fold3.names():
        assert milepost.check(fold3.load_progress(name)) == []
        assert fold3.disagreements(name) == []
        assert fold3.view(name).judgement.status is SessionStatus.INTERRUPTED


def test_the_growing_session_of_the_sample_goes_on(fold3: Store) -> None:
    folder = Path(fold3.path).parent
    rows = folder / "rows.txt"
    acknowledged = rows.read_bytes()
    rows.write_bytes(acknowledged + b"never acknowledged\n")
    seen: list[object] = []
    with fold3.session("tree") as session:
        session.keep_params({"model": "big", "depth": [1, None]})
        with session.start_batch("only").items(["a"]) as items:
            out = items.open(rows)
            for item in items:
                seen.append(item)
                out.write(f"{item}\n")
    assert seen == ["z", "later"]
    assert rows.read_bytes() == acknowledged + b"z\nlater\n"
    with gzip.open(folder / "rows.txt.gz") as file:
        assert file.read() == b"a\n"


def test_the_positions_of_the_sample_go_on(fold3: Store) -> None:
    seen: list[object] = []
    source = ["서울", b"\xff", {"n": 1}, 4.5, None]
    changed = ["서울", b"\xfe", {"n": 1}, 4.5, None]
    with fold3.session("ranks") as session:
        batch = session.start_batch("only")
        with pytest.raises(milepost.InputChangedError):
            next(batch.items(changed, key="position"))
        with batch.items(source, key="position") as items:
            out = items.open(Path(fold3.path).parent / "ranks.txt.zst")
            for item in items:
                seen.append(item)
                out.write("again\n")
    assert sorted(seen, key=str) == [4.5, None, b"\xff"]
    packed = (Path(fold3.path).parent / "ranks.txt.zst").read_bytes()
    reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
    assert reader.read() == b"0\n2\n" + b"again\n" * 3


SAMPLES: list[tuple[e.BatchEvent, str]] = [
    (e.SessionCreated(1, 2, -1, "n", "u", milepost.SessionKind.WORK, 10), "980a0102ffa16ea175000a"),
    (e.ItemCapChanged(1, 2, -1, 7), "950b0102ff07"),
    (e.TotalBatchesSet(1, 2, -1, None), "950c0102ffc0"),
    (e.PlanSealed(1, 2, -1, "s", 0, 3), "970d0102ffa1730003"),
    (
        e.ExecutionStarted(1, 2, -1, 3, "h", 4, "b", "p", "r", "x"),
        "9b0e0102ff03a16804a162a170a172a178",
    ),
    (e.ExecutionEnded(1, 2, -1, 3, milepost.Outcome.STOPPED), "970f0102ff0302c0"),
    (e.SessionCompleted(1, 2, -1), "94100102ff"),
    (e.DataSet(1, 2, -1, {"a": 1}), "95110102ff81a16101"),
    (
        e.CheckpointSaved(1, 2, 0, "i", milepost.CheckpointType.BATCH_ERROR, None),
        "971201020 0a16903c0".replace(" ", ""),
    ),
    (e.CheckpointsRemoved(1, 2, -1, ["i"]), "95130102ff91a169"),
    (
        e.BatchStarted(1, 2, 0, "k", "l", None, 9, keeps_items=True),
        "9914010200a16ba16cc009c3",
    ),
    (
        e.ProgressUpdated(1, 2, 0, 5, 1, Retrying(BatchPhase.DATA_SAVING), None),
        "981501020005019200 04c0".replace(" ", ""),
    ),
    (
        e.ItemUpdated(1, 2, 0, "a", ItemStatus.COMPLETED, "b"),
        "9a16010200a16102a162c0c0c3",
    ),
    (
        e.ItemsUpdated(
            1, 2, 0, [e.ItemChange(1, ItemStatus.FAILED, "m", BatchErrorType.TIMEOUT_ERROR, False)]
        ),
        "9517010200919501 03a16d03c2".replace(" ", ""),
    ),
    (e.CountersAdded(1, 2, 0, {"r": 1}), "951801020081a17201"),
    (
        e.BatchAttemptFailed(1, 2, 0, "m", BatchErrorType.NETWORK_ERROR, 500),
        "9719010200a16d00cd01f4",
    ),
    (
        e.BatchCompleted(1, 2, 0, BatchMetrics(counters={"r": 1})),
        "951a01020097c0c0c00000c081a17201",
    ),
    (
        e.BatchFailed(1, 2, 0, "m", BatchErrorType.UNKNOWN_ERROR, is_recoverable=True),
        "971b010200a16d05c3",
    ),
    (e.Retried(1, 2, -1, [1], {1: ["a", 2]}), "961c0102ff91018101 92a16102".replace(" ", "")),
    (e.Restarted(1, 2, -1, 3), "951d0102ff03"),
    (e.Restored(1, 2, -1, 3, 4), "961e0102ff0304"),
    (e.ExecutionDied(1, 2, -1, 3, is_blamed=True, cause="c"), "971f0102ff03c3a163"),
    (
        e.Recovered(
            1,
            2,
            -1,
            milepost.RecoveryReason.POISONED,
            milepost.RecoveryPriority.HIGH,
            milepost.RecoveryStrategy.PARTIAL_RECOVERY,
            [3],
            [4],
            4,
            5,
            PartialRecovery(completed_batches=3, restart_from_batch=4, remaining_batches=None),
            RecoverySums(
                healthy_sessions=1,
                sessions_requiring_recovery=4,
                successful_recoveries=3,
                failed_recoveries=2,
                unrecoverable_sessions=5,
            ),
            6,
        ),
        "9e200102ff05020291039104040594a77061727469616c0304c095010403020506",
    ),
    (e.ItemsAdded(1, 2, 0, ["a", 7], [{"d": 1}, None]), "962101020092a161079281a16401c0"),
    (
        e.ItemsEnded(
            1,
            2,
            0,
            [e.ItemChange("a", ItemStatus.COMPLETED)],
            ["b"],
            [OutputRows("../r", 3, 300, 0xFFFFFFFF)],
        ),
        "97220102009195a16102c0c0c391a1629194a42e2e2f7203cd012cceffffffff",
    ),
    (
        e.PositionsAdvanced(1, 2, 0, 5, "d", 16, [OutputRows("r", 0, 1, 2)]),
        "982301020005a164109194a172000102",
    ),
    (e.OutputOpened(1, 2, -1, "../r", 9), "96240102ffa42e2e2f7209"),
    (e.ParamsSet(1, 2, -1, {"m": [1]}), "95250102ff81a16d9101"),
]


@pytest.mark.parametrize(("event", "expected"), SAMPLES, ids=lambda v: type(v).__name__)
def test_the_bytes_of_every_event(event: e.BatchEvent, expected: str) -> None:
    assert record.encode_payload(event).hex() == expected
    assert record.decode_payload(bytes.fromhex(expected)) == event


RESULTS: list[tuple[milepost.BatchRecoveryResult, str]] = [
    (milepost.ResumedBatch(batches={"b": 3}), "92a7726573756d656481a16203"),
    (
        milepost.RestartedFailedBatches(batch_numbers=[3]),
        "92b07265737461727465645f6661696c65649103",
    ),
    (milepost.FullRestart(total_batches=4), "92a466756c6c04"),
]


@pytest.mark.parametrize(("result", "expected"), RESULTS, ids=lambda v: type(v).__name__)
def test_the_bytes_of_every_result(result: milepost.BatchRecoveryResult, expected: str) -> None:
    *_, (sample, sample_bytes) = [each for each in SAMPLES if isinstance(each[0], e.Recovered)]
    assert isinstance(sample, e.Recovered)
    event = msgspec.structs.replace(sample, result=result)
    bytes_ = sample_bytes.replace("94a77061727469616c0304c0", expected)
    assert record.encode_payload(event).hex() == bytes_
    assert record.decode_payload(bytes.fromhex(bytes_)) == event


def test_a_recovery_of_a_writer_that_noted_no_result_is_read() -> None:
    event = record.decode_payload(bytes.fromhex("9b200102ff050202910391040405"))
    assert isinstance(event, e.Recovered)
    assert (event.duration_ms, event.result, event.report) == (5, None, None)


def test_every_event_has_a_sample() -> None:
    import typing

    assert {type(event) for event, _ in SAMPLES} == set(typing.get_args(e.BatchEvent))


def test_the_bytes_of_a_journal_start() -> None:
    header = record.file_header()
    assert header.hex() == "4d504a4f55524e4c01000000" + header[12:].hex()
    assert len(header) == 16
    framed, chain = record.frame(b"\x94\x10\x01\x02\xff", record.first_seed(header))
    assert framed[4:8] == b"\x05\x00\x00\x00"
    assert int.from_bytes(framed[:4], "little") == chain


def test_the_opening_of_a_framed_file() -> None:
    data = frame.encode(frame.FrameHeader(kind="snapshot", session="n", session_uid="u"), b"body")
    assert data[:4].hex() == "5d2a4d18"
    assert data[8:16] == b"MILEPOST"
    assert data[16:20].hex() == "01000000"
    size = int.from_bytes(data[4:8], "little")
    assert data[8 + size :][:4].hex() == "28b52ffd"


def test_the_text_of_a_lease() -> None:
    lease = Lease(
        epoch=3,
        session="n",
        session_uid="u",
        lineage="l",
        host="h",
        boot_id="b",
        pid=4,
        process_started="p",
        folder_inode=5,
        taken_at_ns=6,
    )
    text = encode_lease(lease)
    assert text == (
        b'{"lease":{"epoch":3,"session":"n","session_uid":"u","lineage":"l","host":"h",'
        b'"boot_id":"b","pid":4,"process_started":"p","folder_inode":5,"taken_at_ns":6,"format":1},'
        b'"checksum":"' + text[-35:-3] + b'"}\n'
    )
    assert decode_lease(text, "leases/3.json") == lease
