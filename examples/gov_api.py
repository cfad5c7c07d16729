"""Serves Korea's legal dongs on this machine as a government's open API would: slow and unreliable.

A stand-in for the kind of service that batch jobs crawl, so that the examples and tests need no
network and no key. It serves the 250 regions and 20,278 places of `data/regions.tsv`, in pages, on
127.0.0.1 only, and needs nothing beyond the standard library:

    python examples/gov_api.py --port 8765 --fail 0.05 --seed 7 --delay-ms 5

    curl 'http://127.0.0.1:8765/regions?page=1&size=3'
    curl 'http://127.0.0.1:8765/regions/11110/places?page=2&size=50'
    curl 'http://127.0.0.1:8765/stats'
    curl 'http://127.0.0.1:8765/health'

A page is `{"totalCount": 250, "page": 1, "size": 3, "items": [...]}`, where `size` is the size that
was granted: one that is over the cap is cut to it. An item of `/regions` has `code`, `name` and
`places` (how many it has), one of `/regions/CODE/places` has `id` and `name`. A region that is not
there is a 404, a page or size that is no positive number a 400, each as `{"error": "..."}`.

With `--fail SHARE`, that share of the calls fails in one of three ways: 429 with Retry-After, 500,
or a connection closed without an answer. Which calls fail follows from the seed, the path with its
query as it was sent, and how often that was called since the start: threads may race as they like,
every run fails alike, and the same call, repeated, can succeed. `/health` and `/stats` never fail,
never wait and are not counted.

A test can start the server inside its own process:

    with GovApi(fail=0.05, seed=7) as api:
        urllib.request.urlopen(f"{api.url}/regions")
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict, cast
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOST = "127.0.0.1"
DATA = Path(__file__).parent / "data" / "regions.tsv"
LARGEST_PAGE = 100


@dataclass(frozen=True, slots=True)
class Place:
    """A 읍, 면, 동 or 리: its 10-digit code and its full name."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Region:
    """A 시군구: its 5-digit code, its full name and its places, by code."""

    code: str
    name: str
    places: tuple[Place, ...]


class Failure(StrEnum):
    """The ways in which a call fails."""

    TOO_MANY = "429"
    BROKEN = "500"
    DROPPED = "dropped"


class Stats(TypedDict):
    """What `/stats` says: calls since the start, how many failed, and how many in which way."""

    calls: int
    failed: int
    failures: dict[str, int]


