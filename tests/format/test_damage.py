"""Any bit of any file flipped, any file cut or deleted: noticed, never believed, never a traceback.

- One damaged file loses nothing but what the live journal held behind the damage; without backups
  also a checkpoint's data or the plan, which then raise.
- What is shorter than it was says so by a finding. One case cannot be seen by anybody: a live
  journal cut exactly between two records looks like one that was never longer.
- A damaged marker refuses; it never looks like a new store.
"""

from __future__ import annotations

import itertools
import os
import pickle
import random
import shutil
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import milepost
from milepost.journal import record
from milepost_cli import exit_codes
from support.commands import run
from support.faults import Faults, PowerCut, die, in_child
from support.workload import DATA, WORK, Run, Seen, go_on, store_at, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="an unclean store is made by a process that is killed"
)

DONE = milepost.ItemStatus.COMPLETED
FLIPS = int(os.environ.get("MILEPOST_TEST_FLIPS", "10"))
CUTS = int(os.environ.get("MILEPOST_TEST_FILE_CUTS", "5"))
"""How many bits and lengths of each file are tried; `make crash` asks for more."""


class Sample(NamedTuple):
    """A store, and what it holds.

    Attributes:
        path: Where it is.
        has_backups: Whether backups are on.
        states: What it held after each call, the last one last.
        durable: How many of those are surely on the disk.
        checkpoints: Ids and data.
        versions: Version to what it holds.
        live: The live journal.
        backed_up: Ids of the checkpoints that the last backup reached.
    """

    path: str
    has_backups: bool
    states: list[Seen]
    durable: int
    checkpoints: dict[str, Any]
    versions: dict[int, Seen]
    live: str
    backed_up: list[str]

    @property
    def store(self) -> milepost.Store:
        return store_at(self.path, Faults(), config=_config(has_backups=self.has_backups))


def _config(*, has_backups: bool) -> milepost.StoreConfig:
    return milepost.StoreConfig(max_state_history=3, backup_enabled=has_backups)


def make_sample(path: str, *, has_backups: bool) -> Sample:
    """A store with every kind of file, whose last writer was killed with events behind a sync."""
    known = f"{path}.pickle"

    def body(_tell: Callable[[bytes], None]) -> None:
        run = Run(path, Faults(), config=_config(has_backups=has_backups))
        run.store.save_state(DATA, {"n": 1})
        run.store.save_state(DATA, {"n": 2})
        maker = _Maker(run, run.store.session(WORK))
        maker.make()
        with open(known, "wb") as file:
            pickle.dump((maker.states, maker.durable, maker.checkpoints, maker.versions), file)
        die()

    assert in_child(body).signal == signal.SIGKILL
    with open(known, "rb") as file:
        states, durable, checkpoints, versions = pickle.load(file)
    folder = f"{path}/sessions/{WORK}/journal"
    live = max(os.listdir(folder), key=lambda name: int(name.split(".")[0]))
    return Sample(
        path,
        has_backups,
        states,
        durable,
        checkpoints,
        versions,
        f"sessions/{WORK}/journal/{live}",
        [each for each in checkpoints if any(each in file for file in files_of(f"{path}/backups"))],
    )


class _Maker:
    def __init__(self, run: Run, session: milepost.Session) -> None:
        self.run = run
        self.session = session
        self.states: list[Seen] = [summary(session.state)]
        self.durable = 1
        self.checkpoints: dict[str, Any] = {}
        self.versions: dict[int, Seen] = {}

    def then(self, act: Callable[[], Any], *, durable: bool = False) -> Any:
        self.run.clock.advance(60)
        result = act()
        self.states.append(summary(self.session.state))
        if durable:
            self.durable = len(self.states)
        return result

    def mark(self, number: int) -> None:
        data = {"page": number, "text": "x" * 100}
        kind = milepost.CheckpointType.BATCH_PROGRESS
        found = self.then(lambda: self.session.save_checkpoint(kind, data), durable=True)
        self.checkpoints[found] = data

    def save(self, *, by_hand: bool) -> None:
        writer = self.session._writer
        version = self.then(lambda: writer.snapshot(by_hand=by_hand), durable=True)
        self.versions[version] = self.states[-1]
        writer.back_up()

    def make(self) -> None:
        self.then(lambda: self.session.ensure_plan(["a", "b", "c"]), durable=True)
        batch = self.then(lambda: self.session.start_batch("a"))
        for number in range(4):
            self.then(partial(batch.update_item, f"a-{number}", DONE))
            if number < 3:
                self.save(by_hand=number == 1)
        self.mark(1)
        self.then(batch.complete, durable=True)
        self.session.close()
        self.session = self.run.store.session(WORK)
        batch = self.then(lambda: self.session.start_batch("b"))
        self.then(lambda: batch.update_item("b-1", DONE))
        self.save(by_hand=False)
        self.mark(2)
        self.then(lambda: batch.update_item("b-2", milepost.ItemStatus.FAILED, "HTTP 420"))
        self.then(lambda: self.session.set_data({"cursor": 41}), durable=True)
        for number in range(3, 6):
            self.then(partial(batch.update_item, f"b-{number}", DONE))
        self.session._writer.sync_behind()
        self.session._writer.sync_behind()  # the second writes the mark of the first
        self.durable = len(self.states)
        for number in range(6, 9):
            self.then(partial(batch.update_item, f"b-{number}", DONE))
        kept = {each.version for each in self.run.store.versions(WORK)}
        self.versions = {each: seen for each, seen in self.versions.items() if each in kept}


