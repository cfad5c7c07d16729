"""The region job brings in every place, whatever the API does and whenever it is killed."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.scripts import EXAMPLES, command, kill_when, load_script, run, started, state_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

gov_api = load_script(EXAMPLES / "gov_api.py")

STORE = ".milepost"
OUTPUT = "places.jsonl"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first dozen regions."""
    path = tmp_path_factory.mktemp("data") / "regions.tsv"
    lines = (EXAMPLES / "data" / "regions.tsv").read_text("utf-8").splitlines(keepends=True)
    starts = [index for index, line in enumerate(lines) if len(line.partition("\t")[0]) == 5]
    path.write_text("".join(lines[: starts[12]]), "utf-8")
    return path


@pytest.fixture
def api(data: Path) -> Iterator[Any]:
    """An API that fails one call in seven; this seed has every kind, and no region fails twice."""
    with gov_api.GovApi(path=data, fail=0.15, seed=18) as running:
        yield running


@pytest.fixture
def good_api(data: Path) -> Iterator[Any]:
    """An API that never fails."""
    with gov_api.GovApi(path=data) as running:
        yield running


@contextmanager
def held_after(api: Any, calls: int) -> Generator[None]:
    """Lets so many calls of the API through and holds the others until the block is left."""
    gate, numbers, admit = threading.Event(), itertools.count(), api.admit

    def hold(target: str) -> Any:
        if next(numbers) >= calls:
            gate.wait()
        return admit(target)

    api.admit = hold
    try:
        yield
    finally:
        api.admit = admit
        gate.set()


def ids(api: Any) -> set[str]:
    return {place.id for region in api.regions.values() for place in region.places}


def written(folder: Path) -> Counter[str]:
    lines = (folder / OUTPUT).read_text("utf-8").splitlines()
    return Counter(json.loads(line)["id"] for line in lines)


def test_every_place_comes_once_though_calls_fail(tmp_path: Path, api: Any) -> None:
    done = run(command("places.py"), tmp_path, PLACES_API=api.url)
    assert done.returncode == 0, done.stderr
    assert written(tmp_path) == dict.fromkeys(ids(api), 1)

    # The failures were there, and what was said of the calls is what the API saw.
    failures = api.stats()["failures"]
    assert all(failures.values()), failures
    state = state_of(tmp_path / STORE, "places")
    assert len(state.completed_batches) == len(api.regions)
    metrics = [batch.performance_metrics for batch in state.completed_batches.values()]
    counted = sum(each.network_requests_count for each in metrics if each is not None)
    listing = 1  # the regions fit on one page, and its first call succeeds with this seed
    assert counted == api.stats()["calls"] - listing

    calls = api.stats()["calls"]
    again = run(command("places.py"), tmp_path, PLACES_API=api.url)
    assert again.returncode == 0, again.stderr
    assert "complete since" in again.stderr
    assert api.stats()["calls"] == calls


def test_a_killed_run_carries_on(tmp_path: Path, good_api: Any) -> None:
    everything = ids(good_api)
    with (
        held_after(good_api, 15),  # so the job cannot end before it is killed
        started(command("places.py"), tmp_path, PLACES_API=good_api.url) as process,
    ):
        state = kill_when(
            process, tmp_path / STORE, "places", lambda state: state.total_items_processed >= 60
        )
    before = lines_so_far(tmp_path)
    done_before = state.total_items_processed
    in_hand = sum(batch.items_processing for batch in state.active_batches.values())
    assert 0 < done_before < len(everything)
    assert state.active_batches
    assert in_hand <= 4
    # A row is written before its place is acknowledged, and both within one call.
    assert done_before <= before <= done_before + in_hand

    done = run(command("places.py"), tmp_path, PLACES_API=good_api.url)
    assert done.returncode == 0, done.stderr
    assert "resumed after its process died" in done.stderr
    assert written(tmp_path) == dict.fromkeys(everything, 1)
    latest = state_of(tmp_path / STORE, "places").executions[-1]
    assert latest.items_processed == len(everything) - done_before


def lines_so_far(folder: Path) -> int:
    """How many whole lines an output has whose writer was killed."""
    return (folder / OUTPUT).read_bytes().count(b"\n")


def test_a_row_that_nobody_acknowledged_is_cut_off(tmp_path: Path, good_api: Any) -> None:
    with (
        held_after(good_api, 15),
        started(command("places.py"), tmp_path, PLACES_API=good_api.url) as process,
    ):
        kill_when(process, tmp_path / STORE, "places", lambda state: state.items_finished >= 60)
    with (tmp_path / OUTPUT).open("a", encoding="utf-8") as output:
        output.write('{"region": "서울", "id": "1111010100"}\n{"region": "' + "종" * 40_000)
    done = run(command("places.py"), tmp_path, PLACES_API=good_api.url)
    assert done.returncode == 0, done.stderr
    assert written(tmp_path) == dict.fromkeys(ids(good_api), 1)


def test_a_file_of_something_else_is_left_alone(tmp_path: Path, good_api: Any) -> None:
    (tmp_path / OUTPUT).write_text("mine\n", "utf-8")
    done = run(command("places.py"), tmp_path, PLACES_API=good_api.url)
    assert done.returncode == 1  # no batch is to blame, so none is failed
    assert f"the output {tmp_path / OUTPUT} has 5 bytes" in done.stderr
    assert (tmp_path / OUTPUT).read_text("utf-8") == "mine\n"


def test_regions_that_fail_every_time_are_told_and_tried_again(tmp_path: Path, data: Path) -> None:
    with gov_api.GovApi(path=data, fail=0.5, seed=2) as api:
        first = run(command("places.py"), tmp_path, PLACES_API=api.url)
        everything = ids(api)
        state = state_of(tmp_path / STORE, "places")
    assert first.returncode == 3, first.stderr
    assert len(state.failed_batches) == 1
    assert len(state.completed_batches) == 11
    with gov_api.GovApi(path=data) as api:
        second = run(command("places.py"), tmp_path, PLACES_API=api.url)
    assert second.returncode == 0, second.stderr
    assert written(tmp_path) == dict.fromkeys(everything, 1)


def test_the_command_line_runs_it(tmp_path: Path, good_api: Any) -> None:
    words = [sys.executable, "-m", "milepost_cli", "run", str(EXAMPLES / "places.py")]
    output = str(tmp_path / "elsewhere.jsonl")
    store = tmp_path / "store"
    done = run(
        words,
        tmp_path,
        PLACES_API=good_api.url,
        PLACES_OUTPUT=output,
        MILEPOST_STORE=str(store),
    )
    assert done.returncode == 0, done.stderr
    assert state_of(store, "places").total_items_processed == len(ids(good_api))
    assert len(Path(output).read_text("utf-8").splitlines()) == len(ids(good_api))
