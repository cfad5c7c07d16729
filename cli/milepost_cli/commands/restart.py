"""`milepost restart NAME`: begin the work anew."""

from __future__ import annotations

import click

import milepost
from milepost_cli import describe, next_steps, options, output, page


@click.command(short_help="Begin a session anew, as a new version; older versions stay.")
@click.argument("name")
@options.dry_run
@options.store
@options.as_json
def command(name: str, *, dry_run: bool) -> None:
    """Begin session NAME anew: nothing counts as done any more, and the plan is asked for again.

    What was done stays in the older versions, as long as they are kept. With --json one object:
    name, dry_run, version (of what is given up), new_version, move_away (files with the rows of
    before), next_command, undo_command.
    """
    store = milepost.Store(options.store_path())
    view = store.view(name)
    made = None if dry_run else store.restart(name)
    saved, before, after, left = view.version, view.state, view.state, list[str]()
    if made is not None:
        # What is given up is what it was when its turn began: another writer may have got on.
        saved = next_steps.version_before(store.versions(name), made)
        if saved != made:  # or no older version is kept
            before = store.load_progress(name, saved)
        after = store.load_progress(name, made)
        left = describe.left_behind(store, before, after)
    again = next_steps.run_again(after, store_option=options.store_path())
    undo = next_steps.command("restore", name, str(saved), store_option=options.store_path())
    if options.json_wanted():
        output.document(
            {
                "name": name,
                "dry_run": dry_run,
                "version": saved,
                "new_version": made,
                "move_away": left,
                "next_command": again,
                "undo_command": None if dry_run else undo,
            }
        )
        return
    done = page.progress_words(describe.counts(before))
    if dry_run:
        output.say(f"{output.safe(name)}: would begin anew, giving up: {done}")
        return
    output.say(f"{output.safe(name)}: begun anew as version {made}; given up: {done}")
    for line in page.next_lines(again, left):
        output.say(line)
    output.say(f"undo: {output.safe(undo)}")
