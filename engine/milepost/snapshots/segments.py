"""Segments: sealed history that snapshots share. The plan is the one there is.

- A segment's name says what it holds (`plan.0-249.<hash>.zst`); the hash is of its compressed
  bytes, so that no two contents share a name.
- The plan is a list of batches, each an array of key, label and payload.

Source: FORMAT.md, "Segments".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from milepost.errors import ConfigurationError, FormatError, RecordTooLargeError, SchemaError
from milepost.model.state import PlanPart
from milepost.storage import frame
from milepost.storage.values import encode_value, is_too_deep

if TYPE_CHECKING:
    from milepost.storage.directory import LocalDirectory

FOLDER: Final = "segments"
KIND: Final = "segment"
PLAN: Final = "plan"
SCHEMA: Final = "Plan"
PART_BATCHES_MAX: Final = 200_000
"""A longer plan is sealed in parts, so that no part nears the bound on a body."""


class PlannedBatch(msgspec.Struct, array_like=True, frozen=True):
    """One batch of the plan.

    Attributes:
        key: The batch's key.
        label: What people call it.
        payload: What it is about: any plain data.
    """

    key: str
    label: str | None = None
    payload: Any = None


class Identity(NamedTuple):
    """Whose file it is."""

    session: str
    session_uid: str
    epoch: int


_encode_plan = msgspec.msgpack.Encoder().encode
_decode_plan = msgspec.msgpack.Decoder(list[PlannedBatch]).decode


def seal_plan(
    folder: LocalDirectory,
    batches: list[PlannedBatch],
    *,
    first: int,
    sequence: int,
    created_ns: int,
    identity: Identity,
    level: int,
) -> PlanPart:
    """Publish a part of the plan; on return it is durable, and an event may mention it.

    Errors: `EncodingError` or `RecordTooLargeError` naming the batch that cannot be stored.
    """
    body = _encode(batches)
    header = frame.FrameHeader(
        kind=KIND,
        session=identity.session,
        session_uid=identity.session_uid,
        sequence=sequence,
        epoch=identity.epoch,
        created_ns=created_ns,
        schema=SCHEMA,
        facts={"first": first, "count": len(batches)},
    )
    data = frame.encode(header, body, level=level)
    last = first + len(batches) - 1
    name = f"{PLAN}.{first}-{last}.{frame.digest(data[-_body_bytes(data) :])[:8].hex()}.zst"
    path = f"{FOLDER}/{name}"
    folder.make_folder(FOLDER)
    if not folder.exists(path):
        folder.publish(path, data)
    return PlanPart(path=path, first=first, count=len(batches))


def _encode(batches: list[PlannedBatch]) -> bytes:
    try:
        body = _encode_plan(batches)
        # Read back before anything is sealed: a plan that no reader takes would end the session.
        if any(is_too_deep(batch.payload) for batch in _decode_plan(body)):
            raise ValueError("a payload is nested too deeply")
    except (
        TypeError,
        ValueError,
        OverflowError,
        UnicodeError,
        RecursionError,
        msgspec.MsgspecError,
    ):
        for batch in batches:
            encode_value(batch.payload, f"the payload of batch {batch.key!r}")
            encode_value([batch.key, batch.label], f"the key or label of batch {batch.key!r}")
        raise
    if len(body) > frame.RAW_BYTES_MAX:
        raise RecordTooLargeError(
            f"a plan of {len(batches):,} batches takes {len(body):,} bytes",
            hint="keep the payloads small: an id, and read the rest where it is",
        )
    return body


def _body_bytes(data: bytes) -> int:
    header, start = frame.decode_header(data, FOLDER)
    return len(data) - start if header.compressed_size_bytes else 0


def read_plan(folder: LocalDirectory, part: PlanPart, session_uid: str) -> list[PlannedBatch]:
    """A part of the plan, wholly checked."""
    data = folder.read(part.path, size_bytes_max=frame.FILE_BYTES_MAX)
    header, body = frame.decode(data, part.path)
    stated = frame.digest(data[-header.compressed_size_bytes :])[:8].hex()
    if (
        header.kind != KIND
        or header.session_uid != session_uid
        or (header.facts.get("first"), header.facts.get("count")) != (part.first, part.count)
        or part.path.split(".")[-2] != stated
    ):
        raise FormatError(
            f"{part.path} is another segment than its name says",
            path=part.path,
            hint="it was renamed or swapped; put the right file back",
        )
    try:
        batches = _decode_plan(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise SchemaError(f"{part.path} does not hold a plan: {error}") from error
    if len(batches) != part.count:
        raise FormatError(f"{part.path} holds {len(batches)} batches of {part.count}")
    return batches


def check_new_keys(batches: list[PlannedBatch]) -> None:
    """A batch key stands for one batch; a second one is an error naming it."""
    seen: set[str] = set()
    for batch in batches:
        if batch.key in seen:
            raise ConfigurationError(
                f"two batches of the plan have the key {batch.key!r}",
                hint="give key= a function that tells them apart",
            )
        seen.add(batch.key)
