"""`run --supervise`: one piece of work in a process of its own, started again after each death."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import msgspec

import milepost
from milepost_cli import asking, options, output
from milepost_cli.failure import TargetError
from milepost_cli.passing_on import signals_to

if TYPE_CHECKING:
    from collections.abc import Sequence


def supervise_job(target: str, more: Sequence[str]) -> int:
    """Run a job to its end by `milepost run` with these options; return its last exit code.

    Errors: `TargetError` for a target that cannot be imported.
    """
    place = options.store_path()
    if place is not None:
        return _supervise(
            place, asking.command_of(target, *more, "--store", os.path.abspath(place))
        )
    (answer,) = asking.ask([target])
    if isinstance(answer, TargetError):
        raise answer
    return _supervise(answer.store, asking.command_of(target, *more))


def supervise_command(command: Sequence[str]) -> int:
    """Run any command to the end of its work; return its last exit code."""
    return _supervise(options.store_path(), command)


def _supervise(store: str | None, command: Sequence[str]) -> int:
    service = milepost.RecoveryService(milepost.Store(store))
    tell = _tell_json if options.json_wanted() else _tell

    def report(notice: milepost.WatchNotice) -> None:
        if notice.event == "gave_up":
            again = f"{notice.message}; to try again: {_again(command)}"
            notice = msgspec.structs.replace(notice, message=again)
        tell(notice)

    supervisor = milepost.Supervisor(service, command, report=report)
    with signals_to(supervisor.stop):
        return supervisor.run()


def _again(command: Sequence[str]) -> str:
    """What to type to have it supervised once more."""
    words = asking.typed(command)
    run = "milepost run "
    if words.startswith(run):
        return f"{run}--supervise {words.removeprefix(run)}"
    place = options.store_path()
    store = ["--store", place] if place is not None else []
    return f"{shlex.join(['milepost', 'run', '--supervise', *store, '--'])} {words}"


def _tell(notice: milepost.WatchNotice) -> None:
    output.tell(f"milepost: {output.safe(notice.message)}")


def _tell_json(notice: milepost.WatchNotice) -> None:
    # stdout is the work's own: there stands its result.
    output.tell(output.encode(milepost.plain(notice)))
