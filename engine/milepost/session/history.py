"""Reading a session back: the newest good snapshot, then every later record, without a gap.

- Files are ordered by epoch and sequence, never by a clock. What an epoch wrote counts only as far
  as the epochs after it accepted it; the rest is reported, not blended in.
- A damaged newest snapshot is noticed, and the one before plus its journals gives the same state;
  where they do not join, the same file in the backup does.
- What cannot be read is a finding. `is_lossy` says that acknowledged work is missing: then reading
  goes on with what is sure, and writing is refused.
- Nothing here writes, locks or needs a lock, so it works on a session that is being written and on
  read-only media.

Source: FORMAT.md, "Opening a session".
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from milepost.errors import (
    FormatError,
    MilepostError,
    SchemaError,
    SnapshotNotFoundError,
    StorageError,
    UnrecoverableError,
    UnsupportedVersionError,
)
from milepost.journal import record
from milepost.journal.reader import Replay, Tail, replay
from milepost.model import fold
from milepost.model.consistency import Finding
from milepost.model.events import ItemsEnded, PositionsAdvanced, SessionCreated
from milepost.model.state import SessionState
from milepost.session.outputs import is_lost
from milepost.snapshots import manifest as manifests
from milepost.snapshots import versions
from milepost.snapshots.versions import SnapshotName, VersionInfo
from milepost.storage import lease as leases
from milepost.storage.directory import LocalDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from milepost.model.events import BatchEvent
    from milepost.model.state import OutputRows

_WITH_ROWS: Final = (ItemsEnded, PositionsAdvanced)

_OPENING_BYTES_MAX = 1 << 16
"""A journal's first record is smaller, with the longest names there are."""
_READ_AGAIN_MAX = 10
"""A writer that rotates and prunes faster than ten reads in a row does not exist."""


class Files(NamedTuple):
    """A session's folder, and where second copies of its immutable files may be.

    Attributes:
        folder: The session's own folder.
        backups: Folders of the same layout, the likeliest first.
        name: The session's name, where it is known.
    """

    folder: LocalDirectory
    backups: tuple[LocalDirectory, ...] = ()
    name: str | None = None


class Loaded(msgspec.Struct, kw_only=True):
    """A session as its files tell it.

    Attributes:
        state: The state after the last sure event.
        base: The snapshot it was folded from.
        from_backup: Whether that snapshot's own copy was missing or damaged.
        findings: All that was met on the way.
        is_lossy: Whether acknowledged work is missing, so that writing must be refused.
        tip: The journal with the last sure event; `None` if no journal was needed.
        epoch: The highest epoch in any file name.
        version: The highest version in any file name.
        highest: The highest sequence number in any file name.
    """

    state: SessionState
    base: VersionInfo
    from_backup: bool
    findings: list[Finding]
    is_lossy: bool
    tip: Replay | None
    epoch: int
    version: int
    highest: int


class _Listing(NamedTuple):
    """The names in a session's folder, in order, and the highest number of each kind."""

    snapshots: list[SnapshotName]
    journals: list[record.JournalName]
    epoch: int
    version: int
    highest: int


def journals(folder: LocalDirectory) -> list[record.JournalName]:
    """The journals of a session by their names, the oldest first; nothing is read."""
    parsed = (record.parse_name(name) for name in folder.names(record.FOLDER))
    return sorted(name for name in parsed if name is not None)


