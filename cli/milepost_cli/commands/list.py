"""`milepost list`: the sessions of a store."""

from __future__ import annotations

from typing import Any, Final

import click

import milepost
from milepost_cli import describe, exit_codes, next_steps, options, output, page

_YIELDING: Final = (0, 3)
"""Shortened on a narrow terminal: the name first, then how far it is or what is wrong."""


@click.command(short_help="List the sessions of a store, one a line.")
@options.store
@options.as_json
def command() -> int:
    """List the sessions of a store, the latest updated first, one a line.

    A session that cannot be read says why, and the exit code tells of it. With --json one object:
    store, sessions; each with name, status, reason, version, progress, batches, items, in_flight,
    suspects, recovery, last_error, writer, updated_at, next_command.
    """
    store = milepost.Store(options.store_path())
    try:
        store.check()
    except milepost.StoreNotFoundError as error:
        enabled = milepost.configuration().setting(milepost.JobConfig, "enabled")
        if not enabled.value:
            error.hint = f"milepost is OFF (enabled = false in {enabled.source}): nothing is kept"
        raise
    worst = exit_codes.FINE
    sessions: list[dict[str, Any]] = []
    for name in store.names():
        try:
            sessions.append(_row(store, store.view(name)))
        except milepost.MilepostError as error:
            worst = max(worst, exit_codes.code_of(error))
            sessions.append(_unreadable(name, error))
    sessions.sort(key=lambda each: each["updated_at"] or "", reverse=True)
    if options.json_wanted():
        output.document({"store": store.path, "sessions": sessions})
    elif sessions:
        rows = [_cells(each) for each in sessions]
        for line in output.columns(rows, room=output.room(), yielding=_YIELDING):
            output.say(line)
    else:
        output.tell(f"no session yet in {output.safe(store.path)}")
    return worst


def _row(store: milepost.Store, view: milepost.View) -> dict[str, Any]:
    state = view.state
    return {
        "name": state.session_id,
        "status": view.judgement.status.value,
        "reason": view.judgement.reason,
        "damaged": describe.is_damaged(view),
        "version": view.version,
        "kind": milepost.label(state.kind),
        **describe.counts(state),
        "in_flight": describe.in_flight(state),
        "suspects": describe.suspects(view),
        "recovery": describe.recovery(state),
        "last_error": describe.last_error(store, state),
        "writer": describe.writer(view.writer),
        "updated_at": output.iso(state.last_updated),
        "next_command": next_steps.next_command(store, view, store_option=options.store_path()),
    }


def _unreadable(name: str, error: milepost.MilepostError) -> dict[str, Any]:
    nothing = dict.fromkeys(
        (
            *("version", "kind", "progress", "total_batches", "batches", "items", "in_flight"),
            *("suspects", "recovery", "last_error", "writer", "updated_at", "next_command"),
        )
    )
    return {
        "name": name,
        "status": "unreadable",
        "reason": error.message,
        "damaged": True,
        **nothing,
    }


def _cells(session: dict[str, Any]) -> list[str]:
    name, status = output.safe(session["name"]), output.status(session["status"])
    if session["status"] == "unreadable":
        return [name, status, "", output.safe(session["reason"]), ""]
    told = page.progress_words(session)
    if session["damaged"]:
        told += ", DAMAGED"
    return [
        name,
        status,
        page.share_words(session),
        told,
        output.age(session["updated_at"]),
    ]
