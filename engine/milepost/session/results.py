"""What a store answers about its sessions."""

from __future__ import annotations

from datetime import datetime

import msgspec

from milepost.model.status import SessionStatus


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One session of a store, at a glance.

    Attributes:
        session_id: Its name.
        status: Where it stands; `None` where it cannot be read.
        reason: Why, or what cannot be read.
        latest_version: Its newest version; 0 where it cannot be read.
        last_updated: When its last event happened.
        state_count: How many versions are kept.
    """

    session_id: str
    status: SessionStatus | None
    reason: str
    latest_version: int
    last_updated: datetime | None
    state_count: int


class CleanupResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an age clean-up removed.

    Attributes:
        deleted_states: Versions.
        deleted_checkpoints: Checkpoints.
        skipped: Session name to why nothing of it was touched, where that was not its age.
    """

    deleted_states: int
    deleted_checkpoints: int
    skipped: dict[str, str]


class RetryResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was put back.

    Attributes:
        batches: Keys of the failed batches that are pending again.
        items: How many failed items are pending again.
    """

    batches: list[str]
    items: int
