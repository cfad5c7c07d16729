"""`milepost retry NAME [KEY…]`: put what failed back to pending."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import milepost
from milepost_cli import next_steps, options, output, page

if TYPE_CHECKING:
    from collections.abc import Iterable


@click.command(short_help="Put what failed back to pending, with fresh attempts.")
@click.argument("name")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option(
    "--error-type",
    type=click.Choice([milepost.label(kind) for kind in milepost.BatchErrorType]),
    help="Only what failed with an error of this kind.",
)
@options.store
@options.as_json
def command(name: str, *, keys: tuple[str, ...], error_type: str | None) -> None:
    """Put the failed batches and items of session NAME back to pending, with fresh attempts.

    Each KEY is that of a batch or an item; without one, all that failed is put back, also what was
    judged beyond help. What was completed stays completed. Then run the program again. With --json
    one object: name, batches, items, next_command.
    """
    store = milepost.Store(options.store_path())
    state = store.load_progress(name)
    kind = None if error_type is None else milepost.BatchErrorType[error_type.upper()]
    result = store.retry(name, keys=_meant(state, keys) if keys else None, error_type=kind)
    again = next_steps.run_again(store.load_progress(name), store_option=options.store_path())
    if options.json_wanted():
        output.document({"name": name, **milepost.plain(result), "next_command": again})
        return
    if not result.batches and not result.items:
        output.say(f"{output.safe(name)}: nothing failed, nothing to put back")
        return
    batches = output.counted(len(result.batches), "batch")
    items = output.counted(result.items, "failed item")
    output.say(f"{output.safe(name)}: put back to pending: {batches} with {items}")
    for line in page.next_lines(again):
        output.say(line)


def _meant(state: milepost.SessionState, typed: Iterable[str]) -> list[milepost.Key]:
    """Typed keys as the session has them: `5` may be the text or the number."""
    known: set[milepost.Key] = set()
    for failed in state.failed_batches.values():
        known |= {failed.batch_id, *failed.partial_progress.open}
    for batch in (*state.active_batches.values(), *state.pending_batches.values()):
        known |= {batch.batch_id, *batch.open}
    meant: list[milepost.Key] = []
    for word in typed:
        both = [word, *([int(word)] if output.is_number(word) else [])]
        meant += [key for key in both if key in known] or [word]
    return meant
