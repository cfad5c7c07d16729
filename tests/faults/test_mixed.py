"""Loops and maps of all shapes, in turn over one session of work that grows, left and gone on with.

What is in the source is found on the way, too, and some sources lose items from run to run; items
fail, are skipped and put back. Whatever comes after what: nothing is given out that is done,
nothing twice in a run, and in the end all is done that the last source has or that ever was found.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import ItemStatus
from milepost.session.aside import wait_for_left

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIXES = int(os.environ.get("MILEPOST_TEST_MIXES", "12"))
"""How many sessions are gone through; `make crash` asks for more."""
RUNS = 10
SHAPES = ["loop", "generator", "chunk", "map", "map of a generator", "async map"]


class Mix:
    """One session, and what is known of its work."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.rng = rng
        self.store = milepost.Store(
            folder,
            # Some keep the details of a few items alone.
            tracker=milepost.TrackerConfig(max_detailed_progress_items=rng.choice([2, 1_000])),
        )
        everything = [f"page {number}" for number in range(rng.randint(3, 40))]
        self.links = {
            page: rng.sample(everything, rng.randint(0, min(4, len(everything))))
            for page in everything
        }
        self.source = rng.sample(everything, rng.randint(1, len(everything)))
        self.failing = rng.random() * 0.3
        self.losing = rng.choice([0, 0.9])
        self.done: Counter[str] = Counter()
        self.given: list[str] = []
        self.found: set[str] = set()

    def body(self, items: Any, page: str) -> None:
        """Work on a page: note its links, and fail or leave it out at times."""
        self.given.append(page)
        assert not items.session.batch(0).is_done(page), "it is done"
        self.add(items, self.links[page])
        chance = self.rng.random()
        if chance < self.failing:
            items.fail(TimeoutError("it took too long"), key=page)
            return
        if chance < self.failing + 0.05:
            items.skip("not this one", key=page)
        self.done[page] += 1

    def add(self, items: Any, pages: list[str]) -> None:
        self.found.update(pages)
        items.add_many(pages)

    def fetch(self, page: str) -> str:
        if self.rng.random() < self.failing:
            raise ConnectionError("the line was lost")
        return page

    async def fetch_async(self, page: str) -> str:
        await asyncio.sleep(0)
        return self.fetch(page)

    def run(self, shape: str, stop: int | None) -> None:
        """One run, up to so many pages."""
        self.given.clear()
        kept = [page for page in self.source if self.rng.random() >= self.losing]
        source: Any = kept
        if "generator" in shape:
            source = (page for page in kept)
        options: dict[str, Any] = {"store": self.store, "progress": False}
        if "map" in shape:
            options |= {"workers": self.rng.randint(1, 6), "attempts": self.rng.randint(1, 3)}
            options |= {"backoff": milepost.Backoff(first_seconds=0.0005), "give_up_after": 0}
            function: Callable[..., Any] = self.fetch_async if "async" in shape else self.fetch
            mapped: Any = milepost.map  # with options of all kinds
            items = mapped(function, source, "mixed", **options)
        else:
            options["chunk"] = self.rng.randint(1, 5) if shape == "chunk" else None
            resumed: Any = milepost.resume
            items = resumed(source, "mixed", **options)
        if self.rng.random() < 0.3:
            self.add(items, self.rng.sample(list(self.links), 2))
        if "async" in shape:
            asyncio.run(self._go_async(items, stop))
        else:
            for each in items:
                if stop is not None and len(self.given) >= stop:
                    break
                pages: list[str] = each
                if shape != "chunk":
                    pages = [each[0] if "map" in shape else each]
                for page in pages:
                    self.body(items, page)
        items.close()
        wait_for_left()

    async def _go_async(self, items: Any, stop: int | None) -> None:
        async for page, _ in items:
            if stop is not None and len(self.given) >= stop:
                break
            self.body(items, page)


@pytest.mark.parametrize("seed", range(MIXES))
def test_shapes_in_turn(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    mix = Mix(tmp_path, rng)
    for _ in range(RUNS):
        mix.run(rng.choice(SHAPES), rng.choice([None, None, rng.randint(0, 10)]))
        assert max(Counter(mix.given).values(), default=0) <= 1, "it was given out twice"
        assert not [
            each for each in milepost.check(mix.store.load_progress("mixed")) if each.is_error
        ]
    mix.failing = mix.losing = 0
    mix.source = rng.sample(mix.source, rng.randint(0, len(mix.source)))
    for _ in range(3):  # what was put back may find more
        mix.store.retry("mixed")
        mix.run(rng.choice(SHAPES), None)

    state = mix.store.load_progress("mixed")
    assert list(state.completed_batches) == [0]
    progress = state.completed_batches[0].progress
    assert progress is not None
    finished = {page for page in mix.links if progress.is_done(page)}
    assert mix.done == Counter(finished), "each once, and those alone"
    assert mix.found | set(mix.source) <= finished
    # What else was ever in hand, no source has any more, and nobody found it.
    left = {page for page in mix.links if progress.status_of(page) is not None} - finished
    assert not [page for page in left if progress.open[page].is_added]
    assert {progress.status_of(page) for page in left} <= {ItemStatus.PENDING}
