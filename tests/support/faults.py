"""Doubles of the operating system's calls: they die, fail, tear, count and lose unsynced bytes.

- `Faults` does one wrong thing at one chosen call of a run, or fails every call for a while.
- `PowerCut` keeps, beside the real folder, the image that a disk would still have after the power
  went: file bytes as of their last sync, names as of their folder's last sync. `cut` makes the real
  folder that image, or one with some of the unsynced changes in it.
- `Moments` remembers what was there between two calls; `lay_out` makes a folder as a crash at such
  a moment leaves it.
- `damaged_files` makes a file wrong in many ways, one after another.
- `in_child` runs a scenario in a forked process, so that a death there is a real one.
"""

from __future__ import annotations

import errno
import os
import pickle
import random
import signal
import sys
import threading
import traceback
import zlib
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn, TypeAlias

from milepost.storage.syscalls import OperatingSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

Fault: TypeAlias = Literal["crash", "torn", "eio", "enospc"]
Survives: TypeAlias = Literal["all", "synced", "some"]
"""What a crash leaves: after kill -9 all, after a power cut what was synced or some more of it."""

_ERRNO = {"eio": errno.EIO, "enospc": errno.ENOSPC}
NEEDS_SPACE = frozenset({"open_new", "open_output", "pwrite", "allocate", "make_folder", "rename"})
"""Calls that a full disk refuses; it still syncs, cuts and removes."""


def flips(data: bytes, step: int = 1) -> Iterator[bytes]:
    """The same bytes with one bit wrong, once for each `step` bytes."""
    for position in range(0, len(data), step):
        flipped = bytearray(data)
        flipped[position] ^= 1 << (position % 8)
        yield bytes(flipped)


def damaged_files(path: str, *, cut_step: int, flip_step: int = 1) -> Iterator[None]:
    """Make the file each of its cuts and flips in turn."""
    with open(path, "rb") as file:
        data = file.read()
    cuts = (data[:length] for length in range(0, len(data), cut_step))
    for each in (*cuts, *flips(data, flip_step)):
        with open(path, "wb") as file:
            file.write(each)
        yield


class Call(NamedTuple):
    """One call a store made.

    Attributes:
        name: Which of the methods.
        path: What it was about, relative to nothing: as it was given.
        size_bytes: How much was to be written; 0 for other calls.
    """

    name: str
    path: str
    size_bytes: int