def load(files: Files) -> Loaded:
    """Read a session.

    Errors: `UnrecoverableError` where no snapshot can be read, with all that was tried;
        `UnsupportedVersionError` where a newer milepost wrote it.
    """
    # The manifest first: what it lists was there before the folder was listed.
    manifest = manifests.read(files.folder)
    listing = _list(files)
    findings: list[Finding] = []
    # Whose files they must be; where no lease can be read, the newest snapshot says it.
    lease = leases.newest_lease(files.folder, session=files.name)
    uid = lease.session_uid if lease is not None else None
    base, state, from_backup = _newest_good(files, listing, uid, findings)
    loaded = Loaded(
        state=state,
        base=base,
        from_backup=from_backup,
        findings=findings,
        is_lossy=False,
        tip=None,
        epoch=listing.epoch,
        version=listing.version,
        highest=listing.highest,
    )
    empty = _fold_journals(files.folder, listing, loaded)
    if manifest is not None and manifest.session_uid == loaded.state.uid:
        _miss_listed_files(files.folder, manifest, listing, loaded, empty)
    return loaded


def highest_epoch(files: Files) -> int:
    """The highest epoch in any file name of the session."""
    return _list(files).epoch


def load_live(files: Files) -> Loaded:
    """Read a session that somebody may be writing: read again where it changed under our eyes."""
    for _ in range(_READ_AGAIN_MAX):
        before = _list(files)
        try:
            loaded = load(files)
        except (UnrecoverableError, StorageError):
            if _list(files) == before:
                raise
            continue
        if not loaded.is_lossy or _list(files) == before:
            return loaded
    return load(files)


def load_version(files: Files, version: int) -> tuple[VersionInfo, SessionState]:
    """One version of the state, from its own file or its backup.

    Errors: `SnapshotNotFoundError`; `FormatError` where every copy is damaged.
    """
    failure: MilepostError | None = None
    lease = leases.newest_lease(files.folder, session=files.name)
    for place in (files.folder, *files.backups):
        for name in reversed(versions.names(place)):
            if name.version == version:
                try:
                    return versions.read(place, name, uid=lease.session_uid if lease else None)
                except (FormatError, SchemaError, StorageError) as error:
                    failure = failure or error
    if failure is not None:
        raise failure
    places = (files.folder, *files.backups)
    known = sorted({name.version for place in places for name in versions.names(place)})
    raise SnapshotNotFoundError(
        f"there is no version {version}",
        hint=f"there are: {', '.join(map(str, known))}" if known else "",
    )


def read_journal(
    folder: LocalDirectory,
    name: record.JournalName,
    uid: str,
    *,
    through: int | None = None,
    after: int = 0,
) -> Replay:
    """One journal, as far as it is sure; events up to `after` are checked and passed over."""
    data = folder.read(name.path, size_bytes_max=record.FILE_BYTES_MAX)
    return replay(data, name, uid, through=through, after=after)


def accepted_through(
    name: record.JournalName,
    all_journals: list[record.JournalName],
    snapshots: list[SnapshotName],
) -> int | None:
    """How far a journal was accepted by what came after it; `None` for the last one."""
    bounds = [later.first - 1 for later in all_journals if later > name]
    # A restore's snapshot stands one beyond what it accepted; the record of that number, if a
    # superseded writer made one, is never folded, because the snapshot itself is newer.
    bounds += [later.sequence for later in snapshots if later.epoch > name.epoch]
    return min(bounds, default=None)


def events_in(
    files: Files, uid: str, *, after: int = 0, through: int | None = None
) -> Iterator[BatchEvent]:
    """The events that the kept journals hold and successors accepted, in order, from one number on.

    `after` is the last that is not wanted, `through` the last that is.
    """
    listing = _list(files)
    for name in listing.journals:
        accepted = accepted_through(name, listing.journals, listing.snapshots)
        last = min((each for each in (accepted, through) if each is not None), default=None)
        if last is not None and (last <= after or name.first > last):
            continue
        try:
            yield from read_journal(files.folder, name, uid, through=last, after=after).events
        except StorageError:
            continue  # pruned meanwhile, or unreadable: `load` reports it


def accepted_versions(files: Files) -> list[SnapshotName]:
    """The snapshots, own or backed up, that no successor left out, the newest first."""
    listing = _list(files)
    return [name for name in reversed(listing.snapshots) if not _superseded(name, listing)]


