"""Exact output: the rows of an item reach the file with the item's acknowledgement.

- Rows wait in memory with the item whose body wrote them. When it is acknowledged they are
  appended, and then one record says both: this item is done, and the file ends here. An item that
  fails, or is left, leaves no row.
- When work is taken up again, the file is cut back to the end that the record tells; where no run
  can have left what stands behind it, it is refused instead.
- Whose rows they are: those of the innermost item. That is the one in whose function they are
  written (a context variable, so it holds in threads and tasks alike), or the one that the loop
  has in hand, where the loop itself runs in that function, or there is none.
- A name that ends in `.gz` or `.zst` is compressed: the rows of one acknowledgement are a
  member or frame of their own, so the file is whole after each.

Source: FORMAT.md, "Outputs".
"""

from __future__ import annotations

import copy
import gzip
import os
import threading
import zlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from milepost.errors import (
    ClosedError,
    DamagedError,
    DurabilityLostError,
    EncodingError,
    OutputError,
    StorageError,
)
from milepost.model.state import OutputRows
from milepost.storage import frame
from milepost.storage.output import OutputFile, lacks_rows
from milepost.work.far import is_far

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from milepost.model.state import SessionState
    from milepost.storage.syscalls import Syscalls
    from milepost.types import Key

_OPEN_MOST: Final = 64
"""So many files may stay open that nobody can write to any more."""

in_function: Final[ContextVar[Slip | None]] = ContextVar("milepost_slip", default=None)
"""The rows of the item whose function runs here; `None` outside of such a function."""


class Slip:
    """The rows that an item in hand has written so far.

    Attributes:
        outputs: Those of its session: another session's rows are not its matter.
        outer: Those of the item in whose function the map of this one runs; `None` for none.
        rows: What it has written, by file.
        is_open: Whether it takes more.
        keys: Of the items that are acknowledged with it.
    """

    __slots__ = ("__weakref__", "is_open", "keys", "outer", "outputs", "rows")

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs
        self.outer: Slip | None = None
        self.rows: dict[OutputFile, list[bytes]] = {}
        self.is_open = True
        self.keys: tuple[Key, ...] = ()

    def clear(self) -> None:
        """Forget the rows: the item is tried again, or leaves none."""
        self.rows.clear()

    def close(self) -> None:
        """Take no more rows: the item was given up, or is acknowledged."""
        self.is_open = False
        self.rows.clear()


class Output:
    """A file to append rows to; made by `open` of the items. May be used from any thread.

    Attributes:
        path: Where the file is, absolute.
    """

    def __init__(
        self,
        outputs: Outputs,
        file: OutputFile,
        slip: Callable[[], Slip | None],
        around: Slip | None = None,
    ) -> None:
        """`slip` gives the rows of the item that the loop has in hand.

        `around` are those of the item in whose function the loop runs.
        """
        self._outputs = outputs
        self._file = file
        self._slip = slip
        self._around = around
        self._is_far = is_far.get()
        self.path = file.path
        file.users.add(self)

    def __repr__(self) -> str:
        return f"<Output {self.path}>"

    def write(self, data: str | bytes) -> int:
        """Add text (as UTF-8) or bytes to the rows of the item in hand; returns its length.

        Nothing is added to it: a line's end is yours to write. Errors: `ClosedError` where no item
        is in hand, or where its item is acknowledged or given up already.
        """
        if isinstance(data, str):
            try:
                row = data.encode()
            except UnicodeEncodeError as error:
                raise EncodingError(f"a row cannot be stored as UTF-8: {error}") from error
        elif isinstance(data, (bytes, bytearray, memoryview)):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers are not all typed
            row = bytes(data)
        else:
            raise EncodingError(f"a row is text or bytes, not {type(data).__name__}: {data!r:.80}")
        with self._outputs.lock:  # from looking whose row it is until that one has it
            self._write(row)
        return len(data)

    def _write(self, row: bytes) -> None:
        if is_far.get() and not self._is_far:
            raise ClosedError(
                f"nobody can tell whose row this is: an executor of your own runs what writes to"
                f" {self.path}",
                hint="return the rows from the function, and write them in the body of the loop",
            )
        slip = self._slip_of_row()
        if slip is None:
            raise ClosedError(
                f"no item is in hand, so nobody would acknowledge what is written to {self.path}",
                hint="write rows in the body of the loop, or in the function that map runs",
            )
        self._outputs.refuse_sealed()
        if not slip.is_open:
            raise ClosedError(
                f"the item of this row is acknowledged or given up already: {self.path} takes no"
                " more rows of it",
                hint="write all rows of an item before its function returns, or its loop goes on",
            )
        rows = slip.rows.get(self._file)
        if rows is None:
            rows = slip.rows[self._file] = []
            self._file.users.add(slip)
        rows.append(row)

    def _slip_of_row(self) -> Slip | None:
        """The rows of the innermost item whose function, or whose loop's body, runs here."""
        inner = in_function.get()
        while inner is not None and inner is not self._around:
            if inner.outputs is self._outputs:
                return inner  # it runs within the body of the loop, or is the loop's own
            inner = inner.outer
        slip = self._slip()
        if slip is None and inner is not None and inner.outputs is self._outputs:
            return inner  # the function goes on, and the loop in it has ended
        return slip

    def writelines(self, rows: Iterable[str | bytes]) -> None:
        """Add many, one after another."""
        for each in rows:
            self.write(each)

    def __reduce__(self) -> Any:
        raise TypeError(
            f"the output {self.path} is written by the process that holds the session alone; return"
            " the rows from the function, and write them in the body of the loop"
        )

    def flush(self) -> None:
        """Nothing: rows reach the file when their item is acknowledged."""


