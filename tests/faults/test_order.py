"""Every moment of a run as a crash could leave it: the order of what was acknowledged holds.

A run is recorded call by call. Each state between two calls is laid out as kill -9 leaves it, as a
power cut leaves it, and with some of what was not synced, of the journal and of the outputs apart.

- A link that a body added is there wherever the item that it was found in counts as done.
- When the work is taken up again, the outputs have the rows of the done items, each once, and in
  the end those of all items.

The same where a call fails or is interrupted instead, and the work is run again in the same
process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import milepost
from faults.test_shapes import unpacked
from milepost.storage.directory import LocalDirectory
from support.faults import Faults, Moments, PowerCut, lay_out

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from milepost.storage.syscalls import Syscalls
    from support.faults import Fault, Survives

MOMENTS = int(os.environ.get("MILEPOST_TEST_MOMENTS", "20"))
"""How many moments of each run are looked at; `make crash` asks for more."""
COUNT = 48
CHUNK = 5
WORKERS = 8
OUTPUTS = ("plain.txt", "packed.gz", "packed.zst")
FATES: tuple[Survives, ...] = ("all", "synced", "some", "some")


def store_at(root: Path, system: Syscalls) -> milepost.Store:
    """It syncs and takes snapshots all the time, so that the run has moments of every kind."""
    return milepost.Store(
        directory=LocalDirectory(str(root / "store"), system=system),
        config=milepost.StoreConfig(max_state_history=2),
        tracker=milepost.TrackerConfig(
            checkpoint_interval_seconds=0.02, sync_interval_seconds=0.002
        ),
        recovery=milepost.RecoveryConfig(max_recovery_attempts=1_000_000),
    )


def links(number: int) -> list[int]:
    return [each for each in (2 * number + 1, 2 * number + 2) if each < COUNT]


def crawl(root: Path, store: milepost.Store, durability: milepost.Durability) -> None:
    """Links found on the way by eight threads; rows from the functions and from the body."""

    def fetch(number: int) -> list[int]:
        if number % 2:
            outputs[number % 3].write(f"{number}\n")
        return links(number)

    mapped = milepost.map(
        fetch, [0], "work", workers=WORKERS, store=store, durability=durability, progress=False
    )
    outputs = [mapped.open(root / name) for name in OUTPUTS]
    for number, found in mapped:
        mapped.add_many(found)
        if not number % 2:
            outputs[number % 3].write(f"{number}\n")


def chunks(root: Path, store: milepost.Store, durability: milepost.Durability) -> None:
    """Lists of items that are known by their position."""
    items = milepost.resume(
        list(range(COUNT)),
        "work",
        chunk=CHUNK,
        key="position",
        store=store,
        durability=durability,
        progress=False,
    )
    outputs = [items.open(root / name) for name in OUTPUTS]
    for chunk in items:
        for number in chunk:
            outputs[number % 3].write(f"{number}\n")


def rows(root: Path) -> Counter[int]:
    found: Counter[int] = Counter()
    for name in OUTPUTS:
        if (root / name).exists():
            found.update(map(int, unpacked((root / name).read_bytes(), name)))
    return found


def done(store: milepost.Store, run: Callable[..., None]) -> set[int]:
    """What counts as done; on the way, whether what it led to is there."""
    if not store.exists() or "work" not in store.names():
        return set()
    view = store.view("work")
    assert not view.is_lossy, view.findings
    assert not [each for each in view.findings if each.is_error], view.findings
    found: set[int] = set()
    state = view.state
    for batch in (
        *state.active_batches.values(),
        *state.pending_batches.values(),
        *(each.progress for each in state.completed_batches.values() if each.progress is not None),
    ):
        found |= {number for number in range(COUNT) if batch.is_done(number)}
        if run is crawl:
            assert [n for each in found for n in links(each) if not batch.is_known(n)] == []
    return found


@pytest.mark.parametrize("durability", ["process", "disk", "buffered"])
@pytest.mark.parametrize("run", [crawl, chunks])
def test_every_moment_of_a_run(
    tmp_path: Path, run: Callable[..., None], durability: milepost.Durability
) -> None:
    root = tmp_path / "whole"
    root.mkdir()
    system = PowerCut(str(root))
    rng = random.Random(f"{run.__name__} {durability}")
    system.moments = Moments(MOMENTS, rng)
    run(root, store_at(root, system), durability)
    assert rows(root) == Counter(range(COUNT))

    for moment, state in sorted(system.moments.kept.items()):
        for number, survives in enumerate(FATES):
            place, seed = tmp_path / f"{moment}-{number}", rng.randrange(1 << 30)
            try:
                _crashed(state, place, survives, seed, run)
            except BaseException as error:
                error.add_note(f"crash at call {moment} of {system.count}, {survives=}, {seed=}")
                raise


def _crashed(
    state: bytes, place: Path, survives: Survives, seed: int, run: Callable[..., None]
) -> None:
    """Lay a crash out, take the work up again, and bring it to its end."""
    lay_out(state, str(place), survives, seed)
    # Nothing is synced: what comes after this crash is not what is looked at.
    store = store_at(place, Faults())
    acknowledged = done(store, run)
    if acknowledged:
        with store.session("work", execute=False) as session:
            for name in session.live.outputs:
                session.open_output(store.path + "/" + name, lambda: None)
            assert rows(place) == Counter(acknowledged)
    run(place, store, "process")
    assert rows(place) == Counter(range(COUNT))
    assert done(store, run) == set(range(COUNT))


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("fault", ["crash", "torn", "eio", "enospc"])
@pytest.mark.parametrize("run", [crawl, chunks])
def test_one_call_fails(tmp_path: Path, run: Callable[..., None], fault: Fault) -> None:
    """`crash` and `torn` are a Ctrl-C here, `torn` in the middle of a write."""
    (tmp_path / "whole").mkdir()
    counted = Faults()
    run(tmp_path / "whole", store_at(tmp_path / "whole", counted), "process")
    rng = random.Random(f"{run.__name__} {fault}")
    for at in sorted(rng.sample(range(len(counted.calls)), min(MOMENTS, len(counted.calls)))):
        place = tmp_path / str(at)
        place.mkdir()
        system = Faults(at=at, fault=fault, on_death=_interrupt)
        store = store_at(place, system)
        try:
            with contextlib.suppress(KeyboardInterrupt, milepost.MilepostError):
                run(place, store, "process")
            gc.collect()  # what an interrupted opening left in a cycle
            run(place, store_at(place, Faults()), "process")
            assert rows(place) == Counter(range(COUNT))
            assert done(store, run) == set(range(COUNT))
        except BaseException as error:
            error.add_note(
                f"{fault} at call {at}: {[*system.calls, None][min(at, len(system.calls))]}"
            )
            raise
