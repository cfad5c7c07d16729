"""The smaller promises: what is written, who may write, and what ends badly and goes on."""

from __future__ import annotations

import dis
import errno
import functools
import gc
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost.model.status import SessionStatus
from milepost.storage.directory import LocalDirectory
from support.faults import Faults, in_child
from support.workload import store_at, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import CodeType, FrameType

DONE = milepost.ItemStatus.COMPLETED
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


# Bytes.


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_updates_write_what_changed_and_not_the_state(
    tmp_path: Path, durability: milepost.Durability
) -> None:
    system = Faults()
    store = store_at(str(tmp_path / "store"), system)
    with store.session("big", durability=durability) as session:
        batch = session.start_batch("b")
        batch.update_items([(number, DONE) for number in range(9_900)])
        session.snapshot()
        batch.update_item(9_900, DONE)  # the new journal begins
        before, calls = system.written_bytes, len(system.calls)
        for number in range(9_901, 10_001):
            batch.update_item(number, DONE)
        written = system.written_bytes - before
        state_bytes = sum(
            os.path.getsize(entry) for entry in os.scandir(f"{session.path}/snapshots")
        )
    made = [call.name for call in system.calls[calls : calls + 100]]
    assert written <= 100 * 80
    assert state_bytes > 4 * written
    assert made.count("pwrite") >= (100 if durability == "process" else 49)
    assert len(batch.session.live.completed_batches) == 0


def test_one_write_a_call(tmp_path: Path) -> None:
    system = Faults()
    store = store_at(str(tmp_path / "store"), system)
    with store.session("s") as session:
        batch = session.start_batch("b")
        before = len(system.calls)
        for number in range(50):
            batch.update_item(number, DONE)
        assert [call.name for call in system.calls[before:]] == ["pwrite"] * 50


# Who writes.

_HOLDER = """
import sys, milepost
session = milepost.Store(sys.argv[1]).session("held")
print("open", flush=True)
sys.stdin.read()
session.close()
"""


