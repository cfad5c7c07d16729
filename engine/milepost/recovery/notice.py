"""What a watcher or a supervisor tells of."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Self

import msgspec

from milepost.clock import utc
from milepost.model.status import SessionStatus
from milepost.recovery.analysis import RecoveryStatus


class WatchNotice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the watcher found or did.

    Attributes:
        at: When.
        event: `watching`, `found`, `started`, `ended`, `waiting`, `gave_up`, `trouble`, `stopping`.
        message: The same for people.
        session: The session it is about; `None` for the store.
        pid: Of the process it is about.
        exit_code: How that process ended, as a shell gives it.
        wait_seconds: How long until the next start.
        status: What the session needs, where that was found.
        session_status: Where the session stood then.
    """

    at: datetime
    event: str
    message: str
    session: str | None = None
    pid: int | None = None
    exit_code: int | None = None
    wait_seconds: float | None = None
    status: RecoveryStatus | None = None
    session_status: SessionStatus | None = None

    @classmethod
    def now(cls, event: str, message: str, **facts: Any) -> Self:
        """What happens at this moment."""
        return cls(at=utc(time.time_ns()), event=event, message=message, **facts)
