"""`milepost restore NAME [VERSION]`: make an older version the state again."""

from __future__ import annotations

import click

import milepost
from milepost_cli import describe, next_steps, options, output, page


@click.command(short_help="Make an older version of a session its state again.")
@click.argument("name")
@click.argument("version", type=click.IntRange(min=1), required=False)
@options.dry_run
@options.store
@options.as_json
def command(name: str, version: int | None, *, dry_run: bool) -> None:
    """Make VERSION of session NAME its state again, as a new version; no version is lost by it.

    In a damaged session this also accepts the loss; without VERSION, it goes on from all that is
    sure. With --json one object: name, dry_run, version, new_version, move_away (files with rows
    that it knows nothing of), next_command, undo_command.
    """
    store = milepost.Store(options.store_path())
    if version is None and not store.view(name).is_lossy:
        raise click.UsageError(
            f"nothing of session {name!r} is lost, so there is no loss to accept; to go back, name"
            " a VERSION"
        )
    old = store.load_progress(name, version)
    made = None if dry_run else store.restore(name, version)
    now = old if made is None else store.load_progress(name)
    again = next_steps.run_again(now, store_option=options.store_path())
    undo, left = None, list[str]()
    if made is not None and version is not None:  # a loss that was accepted stays one
        before = next_steps.version_before(store.versions(name), made)
        undo = next_steps.command("restore", name, str(before), store_option=options.store_path())
        left = describe.left_behind(store, store.load_progress(name, before), old)
    if options.json_wanted():
        output.document(
            {
                "name": name,
                "dry_run": dry_run,
                "version": version,
                "new_version": made,
                "move_away": left,
                "next_command": again,
                "undo_command": undo,
            }
        )
        return
    which = "what is sure" if version is None else f"version {version}"
    what = f"{which} ({page.progress_words(describe.counts(old))})"
    if dry_run:
        output.say(f"{output.safe(name)}: would make {what} the state again")
        return
    output.say(f"{output.safe(name)}: {what} is the state again, as version {made}")
    for line in page.next_lines(again, left):
        output.say(line)
    if undo is not None:
        output.say(f"undo: {output.safe(undo)}")