def test_a_second_process_is_told_who_holds_the_session(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    command = [sys.executable, "-c", _HOLDER, path]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        store = milepost.Store(path)
        with pytest.raises(milepost.AlreadyLockedError) as caught:
            store.session("held")
        holder = caught.value.holder
        assert holder is not None
        assert (holder["host"], holder["pid"]) == (socket.gethostname(), process.pid)
        assert abs(time.time() - holder["since"].timestamp()) < 600
        assert holder["since"].tzinfo is not None
        assert str(process.pid) in str(caught.value)
        assert holder["host"] in str(caught.value)
        assert store.view("held").judgement.status is SessionStatus.RUNNING
        assert store.load_progress("held").execution is not None
        process.communicate("")
    with store.session("held") as session:
        assert not session.was_dead


@needs_fork
def test_use_after_a_fork(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    store = milepost.Store(path)
    session = store.session("forked")
    batch = session.start_batch("b")
    batch.update_item("before", DONE)

    def body(tell: Callable[[bytes], None]) -> None:
        kept = [
            target
            for number in os.listdir("/proc/self/fd")
            if (target := _target(number)).startswith(path)
        ]
        assert not kept, f"the child keeps {kept}"
        for call in (lambda: batch.update_item("never", DONE), session.flush, session.snapshot):
            try:
                call()
            except milepost.ClosedError as error:
                tell(b"." if "parent process" in str(error) else b"?")
        session.close()
        gc.collect()
        try:
            milepost.Store(path).session("forked")
        except milepost.AlreadyLockedError:
            tell(b"locked")

    with session:
        ended = in_child(body)
        assert (ended.told, ended.code) == (b"...locked", 0)
        batch.update_item("after", DONE)
        # The child's end must not have let go of the parent's lock.
        other = [
            sys.executable,
            "-c",
            f"import milepost; milepost.Store({path!r}).session('forked')",
        ]
        refused = subprocess.run(other, capture_output=True, text=True, check=False)
        assert "AlreadyLockedError" in refused.stderr
    state = store.load_progress("forked")
    assert list(state.active_batches[0].finished) == ["before", "after"]


def _target(number: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


@needs_fork
def test_a_child_that_outlives_its_parent_does_not_hold_the_session(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    script = f"""
import os, sys, time, milepost
session = milepost.Store({path!r}).session("left")
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
os.kill(os.getpid(), 9)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
        process.wait()
        milepost.Store(path).session("left").close()


# Folders that go away.


def _moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def _deleted(path: Path) -> None:
    shutil.rmtree(path)


_CALLS: dict[str, Callable[[milepost.Session, milepost.Batch], Any]] = {
    "snapshot": lambda session, _: session.snapshot(),
    "flush": lambda session, _: session.flush(),
    "data": lambda session, _: session.set_data(1),
    "checkpoint": lambda s, _: s.save_checkpoint(milepost.CheckpointType.BATCH_START),
    "plan": lambda session, _: session.ensure_plan(["a", "b"]),
    "end": lambda _, batch: batch.complete(),
}


@pytest.mark.skipif(os.name == "nt", reason="Windows does not let go of a folder in use")
@pytest.mark.parametrize("go", [_moved, _deleted])
@pytest.mark.parametrize("call", sorted(_CALLS))
@pytest.mark.parametrize("after_snapshot", [False, True])
def test_a_store_that_is_gone_is_never_made_again(
    tmp_path: Path, go: Callable[[Path], None], call: str, *, after_snapshot: bool
) -> None:
    path = tmp_path / "store"
    session = store_at(str(path)).session("s")
    batch = session.start_batch("b")
    batch.update_item("i", DONE)
    if after_snapshot:
        session.snapshot()
    go(path)
    for _ in range(2):
        with pytest.raises(milepost.StorageError):
            _CALLS[call](session, batch)
        assert not path.exists()
    if after_snapshot:
        with pytest.raises(milepost.StorageError):
            batch.update_item("j", DONE)
    with pytest.raises(milepost.StorageError):
        session.close()
    assert not path.exists()
    if go is _moved:
        store = store_at(str(tmp_path / "elsewhere"))
        with store.session("s") as again:
            assert again.live.active_batches[0].is_done("i")


@pytest.mark.skipif(os.name == "nt", reason="Windows does not let go of a folder in use")
def test_the_heartbeat_notices_that_the_folder_moved(tmp_path: Path) -> None:
    path = tmp_path / "store"
    clock = milepost.ManualClock()
    store = milepost.Store(
        path, clock=clock, tracker=milepost.TrackerConfig(sync_interval_seconds=0.01)
    )
    session = store.session("s")
    batch = session.start_batch("b")
    path.rename(tmp_path / "elsewhere")
    clock.advance(60)
    with pytest.raises(milepost.StorageError, match="no longer"):
        _until_it_raises(lambda: batch.update_item("i", DONE))
    assert not path.exists()
    (tmp_path / "elsewhere").rename(path)
    _until_it_works(lambda: batch.update_item("j", DONE))
    session.close()
    assert store.load_progress("s").active_batches[0].is_done("j")


def _until_it_raises(call: Callable[[], None]) -> None:
    for _ in range(2_000):
        call()
        time.sleep(0.005)


def _until_it_works(call: Callable[[], None]) -> None:
    for _ in range(10):
        try:
            call()
        except milepost.StorageError:
            continue
        return
    call()


# The background thread.


class _SurpriseError(Exception):
    """Nothing of ours."""


def test_the_death_of_the_background_thread_is_told_and_mended(tmp_path: Path) -> None:
    system = Faults()
    store = milepost.Store(
        directory=LocalDirectory(str(tmp_path / "store"), system=system),
        tracker=milepost.TrackerConfig(sync_interval_seconds=0.01),
    )
    with store.session("s") as session:
        batch = session.start_batch("b")
        main = threading.main_thread()

        def surprise(_call: object) -> int | None:
            if threading.current_thread() is main:
                return None
            system.failing = None
            raise _SurpriseError("from nowhere")

        system.failing = surprise
        with pytest.raises(milepost.MilepostError, match=r"background thread died.*from nowhere"):
            _until_it_raises(lambda: batch.update_item("i", DONE))
        batch.update_item("j", DONE)
        keeper = session._writer._keeper
        assert keeper is not None
        assert keeper.is_alive()
        assert batch.is_done("j")
    assert store.load_progress("s").active_batches[0].is_done("j")


def test_a_snapshot_in_the_way_of_the_background_sync_is_no_failure(tmp_path: Path) -> None:
    """A journal that was rotated away while the thread went to sync it lost nothing."""
    store = store_at(str(tmp_path / "store"), Faults())
    with store.session("s") as session:
        batch = session.start_batch("b")
        writer = session._writer
        stop = threading.Event()

        def sync() -> None:
            while not stop.is_set():
                writer.sync_behind()

        failures: list[BaseException] = []

        def run() -> None:
            try:
                sync()
            except BaseException as error:  # told below
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            for number in range(400):
                batch.update_item(number, DONE)
                session.snapshot()
        finally:
            stop.set()
            thread.join()
        assert not failures


# Ends.


def test_an_iterator_left_suspended_gives_way_to_a_new_one(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    first = milepost.resume(range(5), "loop", store=path, progress=False)
    assert [next(first), next(first)] == [0, 1]
    seen: list[int] = []
    for item in milepost.resume(range(5), "loop", store=path, progress=False):
        seen.append(item)  # a list would be refused
    assert seen == [1, 2, 3, 4]
    with pytest.raises(milepost.SupersededError):
        next(first)
    assert milepost.Store(path).view("loop").judgement.status is SessionStatus.COMPLETED


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "sys.exit(3)",
        "raise RuntimeError('no')",
        "import threading; threading.Thread(target=lambda: b.update_item('t', D)).start()",
    ],
)
def test_the_interpreters_exit_closes_cleanly(tmp_path: Path, ending: str) -> None:
    path = str(tmp_path / "store")
    script = f"""
import sys, milepost
D = milepost.ItemStatus.COMPLETED
s = milepost.Store({path!r}).session("s", durability="buffered")
b = s.start_batch("b")
b.update_item("i", D)
{ending}
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ("Error" in done.stderr) is ("RuntimeError" in ending), done.stderr
    view = milepost.Store(path).view("s")
    stopped = SessionStatus.INTERRUPTED if "RuntimeError" in ending else SessionStatus.STOPPED
    assert view.judgement.status is stopped
    assert view.state.active_batches[0].is_done("i")
    assert not view.findings


def test_a_forgotten_session_is_closed(tmp_path: Path) -> None:
    store = store_at(str(tmp_path / "store"))
    session = store.session("s")
    session.start_batch("b").update_item("i", DONE)
    del session
    gc.collect()
    assert store.view("s").judgement.status is SessionStatus.STOPPED
    with store.session("s") as again:
        assert not again.was_dead
        assert again.live.active_batches[0].is_done("i")


# Ctrl-C.


_LOOKS_FOR_SIGNALS = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "JUMP_BACKWARD", "RESUME"}
_NOT_BEFORE = {"LOAD_CONST", "SWAP", "RETURN_VALUE", "RETURN_CONST"}
"""What may follow a call that ends a `with` block: there the interpreter's own exception would be
inside of the block still, and ours, raised an instruction later, would not."""


@functools.cache
def _names(code: CodeType) -> dict[int, str]:
    return {each.offset: each.opname for each in dis.get_instructions(code)}


class _Interrupter:
    """Raises `KeyboardInterrupt` at the n-th place inside of milepost where a signal can do so.

    An interpreter looks for signals after calls, at the start of functions and at a loop's end.
    """

    def __init__(self, at: int) -> None:
        self.places = 0
        self._at = at
        self._last: dict[FrameType, str] = {}

    def __call__(self, frame: FrameType, event: str, _arg: object) -> Any:
        if not frame.f_globals.get("__name__", "").startswith("milepost."):
            return None
        frame.f_trace_opcodes = True
        if event == "return":
            self._last.pop(frame, None)
        elif event == "opcode":
            name = _names(frame.f_code).get(frame.f_lasti, "")
            before = self._last.get(frame, "")
            self._last[frame] = name
            if before in _LOOKS_FOR_SIGNALS and name not in _NOT_BEFORE:
                self._count()
        return self

    def _count(self) -> None:
        self.places += 1
        if self.places == self._at:
            self._last.clear()
            sys.settrace(None)
            raise KeyboardInterrupt


def _interrupted(call: Callable[[], object], at: int) -> _Interrupter:
    """Make the call with a Ctrl-C at that place; 0: with none, to count the places."""
    interrupter = _Interrupter(at)
    before = sys.gettrace()
    # Python 3.12 and later watch bytecodes only if some frame asked for it before tracing began.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(interrupter)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return interrupter


def _item_and(
    then: Callable[[milepost.Session], object],
) -> Callable[[milepost.Session, milepost.Batch, int], None]:
    def call(session: milepost.Session, batch: milepost.Batch, number: int) -> None:
        batch.update_item(number, DONE)
        then(session)

    return call


@pytest.fixture
def forgotten_descriptors(tmp_path: Path) -> Iterator[None]:
    """Close what an interruption between `open` and the name that would hold it left open.

    No Python program can close these; nobody interrupts one a thousand times on purpose.
    """
    yield
    gc.collect()
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        if _target(number).startswith(str(tmp_path)):
            os.close(int(number))


_INTERRUPTED: dict[str, Callable[[milepost.Session, milepost.Batch, int], None]] = {
    "item": _item_and(lambda _: None),
    "items": lambda _, batch, number: batch.update_items([(number, DONE)]),
    "data": _item_and(lambda session: session.set_data("new")),
    "snapshot": _item_and(lambda session: session.snapshot()),
    "flush": _item_and(lambda session: session.flush()),
}
PLACES = int(os.environ.get("MILEPOST_TEST_PLACES", "60"))
"""At how many places each call is interrupted; `make crash` asks for all."""


@pytest.mark.usefixtures("forgotten_descriptors")
@pytest.mark.parametrize("what", sorted(_INTERRUPTED))
@pytest.mark.parametrize("durability", ["process", "disk", "buffered"])
def test_ctrl_c_anywhere_in_a_call(
    tmp_path: Path, what: str, durability: milepost.Durability
) -> None:
    store = store_at(str(tmp_path / "store"), Faults())
    session = store.session("s", durability=durability)
    batch = session.start_batch("b")
    batch.update_item("first", DONE)
    acknowledged: list[milepost.Key] = ["first"]
    count = _interrupted(partial(_INTERRUPTED[what], session, batch, 0), at=0).places
    at = number = 0
    try:
        for number, at in enumerate(range(1, count + 1, max(1, count // PLACES)), start=1):
            _interrupted(partial(_INTERRUPTED[what], session, batch, number), at)
            batch.update_item(f"after {number}", DONE)
            acknowledged.append(f"after {number}")
            if number % 40 == 0:
                session.snapshot()
        assert number > 20
    except BaseException as error:
        error.add_note(f"{what}: interrupted at place {at}")
        raise
    finally:
        session.close()
    state = store.load_progress("s")
    keys = {*state.active_batches[0].finished, *state.active_batches[0].done}
    assert keys >= set(acknowledged)
    assert keys <= {*acknowledged, *range(number + 1)}
    assert state.active_batches[0].items_processed == len(keys)
    assert not [each for each in store.view("s").findings if each.is_error]


@pytest.mark.usefixtures("forgotten_descriptors")
@pytest.mark.parametrize("after", ["an interruption", "a failed sync"])
def test_ctrl_c_anywhere_in_what_mends(tmp_path: Path, after: str) -> None:
    """The call that mends what an earlier one left behind may be interrupted as well."""
    system = Faults()
    store = store_at(str(tmp_path / "store"), system, config=milepost.StoreConfig())
    session = store.session("s")
    batch = session.start_batch("b")
    numbers = itertools.count()
    acknowledged: list[milepost.Key] = []

    def leave_work_behind() -> None:
        if after == "an interruption":
            at = 1
            while not session._writer._attention:
                _interrupted(partial(batch.update_item, next(numbers), DONE), at)
                at += 1
            return
        session.set_data("good")
        system.failing = lambda call: errno.EIO if call.name == "sync" else None
        with pytest.raises(milepost.DurabilityLostError):
            session.set_data("failed")
        system.failing = None

    leave_work_behind()
    count = _interrupted(partial(batch.update_item, next(numbers), DONE), at=0).places
    at = 0
    try:
        for at in range(1, count + 1, max(1, count // PLACES)):
            leave_work_behind()
            _interrupted(partial(batch.update_item, next(numbers), DONE), at)
            # Once more, early on: where it looks for what the one before left half made.
            _interrupted(partial(batch.update_item, next(numbers), DONE), 1 + at * 7 % 60)
            key = f"after {at}"
            batch.update_item(key, DONE)
            acknowledged.append(key)
            assert session.data in {None, "good"}
    except BaseException as error:
        error.add_note(f"interrupted at place {at} of {count}")
        raise
    finally:
        session.close()
    view = store.view("s")
    assert not [each for each in view.findings if each.is_error]
    done = view.state.active_batches[0]
    assert {*done.finished, *done.done} >= set(acknowledged)
    assert view.state.data in {None, "good"}


@pytest.mark.usefixtures("forgotten_descriptors")
def test_ctrl_c_anywhere_in_a_restore(tmp_path: Path) -> None:
    """It is the one or the other state, and what comes after it is kept."""
    store = store_at(str(tmp_path / "store"), Faults())
    session = store.session("s")
    session.set_data("old")
    version = session.snapshot()
    session.set_data("new")
    count = _interrupted(lambda: store.restore("s", version), at=0).places
    for at in range(1, count + 1, max(1, count // PLACES)):
        session.set_data("new")
        _interrupted(lambda: store.restore("s", version), at)
        session.flush()
        held = session.data
        assert held in {"old", "new"}
        batch = session.start_batch(f"b{at}")
        batch.complete()
        view = store.view("s")
        assert not view.is_lossy
        assert view.state.data == held
        assert summary(view.state) == summary(session.state), f"place {at}"
    session.close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer signal")
# A signal that comes in while an object is torn down is raised to nobody; Python only warns of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("forgotten_descriptors")
def test_ctrl_c_by_signal_while_updates_run(tmp_path: Path) -> None:
    """The same by the real signal, wherever it happens to come in."""
    store = store_at(str(tmp_path / "store"), Faults())
    acknowledged: list[int] = []
    with store.session("s") as session:
        batch = session.start_batch("b")
        number = 0
        for _ in range(60):
            before = signal.signal(signal.SIGALRM, signal.default_int_handler)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.002)
                # Bounded: a signal that comes in while an object is torn down is raised to nobody.
                for _ in range(5_000):
                    number += 1
                    batch.update_item(number, DONE)
                    acknowledged.append(number)
            except KeyboardInterrupt:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
    state = store.load_progress("s")
    keys = {*state.active_batches[0].finished, *state.active_batches[0].done}
    assert keys >= set(acknowledged)
    assert keys <= set(range(number + 1))


# Wrong calls.


def test_a_wrong_call_never_gets_into_the_journal(tmp_path: Path) -> None:
    """What could not have happened is refused before it is written: the journal is for good."""
    store = store_at(str(tmp_path / "store"))
    with store.session("s") as session:
        batch = session.start_batch("a")
        batch.update_item("i", DONE)
        batch.complete()
        wrong: list[Callable[[], object]] = [
            lambda: session.start_batch("a"),
            lambda: session.start_batch("a", keeps_items=True),
            lambda: session.put_back([0], {}),
            lambda: session.put_back([], {0: ["i"]}),
            lambda: batch.update_item("i", DONE),
            batch.complete,
            lambda: batch.fail("no"),
        ]
        for call in wrong:
            with pytest.raises((ValueError, milepost.MilepostError)):
                call()
            session.set_data("goes on")
    assert store.load_state("s") == "goes on"
    store.session("s").close()
