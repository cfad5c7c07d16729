"""Every error milepost raises on purpose, in one tree.

- One root; a leaf exists where a caller would act differently.
- Facts are attributes; the message is made from them.
- `hint` says what to try next; `healable` says whether recovery may act without asking.
- `OSError` never leaves the storage room: it is the `__cause__` of a `StorageError`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_MISTAKE: Final = re.compile(
    "(?:^|: )(?:AttributeError|ImportError|ModuleNotFoundError|NameError|UnboundLocalError|"
    "SyntaxError|IndentationError|TypeError)(?::|$)"
)
"""An error of the program's own, in a message as it is recorded."""


class MilepostError(Exception):
    """Root of all errors of milepost.

    Attributes:
        hint: What to try, as a sentence or a command; empty where there is nothing to advise.
        healable: Whether recovery may act on this by itself.
        session_uid: The session that could not go on for it; `None` for all other errors.
    """

    healable: ClassVar[bool] = False
    session_uid: str | None = None
    _facts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # so that a traceback shows it too
        for name in self._facts:
            setattr(self, name, facts.pop(name, None))
        if facts:
            raise TypeError(f"{type(self).__name__} has no fact named {', '.join(sorted(facts))}")

    @property
    def message(self) -> str:
        """The message alone, without the hint."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions rebuild themselves from positional arguments; ours carry keyword facts.
        return (_rebuild, (type(self), self.message, dict(vars(self))))


def _rebuild(kind: type[MilepostError], message: str, attributes: dict[str, Any]) -> MilepostError:
    error = kind(message)
    vars(error).update(attributes)
    return error


class ConfigurationError(MilepostError, ValueError):
    """A setting has a value that cannot be used."""


class OutputError(ConfigurationError):
    """An output cannot be written to: it is a folder, or holds what is not the session's."""


class StorageError(MilepostError):
    """The operating system refused an operation on the store; the `OSError` is the cause.

    Attributes:
        operation: What was tried: `read`, `write`, `fsync`, `rename`, …
        path: The file or folder, relative to the store where that is known.
    """

    _facts: ClassVar[tuple[str, ...]] = ("operation", "path")
    operation: str | None
    path: str | None


class AlreadyLockedError(StorageError):
    """Another process writes this session.

    Attributes:
        holder: Who: a mapping of `host`, `pid`, `since` (aware UTC), `epoch`; `None` if unknown.
    """

    _facts = ("operation", "path", "holder")
    holder: dict[str, Any] | None


class StorageFullError(StorageError):
    """No space (or quota) left; the last good length is kept and the call can be repeated."""


class DurabilityLostError(StorageError):
    """A write or sync failed earlier on this file, so nothing more is acknowledged through it."""


class FormatError(MilepostError):
    """The bytes of a file are not what FORMAT.md says.

    Attributes:
        path: The file, relative to the store.
        offset: Where in the file the first wrong byte is known to be; `None` if the whole is meant.
    """

    _facts: ClassVar[tuple[str, ...]] = ("path", "offset")
    path: str | None
    offset: int | None


class NotAMilepostFileError(FormatError):
    """The file does not open with our magic."""


class UnsupportedVersionError(FormatError):
    """The file is of a format, schema or fold newer than this milepost knows.

    Attributes:
        found: The number in the file.
        supported: The highest number this release reads.
    """

    _facts = ("path", "offset", "found", "supported")
    found: int | None
    supported: int | None


class TruncatedError(FormatError):
    """The file is shorter than it says it is.

    Attributes:
        expected_bytes: How long it should be.
        actual_bytes: How long it is.
    """

    _facts = ("path", "offset", "expected_bytes", "actual_bytes")
    expected_bytes: int | None
    actual_bytes: int | None


class ChecksumMismatchError(FormatError):
    """The bytes do not match their checksum.

    Attributes:
        expected: The checksum the file states.
        actual: The checksum of the bytes found.
    """

    _facts = ("path", "offset", "expected", "actual")
    expected: str | None
    actual: str | None


class DamagedError(FormatError):
    """Acknowledged work cannot be read, so writing is refused; reading goes on with what is sure.

    Attributes:
        findings: Every finding, in the order in which it was met.
    """

    _facts = ("path", "offset", "findings")
    findings: Sequence[Any] | None


class SchemaError(MilepostError):
    """The frame is fine but its payload does not fit the type asked for."""


class EncodingError(MilepostError, TypeError):
    """A value cannot be stored; raised before anything is written, naming the place in it."""


class RecordTooLargeError(MilepostError, ValueError):
    """A value is larger or deeper than any reader would accept; nothing was written."""


class StoreNotFoundError(MilepostError, LookupError):
    """There is no store in this folder."""


class SessionNotFoundError(MilepostError, LookupError):
    """The store has no session of this name."""


class SnapshotNotFoundError(MilepostError, LookupError):
    """The session has no such version (any more)."""


class CheckpointNotFoundError(MilepostError, LookupError):
    """No session of the store has a checkpoint with this id."""


class SupersededError(MilepostError):
    """Another writer took this session over; what is written here would not be believed."""


class ParametersChangedError(MilepostError):
    """The session was made with other `params`."""


class InputChangedError(MilepostError):
    """The source of the work is not the one the session was made with."""


class UnfinishedError(MilepostError):
    """The session is unfinished, or finished, and the caller asked for this to be an error."""


class JobFailedError(MilepostError):
    """A job ended with batches that failed for good.

    Attributes:
        failures: Batch key to what is known of its failure.
    """

    _facts = ("failures",)
    failures: dict[str, Any] | None


class OutageError(MilepostError):
    """So many items or batches failed in a row that it is not them; they are pending again."""

    @staticmethod
    def hint_after(last: str) -> str:
        """What to try, by the text of the last failure."""
        again = "run it again when what they need is there"
        if _MISTAKE.search(last):
            again = "this looks like a mistake of the program itself: mend it, and run it again"
        return f"{again}; give_up_after= sets how many are an outage"


class ConsumerError(MilepostError, TypeError):
    """A consumer would acknowledge items before their work is done, so it is refused."""


class RecoveryError(MilepostError):
    """A recovery could not be carried out."""


class UnrecoverableError(RecoveryError):
    """Nothing is left to work from.

    Attributes:
        attempts: Pairs of what was tried and why it gave up.
    """

    _facts = ("attempts",)
    attempts: Sequence[tuple[str, str]] | None


class ClosedError(MilepostError):
    """The object was closed, or belongs to another process (after a fork)."""
