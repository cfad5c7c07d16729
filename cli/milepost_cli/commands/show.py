"""`milepost show NAME`: where a session stands, and what to do next."""

from __future__ import annotations

from typing import Any

import click

import milepost
from milepost_cli import describe, exit_codes, options, output, page


@click.command(short_help="Show where a session stands, and what to do next.")
@click.argument("name")
@click.option("--batches", is_flag=True, help="Also every batch, the planned ones too.")
@click.option("--failed", is_flag=True, help="Also every failed batch and item, with why.")
@click.option("--checkpoints", is_flag=True, help="Also every checkpoint.")
@options.store
@options.as_json
def command(name: str, *, batches: bool, failed: bool, checkpoints: bool) -> int:
    """Show where session NAME stands, what went wrong, and the next command to type.

    It takes no lock and writes nothing, so it works on a session that is being written. A damaged
    session shows what is sure, and exits with 12. With --json one object, in which --batches adds
    batch_list and --failed adds failures.
    """
    store = milepost.Store(options.store_path())
    view = store.view(name)
    told: dict[str, Any] = describe.session(store, view, store_option=options.store_path())
    if batches:
        told["batch_list"] = describe.batches(view.state, store.plan(name))
    if failed:
        told["failures"] = describe.failures(view.state)
    if options.json_wanted():
        output.document(told)
    else:
        for line in page.session(told, with_checkpoints=checkpoints):
            output.say(line)
    if not told["damaged"]:
        return exit_codes.FINE
    output.flush()  # what is sure stands before what is wrong with it
    raise describe.damage(name, view, store_option=options.store_path())