class Outputs:
    """All outputs of one living session. Methods want the writer's lock held.

    Attributes:
        lock: Held while a row is given to its item, and while the rows of items are collected.
    """

    def __init__(self, store_path: str, system: Syscalls, *, level: Callable[[], int]) -> None:
        self._store = store_path
        self._system = system
        self._level = level
        self._files: dict[str, OutputFile] = {}
        self._opened: set[str] = set()
        self._names: dict[tuple[int, int], str] | None = None
        self._refusal: ClosedError | None = None
        self.lock = threading.RLock()  # what is collected meanwhile may acknowledge, too

    def locate(self, path: str | os.PathLike[str]) -> tuple[str, str]:
        """The absolute path that is meant, and the name by which the store knows it."""
        full: str = os.path.abspath(os.fspath(path))
        if "\0" in full:
            raise OutputError(f"the output {full!r} has a zero byte in its name")
        if os.path.isdir(full):
            raise OutputError(f"the output {full} is a folder")
        if os.path.exists(full) and not os.path.isfile(full):
            raise OutputError(
                f"the output {full} is no regular file: what was written to it cannot be compared"
                " or cut back",
                hint="name a file; what is to go elsewhere, write there in the body of the loop",
            )
        if not os.path.isdir(os.path.dirname(full)):
            raise OutputError(
                f"the folder of the output {full} is not there", hint="make the folder first"
            )
        try:
            # By the real folders: a link in a path would lead elsewhere from the other side.
            folder, base = os.path.split(full)
            place = os.path.join(os.path.realpath(folder), base)
            relative = os.path.relpath(place, os.path.realpath(self._store))
        except ValueError as error:  # another drive
            raise OutputError(
                f"the output {full} is on another drive than the store {self._store}",
                hint="a store holds no absolute path; put both on one drive",
            ) from error
        return full, relative.replace(os.sep, "/")

    def known(self, name: str, state: SessionState) -> OutputFile | None:
        """The output of this name, if it is open and ends where the state says."""
        file, rows = self._files.get(name), state.outputs.get(name)
        return file if file and rows and rows.length_bytes == file.length_bytes else None

    def namesake(self, path: str | os.PathLike[str], name: str, state: SessionState) -> str | None:
        """The known file that a relative path may have meant in an earlier run; `None` for none."""
        given = os.fspath(path)
        if os.path.isabs(given) or name in state.outputs:
            return None
        parts = os.path.normpath(given).split(os.sep)
        end = "/" + "/".join(part for part in parts if part != os.pardir)
        others = (each for each in state.outputs if each not in self._opened)
        known = next((each for each in others if f"/{each}".endswith(end)), None)
        return None if known is None else _path_of(self._store, known)

    def open(
        self, full: str, name: str, state: SessionState, *, may_be_ours: Callable[[], bool]
    ) -> OutputFile:
        """Open a file and go on behind its last acknowledged row.

        `may_be_ours` says whether a run of this session may have left what stands behind it.
        Errors: `OutputError` for a file with bytes that are nobody's; `DamagedError` where it is
            not what it was, or goes on with bytes of somebody else.
        """
        self.refuse_sealed()
        rows = state.outputs.get(name)
        if rows is not None and rows.length_bytes and not os.path.exists(full):
            raise DamagedError(
                f"the output {full} is gone, and {rows.length_bytes:,} bytes of it were"
                " acknowledged",
                path=full,
                hint="put it back, from where the store was copied perhaps; or begin the work anew",
            )
        self._refuse_second_name(full, name, state)
        before = self._files.get(name)
        if before is not None:
            self._close(name, before)
        self._close_unused()
        file = OutputFile(full, self._system)
        try:
            if rows is not None:
                file.cut_bytes = file.cut_back(
                    rows.start_bytes, rows.length_bytes, rows.checksum, may_be_ours=may_be_ours
                )
            else:
                try:
                    file.begin()
                except OutputError as error:
                    if lost := self._lost_namesake(full, state):
                        error.hint = (
                            f"this session wrote {lost}, which is not there any more: if this is"
                            " that file, move it there; else use another name"
                        )
                    raise
        except BaseException:
            file.close()
            raise
        self._files[name] = file
        self._opened.add(name)
        if (status := _status(full)) is not None:
            self._known_names(state).setdefault((status.st_dev, status.st_ino), name)
        return file

    def _lost_namesake(self, full: str, state: SessionState) -> str | None:
        """The place of a known output of this name that is gone: it may have been moved."""
        base = os.path.basename(full)
        places = (_path_of(self._store, name) for name in state.outputs)
        known = (path for path in places if os.path.basename(path) == base)
        return next((path for path in known if not os.path.exists(path)), None)

    def _close_unused(self) -> None:
        """Have no more files open than are written, where they are many."""
        if len(self._files) < _OPEN_MOST:
            return
        with self.lock:
            unused = {name: file for name, file in self._files.items() if not file.users}
        for name, file in unused.items():
            self._close(name, file)

    def _close(self, name: str, file: OutputFile) -> None:
        """Close one; whoever syncs all just now finds it synced, and gone."""
        file.sync()
        del self._files[name]
        file.close()

    def _refuse_second_name(self, full: str, name: str, state: SessionState) -> None:
        """Raise where a link leads to a known output: each name would cut the other one's rows."""
        if (status := _status(full)) is None:
            return
        other = self._known_names(state).get((status.st_dev, status.st_ino), name)
        path = _path_of(self._store, other)
        known = None if other == name else _status(path)
        if known is not None and os.path.samestat(known, status):
            raise OutputError(
                f"the output {full} is the same file as {path}, which this session writes",
                hint="open it by that one name, or write to a file of its own",
            )

    def _known_names(self, state: SessionState) -> dict[tuple[int, int], str]:
        """The known outputs by device and inode, as they were when they were first looked at."""
        if self._names is None:
            self._names = {}
            for name in state.outputs:
                if (status := _status(_path_of(self._store, name))) is not None:
                    self._names.setdefault((status.st_dev, status.st_ino), name)
        return self._names

    def settle(self, state: SessionState) -> None:
        """Sync what the last writer left: a snapshot is about to say that it is on the disk."""
        for name in state.outputs:
            path = _path_of(self._store, name)
            if not os.path.isfile(path):
                continue  # whoever opens it is told
            try:
                file = OutputFile(path, self._system)
            except StorageError:
                continue  # the same: who only restarts or restores needs no output
            try:
                file.sync()
            finally:
                file.close()

    def append(self, slips: Iterable[Slip], state: SessionState) -> list[OutputRows]:
        """Write the rows of items that are about to be acknowledged; what the record is to say.

        On an error nothing counts: `take_back` brings the files to their former length.
        """
        marks: list[OutputRows] = []
        waiting: dict[OutputFile, list[bytes]] = {}
        with self.lock:
            for slip in slips:
                slip.is_open = False  # a row that comes now would miss the record
                for file, rows in slip.rows.items():
                    waiting.setdefault(file, []).extend(rows)
        if not waiting:
            return marks
        names = {file: name for name, file in self._files.items()}
        for file, rows in waiting.items():
            self.refuse_sealed()
            name = names.get(file)
            if name is None or self.known(name, state) is not file:
                raise ClosedError(
                    f"the output {file.path} is closed, or the work was begun anew since it was"
                    " opened",
                    hint="open it again with the items that are worked on now",
                )
            data = self._compressed(file.path, b"".join(rows))
            if not data:
                continue
            start = file.length_bytes
            file.append(data)
            marks.append(OutputRows(name, start, start + len(data), zlib.crc32(data)))
        return marks

    def take_back(self, state: SessionState) -> None:
        """After an acknowledgement that failed: the files end where the state says."""
        for name, file in self._files.items():
            rows = state.outputs.get(name)
            if rows is not None:
                file.take_back(rows.length_bytes)

    def seal(self) -> None:
        """Take no more rows: the run is about to say that it ended, and none may come behind."""
        self._refusal = ClosedError(
            "the run has ended, and its outputs take no more rows",
            hint="run the work again: the items whose rows these are come again",
        )

    def refuse_sealed(self) -> None:
        """Raise where no row is taken any more."""
        if self._refusal is not None:
            raise copy.copy(self._refusal)

    def refuse_poisoned(self) -> None:
        """Raise where rows may be lost, so that nothing can be acknowledged any more."""
        for file in self._files.values():
            file.refuse_poisoned()

    def sync(self) -> None:
        """Return when all rows are on the disk. May be called without the lock."""
        for name, file in list(self._files.items()):
            try:
                file.sync()
            except DurabilityLostError:
                if self._files.get(name) is file:
                    raise
                # It was synced and closed meanwhile.

    def close(self) -> None:
        """Close all; a second time does nothing."""
        files, self._files = self._files, {}
        for file in files.values():
            file.close()

    def close_after_fork(self) -> None:
        """Close the child's descriptors, and take no row there."""
        self._refusal = ClosedError(
            "this session belongs to the parent process, and its outputs take no row of this one",
            hint="return the rows to the parent, and write them in the body of its loop",
        )
        self.lock = threading.RLock()  # the parent's may be held by a thread that is not here
        for file in self._files.values():
            file.close_after_fork()

    def _compressed(self, path: str, data: bytes) -> bytes:
        if not data or not path.endswith((".gz", ".zst")):
            return data
        if path.endswith(".gz"):
            return gzip.compress(data, mtime=0)
        return frame.compress(data, level=self._level())


def all_ended(state: SessionState, epoch: int) -> bool:
    """Whether all turns since the work was begun anew, up to this one, were runs with an end.

    Then no row without an acknowledgement stands in any output. A turn that was no run may be a
    restore, which acknowledges less than there was, or a run whose beginning a power cut took.
    """
    first = state.runs_before - state.executions_forgotten
    if first < 0:
        return False
    runs = state.executions[first:]
    if state.execution is not None and state.execution.epoch == epoch:
        runs.pop()  # our own
    epochs = [each.epoch for each in runs if each.outcome is not None]
    return bool(runs) and epochs == list(range(epoch - len(runs), epoch))


def is_lost(store_path: str, rows: OutputRows) -> bool:
    """Whether an output is there and lacks the rows that a record tells of."""
    path = _path_of(store_path, rows.path)
    return lacks_rows(path, rows.start_bytes, rows.length_bytes, rows.checksum)


def _status(path: str) -> os.stat_result | None:
    """What the system says of a file; `None` where it says nothing."""
    try:
        return os.stat(path)
    except OSError:
        return None


def _path_of(store_path: str, name: str) -> str:
    return os.path.normpath(os.path.join(os.path.realpath(store_path), *name.split("/")))
