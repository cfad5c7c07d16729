"""The power goes at any call: what was not synced is gone, wholly or in parts, and the store opens.

Under `"disk"` nothing acknowledged is lost. Under any durability a batch's end, a checkpoint, a
snapshot, data and `flush` are there once their call returned, with all that came before them.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from support.faults import PowerCut, in_child
from support.workload import STEPS, Run, expected, go_on, look, store_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import milepost
    from support.workload import Seen

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="a power cut is played in a forked process"
)

DURABILITIES: tuple[milepost.Durability, ...] = ("process", "disk", "buffered")
CUTS = int(os.environ.get("MILEPOST_TEST_CUTS", "40"))
"""How many cut points of each kind are tried; `make crash` asks for more."""


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    return expected(str(tmp_path_factory.mktemp("clean") / "store"))


def _run_until_cut(
    path: str, durability: milepost.Durability, at: int | None, seed: int | None
) -> tuple[int, int]:
    """How many steps returned before the power went, and how many calls were made by then."""
    os.mkdir(path)

    def body(tell: Callable[[bytes], None]) -> None:
        system = PowerCut(path, at=at, seed=seed)
        run = Run(path, system, durability=durability)
        for step in STEPS:
            run.take(step)
            tell(f"{system.count}\n".encode())
        system.end()

    ended = in_child(body)
    assert (ended.signal, ended.code) == (0, 0)
    counts = ended.told.split()
    return len(counts), int(counts[-1]) if counts else 0


def _surely_kept(returned: int, durability: milepost.Durability) -> int:
    """After how many steps the state is surely on the disk."""
    if durability == "disk":
        return returned
    return max((i + 1 for i in range(returned) if STEPS[i].durable), default=0)


def _check_cut(path: str, wanted: list[Seen], kept: int, returned: int) -> None:
    store = store_at(path)
    seen = look(store)
    assert seen in wanted[kept : returned + 2] or (not seen and returned == 0)
    go_on(store)


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("is_torn", [False, True])
def test_power_cut_anywhere(
    tmp_path: Path, wanted: list[Seen], durability: milepost.Durability, *, is_torn: bool
) -> None:
    returned, calls = _run_until_cut(str(tmp_path / "whole"), durability, None, None)
    assert returned == len(STEPS)
    _check_cut(str(tmp_path / "whole"), wanted, returned, returned)
    rng = random.Random(f"{durability} {is_torn}")
    for at in sorted(rng.sample(range(calls), min(CUTS, calls))):
        seed = rng.randrange(1 << 30) if is_torn else None
        path = str(tmp_path / f"cut-{at}")
        returned, _ = _run_until_cut(path, durability, at, seed)
        kept = _surely_kept(returned, durability)
        try:
            _check_cut(path, wanted, kept, returned)
        except BaseException as error:
            error.add_note(f"cut at call {at} of {calls}, seed {seed}; {kept=}, {returned=}")
            raise


def test_the_double_forgets_what_was_not_synced(tmp_path: Path) -> None:
    """The double itself: bytes, names, renames and cuts need their own sync."""
    root = str(tmp_path / "root")
    os.mkdir(root)

    def body(_tell: Callable[[bytes], None]) -> None:
        power = PowerCut(root)
        for name in ("unsynced", "no-name", "both", "grown", "renamed", "gone"):
            descriptor = power.open_new(f"{root}/{name}")
            power.pwrite(descriptor, b"first", 0)
            if name != "unsynced":
                power.sync(descriptor)
            if name == "grown":
                power.pwrite(descriptor, b"more", 5)
            if name == "unsynced":
                power.sync_folder(root)
            if name == "no-name":
                power.rename(f"{root}/{name}", f"{root}/still-no-name")
        power.sync_folder(root)
        power.rename(f"{root}/renamed", f"{root}/new-name")
        power.remove(f"{root}/gone")
        power.remove(f"{root}/still-no-name")
        late = power.open_new(f"{root}/late")
        power.pwrite(late, b"late", 0)
        power.sync(late)
        power.end()

    assert in_child(body).code == 0
    found = {path.name: path.read_bytes() for path in (tmp_path / "root").iterdir()}
    assert found == {
        "unsynced": b"",
        "still-no-name": b"first",
        "both": b"first",
        "grown": b"first",
        "renamed": b"first",
        "gone": b"first",
    }
