"""What kind of error an exception is, and whether trying again can help."""

from __future__ import annotations

import email.message
import errno
import http.client
import json
import socket
import sqlite3
import ssl
import urllib.error
from concurrent import futures
from typing import Any

import pytest

from milepost.types import BatchErrorType
from milepost.work.classify import Verdict, classify

NETWORK, DATABASE, VALIDATION, TIMEOUT, RESOURCE, UNKNOWN = BatchErrorType
AGAIN, FINAL = True, False


def http_error(status: int) -> urllib.error.HTTPError:
    error = urllib.error.HTTPError("http://x", status, "no", email.message.Message(), None)
    error.close()
    return error


def foreign(name: str, module: str, *bases: type[BaseException]) -> BaseException:
    """An exception as a library that is not installed here would raise it."""
    kind: Any = type(name, bases or (Exception,), {"__module__": module})
    error: BaseException = kind("no")
    return error


def with_response(status: int) -> BaseException:
    error = foreign("HTTPStatusError", "httpx")
    response = type("Response", (), {"status_code": status})()
    vars(error)["response"] = response
    return error


def validation_error() -> Exception:
    import msgspec

    try:
        msgspec.convert("x", int)
    except msgspec.ValidationError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "kind", "again"),
    [
        # Too slow.
        (TimeoutError("no"), TIMEOUT, AGAIN),
        (OSError(errno.ETIMEDOUT, "no"), TIMEOUT, AGAIN),
        (socket.timeout("no"), TIMEOUT, AGAIN),  # noqa: UP041  # its old name
        (futures.TimeoutError(), TIMEOUT, AGAIN),  # the same
        (foreign("ReadTimeout", "httpx"), TIMEOUT, AGAIN),
        (foreign("ConnectTimeout", "requests.exceptions"), TIMEOUT, AGAIN),
        (foreign("TimeoutError", "sqlalchemy.exc"), TIMEOUT, AGAIN),
        # The network.
        (ConnectionRefusedError("no"), NETWORK, AGAIN),
        (ConnectionResetError("no"), NETWORK, AGAIN),
        (BrokenPipeError("no"), NETWORK, AGAIN),
        (OSError(errno.ENETUNREACH, "no"), NETWORK, AGAIN),
        (OSError(errno.EHOSTUNREACH, "no"), NETWORK, AGAIN),
        (socket.gaierror(-2, "name or service not known"), NETWORK, AGAIN),
        (http.client.IncompleteRead(b"half"), NETWORK, AGAIN),
        (http.client.RemoteDisconnected("no"), NETWORK, AGAIN),
        (urllib.error.URLError("no"), NETWORK, AGAIN),
        (urllib.error.URLError(ConnectionRefusedError()), NETWORK, AGAIN),
        (foreign("ConnectionError", "requests.exceptions"), NETWORK, AGAIN),
        (foreign("ClientConnectionError", "aiohttp"), NETWORK, AGAIN),
        (foreign("TransportError", "httpx"), NETWORK, AGAIN),
        # A server's answer.
        (http_error(500), NETWORK, AGAIN),
        (http_error(503), NETWORK, AGAIN),
        (http_error(429), NETWORK, AGAIN),
        (http_error(408), NETWORK, AGAIN),
        (http_error(425), NETWORK, AGAIN),
        (http_error(404), NETWORK, FINAL),
        (http_error(400), NETWORK, FINAL),
        (http_error(401), NETWORK, FINAL),
        (with_response(502), NETWORK, AGAIN),
        (with_response(403), NETWORK, FINAL),
        # Databases, by the names of DB-API 2.0.
        (sqlite3.OperationalError("database is locked"), DATABASE, AGAIN),
        (sqlite3.DatabaseError("disk image is malformed"), DATABASE, AGAIN),
        (sqlite3.InterfaceError("no"), DATABASE, AGAIN),
        (sqlite3.InternalError("no"), DATABASE, AGAIN),
        (sqlite3.IntegrityError("UNIQUE"), DATABASE, FINAL),
        (sqlite3.ProgrammingError("no"), DATABASE, FINAL),
        (sqlite3.DataError("no"), DATABASE, FINAL),
        (sqlite3.NotSupportedError("no"), DATABASE, FINAL),
        (foreign("SerializationFailure", "psycopg.errors"), DATABASE, AGAIN),
        (foreign("OperationalError", "some_driver"), DATABASE, AGAIN),
        (foreign("IntegrityError", "some_driver"), DATABASE, FINAL),
        # The machine's means.
        (MemoryError(), RESOURCE, AGAIN),
        (OSError(errno.ENOSPC, "no"), RESOURCE, AGAIN),
        (OSError(errno.EDQUOT, "no"), RESOURCE, AGAIN),
        (OSError(errno.EMFILE, "no"), RESOURCE, AGAIN),
        (OSError(errno.ENOMEM, "no"), RESOURCE, AGAIN),
        # The data.
        (ValueError("no"), VALIDATION, FINAL),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), VALIDATION, FINAL),
        (json.JSONDecodeError("no", "", 0), VALIDATION, FINAL),
        (validation_error(), VALIDATION, FINAL),
        (foreign("ValidationError", "pydantic"), VALIDATION, FINAL),
        (foreign("DataValidationErrorGroup", "somewhere"), VALIDATION, FINAL),
        # Nobody knows.
        (Exception("no"), UNKNOWN, AGAIN),
        (RuntimeError("no"), UNKNOWN, AGAIN),
        (OSError(errno.EACCES, "no"), UNKNOWN, AGAIN),
        (foreign("Odd", "somewhere"), UNKNOWN, AGAIN),
        # Mistakes in the program: the next try brings the same.
        (TypeError("no"), UNKNOWN, FINAL),
        (KeyError("no"), UNKNOWN, FINAL),
        (IndexError("no"), UNKNOWN, FINAL),
        (AttributeError("no"), UNKNOWN, FINAL),
        (NameError("no"), UNKNOWN, FINAL),
        (AssertionError("no"), UNKNOWN, FINAL),
        (NotImplementedError("no"), UNKNOWN, FINAL),
        (ImportError("no"), UNKNOWN, FINAL),
        (SyntaxError("no"), UNKNOWN, FINAL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_an_exception_is(error: BaseException, kind: BatchErrorType, *, again: bool) -> None:
    assert classify(error) == Verdict(kind, again)


def wrapped(outer: BaseException, *inner: BaseException) -> BaseException:
    current = outer
    for cause in inner:
        current.__cause__ = cause
        current = cause
    return outer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (wrapped(RuntimeError("fetch failed"), TimeoutError()), Verdict(TIMEOUT, AGAIN)),
        (wrapped(Exception(), Exception(), http_error(404)), Verdict(NETWORK, FINAL)),
        (wrapped(KeyError("page"), ConnectionResetError()), Verdict(NETWORK, AGAIN)),
        (wrapped(Exception(), TypeError()), Verdict(UNKNOWN, AGAIN)),
        # What says something itself is believed.
        (wrapped(sqlite3.OperationalError(), ValueError()), Verdict(DATABASE, AGAIN)),
    ],
)
def test_a_wrapper_that_says_less_is_judged_by_what_it_wraps(
    error: BaseException, expected: Verdict
) -> None:
    assert classify(error) == expected