def die() -> NoReturn:
    """End this process as kill -9 does: nothing is flushed, closed or told."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody outlives that")


class Faults(OperatingSystem):
    """The real calls, counted, with something wrong at one of them.

    `really_sync=False` counts syncs and does nothing: a killed process loses nothing by it.
    """

    def __init__(
        self,
        *,
        at: int | None = None,
        fault: Fault = "crash",
        really_sync: bool = False,
        on_death: Callable[[], None] = die,
    ) -> None:
        self.calls: list[Call] = []
        self.failing: Callable[[Call], int | None] | None = None
        self._at = at
        self._fault: Fault = fault
        self._really_sync = really_sync
        self._on_death = on_death
        self._lock = threading.RLock()
        self._paths: dict[int, str] = {}

    @property
    def written_bytes(self) -> int:
        """How many bytes all writes together were about."""
        return sum(call.size_bytes for call in self.calls)

    def _note(self, name: str, path: str, size_bytes: int = 0) -> bool:
        """Count the call; fail it or die if it is the one. True: tear this write, then die."""
        with self._lock:
            index = len(self.calls)
            call = Call(name, path, size_bytes)
            self.calls.append(call)
            if self.failing is not None:
                number = self.failing(call)
                if number is not None:
                    raise OSError(number, os.strerror(number), path)
            if index != self._at:
                return False
            if self._fault == "torn" and name == "pwrite":
                return True
            if self._fault in _ERRNO:
                number = _ERRNO[self._fault]
                raise OSError(number, os.strerror(number), path)
            self._on_death()
            raise AssertionError("dead processes do not go on")

    def open_new(self, path: str) -> int:
        self._note("open_new", path)
        descriptor = super().open_new(path)
        self._paths[descriptor] = path
        return descriptor

    def open_output(self, path: str) -> int:
        self._note("open_output", path)
        descriptor = super().open_output(path)
        self._paths[descriptor] = path
        return descriptor

    def pwrite(self, descriptor: int, data: Buffer, offset: int, /) -> int:
        view = memoryview(data)
        if self._note("pwrite", self._paths.get(descriptor, ""), len(view)):
            os.pwrite(descriptor, view[: len(view) // 2], offset)
            self._on_death()
        return os.pwrite(descriptor, view, offset)

    def allocate(self, descriptor: int, offset: int, size_bytes: int) -> None:
        self._note("allocate", self._paths.get(descriptor, ""))
        super().allocate(descriptor, offset, size_bytes)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        self._note("truncate", self._paths.get(descriptor, ""))
        super().truncate(descriptor, size_bytes)

    def sync(self, descriptor: int) -> None:
        self._note("sync", self._paths.get(descriptor, ""))
        if self._really_sync:
            super().sync(descriptor)

    def sync_folder(self, path: str) -> None:
        self._note("sync_folder", path)
        if self._really_sync:
            super().sync_folder(path)

    def rename(self, source: str, target: str) -> None:
        self._note("rename", target)
        os.replace(source, target)

    def remove(self, path: str) -> None:
        self._note("remove", path)
        os.unlink(path)

    def make_folder(self, path: str) -> None:
        self._note("make_folder", path)
        super().make_folder(path)

    def remove_folder(self, path: str) -> None:
        self._note("remove_folder", path)
        os.rmdir(path)


# Power.


class Moments:
    """Some of the moments between two calls, each as likely as any other.

    Attributes:
        kept: What was there, by the number of the call that came next; see `lay_out`.
    """

    def __init__(self, most: int, rng: random.Random) -> None:
        self.kept: dict[int, bytes] = {}
        self._most = most
        self._rng = rng

    def wants(self, number: int) -> bool:
        """Whether this one is kept, maybe in place of another."""
        return self._rng.random() * (number + 1) < self._most

    def keep(self, number: int, state: bytes) -> None:
        """Keep it, packed: what was allocated ahead is mostly zeros."""
        if len(self.kept) >= self._most:
            del self.kept[self._rng.choice(list(self.kept))]
        self.kept[number] = zlib.compress(state, 1)


class _File:
    """A file: what the disk has for sure, and what was written since."""

    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable
        self.pending: list[tuple[int, bytes] | int] = []
        """Writes as offset and bytes, cuts as a size; allocated zeros are a write."""


class _Folder:
    """A folder: its names as they are now, and as the disk has them for sure."""

    def __init__(self) -> None:
        self.now: dict[str, _File | _Folder] = {}
        self.durable: dict[str, _File | _Folder] = {}


class _Change(NamedTuple):
    """A change of names that no folder sync followed yet; `node` `None` takes the name away."""

    folder: _Folder
    name: str
    node: _File | _Folder | None
    moved_from: tuple[_Folder, str] | None


class PowerCut(OperatingSystem):
    """The real calls without their syncs, and beside them what a disk would keep.

    What is in `root` at the start counts as durable. `save` and `load` carry the image from one
    process to the next, because a killed process leaves its unsynced bytes to the page cache.
    """

    def __init__(self, root: str, *, at: int | None = None, seed: int | None = None) -> None:
        self.root = root
        self.count = 0
        self.at = at
        self.seed = seed
        self.image: str | None = None
        """Set: `end` is a kill -9, and leaves the image here."""
        self.moments: Moments | None = None
        """Set: they are offered what was there before each call."""
        self._lock = threading.RLock()
        self._open: dict[int, _File] = {}
        self._changes: list[_Change] = []
        self._tree = _scan(root)

    # The image.

    def save(self, path: str) -> None:
        """Write the image to a file outside of the store."""
        with self._lock, open(path, "wb") as file:
            pickle.dump((self.root, self._changes, self._tree), file)

    @classmethod
    def load(cls, path: str) -> PowerCut:
        """Go on with the image another process left."""
        with open(path, "rb") as file:
            root, changes, tree = pickle.load(file)
        found = cls(root)
        found._changes, found._tree = changes, tree
        return found

    def _before(self) -> None:
        if self.moments is not None and self.moments.wants(self.count):
            self.moments.keep(self.count, pickle.dumps((self._changes, self._tree)))
        self.count += 1
        if self.count - 1 == self.at:
            self.end()

    def end(self) -> NoReturn:
        """The end of this process: by a power cut, or by kill -9 where `image` is set."""
        if self.image is not None:
            self.save(self.image)
            die()
        self.cut()
        os._exit(0)

    def cut(self) -> None:
        """Make the real folder what the disk has; with a seed, some unsynced changes survive.

        The lock is kept for good: nothing more reaches the disk from this process.
        """
        self._lock.acquire()
        rng = random.Random(self.seed)
        if self.seed is not None:
            for change in self._changes:
                if rng.random() < 0.5:
                    _apply_change(change)
        _restore(self._tree, self.root, rng if self.seed is not None else None)

    # The calls.

    def _node(self, path: str) -> tuple[_Folder, str]:
        parts = os.path.relpath(path, self.root).split(os.sep)
        folder = self._tree
        for part in parts[:-1]:
            inner = folder.now[part]
            assert isinstance(inner, _Folder)
            folder = inner
        return folder, parts[-1]

    def _change(self, path: str, node: _File | _Folder | None, source: str | None = None) -> None:
        folder, name = self._node(path)
        moved_from = self._node(source) if source is not None else None
        if moved_from is not None:
            node = moved_from[0].now.pop(moved_from[1])
        if node is None:
            folder.now.pop(name, None)
        else:
            folder.now[name] = node
        self._changes.append(_Change(folder, name, node, moved_from))

    def _is_inside(self, path: str) -> bool:
        return os.path.commonpath([path, self.root]) == self.root and path != self.root

    def open_new(self, path: str) -> int:
        with self._lock:
            self._before()
            descriptor = super().open_new(path)
            node = _File()
            self._open[descriptor] = node
            self._change(path, node)
            return descriptor

    def open_output(self, path: str) -> int:
        with self._lock:
            self._before()
            descriptor = super().open_output(path)
            folder, name = self._node(path)
            node = folder.now.get(name)
            if node is None:
                node = _File()
                self._change(path, node)
            assert isinstance(node, _File)
            self._open[descriptor] = node
            return descriptor

    def pwrite(self, descriptor: int, data: Buffer, offset: int, /) -> int:
        with self._lock:
            self._before()
            written = os.pwrite(descriptor, data, offset)
            self._open[descriptor].pending.append((offset, bytes(data)))
            return written

    def allocate(self, descriptor: int, offset: int, size_bytes: int) -> None:
        with self._lock:
            self._before()
            super().allocate(descriptor, offset, size_bytes)
            self._open[descriptor].pending.append((offset, bytes(size_bytes)))

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        with self._lock:
            self._before()
            super().truncate(descriptor, size_bytes)
            self._open[descriptor].pending.append(size_bytes)

    def sync(self, descriptor: int) -> None:
        with self._lock:
            self._before()
            node = self._open[descriptor]
            node.durable = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            node.pending = []

    def sync_folder(self, path: str) -> None:
        with self._lock:
            self._before()
            if path != self.root and not self._is_inside(path):
                return
            folder = self._tree
            if path != self.root:
                outer, name = self._node(path)
                inner = outer.now[name]
                assert isinstance(inner, _Folder)
                folder = inner
            left: list[_Change] = []
            for change in self._changes:
                mine = change.folder is folder or (
                    change.moved_from is not None and change.moved_from[0] is folder
                )
                if mine:
                    _apply_change(change)
                else:
                    left.append(change)
            self._changes = left

    def rename(self, source: str, target: str) -> None:
        with self._lock:
            self._before()
            os.replace(source, target)
            self._change(target, None, source)

    def remove(self, path: str) -> None:
        with self._lock:
            self._before()
            os.unlink(path)
            self._change(path, None)

    def make_folder(self, path: str) -> None:
        with self._lock:
            self._before()
            super().make_folder(path)
            if self._is_inside(path):
                self._change(path, _Folder())

    def remove_folder(self, path: str) -> None:
        with self._lock:
            self._before()
            os.rmdir(path)
            self._change(path, None)


def _apply_change(change: _Change) -> None:
    if change.moved_from is not None:
        change.moved_from[0].durable.pop(change.moved_from[1], None)
    if change.node is None:
        change.folder.durable.pop(change.name, None)
    else:
        change.folder.durable[change.name] = change.node


def _scan(root: str) -> _Folder:
    """What is there already, all of it durable."""
    folder = _Folder()
    for name in os.listdir(root) if os.path.isdir(root) else []:
        full = os.path.join(root, name)
        if os.path.isdir(full):
            folder.now[name] = _scan(full)
        else:
            with open(full, "rb") as file:
                folder.now[name] = _File(file.read())
    folder.durable = dict(folder.now)
    return folder


def lay_out(state: bytes, path: str, survives: Survives, seed: int = 0) -> None:
    """Make a folder that is not there yet as a crash leaves it."""
    changes, tree = pickle.loads(zlib.decompress(state))
    rng = random.Random(seed)
    for change in changes:
        if survives == "all" or (survives == "some" and rng.random() < 0.5):
            _apply_change(change)
    _lay_out(tree, path, survives, rng)


def _lay_out(folder: _Folder, path: str, survives: Survives, rng: random.Random) -> None:
    os.mkdir(path)
    for name, node in folder.durable.items():
        full = os.path.join(path, name)
        if isinstance(node, _Folder):
            _lay_out(node, full, survives, rng)
            continue
        with open(full, "wb") as file:
            file.write(_bytes_after(node, rng if survives == "some" else None, survives == "all"))


def _bytes_after(file: _File, rng: random.Random | None, all_of_it: bool = False) -> bytes:
    """The durable bytes; with a generator, each unsynced write may have reached the disk or not."""
    data = bytearray(file.durable)
    if rng is None and not all_of_it:
        return bytes(data)
    # One file may lose all that was not synced, another one nothing of it.
    lost = 0.0 if rng is None else rng.choice((0.0, 0.5, 0.5, 1.0))
    for write in file.pending:
        if rng is not None and rng.random() < lost:
            continue
        if isinstance(write, int):
            del data[write:]
            continue
        offset, new = write
        if rng is not None and lost and rng.random() < 0.3:
            # Part of a write: what lies within some blocks of it. Or its length without its bytes.
            start = rng.randrange(len(new) + 1)
            stop = rng.randrange(start, len(new) + 1)
            offset, new = offset + start, new[start:stop]
            if rng.random() < 0.3:
                new = bytes(len(new))
        if offset > len(data) and new:
            data.extend(bytes(offset - len(data)))  # a hole
        data[offset : offset + len(new)] = new
    return bytes(data)


def _restore(folder: _Folder, path: str, rng: random.Random | None) -> None:
    """Make the real folder the durable one, in place: what stays keeps its inode."""
    placed = {id(node): name for name, node in folder.now.items()}
    for name, node in folder.durable.items():
        before = placed.get(id(node))
        if isinstance(node, _Folder) and before is not None and before != name:
            os.rename(os.path.join(path, before), os.path.join(path, name))
    for name in os.listdir(path):
        if name not in folder.durable:
            _remove(os.path.join(path, name))
    for name, node in folder.durable.items():
        full = os.path.join(path, name)
        if isinstance(node, _Folder):
            if not os.path.isdir(full):
                os.mkdir(full)
            _restore(node, full, rng)
        else:
            with open(full, "wb") as file:
                file.write(_bytes_after(node, rng))


def _remove(path: str) -> None:
    if os.path.isdir(path):
        for name in os.listdir(path):
            _remove(os.path.join(path, name))
        os.rmdir(path)
    else:
        os.unlink(path)


# Processes.


class Ended(NamedTuple):
    """How a child ended.

    Attributes:
        told: What it had reported before its end.
        signal: What killed it; 0 if it ended by itself.
        code: Its exit code.
    """

    told: bytes
    signal: int
    code: int


def in_child(body: Callable[[Callable[[bytes], None]], None]) -> Ended:
    """Run `body(tell)` in a forked child; what it tells arrives even if it is killed right after.

    A child that raises shows its traceback and ends with code 1, which no scenario expects.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            body(lambda data: (os.write(writing, data), None)[1])
            code = 0
        except BaseException:  # the parent must not see this stack unwound
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    os.close(writing)
    told = bytearray()
    with os.fdopen(reading, "rb") as file:
        while chunk := file.read():
            told += chunk
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return Ended(bytes(told), os.WTERMSIG(status), 0)
    return Ended(bytes(told), 0, os.waitstatus_to_exitcode(status))