class _RefusedError(Exception):
    """A call that is answered with an error of the caller's own making."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def load_regions(path: Path = DATA) -> dict[str, Region]:
    """Reads the data file: the regions by code, in the order of the file."""
    names: dict[str, str] = {}
    places: dict[str, list[Place]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        code, *parts = line.split("\t")
        # The length of the code tells the two kinds of row apart.
        if len(code) == 5:
            names[code] = " ".join(parts)
            places[code] = []
        else:
            region = code[:5]
            places[region].append(Place(code, " ".join((names[region], *parts))))
    return {code: Region(code, name, tuple(places[code])) for code, name in names.items()}


def failure_of(target: str, *, nth: int, seed: int, share: float) -> Failure | None:
    """Decides whether and how the nth call of a path with its query fails."""
    # A generator for each call, so that no call depends on which others came before it.
    dice = random.Random(f"{seed} {nth} {target}")
    if dice.random() >= share:
        return None
    kinds = tuple(Failure)
    return kinds[int(dice.random() * len(kinds))]


class GovApi:
    """The API on a port of its own, for as long as a `with` block lasts.

    Entered again it comes back on the same port and goes on counting.

    Args:
        port: The port to listen on; 0 takes any that is free.
        fail: The share of calls that fail, from 0 to 1.
        seed: Which calls fail.
        delay: Seconds that every call waits before it is answered.
        page_size: The size of a page when none is asked for, and the largest that is granted.
        retry_after: Seconds that a 429 asks its caller to wait.
        verbose: Whether each request is logged to stderr.
        path: The data file.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        fail: float = 0.0,
        seed: int = 0,
        delay: float = 0.0,
        page_size: int = LARGEST_PAGE,
        retry_after: int = 1,
        verbose: bool = False,
        path: Path = DATA,
    ) -> None:
        if not 0 <= fail <= 1:
            raise ValueError(f"the share of failing calls is from 0 to 1, not {fail}")
        if not 1 <= page_size <= LARGEST_PAGE:
            raise ValueError(f"a page has 1 to {LARGEST_PAGE} items, not {page_size}")
        if not 0 <= port <= 65535:
            raise ValueError(f"a port is from 0 to 65535, not {port}")
        if delay < 0 or retry_after < 0:
            raise ValueError("a wait cannot be negative")
        self.regions = load_regions(path)
        self.page_size = page_size
        self.retry_after = retry_after
        self.verbose = verbose
        self._port = port
        self._fail = fail
        self._seed = seed
        self._delay = delay
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._failures: Counter[Failure] = Counter()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> None:
        """Listens and serves from now on, on threads of its own."""
        self._stopping.clear()
        self._server = _Server((HOST, self._port), functools.partial(_Handler, self))
        self._port = self._server.server_address[1]
        # The loop wakes this often to see whether it should end.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="gov-api"
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on, once it does."""
        return self._port

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://{HOST}:{self._port}"

    def close(self) -> None:
        """Ends at once: no new calls, open connections cut, every thread and socket gone."""
        if self._server is None or self._thread is None:
            return
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        # This waits for the threads of the connections, which have just lost them.
        self._server.server_close()
        self._server = None
        self._thread = None

    def stats(self) -> Stats:
        """Counts the calls so far and their failures."""
        with self._lock:
            return {
                "calls": self._calls.total(),
                "failed": self._failures.total(),
                "failures": {kind.value: self._failures[kind] for kind in Failure},
            }

    def admit(self, target: str) -> Failure | None:
        """Counts a call, lets it wait as long as every call does, and says how it fails, if so."""
        with self._lock:
            self._calls[target] += 1
            nth = self._calls[target]
            failure = failure_of(target, nth=nth, seed=self._seed, share=self._fail)
            if failure is not None:
                self._failures[failure] += 1
        # A sleep that closing can end.
        if self._stopping.wait(self._delay):
            return Failure.DROPPED
        return failure

    def answer(self, path: str, query: str) -> Mapping[str, Any]:
        """Finds the page that a call asks for, or refuses it."""
        match path.strip("/").split("/"):
            case ["regions"]:
                items = [
                    {"code": region.code, "name": region.name, "places": len(region.places)}
                    for region in self.regions.values()
                ]
            case ["regions", code, "places"]:
                if code not in self.regions:
                    raise _RefusedError(HTTPStatus.NOT_FOUND, f"no region {code}")
                items = [
                    {"id": place.id, "name": place.name} for place in self.regions[code].places
                ]
            case _:
                raise _RefusedError(HTTPStatus.NOT_FOUND, f"nothing at {path}")
        asked = parse_qs(query, keep_blank_values=True)
        page = _positive(asked, "page", default=1)
        size = min(_positive(asked, "size", default=self.page_size), self.page_size)
        start = (page - 1) * size
        return {
            "totalCount": len(items),
            "page": page,
            "size": size,
            "items": items[start : start + size],
        }


def _positive(asked: Mapping[str, list[str]], name: str, *, default: int) -> int:
    if name not in asked:
        return default
    text = asked[name][-1]
    # int() also takes signs, blanks, underscores and the digits of every script.
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and int(text) > 0):
        raise _RefusedError(HTTPStatus.BAD_REQUEST, f"{name} must be a positive number")
    return int(text)


class _Handler(BaseHTTPRequestHandler):
    """One connection, which may carry many calls."""

    protocol_version = "HTTP/1.1"
    # Headers and body go out in two writes; without this the second waits for the client's ACK.
    disable_nagle_algorithm = True

    def __init__(self, api: GovApi, *args: Any) -> None:
        # The base class handles the whole connection inside its constructor.
        self._api = api
        super().__init__(*args)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/health":
            self._reply(HTTPStatus.OK, {"status": "ok"})
            return
        if path == "/stats":
            self._reply(HTTPStatus.OK, self._api.stats())
            return
        match self._api.admit(self.path):
            case Failure.DROPPED:
                self.close_connection = True
            case Failure.BROKEN:
                self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            case Failure.TOO_MANY:
                self._reply(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    {"error": "too many requests"},
                    {"Retry-After": str(self._api.retry_after)},
                )
            case None:
                try:
                    page = self._api.answer(path, query)
                except _RefusedError as refused:
                    self._reply(refused.status, {"error": str(refused)})
                else:
                    self._reply(HTTPStatus.OK, page)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers in JSON where the base class would in HTML, and ends the connection as it does.

        The base class calls it too, for requests that it cannot read and methods that are not here.
        """
        del explain
        status = HTTPStatus(code)
        self._reply(status, {"error": message or status.phrase}, {"Connection": "close"})

    def _reply(
        self, status: HTTPStatus, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        data = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs a request as the base class does, if that was asked for."""
        if self._api.verbose:
            super().log_message(format, *args)


class _Server(ThreadingHTTPServer):
    """A server that knows its open connections, so that it can end them."""

    # Threads of connections are waited for: hang_up() ends them, so the wait is short.
    daemon_threads = False
    # The default of 5 is too short a queue for a client with many workers.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def close_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        if isinstance(request, socket.socket):
            with self._lock:
                self._connections.discard(request)
        super().close_request(request)

    def hang_up(self) -> None:
        """Ends every open connection, whoever reads from it or writes to it."""
        with self._lock:
            connections = tuple(self._connections)
        for connection in connections:
            # Its own thread or the client may have been quicker.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that is killed in the middle of a call is what this server is here to see.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _write_port(path: Path, port: int) -> None:
    """Writes the port so that whoever sees the file sees all of it."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(f"{port}\n", encoding="ascii")
    part.replace(path)


class _Interrupt:
    """A handler of signals that interrupts the program once.

    A second signal must not cut short what the first one began.
    """

    def __init__(self) -> None:
        self._came = False

    def __call__(self, *_: object) -> None:
        if not self._came:
            self._came = True
            raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(
        description="Serves Korea's legal dongs as a slow and unreliable open API.",
    )
    add = parser.add_argument
    add("--port", type=int, default=8765, help="on 127.0.0.1, 8765 unless told; 0 is any")
    add("--port-file", type=Path, help="file that gets the port once the server listens")
    add("--fail", type=float, default=0.0, metavar="SHARE", help="share of calls that fail, 0 to 1")
    add("--seed", type=int, default=0, help="which calls fail")
    add("--delay-ms", type=float, default=0.0, metavar="MS", help="how long every answer takes")
    add(
        "--page-size", type=int, default=LARGEST_PAGE, metavar="N", help="largest page, at most 100"
    )
    add("--retry-after", type=int, default=1, metavar="S", help="seconds that a 429 asks for")
    add("--verbose", action="store_true", help="log every request to stderr")
    options = parser.parse_args(argv)
    try:
        api = GovApi(
            port=options.port,
            fail=options.fail,
            seed=options.seed,
            delay=options.delay_ms / 1000,
            page_size=options.page_size,
            retry_after=options.retry_after,
            verbose=options.verbose,
        )
    except ValueError as error:
        parser.error(str(error))
    port_file = cast("Path | None", options.port_file)
    try:
        api.start()
    except OSError as error:
        parser.error(f"cannot listen on port {options.port}: {error}")
    try:
        interrupt = _Interrupt()
        signal.signal(signal.SIGTERM, interrupt)
        # A process that a script starts in the background ignores Ctrl-C unless told.
        signal.signal(signal.SIGINT, interrupt)
        if port_file is not None:
            _write_port(port_file, api.port)
        places = sum(len(region.places) for region in api.regions.values())
        print(f"{api.url} serves {places} places", file=sys.stderr, flush=True)
        # Short sleeps: a signal that lands on another thread does not end this one's.
        while True:
            time.sleep(0.1)
    except KeyboardInterrupt:
        pass
    finally:
        api.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
