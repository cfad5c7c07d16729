"""The `MILEPOST` file: what makes a folder a store.

Source: FORMAT.md, "Store".
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Final

from milepost.errors import FormatError, UnsupportedVersionError

NAME: Final = "MILEPOST"
BYTES_MAX: Final = 4096
FORMAT_VERSION: Final = 1


def encode_marker(now_ns: int) -> bytes:
    """The bytes of a new store's marker."""
    created = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC)
    text = (
        "This folder is a milepost store. Copying it copies the work.\n"
        f"format: {FORMAT_VERSION}\n"
        f"id: {uuid.uuid4().hex}\n"
        f"created: {created:%Y-%m-%dT%H:%M:%SZ}\n"
    )
    return f"{text}checksum: {marker_checksum(text)}\n".encode()


def marker_checksum(text: str) -> str:
    """Checksum of all that stands before it."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def decode_marker(data: bytes) -> dict[str, str]:
    """The fields of a marker.

    Errors: `FormatError` for a damaged one; `UnsupportedVersionError` for a newer format.
    """
    try:
        text, _, rest = data.decode().partition("checksum: ")
        fields = dict(line.split(": ", 1) for line in text.splitlines()[1:])
        if rest != marker_checksum(text) + "\n":
            raise ValueError("the checksum does not match")
        number = int(fields["format"])
    except (UnicodeDecodeError, ValueError, KeyError) as error:
        raise FormatError(
            f"{NAME} is damaged: {error}",
            path=NAME,
            hint=f"copy {NAME} back from where the folder came from",
        ) from error
    if number > FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"this store is of format {number}; this milepost reads up to {FORMAT_VERSION}",
            path=NAME,
            found=number,
            supported=FORMAT_VERSION,
            hint="install a newer milepost",
        )
    return fields