def _list(files: Files) -> _Listing:
    folder = files.folder
    snapshots = versions.names(folder)
    everywhere = {*snapshots, *(name for place in files.backups for name in versions.names(place))}
    all_journals = journals(folder)
    epochs = [*leases.epochs(folder), *(name.epoch for name in everywhere)]
    return _Listing(
        snapshots=sorted(everywhere),
        journals=all_journals,
        epoch=max([*epochs, *(name.epoch for name in all_journals)], default=0),
        version=max((name.version for name in everywhere), default=0),
        highest=max(
            [
                *(name.sequence for name in everywhere),
                *(name.first - 1 for name in all_journals),
            ],
            default=0,
        ),
    )


def _newest_good(
    files: Files, listing: _Listing, uid: str | None, findings: list[Finding]
) -> tuple[VersionInfo, SessionState, bool]:
    """Walk back from the highest epoch to a snapshot that is good and was accepted."""
    tried: list[tuple[str, str]] = []
    for name in reversed(listing.snapshots):
        if _superseded(name, listing):
            findings.append(
                Finding(
                    rule="superseded-snapshot",
                    path=name.path,
                    message=f"{name.path} was made by a writer that had been superseded; left out",
                    is_error=False,
                )
            )
            continue
        for place in (files.folder, *files.backups):
            is_own = place is files.folder
            if not place.exists(name.path):
                continue
            try:
                info, state = versions.read(place, name, uid=uid)
            except UnsupportedVersionError:
                raise
            except (FormatError, SchemaError, StorageError) as error:
                tried.append((name.path, str(error)))
                kind = "damaged-snapshot" if is_own else "damaged-backup"
                findings.append(Finding(rule=kind, path=name.path, message=str(error)))
                continue
            if not is_own:
                findings.append(
                    Finding(
                        rule="from-backup",
                        path=name.path,
                        message=f"{name.path} was read from its backup",
                    )
                )
            return info, state, not is_own
    if not tried:
        places = ", ".join(place.full(versions.FOLDER) for place in (files.folder, *files.backups))
        tried.append((versions.FOLDER, f"there is none in {places}"))
    raise UnrecoverableError(
        f"no snapshot of this session can be read: {tried[0][1]}"
        + (f" (and {len(tried) - 1} more)" if len(tried) > 1 else ""),
        attempts=tried,
        hint="put one back from a backup or another copy of the folder",
    )


def _superseded(name: SnapshotName, listing: _Listing) -> bool:
    bounds = [later.first - 1 for later in listing.journals if later.epoch > name.epoch]
    bounds += [later.sequence for later in listing.snapshots if later.epoch > name.epoch]
    return name.sequence > min(bounds, default=name.sequence)


def _fold_journals(folder: LocalDirectory, listing: _Listing, loaded: Loaded) -> set[str]:
    """Fold what is sure; returns the names of journals that count as empty."""
    state = loaded.state
    empty: set[str] = set()
    before: Replay | None = None
    for index, name in enumerate(listing.journals):
        through = accepted_through(name, listing.journals, listing.snapshots)
        is_tip = index == len(listing.journals) - 1
        if through is not None and through <= state.sequence and not is_tip:
            # All of it is in the snapshot. It is still read where it may join the next one.
            before = None
            _judge_superseded(folder, name, listing.journals[index + 1], through, loaded)
            continue
        try:
            part = read_journal(folder, name, state.uid, through=through, after=state.sequence)
        except StorageError as error:
            _note(loaded, "unreadable-journal", name.path, str(error), lossy=True)
            return empty
        if through is None:
            part = _without_missing_rows(folder, part, loaded)
        if part.tail is Tail.BEYOND or through is None or through > state.sequence:
            _judge_tail(loaded, part, is_tip=is_tip)
        if part.opened is None:
            empty.add(name.name)
            if through is not None and through > state.sequence:
                _note_gap(loaded, name.path, state.sequence, through)
                return empty
            continue
        if not _joins(before, part):
            _note(
                loaded,
                "journal-chain",
                name.path,
                f"{name.path} builds on another end of {part.opened.predecessor}",
                lossy=True,
            )
            return empty
        if part.events and part.events[0].sequence > state.sequence + 1:
            _note_gap(loaded, name.path, state.sequence, part.events[0].sequence - 1)
            return empty
        try:
            for event in part.events:
                if event.sequence > state.sequence:
                    state = fold.apply(state, event)
        except fold.FoldError as error:
            _note(loaded, "impossible-event", name.path, f"{name.path}: {error}", lossy=True)
            loaded.state = _fold_until(loaded, folder, listing, state.sequence)
            return empty
        loaded.state = state
        loaded.tip = part
        # A restore's snapshot stands one beyond the last event; what it holds is not missing.
        if through is not None and state.sequence < through:
            _note_gap(loaded, name.path, part.last, through)
            return empty
        before = part
    return empty