@pytest.fixture(scope="module", params=[True, False], ids=["backups", "no-backups"])
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    path = str(tmp_path_factory.mktemp("damage") / "store")
    return make_sample(path, has_backups=request.param)


def files_of(path: str) -> list[str]:
    found: list[str] = []
    for folder, _, names in os.walk(path):
        found += [os.path.relpath(os.path.join(folder, name), path) for name in names]
    return sorted(found)


def _damages(data: bytes, rng: random.Random) -> Iterator[tuple[str, bytes | None]]:
    """What to put in place of a file: `None` to delete it."""
    yield "deleted", None
    bits = range(len(data) * 8)
    for bit in sorted(rng.sample(bits, min(FLIPS, len(bits)))):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} flipped", bytes(changed)
    lengths = sorted({0, 1, *rng.sample(range(max(1, len(data))), min(CUTS, max(1, len(data))))})
    for length in lengths:
        if length < len(data):
            yield f"cut at {length}", data[:length]


def _replace(path: str, data: bytes | None) -> None:
    if data is None:
        os.unlink(path)
    else:
        with open(path, "wb") as file:
            file.write(data)


class _Look:
    """What the reading calls of a store say; anything but our own errors goes through."""

    def __init__(self, sample: Sample) -> None:
        store = sample.store
        self.errors: list[milepost.MilepostError] = []
        self.view = self._try(lambda: store.view(WORK))
        self.state = self._try(lambda: store.load_progress(WORK))
        self.data = self._try(lambda: store.load_state(WORK, default=None))
        self.settings = self._try(lambda: store.load_state(DATA))
        self.sessions = self._try(store.sessions)
        self.marks = {
            each: self._try(partial(store.load_checkpoint, each)) for each in sample.checkpoints
        }
        self.versions = {
            version: self._try(partial(_summary_of, store, version)) for version in sample.versions
        }

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except milepost.MilepostError as error:
            self.errors.append(error)
            return error


def _summary_of(store: milepost.Store, version: int) -> Seen:
    return summary(store.load_progress(WORK, version))


def _is_error(value: object) -> bool:
    return isinstance(value, milepost.MilepostError)


def _check_look(sample: Sample, path: str, changed: bytes | None) -> None:
    look = _Look(sample)
    right = sample.states[-1]
    if path == "MILEPOST":
        assert _is_error(look.view)
        assert _is_error(look.sessions)
        return
    # One damaged file of one session never hides the other, nor keeps the list from coming.
    assert {info.session_id for info in look.sessions} == {WORK, DATA}
    assert look.settings == {"n": 2}
    assert not _is_error(look.view), look.view
    seen = summary(look.view.state)
    assert summary(look.state) == seen
    assert look.data == seen["data"]
    if path == sample.live:
        assert seen in sample.states
        if seen != right and not _is_between_records(sample, changed):
            assert look.view.findings, "a shorter state without a word"
    else:
        assert seen == right, look.view.findings
    for each, data in look.marks.items():
        is_it = each in path and not path.startswith("backups/")
        has_copy = sample.has_backups and each in sample.backed_up
        assert data == sample.checkpoints[each] or (is_it and not has_copy and _is_error(data))
    for version, state in look.versions.items():
        is_it = f"snapshots/{version}." in path and not path.startswith("backups/")
        assert state == sample.versions[version] or (is_it and _is_error(state))


def _is_between_records(sample: Sample, changed: bytes | None) -> bool:
    """Whether the live journal now ends like one that was never longer."""
    if changed is None or record.read_file_header(changed) is None:
        return False
    offset, chain = record.FILE_HEADER_BYTES, record.first_seed(changed)
    for _, stop, _ in record.records(changed, offset, chain, path=sample.live):
        offset = stop
    return offset == len(changed) and offset > record.FILE_HEADER_BYTES


