"""Collects all places of all regions on a Dask cluster, and shows that it survives its parts.

    pip install "milepost[dask]"
    python examples/cluster.py                      # the demonstration: see `main`
    python examples/gov_api.py &                    # or by hand: the API,
    dask scheduler & dask worker 127.0.0.1:8786 &   # a cluster,
    milepost run examples/cluster.py --executor dask://127.0.0.1:8786

A batch is a region. A worker of the cluster fetches the places of one, writes them into a file of
their own, whole or not at all, and returns what became of each. Only the process that was started
here writes to the store. `PLACES_API` and `PLACES_FOLDER` say where the API is and where the files
go; the workers see them as this process does.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import milepost

if TYPE_CHECKING:
    from collections.abc import Iterator

API = os.environ.get("PLACES_API", "http://127.0.0.1:8765")
FOLDER = os.environ.get("PLACES_FOLDER", "places")
PAGE_SIZE = 20
PATIENCE_SECONDS = 180.0
RUNS_MAX = 6


def pages(path: str) -> Iterator[dict[str, Any]]:
    """All items of a listing, page by page. Refusals and broken connections raise."""
    for page in itertools.count(1):
        url = f"{API}{path}?page={page}&size={PAGE_SIZE}"
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - the user names the API
            listing: dict[str, Any] = json.load(response)
        yield from listing["items"]
        if page * listing["size"] >= listing["totalCount"]:
            return


def list_regions() -> list[dict[str, Any]]:
    """Lists the batches, patiently: it runs once, before the first of them."""
    for attempt in itertools.count(1):
        try:
            return list(pages("/regions"))
        except OSError:
            if attempt == 10:
                raise
            time.sleep(0.1 * attempt)
    raise AssertionError("count never ends")


@milepost.job(
    "places-on-a-cluster", batches=list_regions, key=lambda region: region["code"], attempts=5
)
def ingest(batch: milepost.RemoteBatch) -> list[tuple[str, milepost.ItemStatus]]:
    """Writes the places of one region; it runs on a worker, and says what became of them."""
    rows = list(pages(f"/regions/{batch.key}/places"))
    folder = Path(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{batch.key}.{os.getpid()}.part"
    part.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    part.replace(folder / f"{batch.key}.jsonl")
    return [(row["id"], milepost.ItemStatus.COMPLETED) for row in rows]


# The demonstration: the API, a cluster of two worker processes, and the job, each of its own.


def say(text: str) -> None:
    """Tells whoever watches."""
    print(text, flush=True)


def fetched(store: Path) -> int:
    """How many places the store counts as done."""
    try:
        return milepost.Store(store).load_progress("places-on-a-cluster").total_items_processed
    except LookupError:  # so early that there is none
        return 0


def wait_for(count: int, store: Path, process: subprocess.Popen[bytes]) -> None:
    """Until so many places are done, while the job lives."""
    until = time.monotonic() + PATIENCE_SECONDS
    while fetched(store) < count:
        if process.poll() is not None:
            raise SystemExit(f"the job ended by itself, with {process.returncode}")
        if time.monotonic() > until:
            raise SystemExit(f"fewer than {count:,} places after {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.05)


def started(address: str, store: Path) -> subprocess.Popen[bytes]:
    """The job in a process of its own: the coordinator, who alone writes the store."""
    words = ["run", str(Path(__file__).resolve()), "--executor", f"dask://{address}"]
    command = [sys.executable, "-m", "milepost_cli", *words, "--workers", "8", "-s", str(store)]
    return subprocess.Popen(command)  # noqa: S603 - our own command


def main() -> int:
    """Kills a worker and then the coordinator, runs it again, and counts what is there."""
    import distributed  # noqa: PLC0415 - only the demonstration needs it

    examples = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory(prefix="milepost-cluster-") as temporary:
        work = Path(temporary)
        store, port = work / "checkpoints", work / "port"
        options = ["--port", "0", "--port-file", str(port), "--fail", "0.01", "--delay-ms", "5"]
        command = [sys.executable, str(examples / "gov_api.py"), *options]
        api = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - our own script
        try:
            while not port.exists():
                time.sleep(0.05)
            os.environ["PLACES_API"] = f"http://127.0.0.1:{port.read_text().strip()}"
            os.environ["PLACES_FOLDER"] = str(work / "places")
            make: Any = distributed.LocalCluster
            cluster = make(
                n_workers=2, threads_per_worker=2, host="127.0.0.1", dashboard_address=None
            )
            with cluster, cluster.get_client() as client:
                return demonstrate(client, store, work / "places")
        finally:
            api.kill()
            api.wait()


def demonstrate(client: Any, store: Path, folder: Path) -> int:
    """The story itself; 0 if nothing is missing at its end."""
    address: str = client.scheduler.address.removeprefix("tcp://")
    say(f"1. A cluster of two worker processes at {address}; the job begins.")
    job = started(address, store)
    wait_for(2_000, store, job)
    workers: dict[str, int] = client.run(os.getpid)
    victim = next(iter(workers.values()))
    os.kill(victim, signal.SIGKILL)
    say(f"2. kill -9 of worker process {victim}, at {fetched(store):,} places: the job goes on.")
    wait_for(7_000, store, job)
    job.kill()
    job.wait()
    say(f"3. kill -9 of the job itself, process {job.pid}, at {fetched(store):,} places.")
    exit_code = 3
    for _ in range(RUNS_MAX):
        # 3 is said of regions that the API failed in every try; a later run tries them again.
        if exit_code == 3:
            say("4. The same command again.")
            exit_code = started(address, store).wait()
    state = milepost.Store(store).load_progress("places-on-a-cluster")
    rows = [row for file in sorted(folder.glob("*.jsonl")) for row in file.read_text().splitlines()]
    ids = {json.loads(row)["id"] for row in rows}
    done = state.total_items_processed
    say(f"5. Exit code {exit_code}: {done:,} places done, {len(rows):,} rows, {len(ids):,} ids.")
    return exit_code or int(not done == len(rows) == len(ids))


if __name__ == "__main__":
    sys.exit(main())
