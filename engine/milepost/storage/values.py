"""Users' values as MessagePack, within what every reader accepts.

- What cannot be stored is refused before anything is written, naming the place in the value.
- Depth is bounded (64) both ways, so that no file can overflow a reader's stack.

Source: FORMAT.md, "Limits".
"""

from __future__ import annotations

from typing import Any, Final, TypeVar, overload

import msgspec

from milepost.errors import EncodingError, RecordTooLargeError, SchemaError

DEPTH_MAX: Final = 64
VALUE_BYTES_MAX: Final = 64 << 20

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def encode_value(value: Any, what: str, *, size_bytes_max: int = VALUE_BYTES_MAX) -> bytes:
    """Encode a user's value.

    Errors: `EncodingError` naming the part that cannot be stored; `RecordTooLargeError` for one
        that is too large or nested too deeply. Both before anything is written.
    """
    try:
        encoded = _encode(value)
    except RecursionError as error:
        raise _too_deep(what) from error
    except (TypeError, ValueError, OverflowError, UnicodeError, msgspec.MsgspecError) as error:
        place, reason = _find_culprit(value, what)
        raise EncodingError(
            f"{place} cannot be stored: {reason or error}",
            hint="store plain data: None, bool, int, float, str, bytes, list, tuple, dict, set,"
            " dates, dataclasses, msgspec Structs",
        ) from error
    if len(encoded) > size_bytes_max:
        raise RecordTooLargeError(
            f"{what} takes {len(encoded):,} bytes; at most {size_bytes_max:,} can be stored",
            hint="keep large data in files of your own and record where they are",
        )
    try:
        decode_value(encoded, what)
    except SchemaError as error:
        # A key that is a mapping itself, for example: it can be written and never be read.
        raise EncodingError(
            f"{what} cannot be stored, because it could not be read back: {error.message}",
            hint="use text, whole numbers or tuples of them as keys",
        ) from error
    return encoded


def plain_value(value: Any, what: str, *, size_bytes_max: int = VALUE_BYTES_MAX) -> Any:
    """The value as it will be read back: plain data with nothing shared with the caller's."""
    return _decode(encode_value(value, what, size_bytes_max=size_bytes_max))


def copied(value: Any) -> Any:
    """What `plain_value` gave, with nothing shared."""
    return _decode(msgspec.msgpack.encode(value))


def decode_value(encoded: bytes, what: str) -> Any:
    """Decode a value of unknown shape, refusing what is nested deeper than `DEPTH_MAX`."""
    try:
        value = _decode(encoded)
    except RecursionError as error:
        raise _too_deep(what) from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise SchemaError(f"{what} does not decode: {error}") from error
    if is_too_deep(value):
        raise _too_deep(what)
    return value


def is_too_deep(value: Any) -> bool:
    """Whether plain data is nested deeper than `DEPTH_MAX`."""
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [inner for outer in level for inner in _containers_in(outer)]
        if not level:
            return False
    return True


@overload
def convert_value(value: Any, kind: type[T], what: str) -> T: ...
@overload
def convert_value(value: Any, kind: None, what: str) -> Any: ...
def convert_value(value: Any, kind: type[T] | None, what: str) -> T | Any:
    """The value as the type asked for; `SchemaError` names the field that does not fit."""
    if kind is None:
        return value
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise SchemaError(f"{what} does not fit {name}: {error}") from error


def _too_deep(what: str) -> RecordTooLargeError:
    return RecordTooLargeError(
        f"{what} is nested more than {DEPTH_MAX} levels deep",
        hint="flatten it, or store it as text of your own",
    )


def _containers_in(value: Any) -> list[Any]:
    """The containers directly inside one, among its keys as well."""
    inner: Any = value
    if isinstance(value, dict):
        inner = (each for pair in _children(value) for each in pair)
    elif not isinstance(value, (list, tuple)):
        return []
    return [each for each in inner if isinstance(each, (dict, list, tuple))]


def _children(value: Any) -> list[tuple[Any, Any]]:
    """What is inside a container, with the key or index it is under; nothing for anything else."""
    kind: type = value.__class__
    if issubclass(kind, dict):
        return list(value.items())
    if issubclass(kind, (list, tuple)):
        return [(index, value[index]) for index in range(len(value))]
    return []


def _find_culprit(value: Any, place: str, depth: int = 0) -> tuple[str, str]:
    """Walk down to the innermost part that cannot be encoded, and name it."""
    if depth <= DEPTH_MAX:
        inner = [(f"{place}[{key!r}]", each) for key, each in _children(value)]
        if issubclass(value.__class__, dict):
            inner += [(f"the key {key!r} of {place}", key) for key, _ in _children(value)]
        for name, each in inner:
            try:
                _encode(each)
            except Exception:  # whatever it raises, this is the part to name
                return _find_culprit(each, name, depth + 1)
    try:
        _encode(value)
    except Exception as error:  # the same
        return f"{place} ({type(value).__name__})", str(error)
    return place, ""
