"""Session names as folder names, and back.

- Any Unicode text is a session name; two names never share a folder, also where the file system
  ignores case or composes accents, and no folder name can leave the store or upset an operating
  system.
- Names are compared in NFC. Lower-case ASCII letters, digits, `-`, `_`, inner `.` and caseless
  letters of all scripts (as of Unicode 3.2) stand for themselves; an ASCII capital is `!` and its
  small letter; all else is `%XX` of its UTF-8 bytes. `지역-수집` stays as it is, `a/b` becomes
  `a%2Fb`.
- A name whose form would be over 200 bytes ends in `~` and 32 hex digits of its BLAKE2b; only such
  a folder needs its own files to tell its name.

Source: FORMAT.md, "Session folders".
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Final
from urllib.parse import unquote_to_bytes

from milepost.errors import ConfigurationError

NAME_CHARACTERS_MAX: Final = 1_000
FOLDER_BYTES_MAX: Final = 200
_HASH_MARK: Final = "~"
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_DEVICES: Final = frozenset(
    [
        "con",
        "prn",
        "aux",
        "nul",
        *(f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³"),
    ]
)


def check_name(name: object) -> str:
    """The session name in NFC, or an error that says what is wrong with it."""
    if not isinstance(name, str):
        raise ConfigurationError(
            f"a session name is text, not {type(name).__name__}: {name!r}",
            hint='for example "crawl" or "places-2026"',
        )
    if not name or name.isspace():
        raise ConfigurationError("a session name cannot be empty", hint='for example "crawl"')
    if len(name) > NAME_CHARACTERS_MAX:
        raise ConfigurationError(
            f"the session name {name[:40]!r}… has {len(name):,} characters;"
            f" at most {NAME_CHARACTERS_MAX:,} are possible",
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"the session name {name!r} holds half a character (a lone surrogate)",
            hint="decode it properly first",
        ) from error
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise ConfigurationError(
            f"the session name {name!r} holds a control character", hint="leave it out"
        )
    return unicodedata.normalize("NFC", name)


def folder_name(name: str) -> str:
    """The safe folder name of a checked session name."""
    escaped = "".join(_escape(character) for character in name)
    stem = escaped.partition(".")[0]
    if stem in _DEVICES or escaped.startswith("."):
        escaped = f"%{ord(escaped[0]):02X}" + escaped[1:]
    if escaped.endswith("."):
        escaped = escaped[:-1] + "%2E"
    encoded = escaped.encode()
    if len(encoded) <= FOLDER_BYTES_MAX:
        return escaped
    mark = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    keep = FOLDER_BYTES_MAX - len(mark) - len(_HASH_MARK)
    prefix = encoded[:keep].decode(errors="ignore").rstrip("%!.")
    return f"{prefix}{_HASH_MARK}{mark}"


def session_name(folder: str) -> str | None:
    """The session name of a folder; `None` where only the files inside can tell it.

    A folder that is not the form of any name (a stranger's) gives `None` as well.
    """
    if _HASH_MARK in folder:
        return None
    # Some file systems hand Hangul syllables out decomposed; escapes and marks have no other form.
    folder = unicodedata.normalize("NFC", folder)
    characters: list[str] = []
    position = 0
    while position < len(folder):
        character = folder[position]
        if character == "!" and position + 1 < len(folder):
            characters.append(folder[position + 1].upper())
            position += 2
        elif character == "%":
            end = position
            while folder[end : end + 1] == "%":
                end += 3
            try:
                characters.append(unquote_to_bytes(folder[position:end]).decode())
            except UnicodeError:  # no UTF-8, or bytes that are no text at all
                return None
            position = end
        else:
            characters.append(character)
            position += 1
    name = "".join(characters)
    try:
        # The way back must lead here again, or the folder is somebody else's.
        return name if folder_name(check_name(name)) == folder else None
    except ConfigurationError:
        return None


def is_hashed(folder: str) -> bool:
    """Whether the folder's name was too long, so that its files tell the session's name."""
    return _HASH_MARK in folder


def _escape(character: str) -> str:
    if character in _PLAIN:
        return character
    if "A" <= character <= "Z":
        return "!" + character.lower()
    if ord(character) > 0x7F and _caseless_letter(character):
        return character
    return "".join(f"%{byte:02X}" for byte in character.encode())


def _caseless_letter(character: str) -> bool:
    """Letters and digits that no file system folds or decomposes into something else."""
    # By Unicode 3.2, which every Python carries: a newer table would know more letters, and give
    # one name different folders under two Pythons.
    if unicodedata.ucd_3_2_0.category(character) not in {"Lo", "Nd"}:
        return False
    # Hangul syllables decompose (macOS used to store them so) and compose again without loss.
    same = unicodedata.normalize("NFC", unicodedata.normalize("NFKD", character)) == character
    return same and character.lower() == character.upper() == character.casefold()
