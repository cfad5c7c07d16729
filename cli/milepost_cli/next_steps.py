"""What to type next: the command that carries a session on, and those that others name."""

from __future__ import annotations

import shlex
from typing import Final

import milepost

_NO_WORD_OF: Final = {"", "-c", "-", "__main__.py", "ipykernel_launcher.py"}
"""What a program is called that nobody can type again."""
_ARGUMENTS: Final = " …"


def next_command(
    store: milepost.Store, view: milepost.View, *, store_option: str | None
) -> str | None:
    """The command that carries the session on; `None` where nothing is to be done or known.

    A living one is left to its writer, also where that is on another host: who knows better types
    `unlock`. One that does not add up is put back to where it was last saved.
    """
    state, status = view.state, view.judgement.status
    name = state.session_id
    if status is milepost.SessionStatus.RUNNING or state.kind is milepost.SessionKind.DATA:
        return None
    if view.is_lossy:
        return command("restore", name, store_option=store_option)
    if status is milepost.SessionStatus.COMPLETED:
        return None
    if status is milepost.SessionStatus.FAILED and not _tried_again(store, state):
        return command("retry", name, store_option=store_option)
    if any(each.is_error for each in milepost.check(state)):
        return command("restore", name, str(view.version), store_option=store_option)
    again = run_again(state, store_option=store_option)
    if again is None and status is milepost.SessionStatus.STALE:
        return command("recover", "--session", name, store_option=store_option)
    return again


def _tried_again(store: milepost.Store, state: milepost.SessionState) -> bool:
    """Whether the next run takes up all that failed by itself."""
    limit = store.recovery.max_recovery_attempts
    return all(
        each.is_recoverable and each.retry_count < limit for each in state.failed_batches.values()
    )


def run_again(state: milepost.SessionState, *, store_option: str | None) -> str | None:
    """The command that ran the session last; `None` where nobody noted it.

    It ends in `…` where it had arguments, which are not kept.
    """
    noted = next((run.program for run in reversed(state.executions) if run.program), "")
    program = noted.removesuffix(_ARGUMENTS)
    if program in _NO_WORD_OF:
        return None
    if program.startswith("milepost run "):
        words = program + (f" --store {shlex.quote(store_option)}" if store_option else "")
    else:
        words = f"python {shlex.quote(program)}" if program.endswith(".py") else program
        if store_option:
            words = f"MILEPOST_STORE={shlex.quote(store_option)} {words}"
    words += noted[len(program) :]
    # One that never ran, was begun anew or has ended is run in any case.
    is_unfinished = state.has_run and state.outcome is None
    return resuming(words, state.session_id) if is_unfinished else words


def resuming(words: str, session: str) -> str:
    """A command that carries a session on, as it is not refused.

    With `auto_resume` off it would be, and says that this time it is meant.
    """
    said = milepost.configuration().setting(milepost.JobConfig, "auto_resume", job=session)
    return words if said.value else f"MILEPOST_AUTO_RESUME=1 {words}"


def version_before(versions: list[milepost.VersionInfo], made: int) -> int:
    """The version that holds what was given up: the writer saved it before it made this one."""
    return max((each.version for each in versions if each.version < made), default=made)


def command(*words: str, store_option: str | None) -> str:
    """A `milepost` command that can be typed as it stands."""
    store = ["--store", store_option] if store_option else []
    return shlex.join(["milepost", *words, *store])
