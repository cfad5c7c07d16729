"""`milepost restart NAME`: begin the work anew."""

from __future__ import annotations

import os

import click

import milepost
from milepost_cli import describe, options, output, page


@click.command(short_help="Begin a session anew, as a new version; older versions stay.")
@click.argument("name")
@options.dry_run
@options.store
@options.as_json
def command(name: str, *, dry_run: bool) -> None:
    """Begin session NAME anew: nothing counts as done any more, and the plan is asked for again.

    What was done stays in the older versions, as long as they are kept. With --json one object:
    name, dry_run, version (of what is given up), new_version, next_command, undo_command.
    """
    store = milepost.Store(options.store_path())
    view = store.view(name)
    again = describe.run_again(view.state, store_option=options.store_path())
    made = None if dry_run else store.restart(name)
    saved = view.version if made is None else describe.version_before(store.versions(name), made)
    undo = describe.command("restore", name, str(saved), store_option=options.store_path())
    if options.json_wanted():
        output.document(
            {
                "name": name,
                "dry_run": dry_run,
                "version": saved,
                "new_version": made,
                "next_command": again,
                "undo_command": None if dry_run else undo,
            }
        )
        return
    done = page.progress_words(describe.counts(view.state))
    if dry_run:
        output.say(f"{output.safe(name)}: would begin anew, giving up: {done}")
        return
    output.say(f"{output.safe(name)}: begun anew as version {made}; given up: {done}")
    for path, rows in view.state.outputs.items():
        if rows.length_bytes:
            full = os.path.normpath(os.path.join(store.path, path))
            output.say(f"move away first, it has the rows of before: {output.safe(full)}")
    output.say(f"next: {output.safe(again or 'run the program again')}")
    output.say(f"undo: {output.safe(undo)}")
