"""Writing a journal: one file of one writer, from its first record to its last.

- An append is one write of whole records. It is all there or, after an error, not at all.
- Under `"buffered"` records wait in memory; `flush` hands them to the system.
- `SyncedThrough` follows each sync: with the next append, so that it costs no write of its own, or
  by `write_mark` where none may follow soon.
- Only the caller knows what an event means; here it is a payload with a sequence number.

Source: FORMAT.md, "Journal".
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from milepost.errors import MilepostError, RecordTooLargeError
from milepost.journal import record

if TYPE_CHECKING:
    from milepost.journal.reader import Replay
    from milepost.storage.directory import AppendedFile, LocalDirectory
    from milepost.types import Durability

_BUFFER_BYTES: Final = 1 << 16


class JournalWriter:
    """The live journal of a session."""

    def __init__(
        self, file: AppendedFile, name: record.JournalName, session_uid: str, *, buffered: bool
    ) -> None:
        self._file = file
        self._session_uid = session_uid
        self._buffered = buffered
        self._buffer = bytearray()
        self._pending_mark = 0
        self._chain = 0
        self.name = name
        self.last = name.first - 1
        self.synced_through = name.first - 1

    @classmethod
    def create(
        cls,
        folder: LocalDirectory,
        name: record.JournalName,
        *,
        session: str,
        session_uid: str,
        predecessor: Replay | JournalWriter | None,
        durability: Durability,
    ) -> JournalWriter:
        """Begin a journal, its first record and its name durable."""
        folder.make_folder(record.FOLDER)
        opened = record.JournalOpened(
            session=session,
            session_uid=session_uid,
            epoch=name.epoch,
            first=name.first,
            predecessor=predecessor.name.name if predecessor else "",
            accepted_bytes=predecessor.size_bytes if predecessor else 0,
            accepted_chain=predecessor.chain if predecessor else 0,
        )
        file = folder.create(name.path, preallocate=durability == "disk")
        try:
            journal = cls(file, name, session_uid, buffered=durability == "buffered")
            header = record.file_header()
            framed, journal._chain = record.frame(
                record.encode_payload(opened), record.first_seed(header)
            )
            opening = header + framed
            file.append(opening, len(opening))
            file.sync()
            folder.sync_folder(record.FOLDER)
        except BaseException:
            file.close()
            # One without its first record counts as damaged once the manifest lists it.
            with contextlib.suppress(MilepostError):
                folder.remove(name.path)
            raise
        return journal

    @property
    def size_bytes(self) -> int:
        """How long the journal is, with what waits in memory."""
        return self._file.size_bytes + len(self._buffer)

    @property
    def chain(self) -> int:
        """Chain value after the last record."""
        return self._chain

    @property
    def poisoned(self) -> bool:
        """Whether nothing may be acknowledged through this file any more."""
        return self._file.poisoned

    def append(self, payloads: list[bytes], last: int) -> None:
        """Add the payloads of the events up to sequence number `last`: all of them, or none.

        Errors: `RecordTooLargeError` before anything is written; `StorageError` with the journal as
            it was; `DurabilityLostError` once it is poisoned.
        """
        chain = self._chain
        frames: list[bytes] = []
        if self._pending_mark:
            framed, chain = record.frame(self._mark(self._pending_mark), chain)
            frames.append(framed)
        for payload in payloads:
            if len(payload) > record.RECORD_BYTES_MAX:
                raise RecordTooLargeError(
                    f"an event of {len(payload):,} bytes is more than the"
                    f" {record.RECORD_BYTES_MAX:,} that a reader accepts",
                    hint="keep large data in files of your own and record where they are",
                )
            framed, chain = record.frame(payload, chain)
            frames.append(framed)
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if self._buffered:
            self._buffer += data
            if len(self._buffer) >= _BUFFER_BYTES:
                try:
                    self.flush()
                except BaseException:
                    # The call fails, so its records must not go out with a later flush. A new
                    # buffer, because the error's frames may still hold a view of the old one.
                    self._buffer = self._buffer[: -len(data)]
                    raise
        else:
            self._file.append(data, len(data))
        self._chain = chain
        self._pending_mark = 0
        self.last = last

    def flush(self) -> None:
        """Hand what waits in memory to the system: from here on it survives kill -9."""
        if self._buffer:
            self._file.append(self._buffer, len(self._buffer))
            self._buffer = bytearray()

    def sync(self) -> None:
        """Make everything appended so far durable, and say so with the next append."""
        self.flush()
        last = self.last
        self._file.sync()
        self.synced_through = max(self.synced_through, last)
        self._pending_mark = self.synced_through

    def sync_appended(self) -> None:
        """Sync what the system was handed so far; for another thread, which then notes it."""
        self._file.sync()

    def note_synced(self, through: int) -> None:
        """Record that a sync by another thread covered the events up to `through`."""
        if through > self.synced_through:
            self.synced_through = through
            self._pending_mark = through

    def write_mark(self) -> None:
        """Write the outstanding `SyncedThrough` now, where no append may follow soon."""
        if self._pending_mark:
            self.append([], self.last)

    def _mark(self, sequence: int) -> bytes:
        proof = record.synced_proof(sequence, self.name, self._session_uid)
        return record.encode_payload(record.SyncedThrough(sequence, proof))

    def close(self) -> None:
        """Give back what was allocated ahead and close; what is not flushed is not written."""
        if not self._file.poisoned:
            self._file.trim()
        self._file.close()

    def close_after_fork(self) -> None:
        """Close the child's descriptor."""
        self._file.close_after_fork()
