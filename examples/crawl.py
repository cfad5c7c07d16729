"""Crawls a site, breadth-first and politely, into a JSON Lines file; killed, it carries on.

    pip install aiohttp protego selectolax
    python examples/crawl.py https://example.org/ --delay 1 --workers 4 --output pages.jsonl

It stays on the host it starts at, obeys its robots.txt (Crawl-delay too), and asks at most once per
`--delay` seconds. An item is an address. Its links are in the store, and its row is in the file,
before it counts as done; so however often the crawl is killed, the file has each page once.

A link to nothing is a fact of the site and no failure of the crawl: it is left out (`Skip`), as is
what is no HTML, what robots.txt forbids, and an address that only leads to another. What may pass
(5xx, 429, timeouts, broken connections) is tried again, three times in a run, and in the next run.
"""

from __future__ import annotations

import argparse
import asyncio
import codecs
import contextlib
import json
import re
import sys
import time
from collections import Counter
from typing import NamedTuple

import aiohttp
from protego import Protego
from selectolax.lexbor import LexborHTMLParser
from yarl import URL  # aiohttp's own

import milepost

PAGE_BYTES_MAX = 10 << 20
ROBOTS_BYTES_MAX = 500 << 10  # RFC 9309: at least so much of it is to be read
ADDRESS_MAX = 2_000  # what is longer is a trap, or a mistake
TIMEOUT_SECONDS = 30
FAR_AHEAD = 1 << 10  # the HTML standard: where an encoding is declared in the page itself
DECLARED = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
WHAT_BROWSERS_READ = {"iso8859-1": "cp1252", "ascii": "cp1252"}


class Page(NamedTuple):
    """What an address gave: a page, or the address it leads to as its only link."""

    links: list[str]
    title: str = ""
    text: str = ""
    is_redirect: bool = False


class Pace:
    """Lets requests begin no closer together than the delay, however many workers ask."""

    def __init__(self, delay_seconds: float) -> None:
        self.delay_seconds = delay_seconds
        self._next = 0.0

    async def turn(self) -> None:
        """Waits for one's turn."""
        now = time.monotonic()
        mine = max(now, self._next)
        self._next = mine + self.delay_seconds
        await asyncio.sleep(mine - now)


class Site:
    """One host, as its robots.txt wants it."""

    def __init__(self, start: URL, client: aiohttp.ClientSession, agent: str, pace: Pace) -> None:
        self.origin = start.origin()
        self._client = client
        self._agent = agent
        self._pace = pace
        self._robots = Protego.parse("")

    async def read_robots(self) -> None:
        """Reads the rules. None means all is allowed; no answer means nothing is (RFC 9309)."""
        await self._pace.turn()
        async with self._client.get(self.origin / "robots.txt") as response:
            if response.status >= 500 or response.status == 429:
                response.raise_for_status()
            rules = await read(response, ROBOTS_BYTES_MAX) if response.ok else b""
        self._robots = Protego.parse(rules[:ROBOTS_BYTES_MAX].decode("utf-8", "replace"))
        wanted = self._robots.crawl_delay(self._agent) or 0.0
        self._pace.delay_seconds = max(self._pace.delay_seconds, wanted)

    async def fetch(self, address: str) -> Page:
        """Fetches a page. What raises anything but `Skip` is tried again, or recorded as failed."""
        if not self._robots.can_fetch(address, self._agent):
            raise milepost.Skip("robots.txt")
        await self._pace.turn()
        # The address is as it was when it became an item.
        url = URL(address, encoded=True)
        async with self._client.get(url, allow_redirects=False) as response:
            if response.status in {301, 302, 303, 307, 308}:
                target = self.link(url, response.headers.get("Location", ""))
                if target is None:
                    raise milepost.Skip("redirect to another host")
                return Page([target], is_redirect=True)
            if response.status == 429:
                after = response.headers.get("Retry-After", "")
                raise milepost.Retry("429", after=int(after) if after.isdecimal() else None)
            if response.status >= 500:
                response.raise_for_status()
            if response.status != 200:
                raise milepost.Skip(str(response.status))
            if response.content_type not in {"text/html", "application/xhtml+xml"}:
                raise milepost.Skip(response.content_type)
            body = await read(response, PAGE_BYTES_MAX)
            if len(body) > PAGE_BYTES_MAX:
                raise milepost.Skip("too large")
            return self.parse(url, decode(body, response.charset))

    def parse(self, url: URL, html: str) -> Page:
        """Title, text and links of a page."""
        tree = LexborHTMLParser(html)
        head = tree.css_first("base[href]")
        base = url
        if head is not None:
            with contextlib.suppress(ValueError):
                base = url.join(URL((head.attributes["href"] or "").strip()))
        found = (node.attributes["href"] for node in tree.css("a[href], area[href]"))
        links = [link for href in found if (link := self.link(base, href or ""))]
        title = tree.css_first("title")
        tree.strip_tags(["script", "style", "template"])
        return Page(
            list(dict.fromkeys(links)),
            "" if title is None else " ".join(title.text().split()),
            "" if tree.body is None else " ".join(tree.body.text(separator=" ").split()),
        )

    def link(self, base: URL, href: str) -> str | None:
        """The address that a link means, if it is one of this site."""
        try:
            url = plain(base.join(URL(href.strip())))
            is_ours = str(url.origin()) == str(self.origin) and len(str(url)) <= ADDRESS_MAX
            return str(url) if is_ours else None
        except ValueError:  # no address, or none with a host, such as mailto:
            return None


