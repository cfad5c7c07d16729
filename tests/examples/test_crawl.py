"""The crawl brings in each page of a site once, whenever it is killed, and keeps to the rules."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import aiohttp
import pytest
from yarl import URL

from support.scripts import EXAMPLES, command, load_script, run, started, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

crawl = load_script(EXAMPLES / "crawl.py")

STORE = ".milepost"
OUTPUT = "pages.jsonl"
PAGES = 150
KILLS = 5


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    kind: str = "text/html; charset=utf-8"
    location: str = ""


def page(title: str, *hrefs: str) -> Answer:
    links = "".join(f'<p><a href="{href}">there</a></p>' for href in hrefs)
    return Answer(200, f"<!doctype html><title>{title}</title>{links}".encode())


class Site:
    """A site on this machine that tells what it was asked, and can be held, or fail for a time."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.failing: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._left: int | None = None
        self._gate = threading.Event()
        self._held = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer is one packet, so that nobody waits for the second

            def do_GET(self) -> None:
                answer = site.admit(self.path)
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.kind)
                self.send_header("Content-Length", str(len(answer.body)))
                if answer.location:
                    self.send_header("Location", answer.location)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A crawl that was killed takes no answer."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.session = f"crawl-127.0.0.1:{self._server.server_port}"

    def admit(self, path: str) -> Answer:
        with self._lock:
            hold = self._left == 0
            if self._left:
                self._left -= 1
        if hold:
            self._held.set()
            self._gate.wait()
        with self._lock:
            self.asked.append(path)
            if self.failing[path]:
                self.failing[path] -= 1
                return Answer(503)
        return self.answers.get(path, Answer(404))

    def hold_after(self, requests: int) -> None:
        """Lets so many requests through, and none after them."""
        with self._lock:
            self._left = requests
        self._gate.clear()
        self._held.clear()

    def wait_until_held(self) -> None:
        assert self._held.wait(60)

    def let_go(self) -> None:
        with self._lock:
            self._left = None
        self._gate.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def whole_site() -> dict[str, Answer]:
    """A tree of pages with all that is in the way on real sites."""
    answers = {
        "/": page("home", "p/0.html", "/moved/once", "/picture.png", "/private/a.html", "/korean"),
        "/robots.txt": Answer(200, b"User-agent: *\nDisallow: /private/\n", "text/plain"),
        "/picture.png": Answer(200, b"\x89PNG", "image/png"),
        "/private/a.html": page("private"),
        "/moved/once": Answer(301, location="only/by/redirect?a=1#part"),
        "/moved/only/by/redirect?a=1": page("behind a redirect", "?a=1", "/moved/round"),
        "/moved/round": Answer(302, location="/moved/round/again"),
        "/moved/round/again": Answer(302, location="/moved/round"),
        "/korean": Answer(
            200, '<meta charset="euc-kr"><title>서울</title>'.encode("euc-kr"), "text/html"
        ),
    }
    for number in range(PAGES):
        answers[f"/p/{number}.html"] = page(
            f"page {number}",
            f"{2 * number + 1}.html#top" if 2 * number + 1 < PAGES else "./0.html",
            f"../p/{2 * number + 2}.html" if 2 * number + 2 < PAGES else "/",
            f"{number // 3}.html",  # a way back
            "#here",
            f"/nothing/{number % 40}.html",
            f"/moved/to/{number}",
            "http://other.invalid/p/1.html",
            "//other.invalid/",
            "mailto:somebody@other.invalid",
            "http://[half",
            "/private/",
        )
        answers[f"/moved/to/{number}"] = Answer(308, location=f"/p/{number}.html")
    answers["/moved/to/7"] = Answer(302, location="http://other.invalid/")
    return answers


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(whole_site()) as served:
        yield served


def words(site: Site, *more: str) -> list[str]:
    return command("crawl.py", site.url, "--delay", "0", "--workers", "8", *more)


def rows(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / OUTPUT).read_text("utf-8").splitlines()]


