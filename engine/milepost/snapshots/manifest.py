"""The manifest: a session's index, derived from its files and never believed over them.

- Whoever reads it takes it as a hint; a missing, damaged or outdated one is made again by the next
  writer. One thing only is learned from it: that a file which it lists was there.
- It is plain JSON with a checksum, so that people can read it.

Source: FORMAT.md, "Manifest".
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from milepost.errors import StorageError

if TYPE_CHECKING:
    from milepost.storage.directory import LocalDirectory

PATH: Final = "manifest.json"
BYTES_MAX: Final = 64 << 20


class Manifest(msgspec.Struct, kw_only=True):
    """What is in a session's folder.

    Attributes:
        session: The session's name.
        session_uid: Its identity.
        lineage: The line of copies it belongs to.
        epoch: The latest writer's turn.
        folder_inode: Inode of the folder it was written for.
        journals: Names of the journals, the oldest first.
        versions: The snapshots: version, sequence, epoch, created, by hand.
        checkpoints: Id, type, name and sequence of the checkpoints, the oldest first.
        executions: The latest runs.
        tags: Names given to versions.
        backup: What was last wrong with the backup; empty while it works.
    """

    session: str
    session_uid: str
    lineage: str
    epoch: int
    folder_inode: int
    journals: list[str]
    versions: list[dict[str, Any]]
    checkpoints: list[dict[str, Any]]
    executions: list[dict[str, Any]]
    tags: dict[str, int] = {}
    backup: str = ""


def write(folder: LocalDirectory, manifest: Manifest) -> None:
    """Put the manifest in place. It is derived, so a disk that refuses it fails nothing."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    data = b'{"manifest":' + body + b',"checksum":"' + _checksum(body) + b'"}\n'
    with suppress(StorageError):
        folder.publish_derived(PATH, data)


def read(folder: LocalDirectory) -> Manifest | None:
    """The manifest, or `None` for one that is missing or wrong in any way."""
    try:
        data = folder.read(PATH, size_bytes_max=BYTES_MAX)
        raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        body = bytes(raw["manifest"])
        if msgspec.json.decode(raw["checksum"], type=str).encode() != _checksum(body):
            return None
        return msgspec.json.decode(body, type=Manifest)
    except (StorageError, msgspec.MsgspecError, KeyError, RecursionError, UnicodeError):
        return None


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).hexdigest().encode()
