"""`milepost recover`: find dead work, make it ready, and carry it on."""

from __future__ import annotations

import os
from typing import Any, Final

import click
import msgspec

import milepost
from milepost_cli import carrying_on, loading, making_ready, options, tables
from milepost_cli.failure import WrongUseError
from milepost_cli.targets import Named

_STRATEGIES: Final = {
    "resume": milepost.RecoveryStrategy.RESUME_CURRENT_BATCH,
    "restart-failed": milepost.RecoveryStrategy.RESTART_FAILED_BATCHES,
    "partial": milepost.RecoveryStrategy.PARTIAL_RECOVERY,
    "full": milepost.RecoveryStrategy.FULL_RESTART,
}
_BY_PROGRESS: Final = "by-progress"


@click.command(short_help="Find dead sessions, make them ready, and carry them on.")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option("--watch", is_flag=True, help="Go on watching; without it, end with the work.")
@options.dry_run
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes at once; by default one for each core.",
)
@click.option("--poll", is_flag=True, help="Look every few seconds, without file events.")
@click.option(
    "--session", "names", multiple=True, metavar="NAME", help="Only this session; may be repeated."
)
@click.option(
    "--strategy",
    type=click.Choice([*_STRATEGIES, _BY_PROGRESS]),
    help="Force how the one --session is made ready; by-progress lets its thresholds decide.",
)
@click.option(
    "--from-batch",
    type=click.IntRange(min=0),
    metavar="N",
    help="Begin the one --session anew from batch N on.",
)
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1),
    metavar="N",
    help="Deaths in a row without progress, and runs of a failed batch, until it is given up.",
)
@click.option(
    "--delay",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Before a repeated restart without progress; it doubles each time.",
)
@click.option(
    "--logs", metavar="FOLDER", help="What the processes print goes here, a file for each session."
)
@options.store
@options.as_json
def command(
    targets: tuple[str, ...],
    *,
    watch: bool,
    dry_run: bool,
    jobs: int | None,
    poll: bool,
    names: tuple[str, ...],
    strategy: str | None,
    from_batch: int | None,
    max_attempts: int | None,
    delay: float | None,
    logs: str | None,
) -> int:
    """Judge every session of a store, and make ready those whose process died.

    Without a TARGET or a table nothing is executed: it says what it found and did, the most urgent
    first. With --json one object: store, dry_run, statuses, recovery_details, proposals, failures
    (each by session), their counts, move_away (files with rows of before, that are in the way), and
    next_commands. Exit code 12: something is damaged or beyond recovery; 1: a recovery failed.

    \b
    A TARGET says what may be executed, and carries its session on:
      FILE.py[:JOB]        a job in a file
      package.module:JOB   a job in a module
    and so do tables in milepost.toml, or as [[tool.milepost.recover]] in
    pyproject.toml, upwards from the first FILE.py, else from here; targets
    typed here go first:
      [[recover]]
      session = "crawl-*"
      command = ["python", "crawl.py"]

    Each session gets a process of its own, with MILEPOST_STORE and MILEPOST_SESSION in its
    environment. It ends when nothing is left; with --watch it stays, and without any target it only
    tells. Ctrl-C and SIGTERM are passed on, and clean saves awaited. With --json one object a line:
    at, event (watching, found, started, ended, waiting, gave_up, trouble, stopping), message,
    session, pid, exit_code, wait_seconds, status, session_status. Exit code 3: something ended with
    failed batches; 1: something was given up or could not be started.
    """  # noqa: D301  # click wants the character itself, to leave the lines as they are
    click.get_current_context().with_resource(
        milepost.searching_from(loading.search_folder(targets))
    )
    is_forced = strategy is not None or from_batch is not None
    _check(targets, names, watch=watch, dry_run=dry_run, is_forced=is_forced)
    named = Named.on_command_line(targets)
    store = _store(options.store_path() or named.store_path(), max_attempts, delay)
    store.check()
    if dry_run or is_forced or not (targets or watch or tables.targets()):
        return making_ready.make_ready(
            store,
            named,
            names,
            strategy=None if strategy is None else _STRATEGIES.get(strategy),
            from_batch=from_batch,
            by_progress=strategy == _BY_PROGRESS,
            dry_run=dry_run,
        )
    return carrying_on.carry_on(
        store,
        named,
        names,
        keeps_watching=watch,
        jobs=jobs or os.cpu_count() or 1,
        uses_file_events=not poll,
        logs=logs,
    )


def _check(
    targets: tuple[str, ...],
    names: tuple[str, ...],
    *,
    watch: bool,
    dry_run: bool,
    is_forced: bool,
) -> None:
    if watch and dry_run:
        raise WrongUseError("--dry-run looks once, so --watch goes without it", "leave one out")
    if is_forced and len(names) != 1:
        raise WrongUseError(
            "--strategy and --from-batch are for exactly one --session",
            "for example: milepost recover --session NAME --from-batch 3",
        )
    if is_forced and (targets or watch):
        raise WrongUseError(
            "--strategy and --from-batch make a session ready, and execute nothing",
            "leave out the targets and --watch, then run the work",
        )


def _store(path: str | None, max_attempts: int | None, delay: float | None) -> milepost.Store:
    """The store, with the settings of the command line over those of the environment."""
    store = milepost.Store(path)
    given: dict[str, Any] = {"max_recovery_attempts": max_attempts, "recovery_delay_seconds": delay}
    given = {field: value for field, value in given.items() if value is not None}
    return milepost.Store(path, recovery=msgspec.structs.replace(store.recovery, **given))