def expected(site: Site) -> set[str]:
    reached = [f"/p/{number}.html" for number in range(PAGES)]
    reached += ["/", "/korean", "/moved/only/by/redirect?a=1"]
    return {site.url + path for path in reached}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_each_page_comes_once_however_often_it_is_killed(tmp_path: Path, site: Site) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    done = run(words(site), whole)
    assert done.returncode == 0, done.stderr
    site.asked.clear()

    for kill in range(KILLS):
        site.hold_after(20 + 13 * kill)
        with started(words(site), tmp_path) as process:
            site.wait_until_held()
            process.kill()
            process.wait()
        site.let_go()
    assert len(state_of(tmp_path / STORE, site.session).executions) == KILLS
    done = run(words(site), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumed after its process died" in done.stderr

    pages = rows(tmp_path)
    assert {row["url"] for row in pages} == expected(site)
    assert len(pages) == len(expected(site))
    assert sorted(map(str, pages)) == sorted(map(str, rows(whole)))
    counted, left_out = done.stdout.splitlines()
    assert counted == f"{len(pages)} pages in {OUTPUT}"
    assert left_out == (
        "196 left out: 152 for redirect, 40 for 404, 2 for robots.txt, 1 for image/png,"
        " 1 for redirect to another host"
    )
    # What was done was not fetched again: at most what was in hand at a kill.
    asked = Counter(path for path in site.asked if path != "/robots.txt")
    assert asked.total() - len(asked) <= KILLS * 2 * 8
    assert not [path for path in asked if path.startswith("/private/")]


def test_what_it_reads(tmp_path: Path, site: Site) -> None:
    assert run(words(site), tmp_path).returncode == 0
    titles = {row["url"].removeprefix(site.url): row["title"] for row in rows(tmp_path)}
    assert titles["/korean"] == "서울"
    assert titles["/moved/only/by/redirect?a=1"] == "behind a redirect"
    asked = len(site.asked)
    again = run(words(site), tmp_path)
    assert again.returncode == 0
    assert "complete since" in again.stderr
    assert site.asked[asked:] == ["/robots.txt"]


def test_what_is_nearer_comes_first(tmp_path: Path) -> None:
    tree = {
        f"/{number}": page("", f"/{2 * number}", f"/{2 * number + 1}") for number in range(2, 64)
    }
    with Site({"/": page("", "/2", "/3"), **tree}) as site:
        assert run([*words(site), "--workers", "1"], tmp_path).returncode == 0
    depths = [len(bin(int(URL(row["url"]).path[1:] or 1))) for row in rows(tmp_path)]
    assert len(depths) == 63
    assert depths == sorted(depths)


def test_what_fails_for_the_moment_is_tried_again(tmp_path: Path) -> None:
    with Site(
        {"/": page("home", "/shaky", "/down"), "/shaky": page(""), "/down": page("")}
    ) as site:
        site.failing.update({"/shaky": 1, "/down": 1_000})
        first = run(words(site), tmp_path)
        assert first.returncode == 3, first.stderr
        assert [row["url"] for row in rows(tmp_path)] == [site.url + "/", site.url + "/shaky"]
        assert "1 failed;" in first.stdout
        assert site.asked.count("/down") == 3
        site.failing.clear()
        second = run(words(site), tmp_path)
        assert second.returncode == 0, second.stderr
        assert {row["url"] for row in rows(tmp_path)} == {
            site.url + path for path in ("/", "/shaky", "/down")
        }


def test_without_an_answer_about_robots_nothing_is_fetched(tmp_path: Path) -> None:
    with Site({"/": page("home")}) as site:
        site.failing["/robots.txt"] = 1
        done = run(words(site), tmp_path)
    assert done.returncode == 1
    assert "503" in done.stderr
    assert site.asked == ["/robots.txt"]
    assert not (tmp_path / STORE).exists()


@pytest.mark.parametrize(("told", "asked", "kept"), [("7", 2.0, 7.0), ("1", 2.0, 2.0)])
def test_the_longer_delay_counts(told: str, asked: float, kept: float) -> None:
    pace = crawl.Pace(asked)

    async def read(url: str) -> None:
        async with aiohttp.ClientSession() as client:
            await crawl.Site(URL(url), client, "me", pace).read_robots()

    rules = f"User-agent: me\nCrawl-delay: {told}\n".encode()
    with Site({"/robots.txt": Answer(200, rules, "text/plain")}) as site:
        asyncio.run(read(site.url))
    assert pace.delay_seconds == kept


def test_turns_are_a_delay_apart() -> None:
    async def take() -> list[float]:
        pace = crawl.Pace(0.02)
        taken: list[float] = []

        async def one() -> None:
            await pace.turn()
            taken.append(time.monotonic())

        await asyncio.gather(*(one() for _ in range(6)))
        return taken

    before = time.monotonic()
    # The fifth turn after the first is five delays on, however late each of them is noticed.
    for number, moment in enumerate(sorted(asyncio.run(take()))):
        assert moment - before >= 0.02 * number - 0.001


@pytest.mark.parametrize(
    ("body", "told", "text"),
    [
        ("é".encode(), None, "é"),
        ("é".encode("latin-1"), "iso-8859-1", "é"),
        ("“".encode("cp1252"), "iso-8859-1", "“"),  # as browsers read it
        ('<meta charset="euc-kr">서울'.encode("euc-kr"), None, '<meta charset="euc-kr">서울'),
        ('<meta charset="euc-kr">é'.encode(), "utf-8", '<meta charset="euc-kr">é'),
        (b"\xef\xbb\xbfa", "iso-8859-1", "a"),
        ("é".encode("utf-16"), None, "é"),
        ("é".encode(), "no-such", "é"),
        ("é".encode(), "hex", "é"),
        (b"\xff", None, "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_how_a_page_is_written(body: bytes, told: str | None, text: str) -> None:
    assert crawl.decode(body, told) == text


@pytest.mark.parametrize(
    ("href", "address"),
    [
        ("b.html#part", "http://x.test/a/b.html"),
        ("../c", "http://x.test/c"),
        (" HTTP://X.test:80/é ", "http://x.test/%C3%A9"),
        ("//x.test/d", "http://x.test/d"),
        ("https://x.test/", None),
        ("http://x.test:8080/", None),
        ("mailto:a@x.test", None),
        ("javascript:void(0)", None),
        ("http://[", None),
        ("http://x.test:port/", None),
        ("a" * 2_000, None),
        ("", "http://x.test/a/"),
    ],
)
def test_which_links_are_followed(href: str, address: str | None) -> None:
    site = crawl.Site(URL("http://x.test/"), None, "me", crawl.Pace(0))
    assert site.link(URL("http://x.test/a/"), href) == address


def test_a_base_moves_relative_links() -> None:
    site = crawl.Site(URL("http://x.test/"), None, "me", crawl.Pace(0))
    html = (
        '<base href="/far/"><title> a\n b </title><a href=1>one</a><a href=1#x>two</a><a>none</a>'
    )
    read = site.parse(URL("http://x.test/near/"), html + "<script>not text</script>")
    assert read.links == ["http://x.test/far/1"]
    assert read.title == "a b"
    assert read.text == "one two none"
    read = site.parse(URL("http://x.test/near/"), '<base href="http://[half"><a href=1>one</a>')
    assert read.links == ["http://x.test/near/1"]


def test_another_start_on_the_same_host_is_refused(tmp_path: Path) -> None:
    with Site({"/": page("home"), "/other": page("other")}) as site:
        assert run(words(site), tmp_path).returncode == 0
        done = run(command("crawl.py", f"{site.url}/other", "--delay", "0"), tmp_path)
    assert done.returncode == 1
    assert "params['start']" in done.stderr
    assert "hint: " in done.stderr
    assert len(rows(tmp_path)) == 1


def test_what_is_no_address_is_refused(tmp_path: Path) -> None:
    done = run(command("crawl.py", "example.org"), tmp_path)
    assert done.returncode == 2
    assert "https://example.org/" in done.stderr
    assert os.listdir(tmp_path) == []
