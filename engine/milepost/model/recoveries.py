"""What a recovery came to, as its event and the state keep it.

Each of the four is an array that begins with its kind.

Source: FORMAT.md, "Recoveries".
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class ResumedBatch(
    msgspec.Struct, array_like=True, frozen=True, kw_only=True, tag_field="kind", tag="resumed"
):
    """The batches in hand go on.

    Attributes:
        batches: Key of each, and how many of its items are finished.
    """

    batches: dict[str, int]


class RestartedFailedBatches(
    msgspec.Struct,
    array_like=True,
    frozen=True,
    kw_only=True,
    tag_field="kind",
    tag="restarted_failed",
):
    """Failed batches wait to be tried again.

    Attributes:
        batch_numbers: Their numbers.
    """

    batch_numbers: list[int]


class PartialRecovery(
    msgspec.Struct, array_like=True, frozen=True, kw_only=True, tag_field="kind", tag="partial"
):
    """What was begun from one batch on begins anew.

    Attributes:
        completed_batches: How many batches stay completed.
        restart_from_batch: Number of the first that begins anew.
        remaining_batches: How many are to be done; `None` where the total is not known.
    """

    completed_batches: int
    restart_from_batch: int
    remaining_batches: int | None


class FullRestart(
    msgspec.Struct, array_like=True, frozen=True, kw_only=True, tag_field="kind", tag="full"
):
    """Everything begins anew.

    Attributes:
        total_batches: How many there were; `None` where that was not known.
    """

    total_batches: int | None


BatchRecoveryResult: TypeAlias = (
    ResumedBatch | RestartedFailedBatches | PartialRecovery | FullRestart
)
"""What a recovery did."""


class RecoverySums(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """How a scan of a store stood when it made one session ready.

    Attributes:
        healthy_sessions: Sessions that need nothing.
        sessions_requiring_recovery: Sessions that want it, the held ones too.
        successful_recoveries: Sessions made ready up to here, this one included.
        failed_recoveries: Sessions where that raised up to here.
        unrecoverable_sessions: Sessions of which nothing can be read.
    """

    healthy_sessions: int = 0
    sessions_requiring_recovery: int = 0
    successful_recoveries: int = 0
    failed_recoveries: int = 0
    unrecoverable_sessions: int = 0
