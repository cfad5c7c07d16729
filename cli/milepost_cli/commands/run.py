"""`milepost run FILE.py[:job]`: run the job in a file or a module, also under supervision."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any, Final

import click

import milepost
from milepost_cli import exit_codes, loading, options, output, progress, supervising
from milepost_cli.failure import UserCodeError, WrongUseError

_COMMAND: Final = "milepost.command"


class _WithCommand(click.Command):
    """Knows what stood after `--`: a command of the user's, and not ours to parse."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[_COMMAND] = args[:at], args[at + 1 :]
        return super().parse_args(ctx, args)


@click.command(
    cls=_WithCommand,
    short_help="Run the job in a Python file; carries on where it stopped.",
    options_metavar="[OPTIONS]",
)
@click.argument("target", metavar="FILE.py[:JOB] | -- COMMAND...", required=False)
@click.option("--supervise", is_flag=True, help="Run it as a process, again after each death.")
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
@click.option(
    "--executor",
    metavar="NAME",
    help="Where batches run: threads, processes or dask://HOST:PORT.",
)
@options.store
@options.as_json
def command(target: str | None, *, supervise: bool, **how: Any) -> int:
    """Run the one job in FILE.py, or the one named after the colon; also package.module:JOB.

    The job carries on where the last run stopped. Ctrl-C and SIGTERM finish the items in hand and
    save. Options given here go before those of the decorator. With --json the result is one object:
    name, store, outcome, exit_code, completed, failures, did_nothing, statistics.

    With --supervise it runs as a process of its own, which is started again after each death, until
    the work is done or given up. That goes for any program with a milepost loop in it, too:
    milepost run --supervise -- python crawl.py. The exit code is that of its last run. What happens
    is told on stderr; with --json as one object a line, as `recover --watch` has them.
    """
    words: list[str] | None = click.get_current_context().meta.get(_COMMAND)
    _check(target, words, how, supervise=supervise)
    if words is not None:
        return supervising.supervise_command(words)
    if target is None:
        raise click.UsageError("Missing argument 'FILE.py[:JOB]'.")
    with milepost.searching_from(loading.search_folder([target])):
        if supervise:
            as_json = ["--json"] if options.json_wanted() else []
            return supervising.supervise_job(target, [*_typed(how), *as_json])
        return _run_here(target, how)


def _check(
    target: str | None, words: list[str] | None, how: dict[str, Any], *, supervise: bool
) -> None:
    if words is None:
        return
    if not words:
        raise WrongUseError("there is no command after --", "milepost run --supervise -- COMMAND")
    if target is not None:
        raise WrongUseError(
            f"{target} and a command after -- are two pieces of work", "run one at a time"
        )
    if not supervise:
        raise WrongUseError(
            "a command after -- is run under supervision alone",
            f"milepost run --supervise -- {shlex.join(words)}",
        )
    given = _typed(how)
    if given:
        raise WrongUseError(
            f"{given[0]} is for a job, and cannot be handed to a command",
            "give the command its own options, after --",
        )


def _typed(how: dict[str, Any]) -> list[str]:
    """The options that were given, to hand them on."""
    return [word for name, value in how.items() if value for word in (f"--{name}", str(value))]


def _run_here(target: str, how: dict[str, Any]) -> int:
    as_json = options.json_wanted()
    before = sys.argv
    sys.argv = [loading.split_target(target)[0]]  # what the file would see as a script
    try:
        job = loading.job_of(target)
        result = _run(
            job,
            store=_store(job, target, how),
            progress=False if as_json else progress.factory(),
            **how,
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


def _store(job: loading.AnyJob, target: str, how: dict[str, Any]) -> milepost.Store:
    """The store of `--store`, else the job's own; it notes how to run this again."""
    place = options.store_path() or job.store
    if isinstance(place, milepost.Store):
        return place
    # An absolute path would mean nothing where the store is copied to.
    typed = os.path.basename(target) if os.path.isabs(target) else target
    return milepost.Store(place, program=shlex.join(["milepost", "run", typed, *_typed(how)]))