def test_every_kind_of_file_is_there(sample: Sample) -> None:
    found = "\n".join(files_of(sample.path))
    for kind in ("MILEPOST", "manifest.json", "/leases/", ".journal", "/segments/plan."):
        assert kind in found
    assert found.count(f"sessions/{WORK}/journal/") >= 3
    assert found.count(f"sessions/{WORK}/snapshots/") >= 3
    assert found.count(f"sessions/{WORK}/checkpoints/") == 2
    assert ("backups/" in found) is sample.has_backups
    assert len(sample.backed_up) == sample.has_backups
    _check_look(sample, "", b"")
    assert summary(sample.store.load_progress(WORK)) == sample.states[-1]


def test_reading_with_any_file_damaged(sample: Sample) -> None:
    for path in files_of(sample.path):
        full = os.path.join(sample.path, path)
        data = _bytes_of(sample, path)
        for what, changed in _damages(data, random.Random(path.count("/") + len(data))):
            _replace(full, changed)
            try:
                _check_look(sample, path, changed)
            except BaseException as error:
                error.add_note(f"{path}: {what}, of {len(data)} bytes")
                raise
            finally:
                _replace(full, data)


def test_any_bit_of_the_marker(sample: Sample) -> None:
    full = os.path.join(sample.path, "MILEPOST")
    data = _bytes_of(sample, "MILEPOST")
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        _replace(full, bytes(changed))
        with pytest.raises(milepost.FormatError):
            sample.store.check()
    _replace(full, None)
    for call in (sample.store.check, lambda: sample.store.session("new")):
        with pytest.raises(milepost.NotAMilepostFileError):
            call()
    _replace(full, data)
    sample.store.check()


@pytest.mark.parametrize("has_backups", [True, False], ids=["backups", "no-backups"])
def test_writing_with_any_file_damaged(tmp_path: Path, *, has_backups: bool) -> None:
    sample = make_sample(str(tmp_path / "store"), has_backups=has_backups)
    whole = {path: _bytes_of(sample, path) for path in files_of(sample.path)}
    for index, (path, data) in enumerate(whole.items()):
        rng = random.Random(index)
        for kind in ("deleted", "flipped", "cut"):
            _put_back(sample, whole)
            changes = [
                changed for what, changed in _damages(data, rng) if kind in what and changed != b""
            ]
            if not changes:
                continue
            changed = rng.choice(changes)
            _replace(os.path.join(sample.path, path), changed)
            try:
                _check_writing(sample, path, data, changed)
            except BaseException as error:
                error.add_note(f"{path}: {kind}, {len(changed or b'')} of {len(data)} bytes left")
                raise


def _bytes_of(sample: Sample, path: str) -> bytes:
    with open(os.path.join(sample.path, path), "rb") as file:
        return file.read()


def _put_back(sample: Sample, whole: dict[str, bytes]) -> None:
    """Make the store what it was, in the same folders: a session in another one would be a copy."""
    for path in files_of(sample.path):
        if path not in whole:
            os.unlink(os.path.join(sample.path, path))
    for path, data in whole.items():
        _replace(os.path.join(sample.path, path), data)


def _check_writing(sample: Sample, path: str, data: bytes, changed: bytes | None) -> None:
    store = sample.store
    if path == "MILEPOST":
        with pytest.raises(milepost.FormatError):
            store.session(WORK)
        return
    view = store.view(WORK)
    try:
        session = store.session(WORK)
    except milepost.DamagedError:
        assert view.is_lossy
        _accept_loss(sample, store)
        return
    if "/segments/" in path and not sample.has_backups:
        # The plan has no other copy: what needs it says so, and nothing is made up.
        with session, pytest.raises((milepost.FormatError, milepost.StorageError)):
            session.start_batch("b")
        assert summary(store.load_progress(WORK)) == sample.states[-1]
        return
    with session:
        assert not view.is_lossy
        held = summary(session.state)
        if path != sample.live:
            assert held == sample.states[-1]
        elif changed is not None and len(changed) == len(data):
            # A cut takes the "synced through" with it that would say what was there.
            assert sample.states.index(held) + 1 >= sample.durable, "durable work is lost silently"
    go_on(store)
    assert not [each for each in store.view(WORK).findings if each.rule == "manifest"]


def _accept_loss(sample: Sample, store: milepost.Store) -> None:
    """Restoring a version accepts the loss; the work goes on from there."""
    version = max(sample.versions)
    with pytest.raises(milepost.DamagedError, match="milepost restore"):
        store.session(WORK)
    made = store.restore(WORK, version)
    assert made > version
    assert not store.view(WORK).is_lossy
    # Runs and checkpoints stay as they are known; the work is that of the version.
    held, wanted = summary(store.load_progress(WORK)), dict(sample.versions[version])
    wanted["checkpoints"] = held["checkpoints"]
    assert held == wanted
    go_on(store)


