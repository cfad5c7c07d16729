"""Checkpoints: typed marks with data, each a file of its own that an event mentions.

Source: FORMAT.md, "Checkpoints".
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from milepost.errors import ConfigurationError, FormatError
from milepost.storage import frame
from milepost.storage.values import decode_value, encode_value
from milepost.types import CheckpointType, label

if TYPE_CHECKING:
    from milepost.snapshots.segments import Identity
    from milepost.storage.directory import LocalDirectory

FOLDER: Final = "checkpoints"
KIND: Final = "checkpoint"


def path_of(checkpoint_id: str) -> str:
    """The file of a checkpoint, relative to the session's folder."""
    return f"{FOLDER}/{checkpoint_id}.zst"


def is_id(text: object) -> bool:
    """Whether the text can be a checkpoint's id; anything else is no path of ours."""
    return isinstance(text, str) and len(text) == 32 and all(c in "0123456789abcdef" for c in text)


def check_type(value: object) -> CheckpointType:
    """The checkpoint type meant, by member or by name; an unknown one is refused."""
    if isinstance(value, CheckpointType):
        return value
    for member in CheckpointType:
        if value in (member.name, label(member)):
            return member
    known = ", ".join(label(member) for member in CheckpointType)
    raise ConfigurationError(f"{value!r} is no checkpoint type", hint=f"one of: {known}")


def write(
    folder: LocalDirectory,
    checkpoint_type: CheckpointType,
    data: Any,
    *,
    name: str | None,
    sequence: int,
    created_ns: int,
    identity: Identity,
    level: int,
) -> str:
    """Publish a checkpoint and return its id; it is durable, and an event may mention it."""
    body = encode_value(data, "the checkpoint's data")
    checkpoint_id = uuid.uuid4().hex
    header = frame.FrameHeader(
        kind=KIND,
        session=identity.session,
        session_uid=identity.session_uid,
        sequence=sequence,
        epoch=identity.epoch,
        created_ns=created_ns,
        schema=label(checkpoint_type),
        facts={"id": checkpoint_id, "name": name},
    )
    folder.make_folder(FOLDER)
    folder.publish(path_of(checkpoint_id), frame.encode(header, body, level=level))
    return checkpoint_id


def read(folder: LocalDirectory, checkpoint_id: str) -> tuple[frame.FrameHeader, Any]:
    """Header and data of a checkpoint, wholly checked."""
    path = path_of(checkpoint_id)
    header, body = frame.decode(folder.read(path, size_bytes_max=frame.FILE_BYTES_MAX), path)
    if header.kind != KIND or header.facts.get("id") != checkpoint_id:
        raise FormatError(
            f"{path} is another file than its name says",
            path=path,
            hint="it was renamed or swapped; put the right file back",
        )
    return header, decode_value(body, path)
