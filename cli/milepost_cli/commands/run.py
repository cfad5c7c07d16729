"""`milepost run FILE.py[:job]`: run the job in a file."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

import click

import milepost
from milepost_cli import exit_codes, loading, options, output, progress
from milepost_cli.failure import UserCodeError


@click.command(
    short_help="Run the job in a Python file; carries on where it stopped.",
)
@click.argument("target", metavar="FILE.py[:JOB]")
@click.option("--workers", "-w", type=click.IntRange(min=1), help="Batches at once.")
@click.option(
    "--attempts", type=click.IntRange(min=1), help="Tries a batch gets where its error may pass."
)
@click.option(
    "--durability",
    type=click.Choice(["buffered", "process", "disk"]),
    help="What an update survives: nothing yet, kill -9, a power cut.",
)
@click.option(
    "--plan",
    type=click.Choice(["frozen", "extend"]),
    help="Keep the plan as it is, or add the batches that are new.",
)
@options.store
@options.as_json
def command(
    target: str,
    *,
    workers: int | None,
    attempts: int | None,
    durability: milepost.Durability | None,
    plan: str | None,
) -> int:
    """Run the one job in FILE.py, or the one named after the colon.

    The job carries on where the last run stopped. Ctrl-C and SIGTERM finish the items in hand and
    save. Options given here go before those of the decorator. With --json the result is one object:
    name, store, outcome, exit_code, completed, failures, did_nothing, statistics.
    """
    file, wanted = loading.split_target(target)
    as_json = options.json_wanted()
    before = sys.argv
    sys.argv = [file]  # what the file would see as a script
    try:
        job = loading.find_job(loading.load(file), wanted, file)
        result = _run(
            job,
            store=_store(job, target),
            workers=workers,
            attempts=attempts,
            durability=durability,
            plan=plan,
            progress=False if as_json else progress.factory(),
        )
    finally:
        sys.argv = before
    if as_json:
        output.document({**milepost.plain(result), "exit_code": result.exit_code})
    return result.exit_code


def _run(job: loading.AnyJob, **how: Any) -> milepost.JobResult:
    try:
        return job.run(**how)
    except KeyboardInterrupt:
        sys.exit(exit_codes.INTERRUPTED)  # the job itself has said that it stopped
    except milepost.MilepostError:
        raise
    except Exception as error:
        # Inside a batch an exception fails that batch; this one came from around them.
        message = f"job {job.name!r} raised {type(error).__name__}"
        raise UserCodeError(message, error) from error


def _store(job: loading.AnyJob, target: str) -> milepost.Store:
    """The store of `--store`, else the job's own; it notes how to run this again."""
    place = options.store_path() or job.store
    if isinstance(place, milepost.Store):
        return place
    # An absolute path would mean nothing where the store is copied to.
    typed = os.path.basename(target) if os.path.isabs(target) else target
    return milepost.Store(place, program=f"milepost run {shlex.quote(typed)}")