# A journal that has only just begun.

_LOSSES: dict[str, Callable[[bytes], bytes | None]] = {
    "deleted": lambda _data: None,
    "emptied": lambda _data: b"",
    "zeros": lambda data: bytes(len(data)),
    "garbage": lambda data: random.Random(7).randbytes(len(data)),
    "zeros after the header": lambda data: data[: record.FILE_HEADER_BYTES].ljust(len(data), b"\0"),
}


def _kill_after_one_update(path: str, *, after_snapshot: bool) -> str:
    """A writer that is killed right after the first call that its journal holds; the journal."""

    def body(_tell: Callable[[bytes], None]) -> None:
        batch = store_at(path).session(WORK).start_batch("b")
        if after_snapshot:
            batch.session.snapshot()
            batch.update_item("i", DONE)
        die()

    assert in_child(body).signal == signal.SIGKILL
    folder = f"{path}/sessions/{WORK}/journal"
    names = sorted(os.listdir(folder), key=lambda name: int(name.split(".")[0]))
    assert len(names) == 1 + after_snapshot
    return os.path.join(folder, names[-1])


@pytest.mark.parametrize("after_snapshot", [False, True])
@pytest.mark.parametrize("loss", sorted(_LOSSES))
def test_a_journal_is_missed_from_its_first_event_on(
    tmp_path: Path, loss: str, *, after_snapshot: bool
) -> None:
    """Nothing was synced behind its first record yet, and no sign of life was given."""
    path = str(tmp_path / "store")
    journal = _kill_after_one_update(path, after_snapshot=after_snapshot)
    with open(journal, "rb") as file:
        data = file.read()
    _replace(journal, _LOSSES[loss](data))
    name = f"journal/{os.path.basename(journal)}"
    store = store_at(path)
    view = store.view(WORK)
    assert view.is_lossy
    assert name in [each.path for each in view.findings if each.is_error]
    shown = run("show", WORK, "-s", path)
    assert shown.code == exit_codes.DAMAGED
    assert name in shown.out
    with pytest.raises(milepost.DamagedError) as caught:
        store.session(WORK)
    assert caught.value.path == name
    assert f"milepost restore {WORK}" in caught.value.hint
    # Put back, it is as it was.
    _replace(journal, data)
    with store.session(WORK) as session:
        assert session.was_dead
        assert session.live.active_batches[0].is_done("i") is after_snapshot


@pytest.mark.parametrize("after_snapshot", [False, True])
def test_a_copy_that_missed_a_new_journal_opens_and_says_so(
    tmp_path: Path, *, after_snapshot: bool
) -> None:
    """The manifest of a copy may be newer than the list of journals that was copied."""
    path, copy = str(tmp_path / "store"), str(tmp_path / "copy")
    journal = _kill_after_one_update(path, after_snapshot=after_snapshot)
    shutil.copytree(path, copy)
    os.unlink(os.path.join(copy, os.path.relpath(journal, path)))
    store = store_at(copy)
    view = store.view(WORK)
    assert [(each.rule, each.is_error) for each in view.findings] == [("missing-journal", False)]
    with store.session(WORK) as session:
        assert "copy" in session.notice
        assert session.live.executions
    assert not store.view(WORK).findings


@pytest.mark.parametrize("crash", ["kill", "power cut", *(f"torn {seed}" for seed in range(12))])
def test_no_crash_while_a_journal_begins_looks_like_its_loss(tmp_path: Path, crash: str) -> None:
    """What the manifest says of it was on the disk before, whatever a crash keeps of the rest."""

    def body(path: str, image: str, at: int, tell: Callable[[bytes], None]) -> None:
        system = PowerCut(path)
        session = store_at(path, system).session(WORK)
        batch = session.start_batch("b")
        session.snapshot()
        system.at = system.count + at
        system.image = image if crash == "kill" else None
        if crash.startswith("torn"):
            system.seed = random.Random(f"{crash} {at}").randrange(1 << 30)
        batch.update_item("i", DONE)
        tell(b".")

    for at in itertools.count():
        path = str(tmp_path / str(at))
        os.mkdir(path)
        ended = in_child(partial(body, path, f"{path}.image", at))
        assert ended.code == 0
        store = store_at(path)
        assert not [each for each in store.view(WORK).findings if each.is_error], f"call {at}"
        store.session(WORK).close()
        if ended.told:
            assert at > 5
            break
