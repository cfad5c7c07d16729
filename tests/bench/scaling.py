"""Measures what it costs to run an item elsewhere, and how large a task must be to be worth it.

    make bench-scaling
    python tests/bench/scaling.py --quick

- The function does nothing, so all that is measured is ours and the executor's: begin, hand over,
  come back, acknowledge. Beside each stands the executor alone, handed the same calls in the same
  run, at most as many at once; the ratio of the two is what the session adds.
- A coordinator that is busy for `c` seconds an item feeds `w` workers without keeping them waiting
  while `c * w` is small against the task. From `20 * c * w` on, it takes under 5 % of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections import deque
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import distributed

import milepost

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

WORKERS: Final = 2
SHARE_AIMED_AT: Final = 0.05


def nothing(item: int) -> int:
    """The work: none."""
    return item


def bare(executor: Executor, count: int) -> float:
    """Seconds an item, by the executor alone, with as many calls in flight as `map` has."""
    begun = time.perf_counter()
    flying: deque[Any] = deque()
    for item in range(count):
        flying.append(executor.submit(nothing, item))
        if len(flying) >= WORKERS:
            flying.popleft().result()
    for each in flying:
        each.result()
    return (time.perf_counter() - begun) / count


def mapped(executor: Executor | None, count: int) -> float:
    """Seconds an item, by `milepost.map` over the executor."""
    with tempfile.TemporaryDirectory() as folder:
        work = milepost.map(
            nothing,
            range(count),
            "nothing",
            workers=WORKERS,
            executor=executor,
            store=folder,
            progress=False,
        )
        next(work)  # the store is made, the pool is warm
        begun = time.perf_counter()
        for _ in work:
            pass
        return (time.perf_counter() - begun) / count


@contextlib.contextmanager
def dask() -> Generator[Executor]:
    """The executor of a cluster of two worker processes on this machine."""
    make: Any = distributed.LocalCluster
    cluster = make(
        n_workers=WORKERS, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    )
    with cluster, cluster.get_client() as client:
        yield client.get_executor(pure=False, retries=0)


KINDS: Final[list[tuple[str, Callable[[], contextlib.AbstractContextManager[Executor]], int]]] = [
    ("threads", lambda: ThreadPoolExecutor(WORKERS), 5_000),
    ("processes", lambda: ProcessPoolExecutor(WORKERS), 3_000),
    ("dask", dask, 1_000),
]


def main() -> None:
    """Measure each kind of executor in turn, several times, and print the medians."""
    parser = argparse.ArgumentParser(description="What an item elsewhere costs.")
    parser.add_argument("--quick", action="store_true", help="few items, two rounds")
    quick: bool = parser.parse_args().quick
    rounds = 2 if quick else 7
    print(f"an empty item over {WORKERS} workers, median of {rounds} rounds, ms:")
    print(f"  {'executor':<12}{'alone':>9}{'map':>9}{'ratio':>8}{'5 % from a task of':>22}")
    for name, make, count in KINDS:
        number = count // 20 if quick else count
        with make() as executor:
            bare(executor, number // 10 + 1)  # workers start, functions travel
            pairs = [(bare(executor, number), mapped(executor, number)) for _ in range(rounds)]
        alone, ours = (statistics.median(each) for each in zip(*pairs, strict=True))
        task = ours * WORKERS / SHARE_AIMED_AT
        ratio = statistics.median(mine / other for other, mine in pairs)
        print(
            f"  {name:<12}{alone * 1e3:>9.3f}{ours * 1e3:>9.3f}{ratio:>8.2f}"
            f"{task * 1e3:>14.1f} ms x {WORKERS}"
        )


if __name__ == "__main__":
    main()
