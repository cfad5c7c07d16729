"""`milepost unlock NAME`: take a session from a writer that is surely gone."""

from __future__ import annotations

from typing import Any

import click

import milepost
from milepost_cli import describe, next_steps, options, output, page


@click.command(short_help="Take a session at once from a host that is gone.")
@click.argument("name")
@options.store
@options.as_json
def command(name: str) -> None:
    """Take session NAME at once from a writer on another host, without waiting for its silence.

    A writer on this host that lives is never shut out: stop its process instead. One on another
    host that lives after all is told so at its next durable acknowledgement, and what it writes
    from here on does not count. With --json one object: name, unlocked, holder, next_command;
    holder has host, pid, since, epoch, presence and alive, as far as they are known.
    """
    store = milepost.Store(options.store_path())
    holder = store.view(name).writer
    try:
        was_locked = store.unlock(name)
    except milepost.AlreadyLockedError as error:
        _say_whom_to_stop(error)
        raise
    again = next_steps.next_command(store, store.view(name), store_option=options.store_path())
    if options.json_wanted():
        told = describe.writer(holder)
        output.document(
            {"name": name, "unlocked": was_locked, "holder": told, "next_command": again}
        )
        return
    output.say(f"{output.safe(name)}: {_words(holder, was_locked=was_locked)}")
    if again:
        for line in page.next_lines(again):
            output.say(line)


def _say_whom_to_stop(error: milepost.AlreadyLockedError) -> None:
    if error.holder is not None:
        error.hint = f"it lives: stop process {error.holder['pid']} on {error.holder['host']}"


def _words(holder: dict[str, Any] | None, *, was_locked: bool) -> str:
    if not was_locked or holder is None:
        return "nothing to unlock, nobody holds it"
    since = output.clock(output.iso(holder["since"]))
    who = f"process {holder['pid']} on {output.safe(holder['host'])}"
    return f"unlocked; it was held by {who} since {since}"
