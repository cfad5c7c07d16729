"""What is in any file of a store, as plain data, looked at alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from milepost.errors import ChecksumMismatchError, FormatError, NotAMilepostFileError
from milepost.journal import record
from milepost.model.state import SessionState
from milepost.snapshots import versions
from milepost.snapshots.segments import PlannedBatch
from milepost.storage import frame, marker
from milepost.storage.values import decode_value

if TYPE_CHECKING:
    from collections.abc import Iterator

_JSON_BEGINNINGS = (b'{"lease":', b'{"manifest":')
_decode_plan = msgspec.msgpack.Decoder(list[PlannedBatch]).decode
_decode_state = msgspec.msgpack.Decoder(SessionState).decode


def plain(value: Any) -> Any:
    """Structs as mappings with their fields' names, so that people can read them."""
    if isinstance(value, msgspec.Struct):
        fields = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        return {**_tag(value), **fields}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, int) and not isinstance(value, bool) and hasattr(value, "name"):
        return str(value.name).lower()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
    return value


def _tag(value: msgspec.Struct) -> dict[str, str]:
    """Which of several structs it is; a number means something on disk alone."""
    config = value.__struct_config__
    if isinstance(config.tag, str) and config.tag_field is not None:
        return {config.tag_field: config.tag}
    return {} if config.tag is None else {"event": type(value).__name__}


def of(data: bytes, name: str) -> Iterator[Any]:
    """The parts of a file, told by its own first bytes.

    Errors: `NotAMilepostFileError` for a file of nobody we know; `FormatError` for a damaged one.
    """
    if data[:4] == frame.SKIPPABLE_MAGIC.to_bytes(4, "little"):
        yield from _framed(data, name)
    elif data[:8] == record.MAGIC:
        yield from _journal(data, name)
    elif data.startswith(_JSON_BEGINNINGS):
        yield _json(data, name)
    elif name == marker.NAME:
        yield {"marker": marker.decode_marker(data)}
    else:
        raise NotAMilepostFileError(
            f"{name} is not a file of a store",
            path=name,
            offset=0,
            hint="name a .zst, .journal or .json file below sessions/",
        )


def _framed(data: bytes, name: str) -> Iterator[Any]:
    header, body = frame.decode(data, name)
    yield {"header": {**plain(header), "checksum": header.checksum.hex()}}
    try:
        if header.schema == versions.SCHEMA:
            yield {"body": plain(_decode_state(body))}
        elif header.schema == "Plan":
            for batch in _decode_plan(body):
                yield plain(batch)
        else:
            yield {"body": decode_value(body, name)}
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise FormatError(f"{name} holds no {header.schema}: {error}", path=name) from error


def _journal(data: bytes, name: str) -> Iterator[Any]:
    """Every record up to the first that does not check; then what stands there."""
    version = record.read_file_header(data)
    if version is None:
        raise FormatError(f"{name} has a damaged header", path=name, offset=0)
    offset = record.FILE_HEADER_BYTES
    for found, stop, _ in record.records(data, offset, record.first_seed(data), path=name):
        yield plain(found)
        offset = stop
    rest = len(data[offset:].rstrip(b"\0"))
    if rest:
        yield {"unreadable_bytes": rest, "offset": offset}


def _json(data: bytes, name: str) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ChecksumMismatchError(f"{name} is damaged: {error}", path=name) from error