def test_causes_in_a_circle_end() -> None:
    one, two = Exception("one"), Exception("two")
    one.__cause__, two.__cause__ = two, one
    assert classify(one) == Verdict(UNKNOWN, AGAIN)


class HostileError(Exception):
    """An exception that raises wherever it is touched."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparing")

    def __hash__(self) -> int:
        raise RuntimeError("no hashing")

    @property
    def response(self) -> Any:
        raise RuntimeError("no response")

    @property
    def status(self) -> Any:
        raise RuntimeError("no status")


class ShyError(OSError):
    """An exception that says no number."""

    @property
    def errno(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no number")


def test_the_verdict_never_raises() -> None:
    assert classify(wrapped(Exception(), HostileError("no"))) == Verdict(UNKNOWN, AGAIN)
    assert classify(wrapped(HostileError("no"), HostileError("no"))) == Verdict(UNKNOWN, AGAIN)
    assert classify(OSError({"code": 5}, "x")) == Verdict(UNKNOWN, AGAIN)
    assert classify(ShyError()) == Verdict(UNKNOWN, AGAIN)


def test_a_certificate_is_no_matter_of_luck_and_no_data() -> None:
    # An ssl.SSLError is an OSError; its verification error is a ValueError as well.
    assert classify(ssl.SSLError("handshake")).error_type is NETWORK
    assert classify(ssl.SSLCertVerificationError("expired")).error_type is NETWORK


def test_a_status_that_is_no_error_says_nothing() -> None:
    assert classify(with_response(200)) == Verdict(UNKNOWN, AGAIN)
