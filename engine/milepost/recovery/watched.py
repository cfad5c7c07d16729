"""One session as a watcher sees it: what it needs, what is done about it, what a table shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from milepost.model.status import SessionStatus
from milepost.recovery.analysis import NoRecoveryNeeded, RequiresRecovery, Unrecoverable

if TYPE_CHECKING:
    from milepost.recovery.analysis import RecoveryStatus
    from milepost.recovery.child import Child, Ending
    from milepost.recovery.pace import Pace


class Target(NamedTuple):
    """What carries on which sessions.

    Attributes:
        pattern: Names of the sessions, as a shell pattern (`crawl-*`).
        command: The program and its arguments; it learns of the session by `MILEPOST_SESSION`.
        folder: Where it is run; `None` for the current folder.
    """

    pattern: str
    command: tuple[str, ...]
    folder: str | None = None


class Row(NamedTuple):
    """One session, as a table shows it.

    Attributes:
        session: Its name.
        doing: `running`, `waiting`, `given up`, `ready`, `held`, `fine`, `no target`, `unreadable`.
        detail: Why, for people.
        pid: Of our child.
        runs: How often we started it.
        has_target: Whether anything was named that carries it on.
        exit_code: How our last child for it ended, as a shell gives it.
        session_status: Where the session stood at the last look; `None` where it cannot be read.
    """

    session: str
    doing: str
    detail: str
    pid: int | None
    runs: int
    has_target: bool
    exit_code: int | None = None
    session_status: SessionStatus | None = None


class Watched:
    """One session, and what the watcher does about it.

    Attributes:
        status: What it needs; `None` where it cannot be read, or was not looked at.
        session_status: Where it stands; `None` as with `status`.
        detail: Why, for people.
        lives: Whether it had a writer at the last look.
        is_new: Whether it never ran, or not since it was begun anew.
        mark: How much of it was settled then.
        turn: Number of its latest writer's turn then.
        pace: When it is started again; `None` as long as it never wanted to be carried on.
        is_busy: Whether a thread of ours makes it ready, or waits for its child.
        is_ready: Whether we made it ready, and nobody took a turn since.
        child: The process that works on it.
        ending: How the last one ended.
        is_our_death: Whether that ending is what it died of.
        runs: How often it was started.
        start_at: When it may be started again, by the monotonic clock; `None` for any time.
        gave_up: Why it is left alone until somebody else takes a turn; empty while it is not.
    """

    def __init__(self, name: str, target: Target | None) -> None:
        self.name = name
        self.target = target
        self.status: RecoveryStatus | None = None
        self.session_status: SessionStatus | None = None
        self.detail = ""
        self.lives = False
        self.is_new = False
        self.mark = 0
        self.turn = 0
        self.pace: Pace | None = None
        self.is_busy = False
        self.is_ready = False
        self.child: Child | None = None
        self.ending: Ending | None = None
        self.is_our_death = False
        self.runs = 0
        self.start_at: float | None = None
        self.gave_up = ""

    @property
    def wants_to_run(self) -> bool:
        """Whether it is to be carried on, now or later."""
        status = self.status
        return (
            isinstance(status, RequiresRecovery)
            and not status.is_held
            and not self.gave_up
            and self.target is not None
        )

    @property
    def urgency(self) -> tuple[int, str]:
        """What sorts the most urgent first."""
        status = self.status
        return (-status.priority if isinstance(status, RequiresRecovery) else 1, self.name)

    @property
    def standing(self) -> tuple[object, ...]:
        """What of its status is news when it changes; the words of it may count minutes."""
        status = self.status
        if isinstance(status, RequiresRecovery):
            return (type(status), status.reason, status.is_held)
        return (type(status), self.detail)

    def forget(self) -> None:
        """Begin anew: what was is no reason to wait, or to give up."""
        self.pace = None
        self.gave_up = ""
        self.start_at = None

    def row(self) -> Row:
        """What a table shows of it."""
        return Row(
            self.name,
            self._doing(),
            self.gave_up or self.detail,
            self.child.pid if self.child is not None else None,
            self.runs,
            self.target is not None,
            self.ending.exit_code if self.ending is not None else None,
            self.session_status,
        )

    def _doing(self) -> str:
        status = self.status
        if self.child is not None:
            return "running"
        if self.gave_up:
            return "given up"
        if status is None or isinstance(status, Unrecoverable):
            return "unreadable"
        if isinstance(status, NoRecoveryNeeded):
            return "fine"
        if status.is_held:
            return "held"
        if self.target is None:
            return "no target"
        return "waiting" if self.start_at is not None else "ready"
