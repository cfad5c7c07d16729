"""A user's mistakes: never run, only checked. mypy must object to every line that is marked.

(`warn_unused_ignores` makes a mark without an error an error.)
"""

from __future__ import annotations

import milepost

store = milepost.Store("checkpoints")

store.session("crawl", durability="hope")  # type: ignore[arg-type]
store.session("crawl", "process")  # type: ignore[call-arg, arg-type]
milepost.resume(["a"], "crawl", when_complete="again")  # type: ignore[call-overload]
milepost.resume(["a"], "crawl", key=lambda item: [item])  # type: ignore[arg-type, return-value]
milepost.resume(7, "crawl")  # type: ignore[call-overload]
number: int = store.load_state("settings", type=str)  # type: ignore[assignment]
milepost.job("crawl")  # type: ignore[call-arg]
milepost.job("crawl", batches=None)  # type: ignore[arg-type]
milepost.job("crawl", batches=["a"], plan="melted")  # type: ignore[arg-type]


@milepost.job("crawl", batches=["a"])
def crawl(batch: milepost.Batch) -> None:
    """A job."""
    batch.update_item(1.5, milepost.ItemStatus.COMPLETED)  # type: ignore[arg-type]
    batch.update_item("a", "completed")  # type: ignore[arg-type]
    batch.items(["a"], key=lambda item: item.nothing)  # type: ignore[attr-defined]


crawl()  # type: ignore[call-arg]
crawl.run("checkpoints")  # type: ignore[call-arg]
crawl.run(workers="many")  # type: ignore[arg-type]
