"""`recover` with execution: a watcher over the store, and what it tells.

- A target that is wrong, or that fits no session yet, is one message; the others go on.
- The exit code says how it ended: see `_code`.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Final

import msgspec

import milepost
from milepost_cli import exit_codes, options, telling
from milepost_cli.advice import Advice, last_words
from milepost_cli.passing_on import signals_to
from milepost_cli.shares import Shares
from milepost_cli.targets import target_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from milepost_cli.targets import Named

_DEAD_TOLD_MAX: Final = 3
"""More sessions are counted, not named."""


def carry_on(
    store: milepost.Store,
    named: Named,
    names: Sequence[str],
    *,
    keeps_watching: bool,
    jobs: int,
    uses_file_events: bool,
    logs: str | None,
) -> int:
    """Watch, and return the exit code.

    Errors: `SessionNotFoundError` where there is nothing to carry on, and nothing to wait for.
    """
    # Without --store a job finds its own, which may be made with settings of its own.
    place = ("--store", store.path) if options.store_path() is not None else ()
    targets = named.targets(only=names, options=place)
    service = milepost.RecoveryService(store)
    wanted = [*(job.session for job in named.jobs), *names]
    messages = list(_beforehand(service, targets, named, names))
    if not keeps_watching and not any(target_of(name, targets) for name in store.names()):
        raise milepost.SessionNotFoundError(messages[-1]) if messages else _nothing_fits(service)
    as_json = options.json_wanted()
    advice = Advice(store, targets, store_option=options.store_path())
    ours: set[str] = set()

    def report(notice: milepost.WatchNotice) -> None:
        if notice.event == "started" and notice.session is not None:
            ours.add(notice.session)
        teller.notice(_explained(notice, targets, advice, ours))

    teller = telling.teller(
        as_json=as_json,
        named=wanted,
        title=f"watching {store.path}",
        advice=advice,
        shares=Shares(store),
    )
    with telling.log_folder(logs, as_json=as_json) as folder:
        watcher = milepost.Watcher(
            service,
            targets,
            jobs=jobs,
            report=report,
            keeps_watching=keeps_watching,
            uses_file_events=uses_file_events,
            open_output=telling.output_of_children(store, folder),
            on_tick=teller.rows,
        )
        with teller, signals_to(watcher.stop):
            for message in messages:
                teller.notice(milepost.WatchNotice.now("trouble", message))
            number = watcher.run()
            teller.rows(watcher.rows())
    if number is not None:
        telling.tell_at_the_end(last_words(watcher.rows(), advice), as_json=as_json)
        return 128 + number
    return _code(service, watcher.rows(), named)


def _beforehand(
    service: milepost.RecoveryService,
    targets: Sequence[milepost.Target],
    named: Named,
    names: Sequence[str],
) -> Iterator[str]:
    """What is to be known before the first look."""
    for error in named.wrong:
        yield f"{error}; {error.hint}" if error.hint else str(error)
    if not service.config.auto_recovery_enabled:
        yield "auto_recovery_enabled is off: sessions are only told of, and nothing is executed"
    elif not targets:
        yield "no target and no [[recover]] table: sessions are only told of, nothing is executed"
    there = set(service.store.names())
    for job in named.jobs:
        if job.session not in there and (not names or job.session in names):
            yield (
                f"{job.target}: there is no session {job.session!r} in {service.store.path} yet;"
                f" milepost run {job.target} begins it"
            )
    for name in names:
        if name not in there and all(job.session != name for job in named.jobs):
            yield f"there is no session {name!r} in {service.store.path} yet"


def _nothing_fits(service: milepost.RecoveryService) -> milepost.SessionNotFoundError:
    """Nothing that is there was named; with what wants to be, and how to name it."""
    store = service.store
    dead: list[str] = []
    for name in store.names():
        with contextlib.suppress(milepost.MilepostError):
            if isinstance(service.judge(name)[0], milepost.RequiresRecovery):
                dead.append(name)
    why = f"no session in {store.path} is named by a target or a [[recover]] table"
    if not dead:
        return milepost.SessionNotFoundError(why)
    told = ", ".join(map(repr, dead[:_DEAD_TOLD_MAX]))
    more = f" and {len(dead) - _DEAD_TOLD_MAX:,} more" if len(dead) > _DEAD_TOLD_MAX else ""
    return milepost.SessionNotFoundError(
        f"{why}; these want to be carried on: {told}{more}",
        hint=f"in a [[recover]] table write session = {json.dumps(dead[0], ensure_ascii=False)}"
        " and the command that runs it, or name its file: milepost recover FILE.py",
    )


def _explained(
    notice: milepost.WatchNotice,
    targets: Sequence[milepost.Target],
    advice: Advice,
    ours: Collection[str],
) -> milepost.WatchNotice:
    """With why nothing is done about a session that is unfinished, and what to do.

    `ours` are the sessions that this watcher itself has at work.
    """
    status = notice.status
    if notice.session is None:
        return notice
    why = ""
    if notice.event == "gave_up":
        why = advice.trying_again(notice.session)
    elif notice.session_status is milepost.SessionStatus.STOPPED:
        why = f"left alone; {advice.going_on(notice.session)}"
    elif not isinstance(status, milepost.RequiresRecovery):
        if notice.session_status is milepost.SessionStatus.RUNNING and notice.session not in ours:
            why = "left alone while it lives"
    elif status.is_held:
        why = f"left alone; {status.hint}"
    elif target_of(notice.session, targets) is None:
        why = "no target carries it on"
    return msgspec.structs.replace(notice, message=f"{notice.message}; {why}") if why else notice


def _code(service: milepost.RecoveryService, rows: list[milepost.Row], named: Named) -> int:
    """The worst that any session with a target came to.

    12 for one that cannot be read or does not add up, 1 for one that was given up or a target that
    is wrong, 3 for one that ended with failed batches.
    """
    mine = [row for row in rows if row.has_target]
    try:
        found = [service.judge(row.session) for row in mine]
    except milepost.MilepostError as error:  # it was told of while it was watched
        return exit_codes.code_of(error)
    if any(exit_codes.is_damage(status) for status, _ in found):
        return exit_codes.DAMAGED
    if named.wrong or any(row.doing == "given up" for row in mine):
        return exit_codes.FAILED
    failed = milepost.SessionStatus.FAILED
    if any(view is not None and view.judgement.status is failed for _, view in found):
        return exit_codes.FAILED_BATCHES
    return exit_codes.FINE
