"""Collects all places of all regions from an open API into a JSON Lines file.

    python examples/gov_api.py --fail 0.05 &        # the API, slow and unreliable
    python examples/places.py                       # or: milepost run examples/places.py

A batch is a region, an item is a place. Kill it whenever you like and start it again: it carries on
from the exact place, and each place is in the file once. Settings come from the environment:
`PLACES_API` (where the API is), `PLACES_OUTPUT` (the file) and `MILEPOST_STORE` (the folder that
remembers what is done).
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import milepost

if TYPE_CHECKING:
    from collections.abc import Iterator

API = os.environ.get("PLACES_API", "http://127.0.0.1:8765")
OUTPUT = Path(os.environ.get("PLACES_OUTPUT", "places.jsonl"))
PAGE_SIZE = 20


def get(path: str, page: int) -> dict[str, Any]:
    """Asks the API once. Refusals and broken connections raise, as urllib has them."""
    url = f"{API}{path}?page={page}&size={PAGE_SIZE}"
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - the user names the API
        answer: dict[str, Any] = json.load(response)
    return answer


def get_patiently(path: str, page: int) -> dict[str, Any]:
    """Asks up to ten times."""
    for attempt in range(1, 10):
        try:
            return get(path, page)
        except OSError:  # urllib's errors are such, and those of sockets
            time.sleep(0.1 * attempt)
    return get(path, page)


def list_regions() -> Iterator[dict[str, Any]]:
    """Lists the batches. It runs once, before the first of them, so it does its own retrying."""
    for page in itertools.count(1):
        listing = get_patiently("/regions", page)
        yield from listing["items"]
        if page * listing["size"] >= listing["totalCount"]:
            return


def fetch_places(batch: milepost.Batch) -> Iterator[dict[str, Any]]:
    """Fetches the places of a region, page by page."""
    for page in itertools.count(1):
        batch.count(network_requests=1)
        listing = get(f"/regions/{batch.key}/places", page)
        yield from listing["items"]
        if page * listing["size"] >= listing["totalCount"]:
            return


@milepost.job(
    "places", batches=list_regions, key=lambda region: region["code"], workers=4, attempts=4
)
def ingest(batch: milepost.Batch) -> None:
    """Writes the places of one region.

    What raises is recorded. A refusal or a broken connection may pass, so the region is tried again
    after a while, without the places that are done. A row reaches the file when its place counts as
    done, so each place is there once.
    """
    region = batch.payload
    found = batch.items(fetch_places(batch), key=lambda place: place["id"], total=region["places"])
    with found as places:
        output = places.open(OUTPUT)
        for place in places:
            row = {"region": region["name"], **place}
            output.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(ingest.run(progress=True).exit_code)