def _without_missing_rows(folder: LocalDirectory, part: Replay, loaded: Loaded) -> Replay:
    """The last journal, up to where an output lacks the rows that an event tells of.

    Rows are synced before the journal says that it is. So what is not known to have been on the
    disk may have lost its rows in a power cut, and counts as a torn tail from there on. The name of
    a file is on the disk before its first row: one that is gone is somebody's doing, and told to
    whoever opens it.
    """
    store_path = os.path.dirname(os.path.dirname(folder.root))
    for event in part.events:
        if type(event) not in _WITH_ROWS or event.sequence <= part.synced_through:
            continue
        rows: list[OutputRows] = getattr(event, "rows", [])
        missing = next((each for each in rows if is_lost(store_path, each)), None)
        if missing is not None:
            last = event.sequence - 1
            cut = read_journal(
                folder, part.name, loaded.state.uid, through=last, after=loaded.state.sequence
            )
            cut.tail = Tail.CLEAN
            _note(
                loaded,
                "rows-missing",
                part.name.path,
                f"the output {missing.path} lacks rows that were never known to be on the disk;"
                f" what was recorded after event {last} is dropped with them",
                lossy=False,
            )
            return cut
    return part


def _fold_until(
    loaded: Loaded, folder: LocalDirectory, listing: _Listing, sequence: int
) -> SessionState:
    """The state just before an event that could not be folded (which may have half changed it)."""
    _, state = versions.read(folder, loaded.base.name)
    for name in listing.journals:
        through = accepted_through(name, listing.journals, listing.snapshots)
        for event in read_journal(folder, name, state.uid, through=through).events:
            if state.sequence < event.sequence <= sequence:
                state = fold.apply(state, event)
    return state


def _joins(before: Replay | None, part: Replay) -> bool:
    """Whether the journal builds on the very end of the one before, where both are at hand."""
    opened = part.opened
    if opened is None or before is None or opened.predecessor != before.name.name:
        return True
    if opened.accepted_bytes > before.size_bytes:
        # A power cut may have taken its last marks; that no event is missing, the numbers say.
        return True
    return before.ends.get(opened.accepted_bytes) == opened.accepted_chain


def _judge_superseded(
    folder: LocalDirectory,
    name: record.JournalName,
    later: record.JournalName,
    through: int,
    loaded: Loaded,
) -> None:
    """Say where a journal went on after the writer of the next one had taken over from it.

    Only a file that is longer than its successor accepted is read for that.
    """
    if later.epoch == name.epoch:
        return
    with contextlib.suppress(StorageError):  # pruned meanwhile
        head, _ = folder.read_head(later.path, _OPENING_BYTES_MAX)
        opened = replay(head, later, loaded.state.uid).opened
        status = folder.stat(name.path)
        if opened is None or opened.predecessor != name.name or status is None:
            return
        if status.size_bytes <= opened.accepted_bytes:
            return
        data = folder.read(name.path, size_bytes_max=record.FILE_BYTES_MAX)
        if data[opened.accepted_bytes :].strip(b"\0"):
            part = replay(data, name, loaded.state.uid, through=through, after=through)
            if part.tail is Tail.BEYOND:
                _judge_tail(loaded, part, is_tip=False)


