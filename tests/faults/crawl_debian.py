"""Crawls two real sites with `examples/crawl.py`, killed again and again: `make crawl-debian`.

The sites are manuals that Debian packs as HTML: PostgreSQL's, where no link is broken, and
Django's, with dozens of links to nothing. They are served on this machine. Each is crawled once
without a kill and once with `--kills` of them, at about even steps; the rows must be the same.
It installs nothing, and no test of the suite needs it.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import milepost

if TYPE_CHECKING:
    from collections.abc import Generator

SITES = {
    "postgresql-doc-15": Path("/usr/share/doc/postgresql-doc-15/html"),
    "python-django-doc": Path("/usr/share/doc/python-django-doc/html"),
}
CRAWL = Path(__file__).parents[2] / "examples" / "crawl.py"
PATIENCE_SECONDS = 300.0
OUTPUT = "pages.jsonl"


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, in one packet each, and says nothing."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    """A server whose visitors may vanish."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A crawl that was killed takes no answer."""


@contextmanager
def served(folder: Path) -> Generator[int]:
    """The port on which the folder is served."""
    server = Server(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def start(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """The crawl as people start it, with its lines in a file."""
    words = [sys.executable, str(CRAWL), f"http://127.0.0.1:{port}/index.html", "--delay", "0"]
    environment = {**os.environ, "MILEPOST_STORE": str(folder / ".milepost")}
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen(words, cwd=folder, env=environment, stdout=said, stderr=said)


def finished(folder: Path, port: int) -> int:
    """How many addresses the store counts as done."""
    try:
        store = milepost.Store(folder / ".milepost")
        return store.load_progress(f"crawl-127.0.0.1:{port}").items_finished
    except LookupError:  # so early that there is none
        return 0


def run(port: int, folder: Path) -> None:
    """Crawls to the end."""
    code = start(port, folder).wait(PATIENCE_SECONDS)
    if code:
        raise SystemExit(f"the crawl ended with {code}: {(folder / 'said.txt').read_text()}")


def kill_at(count: int, port: int, folder: Path) -> None:
    """Crawls until so many addresses are done, and kills it there."""
    process = start(port, folder)
    until = time.monotonic() + PATIENCE_SECONDS
    while finished(folder, port) < count and time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"it ended before kill: {(folder / 'said.txt').read_text()}")
    process.kill()
    process.wait()


def campaign(name: str, site: Path, kills: int) -> bool:
    """One site; whether both crawls came to the same."""
    with tempfile.TemporaryDirectory(prefix="milepost-crawl-") as temporary, served(site) as port:
        whole, killed = Path(temporary) / "whole", Path(temporary) / "killed"
        whole.mkdir()
        killed.mkdir()
        began = time.monotonic()
        run(port, whole)
        seconds = time.monotonic() - began
        total = finished(whole, port)
        began = time.monotonic()
        for kill in range(1, kills + 1):
            kill_at(total * kill // (kills + 1), port, killed)
        run(port, killed)
        killed_seconds = time.monotonic() - began
        rows = [(folder / OUTPUT).read_bytes().splitlines() for folder in (whole, killed)]
        store = milepost.Store(killed / ".milepost")
        runs = store.load_progress(f"crawl-127.0.0.1:{port}").runs
        is_same = sorted(rows[0]) == sorted(rows[1]) and len(set(rows[1])) == len(rows[1])
        on_disk = sum(1 for _ in site.rglob("*.html"))
        told = [line for line in (killed / "said.txt").read_text().splitlines() if "left" in line]
        print(f"{name}: {len(rows[0]):,} pages in {seconds:.1f} s; {on_disk:,} files of HTML")
        print(
            f"  killed {kills} times: {len(rows[1]):,} rows in {runs} runs, {killed_seconds:.1f} s"
        )
        print(f"  {told[-1]}")
        print(f"  {'the same rows, each page once' if is_same else 'THE ROWS DIFFER'}", flush=True)
        return is_same and runs == kills + 1


def main() -> int:
    """Both sites."""
    parser = argparse.ArgumentParser(description="Crawls two real sites, killed on the way.")
    parser.add_argument("--kills", type=int, default=10, help="kills of each crawl (10)")
    kills: int = parser.parse_args().kills
    if missing := [name for name, site in SITES.items() if not (site / "index.html").exists()]:
        print(f"not installed; try: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 2
    came_out = [campaign(name, site, kills) for name, site in SITES.items()]
    return 0 if all(came_out) else 1


if __name__ == "__main__":
    sys.exit(main())