def plain(url: URL) -> URL:
    """An address in the one way that makes it a key: no part of a page, nobody's name, a path."""
    url = url.with_fragment(None).with_user(None)
    return url.with_path(url.raw_path, encoded=True, keep_query=True)


async def read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body; of one that is longer than the limit, a little more than that."""
    body = bytearray()
    while len(body) <= limit and (part := await response.content.read(1 << 16)):
        body += part
    return bytes(body)


def decode(body: bytes, told: str | None) -> str:
    """The text of a page: by its mark, what the server tells, what the page tells, or UTF-8."""
    declared = DECLARED.search(body[:FAR_AHEAD])
    if body.startswith(codecs.BOM_UTF8):
        told = "utf-8-sig"
    elif body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        told = "utf-16"
    elif told is None and declared is not None:
        told = declared[1].decode("ascii", "replace")
    try:
        name = codecs.lookup(told or "utf-8").name
        return body.decode(WHAT_BROWSERS_READ.get(name, name), "replace")
    except (LookupError, ValueError):  # nobody's name, or that of no encoding of text
        return body.decode("utf-8", "replace")


async def crawl(start: URL, options: argparse.Namespace) -> milepost.SessionState:
    """Crawls what is not crawled yet; returns what came of it all."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    headers = {"User-Agent": options.agent}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as client:
        site = Site(start, client, options.agent, Pace(options.delay))
        await site.read_robots()
        pages = milepost.map(
            site.fetch,
            [str(start)],
            f"crawl-{start.authority}",
            workers=options.workers,
            params={"start": str(start), "output": options.output},
            progress=sys.stderr.isatty() or None,
        )
        async with pages:
            output = await pages.aopen(options.output)
            async for address, page in pages:
                await pages.aadd_many(page.links)
                if page.is_redirect:
                    pages.skip("redirect")
                    continue
                row = {"url": address, "title": page.title, "text": page.text}
                output.write(json.dumps(row, ensure_ascii=False) + "\n")
    return pages.session.state


def summarize(state: milepost.SessionState, output: str) -> int:
    """Tells what came of it; the exit code is 3 where addresses are left that failed."""
    sums = state.session_statistics
    print(f"{sums.total_items_processed:,} pages in {output}")
    failed = state.failed_batches.get(0)
    known = failed.partial_progress if failed else state.completed_batches[0].progress
    left_out = [
        item.error_message or ""
        for item in (known.finished.values() if known else ())
        if item.status is milepost.ItemStatus.SKIPPED
    ]
    counts = sorted(Counter(left_out).items(), key=lambda each: (-each[1], each[0]))
    reasons = [f"{count:,} for {why}" for why, count in counts]
    print(f"{sums.total_items_skipped:,} left out: {', '.join(reasons) or 'none'}")
    if failed:
        print(f"{sums.total_items_failed:,} failed; the same command tries them again")
    return 3 if failed else 0


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(description="Crawls a site into a JSON Lines file.")
    parser.add_argument("url", type=URL, help="where to start; only this host is crawled")
    parser.add_argument("--delay", type=float, default=1.0, help="seconds between requests (1)")
    parser.add_argument("--workers", type=int, default=4, help="requests under way at once (4)")
    parser.add_argument("--output", default="pages.jsonl", help="the file (pages.jsonl)")
    parser.add_argument("--agent", default="milepost-example", help="who asks, for robots.txt")
    options = parser.parse_args()
    if options.url.scheme not in {"http", "https"} or not options.url.host:
        parser.error(f"{options.url} is no address to start at; write it as https://example.org/")
    start = plain(options.url)
    try:
        state = asyncio.run(crawl(start, options))
    except milepost.MilepostError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        print(f"crawl: {error}{hint}", file=sys.stderr)
        return 1
    except (aiohttp.ClientError, TimeoutError) as error:  # of robots.txt; those of pages are kept
        print(f"crawl: no robots.txt, so nothing is fetched: {error!r}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # all is saved, and it was said
        return 130
    return summarize(state, options.output)


if __name__ == "__main__":
    sys.exit(main())