def _judge_tail(loaded: Loaded, part: Replay, *, is_tip: bool) -> None:
    path = part.name.path
    # Numbers that were given out are not given out again, also where their events are lost.
    loaded.highest = max(loaded.highest, part.synced_through)
    if part.tail is Tail.TORN and is_tip:
        _note(
            loaded,
            "torn-tail",
            path,
            f"{path} ends in {part.tail_bytes:,} bytes that were never acknowledged as durable;"
            f" they are dropped, the last event is {part.last}",
            lossy=False,
        )
    elif part.tail is Tail.BEYOND:
        _note(
            loaded,
            "superseded-tail",
            path,
            f"{path} goes on for {part.tail_bytes:,} bytes after event {part.last} that do not"
            " count: the work went on without them, because a call had failed, a writer was"
            " superseded, or they had been dropped",
            lossy=False,
        )
    elif part.tail is Tail.DAMAGED:
        lossy = part.synced_through > loaded.state.sequence and is_tip
        _note(
            loaded,
            "damaged-journal",
            path,
            f"{path} is damaged behind event {part.last}; events up to {part.synced_through} were"
            " on the disk",
            lossy=lossy,
        )


def _note_gap(loaded: Loaded, path: str, last: int, through: int) -> None:
    _note(
        loaded,
        "gap",
        path,
        f"events {last + 1} to {through} are missing before or in {path}",
        lossy=True,
    )


def _note(loaded: Loaded, rule: str, path: str, message: str, *, lossy: bool) -> None:
    is_error = lossy or rule == "damaged-journal"
    loaded.findings.append(Finding(rule=rule, path=path, message=message, is_error=is_error))
    loaded.is_lossy = loaded.is_lossy or lossy


def _miss_listed_files(
    folder: LocalDirectory,
    manifest: manifests.Manifest,
    listing: _Listing,
    loaded: Loaded,
    empty: set[str],
) -> None:
    """Notice files that were there when the manifest was last written, and are gone.

    A journal is listed after its first record is on the disk: one without it lost that, too.
    """
    present = {name.name for name in listing.journals} - empty
    status = folder.stat()
    is_copy = status is not None and status.inode != manifest.folder_inode
    for name in manifest.journals:
        parsed = record.parse_name(name)
        if parsed is None or name in present or parsed.first <= loaded.state.sequence:
            continue
        # A copy made while the session was written may have missed the newest file: a dropped tail.
        _note(
            loaded,
            "missing-journal",
            parsed.path,
            f"{parsed.path} is missing or has lost its beginning; what was recorded after event"
            f" {loaded.state.sequence} is dropped",
            lossy=not is_copy,
        )
    own = {name.name for name in versions.names(folder)}
    for version in manifest.versions:
        name = f"{version.get('version')}.{version.get('sequence')}.{version.get('epoch')}.zst"
        snapshot = versions.parse_name(name)
        if snapshot is None or name in own:
            continue
        loaded.version = max(loaded.version, snapshot.version)
        loaded.highest = max(loaded.highest, snapshot.sequence)
        loaded.findings.append(
            Finding(
                rule="missing-snapshot",
                path=f"{versions.FOLDER}/{name}",
                message=f"snapshot {name} is missing",
                # A copy's manifest may tell of a file that came or went while the rest was copied.
                is_error=not is_copy,
            )
        )


def first_event(loaded: Loaded) -> SessionCreated:
    """The creation of the session, as its state remembers it; it stands in no journal."""
    state = loaded.state
    return SessionCreated(
        sequence=1,
        at_ns=state.created_ns,
        batch=-1,
        name=state.session_id,
        uid=state.uid,
        kind=state.kind,
        item_cap=state.item_cap,
    )
