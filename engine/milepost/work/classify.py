"""What kind of error an exception is, and whether trying again can help.

- Replaceable: anything with the shape of `Classifier` can be handed to a store.
- Foreign libraries are known by the names of their exception classes and modules, never imported.
- What nobody knows is worth another try; what is surely a mistake in the program is not.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

from milepost.errors import InputChangedError
from milepost.groups import leaves
from milepost.types import BatchErrorType


class Verdict(NamedTuple):
    """A judgement of an exception.

    Attributes:
        error_type: Of what kind it is.
        is_recoverable: Whether trying again can help.
    """

    error_type: BatchErrorType
    is_recoverable: bool


class Classifier(Protocol):
    """Judges an exception."""

    def __call__(self, error: BaseException, /) -> Verdict:
        """The verdict; never raises."""
        ...


_EXHAUSTED: Final = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_NETWORK: Final = {
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EPIPE,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EHOSTUNREACH,
    errno.EHOSTDOWN,
}
_DATABASE_MODULES: Final = (
    "sqlite3",
    "psycopg",
    "psycopg2",
    "asyncpg",
    "MySQLdb",
    "pymysql",
    "mysql",
    "oracledb",
    "pyodbc",
    "sqlalchemy",
    "duckdb",
)
_DATABASE_NAMES: Final = {"DatabaseError", "OperationalError", "InterfaceError", "IntegrityError"}
_DATABASE_FINAL: Final = {"IntegrityError", "ProgrammingError", "DataError", "NotSupportedError"}
_MISTAKES: Final = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
)


def classify(error: BaseException) -> Verdict:
    """The standard judgement. Of a group, the worst of its errors: all of them come again."""
    verdicts = [_classify(each) for each in leaves(error)]
    return next((each for each in verdicts if not each.is_recoverable), verdicts[0])


def _classify(error: BaseException) -> Verdict:
    for each in _chain(error):
        # An exception is anybody's code, and may raise when it is looked at.
        with contextlib.suppress(Exception):
            verdict = _judge(each)
            if verdict is not None:
                return verdict
    return Verdict(BatchErrorType.UNKNOWN_ERROR, not isinstance(error, _MISTAKES))


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from: a wrapper often says less than what it wraps."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and not any(current is each for each in chain):
        chain.append(current)
        current = current.__cause__
    return chain


def _judge(error: BaseException) -> Verdict | None:
    if isinstance(verdict := getattr(error, "verdict", None), Verdict):
        return verdict  # it was judged where it was raised
    names = {kind.__name__ for kind in type(error).__mro__}
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if isinstance(error, InputChangedError):
        return Verdict(BatchErrorType.VALIDATION_ERROR, is_recoverable=False)
    if isinstance(error, MemoryError) or _errno(error) in _EXHAUSTED:
        return Verdict(BatchErrorType.RESOURCE_EXHAUSTION, is_recoverable=True)
    if isinstance(error, TimeoutError) or any("Timeout" in name for name in names):
        return Verdict(BatchErrorType.TIMEOUT_ERROR, is_recoverable=True)
    if modules.intersection(_DATABASE_MODULES) or names & _DATABASE_NAMES:
        final = bool(names & _DATABASE_FINAL)
        return Verdict(BatchErrorType.DATABASE_ERROR, is_recoverable=not final)
    if "SSLError" in names:
        # A certificate that is refused is refused again; it is a ValueError, but no wrong data.
        again = "SSLCertVerificationError" not in names
        return Verdict(BatchErrorType.NETWORK_ERROR, is_recoverable=again)
    status = _http_status(error)
    if status is not None:
        again = status >= 500 or status in {408, 425, 429}
        return Verdict(BatchErrorType.NETWORK_ERROR, is_recoverable=again)
    if (
        isinstance(error, (ConnectionError, socket.gaierror, socket.herror))
        or _errno(error) in _NETWORK
        or names & {"URLError", "TransportError", "IncompleteRead", "RemoteDisconnected"}
        or any(name.endswith("ConnectionError") for name in names)
    ):
        return Verdict(BatchErrorType.NETWORK_ERROR, is_recoverable=True)
    if isinstance(error, ValueError) or any("ValidationError" in name for name in names):
        return Verdict(BatchErrorType.VALIDATION_ERROR, is_recoverable=False)
    return None


def _errno(error: BaseException) -> int | None:
    number = error.errno if isinstance(error, OSError) else None
    return number if isinstance(number, int) else None


def _http_status(error: BaseException) -> int | None:
    """The status of an HTTP error, as urllib, requests, httpx and aiohttp carry it."""
    for path in ("status", "code", "response.status_code"):
        with contextlib.suppress(Exception):
            status = attrgetter(path)(error)
            if isinstance(status, int) and 400 <= status < 600:
                return status
    return None
