"""Writing a journal: whole records or nothing, and what is said to be durable is."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import (
    DurabilityLostError,
    RecordTooLargeError,
    StorageError,
    StorageFullError,
)
from milepost.journal import record
from milepost.journal.reader import Replay, Tail, replay
from milepost.journal.record import JournalName
from milepost.journal.writer import JournalWriter
from milepost.model import events as e
from milepost.storage.directory import AppendedFile, LocalDirectory
from support.histories import UID, History, histories
from support.recording import Recording

if TYPE_CHECKING:
    from pathlib import Path

    from milepost.types import Durability

NAME = JournalName(epoch=3, first=2)
DURABILITIES: list[Durability] = ["buffered", "process", "disk"]


@pytest.fixture
def system(tmp_path: Path) -> Recording:
    return Recording(str(tmp_path))


@pytest.fixture
def folder(tmp_path: Path, system: Recording) -> LocalDirectory:
    return LocalDirectory(str(tmp_path), system=system)


def create(
    folder: LocalDirectory,
    durability: Durability = "process",
    *,
    name: JournalName = NAME,
    predecessor: Replay | JournalWriter | None = None,
) -> JournalWriter:
    return JournalWriter.create(
        folder,
        name,
        session="crawl",
        session_uid=UID,
        predecessor=predecessor,
        durability=durability,
    )


def read(folder: LocalDirectory, name: JournalName = NAME) -> Replay:
    return replay(folder.read(name.path, size_bytes_max=4 << 20), name, UID)


def payload(sequence: int, *, size_bytes: int = 0) -> bytes:
    return record.encode_payload(e.DataSet(sequence, 5, e.NO_BATCH, "x" * size_bytes))


def append(journal: JournalWriter, first: int, last: int, *, size_bytes: int = 0) -> None:
    for sequence in range(first, last + 1):
        journal.append([payload(sequence, size_bytes=size_bytes)], sequence)


def test_a_new_journal_is_durable_before_anything_builds_on_it(
    folder: LocalDirectory, system: Recording
) -> None:
    create(folder).close()
    assert system.calls == [
        "mkdir journal",
        "fsync-folder .",
        "open journal/2.3.journal",
        "write journal/2.3.journal",
        "fsync journal/2.3.journal",
        "fsync-folder journal",
    ]
    opened = read(folder).opened
    assert opened == record.JournalOpened("crawl", UID, 3, 2)


@pytest.mark.parametrize("call", ["open", "write", "fsync", "fsync-folder"])
def test_a_journal_that_cannot_be_begun_leaves_nothing_behind(
    folder: LocalDirectory, system: Recording, call: str
) -> None:
    folder.make_folders(record.FOLDER)
    system.failing[call] = errno.EIO
    with pytest.raises(StorageError):
        create(folder)
    assert folder.names(record.FOLDER) == []


def test_nor_does_one_that_was_interrupted(
    folder: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    folder.make_folders(record.FOLDER)
    monkeypatch.setattr(AppendedFile, "append", interrupt)
    with pytest.raises(KeyboardInterrupt):
        create(folder)
    assert folder.names(record.FOLDER) == []  # else a manifest would list it, and miss its record


@pytest.mark.parametrize("durability", DURABILITIES)
@given(history=histories(most=20), group=st.integers(1, 4))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    durability: Durability,
    history: History,
    group: int,
) -> None:
    folder = LocalDirectory(str(tmp_path_factory.mktemp("journal")))
    journal = create(folder, durability)
    events = history.events[1:]
    for start in range(0, len(events), group):
        part = events[start : start + group]
        journal.append([record.encode_payload(event) for event in part], part[-1].sequence)
        if start % 3 == 0:
            journal.sync()
    journal.flush()
    assert journal.size_bytes == read(folder).size_bytes
    assert journal.chain == read(folder).chain
    journal.close()
    found = read(folder)
    assert found.events == events
    assert found.tail is Tail.CLEAN


def test_an_append_is_one_write(folder: LocalDirectory, system: Recording) -> None:
    journal = create(folder)
    system.calls.clear()
    journal.append([payload(2), payload(3), payload(4)], 4)
    journal.append([payload(5)], 5)
    assert system.calls == ["write journal/2.3.journal"] * 2
    assert journal.last == 5
    journal.close()


def test_buffered_records_wait_until_they_are_flushed(
    folder: LocalDirectory, system: Recording
) -> None:
    journal = create(folder, "buffered")
    system.calls.clear()
    append(journal, 2, 9)
    assert system.calls == []
    assert read(folder).last == 1
    journal.flush()
    assert system.calls == ["write journal/2.3.journal"]
    assert read(folder).last == 9
    journal.flush()
    assert len(system.calls) == 1
    append(journal, 10, 99, size_bytes=1_000)
    assert system.calls.count("write journal/2.3.journal") == 2  # the buffer is bounded
    journal.close()


def test_a_mark_follows_a_sync_with_the_next_append(
    folder: LocalDirectory, system: Recording
) -> None:
    journal = create(folder)
    append(journal, 2, 4)
    assert journal.synced_through == 1
    journal.sync()
    assert journal.synced_through == 4
    assert read(folder).synced_through == 0
    system.calls.clear()
    append(journal, 5, 5)
    assert system.calls == ["write journal/2.3.journal"]
    assert read(folder).synced_through == 4
    journal.close()


def test_a_mark_is_written_at_once_where_no_append_may_follow(
    folder: LocalDirectory, system: Recording
) -> None:
    journal = create(folder)
    append(journal, 2, 4)
    journal.write_mark()
    assert read(folder).synced_through == 0
    journal.sync()
    journal.write_mark()
    system.calls.clear()
    journal.write_mark()
    assert system.calls == []
    found = read(folder)
    assert (found.synced_through, found.last) == (4, 4)
    journal.close()


def test_what_another_thread_synced_is_noted_and_never_too_much(folder: LocalDirectory) -> None:
    journal = create(folder)
    append(journal, 2, 4)
    through = journal.last
    journal.sync_appended()
    append(journal, 5, 6)  # meanwhile
    journal.note_synced(through)
    journal.note_synced(3)
    assert journal.synced_through == 4
    journal.write_mark()
    assert read(folder).synced_through == 4
    journal.close()


@pytest.mark.parametrize("durability", DURABILITIES)
def test_nothing_is_marked_that_was_not_synced(
    folder: LocalDirectory, system: Recording, durability: Durability
) -> None:
    journal = create(folder, durability)
    append(journal, 2, 4)
    system.failing["fsync"] = errno.EIO
    with pytest.raises(DurabilityLostError):
        journal.sync()
    assert journal.synced_through == 1
    assert journal.poisoned
    system.failing.clear()
    for attempt in (journal.sync, journal.write_mark, lambda: append(journal, 5, 5)):
        if attempt == journal.write_mark:
            attempt()  # there is nothing to mark
            continue
        with pytest.raises(DurabilityLostError):
            if durability == "buffered":
                attempt()
                journal.flush()
            else:
                attempt()
    assert read(folder).synced_through == 0
    journal.close()


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_full_disk_leaves_the_journal_as_it_was(
    folder: LocalDirectory, system: Recording, durability: str
) -> None:
    journal = create(folder, cast("Durability", durability))
    append(journal, 2, 4)
    before = (journal.last, journal.chain, journal.size_bytes)
    system.room = 10
    with pytest.raises(StorageFullError):
        journal.append([payload(5, size_bytes=100), payload(6)], 6)
    assert (journal.last, journal.chain, journal.size_bytes) == before
    assert read(folder).last == 4
    assert read(folder).tail is Tail.CLEAN
    system.room = None
    append(journal, 5, 6)
    assert read(folder).last == 6
    journal.close()


def test_a_full_disk_keeps_what_waits_in_the_buffer_and_refuses_the_call(
    folder: LocalDirectory, system: Recording
) -> None:
    journal = create(folder, "buffered")
    append(journal, 2, 4)
    before = (journal.last, journal.chain, journal.size_bytes)
    system.room = 0
    with pytest.raises(StorageFullError):
        append(journal, 5, 5, size_bytes=1 << 17)
    assert (journal.last, journal.chain, journal.size_bytes) == before
    system.room = None
    append(journal, 5, 6)
    journal.flush()
    found = read(folder)
    assert (found.last, found.tail) == (6, Tail.CLEAN)
    assert found.events[3] == e.DataSet(5, 5, e.NO_BATCH, "")
    journal.close()


def test_a_mark_that_could_not_be_written_comes_with_the_next_append(
    folder: LocalDirectory, system: Recording
) -> None:
    journal = create(folder)
    append(journal, 2, 4)
    journal.sync()
    system.room = 0
    with pytest.raises(StorageFullError):
        append(journal, 5, 5)
    system.room = None
    append(journal, 5, 5)
    found = read(folder)
    assert (found.last, found.synced_through) == (5, 4)
    journal.close()


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_record_too_large_for_any_reader_is_not_written(
    folder: LocalDirectory, durability: Durability
) -> None:
    journal = create(folder, durability)
    append(journal, 2, 3)
    journal.sync()
    size = journal.size_bytes
    with pytest.raises(RecordTooLargeError):
        journal.append([payload(4), bytes(record.RECORD_BYTES_MAX + 1)], 5)
    assert (journal.last, journal.size_bytes) == (3, size)
    append(journal, 4, 4)
    journal.flush()
    assert read(folder).last == 4
    journal.close()


def test_a_journal_says_what_it_builds_on(folder: LocalDirectory) -> None:
    first = create(folder)
    append(first, 2, 4)
    first.sync()
    name = JournalName(3, 5)
    second = create(folder, name=name, predecessor=first)
    first.close()
    second.close()
    opened = read(folder, name).opened
    found = read(folder)
    assert opened is not None
    assert opened.predecessor == "2.3.journal"
    assert (opened.accepted_bytes, opened.accepted_chain) == (found.size_bytes, found.chain)
    # The next writer, who has only read it, says the same.
    third = create(folder, name=JournalName(4, 5), predecessor=found)
    third.close()
    again = read(folder, JournalName(4, 5)).opened
    assert again is not None
    assert (again.predecessor, again.accepted_bytes, again.accepted_chain) == (
        opened.predecessor,
        opened.accepted_bytes,
        opened.accepted_chain,
    )


def test_preallocation_is_given_back_at_the_end(folder: LocalDirectory) -> None:
    journal = create(folder, "disk")
    append(journal, 2, 4)
    journal.sync()
    status = folder.stat(NAME.path)
    assert status is not None
    assert status.size_bytes > 4 * journal.size_bytes
    # Killed now: zeros, and a clean end.
    found = read(folder)
    assert (found.last, found.tail) == (4, Tail.CLEAN)
    journal.close()
    status = folder.stat(NAME.path)
    assert status is not None
    assert status.size_bytes == journal.size_bytes


def test_a_journal_is_closed_once_and_takes_nothing_after(folder: LocalDirectory) -> None:
    journal = create(folder)
    journal.close()
    journal.close()
    with pytest.raises(DurabilityLostError):
        append(journal, 2, 2)
    journal.close_after_fork()
