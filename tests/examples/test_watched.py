"""The examples come to their end under a watcher, however often they are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import milepost
from support.scripts import EXAMPLES, command, load_script

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")

KILLS = 4
gov_api = load_script(EXAMPLES / "gov_api.py")


@contextmanager
def watching(folder: Path, *targets: str, **environment: str) -> Generator[None]:
    """A watcher over the store of this folder."""
    with (folder / "watcher.txt").open("wb") as output:
        watcher = subprocess.Popen(
            [sys.executable, "-m", "milepost_cli", "recover", *targets, "--watch"],
            cwd=folder,
            env={
                **os.environ,
                "MILEPOST_RECOVERY_DELAY_SECONDS": "0",
                "MILEPOST_MAX_RECOVERY_ATTEMPTS": "1000",
                **environment,
            },
            stdout=output,
            stderr=output,
        )
        try:
            yield
        finally:
            watcher.terminate()
            watcher.wait(timeout=60)


def started_and_killed(words: list[str], folder: Path, done: Callable[[], int], **env: str) -> None:
    process = subprocess.Popen(
        words, cwd=folder, env={**os.environ, **env}, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: done() > 0)
    process.kill()
    process.wait()


def wait_until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def kill_again_and_again(store: milepost.Store, name: str, done: Callable[[], int]) -> None:
    rng = random.Random(7)
    for _ in range(KILLS):
        wanted = done() + rng.randrange(1, 60)
        wait_until(lambda wanted=wanted: done() >= wanted or _has_ended(store, name))  # type: ignore[misc]
        writer = store.view(name).writer
        if writer is not None and writer["alive"]:
            os.kill(writer["pid"], signal.SIGKILL)
    wait_until(lambda: _has_ended(store, name))


def _has_ended(store: milepost.Store, name: str) -> bool:
    return store.view(name).judgement.status is milepost.SessionStatus.COMPLETED


def finished(store: milepost.Store, name: str) -> Callable[[], int]:
    def count() -> int:
        known = store.exists() and name in store.names()
        return store.load_progress(name).items_finished if known else 0

    return count


def test_the_region_job_is_carried_on_to_its_end(tmp_path: Path) -> None:
    lines = (EXAMPLES / "data" / "regions.tsv").read_text("utf-8").splitlines(keepends=True)
    starts = [index for index, line in enumerate(lines) if len(line.partition("\t")[0]) == 5]
    data = tmp_path / "regions.tsv"
    data.write_text("".join(lines[: starts[12]]), "utf-8")
    store = milepost.Store(tmp_path / ".milepost")
    done = finished(store, "places")
    with gov_api.GovApi(path=data, delay=0.02) as api:
        environment = {"PLACES_API": api.url}
        target = str(EXAMPLES / "places.py")
        first = [sys.executable, "-m", "milepost_cli", "run", target]
        started_and_killed(first, tmp_path, done, **environment)
        with watching(tmp_path, target, **environment):
            kill_again_and_again(store, "places", done)
        expected = {place.id for region in api.regions.values() for place in region.places}
    rows = (tmp_path / "places.jsonl").read_text("utf-8").splitlines()
    assert Counter(json.loads(row)["id"] for row in rows) == dict.fromkeys(expected, 1)


def test_the_ordinary_script_is_carried_on_to_its_end(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{number} 종로구\n" for number in range(60_000)), "utf-8")
    words = [*command("embeddings.py", "text.txt", "vectors")]
    table = f'[[recover]]\nsession = "embeddings"\ncommand = {json.dumps(words)}\n'
    (tmp_path / "milepost.toml").write_text(table, "utf-8")
    store = milepost.Store(tmp_path / ".milepost")
    done = finished(store, "embeddings")
    started_and_killed(words, tmp_path, done)
    with watching(tmp_path):
        kill_again_and_again(store, "embeddings", done)
    assert (tmp_path / "vectors").stat().st_size == 60_000 * 4 * 64
