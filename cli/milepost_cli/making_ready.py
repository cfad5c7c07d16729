"""`recover` without execution: every session is judged, and those that want it are made ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

import milepost
from milepost_cli import describe, exit_codes, next_steps, options, output, recovery_page
from milepost_cli.asking import typed
from milepost_cli.targets import target_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost_cli.targets import Named


def make_ready(
    store: milepost.Store,
    named: Named,
    names: Sequence[str],
    *,
    strategy: milepost.RecoveryStrategy | None,
    from_batch: int | None,
    by_progress: bool,
    dry_run: bool,
) -> int:
    """Do it, or say what would be done; return the exit code."""
    for each in names:
        store.presence(each)  # one that is not there is said so, before anything is done
    service = milepost.RecoveryService(store)
    left: dict[str, list[str]] = {}
    if strategy is None and from_batch is None and not by_progress:
        report = service.detect_and_recover(names or None, dry_run=dry_run)
    else:
        report, left[names[0]] = _forced(
            service, names[0], strategy, from_batch, by_progress=by_progress, dry_run=dry_run
        )
    commands = _commands(store, report, named, names)
    is_acting = not dry_run and (bool(report.recovery_details) or _is_automatic(service))
    if options.json_wanted():
        output.document(
            {
                "store": store.path,
                "dry_run": dry_run,
                **milepost.plain(report),
                "move_away": {name: files for name, files in left.items() if files},
                "next_commands": commands,
            }
        )
    else:
        for line in recovery_page.report(report, commands, left):
            output.say(line)
        output.tell(recovery_page.summary(report, is_acting=is_acting))
        if not dry_run and not is_acting:
            output.tell("auto_recovery_enabled is off, so nothing was changed")
    return _code(report)


def _is_automatic(service: milepost.RecoveryService) -> bool:
    return service.config.auto_recovery_enabled


def _forced(
    service: milepost.RecoveryService,
    name: str,
    strategy: milepost.RecoveryStrategy | None,
    from_batch: int | None,
    *,
    by_progress: bool,
    dry_run: bool,
) -> tuple[milepost.RecoveryReport, list[str]]:
    """What was done, and the files with rows that are in the way now."""
    status, proposal = service.propose(
        name, strategy=strategy, from_batch=from_batch, by_progress=by_progress
    )
    report = milepost.RecoveryReport(sessions_requiring_recovery=1, statuses={name: status})
    left: list[str] = []
    if dry_run:
        report.proposals[name] = proposal
    else:
        store, before = service.store, service.store.load_progress(name)
        detail = service.recover(
            name, strategy=strategy, from_batch=from_batch, by_progress=by_progress
        )
        report.recovery_details.append(detail)
        report.successful_recoveries = 1
        # It was held back until somebody decided, and somebody has.
        report.statuses[name] = msgspec.structs.replace(status, is_held=False, hint="")
        left = describe.left_behind(store, before, store.load_progress(name))
    return report, left


def _commands(
    store: milepost.Store,
    report: milepost.RecoveryReport,
    named: Named,
    names: Sequence[str],
) -> dict[str, str | None]:
    """What to type for each session that wants something; of what was named, or noted before."""
    store_option = options.store_path()
    place = () if store_option is None else ("--store", store_option)
    targets = named.targets(only=names, options=place) if named.jobs else []
    found: dict[str, str | None] = {}
    for name, status in report.statuses.items():
        if not isinstance(status, milepost.RequiresRecovery):
            continue
        target = None if status.is_held else target_of(name, targets)
        if target is not None:
            found[name] = next_steps.resuming(typed(target.command), name)
            continue
        try:
            view = store.view(name)
        except milepost.MilepostError:
            continue  # it changed since; the next look tells
        found[name] = next_steps.next_command(store, view, store_option=store_option)
    return found


def _code(report: milepost.RecoveryReport) -> int:
    if any(map(exit_codes.is_damage, report.statuses.values())):
        return exit_codes.DAMAGED
    return exit_codes.FAILED if report.failures else exit_codes.FINE
