"""`milepost log NAME`: what happened, one event a line."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import click

import milepost
from milepost_cli import describe, exit_codes, options, output, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@click.command(short_help="Print the events of a session in plain words, one a line.")
@click.argument("name")
@click.option(
    "--limit", "-n", type=click.IntRange(min=0), metavar="N", help="Only the latest N events."
)
@options.store
@options.as_json
def command(name: str, *, limit: int | None) -> int:
    """Print what happened in session NAME: time, number and what it was, the oldest first.

    It reaches back as far as journals are kept. With --json one object a line, as in the journal:
    event, sequence, at, batch, batch_key and the event's own fields.
    """
    store = milepost.Store(options.store_path())
    view = store.view(name)
    events: Iterable[dict[str, Any]] = _told(store.events(name), view.state)
    if limit is not None:
        events = deque(events, maxlen=limit)
    as_json = options.json_wanted()
    for fields in events:
        if as_json:
            output.document(fields)
            continue
        sentence = words.describe(fields, fields["batch_key"] or "")
        output.say(
            f"{output.clock(fields['at'])}  {fields['sequence']:>7}  {output.safe(sentence)}"
        )
    if not describe.is_damaged(view):
        return exit_codes.FINE
    output.flush()
    raise describe.damage(name, view, store_option=options.store_path())


def _told(
    events: Iterable[milepost.BatchEvent], state: milepost.SessionState
) -> Iterator[dict[str, Any]]:
    """Events as plain objects, with the keys of their batches."""
    keys: dict[int, str] = {}
    for event in events:
        fields: dict[str, Any] = milepost.plain(event)
        number = fields.pop("batch")
        if fields["event"] == "BatchStarted":
            keys[number] = fields["key"]
        key = keys.get(number) or describe.batch_key(state, number)
        yield {
            "event": fields.pop("event"),
            "sequence": fields.pop("sequence"),
            "at": output.iso_ns(fields.pop("at_ns")),
            "batch": number if number >= 0 else None,
            "batch_key": key if number >= 0 else None,
            **fields,
        }
