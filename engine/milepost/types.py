"""The small types of the public face: enums as they stand on disk, and the groups of settings.

- Enum numbers are part of the format: they are never changed and never reused.
- Settings refuse values that cannot work when they are made, naming the field.

Source: FORMAT.md, "Enums".
"""

from __future__ import annotations

import enum
import math
from typing import Final, Literal, TypeAlias

import msgspec

from milepost.errors import ConfigurationError

Durability: TypeAlias = Literal["buffered", "process", "disk"]
"""What an update survives when its call returns: nothing yet, kill -9, or a power cut."""

Key: TypeAlias = str | int
"""What an item is known by; `1` and `"1"` are two keys, `True` is none."""


_INT_MAX: Final = 2**63 - 1
"""What a number in a store can be."""
_HOURS_MAX: Final = 1_000_000_000
"""More than anybody waits, and less than a `timedelta` can be."""


class ItemStatus(enum.IntEnum):
    """Where one item stands."""

    PENDING = 0
    """Known, not begun; also: an attempt failed and another one follows."""
    PROCESSING = 1
    """In some worker's hand: in flight."""
    COMPLETED = 2
    """Acknowledged; never run again."""
    FAILED = 3
    """Failed for good in its run; a later run may take it up again."""
    SKIPPED = 4
    """Left out on purpose; never run again."""


class BatchStatus(enum.IntEnum):
    """Where one batch stands."""

    PENDING = 0
    """In the plan, not begun."""
    PROCESSING = 1
    """Begun and not ended; its writer may be dead."""
    COMPLETED = 2
    """Ended with no failed item."""
    FAILED = 3
    """Ended with an error or with failed items."""


class BatchPhase(enum.IntEnum):
    """The six phases a batch goes through; any other text is a phase too."""

    INITIALIZING = 0
    """Just begun."""
    DATA_COLLECTING = 1
    """Fetching what is to be worked on."""
    DATA_PROCESSING = 2
    """Working on it."""
    DATA_VALIDATING = 3
    """Checking the results."""
    DATA_SAVING = 4
    """Writing the results."""
    FINALIZING = 5
    """Closing up."""


class BatchErrorType(enum.IntEnum):
    """What kind of error it was, as far as what to do next depends on it."""

    NETWORK_ERROR = 0
    """A connection was refused, reset or lost, or a server answered that it cannot."""
    DATABASE_ERROR = 1
    """A DB-API driver raised."""
    VALIDATION_ERROR = 2
    """The data is not what it should be; trying again brings the same."""
    TIMEOUT_ERROR = 3
    """Something took too long."""
    RESOURCE_EXHAUSTION = 4
    """Out of memory, disk, quota or descriptors."""
    UNKNOWN_ERROR = 5
    """None of the above."""


class CheckpointType(enum.IntEnum):
    """Why a program set a checkpoint."""

    BATCH_START = 0
    """A batch begins."""
    BATCH_PROGRESS = 1
    """Somewhere inside a batch."""
    BATCH_COMPLETE = 2
    """A batch ended well."""
    BATCH_ERROR = 3
    """A batch met an error."""
    SESSION_START = 4
    """The session begins."""
    SESSION_COMPLETE = 5
    """The session ended."""


class Outcome(enum.IntEnum):
    """How an execution ended."""

    COMPLETED = 0
    """The session was completed, nothing failed."""
    FAILED = 1
    """The session ended with failed batches."""
    STOPPED = 2
    """Somebody stopped it on purpose; no watcher revives it."""
    INTERRUPTED = 3
    """An exception or SIGTERM ended it; it wants to be carried on."""


class RecoveryReason(enum.IntEnum):
    """Why a session wants to be recovered."""

    INTERRUPTED_BATCH = 0
    """It was ended inside a batch."""
    RECOVERABLE_FAILURES = 1
    """Batches failed, and trying them again can help."""
    STALE_SESSION = 2
    """Its writer, on another host, has been silent too long."""
    INTERRUPTED_BETWEEN_BATCHES = 3
    """Batches are done, none is begun, others wait."""
    INTERRUPTED_BEFORE_FIRST = 4
    """It was begun, or begun anew, and no batch is done or in hand."""
    POISONED = 5
    """Something in it killed its process each time that it ran alone."""
    DAMAGED = 6
    """Files of it are damaged; it can be read from an older version or from a backup."""
    STALLED = 7
    """It lives, and nothing has happened for long; reported, never touched."""
    REQUESTED = 8
    """Somebody asked for it."""


class RecoveryPriority(enum.IntEnum):
    """In which order sessions are recovered: the highest first."""

    LOW = 0
    """Little is done in the batch in hand, or nothing is in hand."""
    MEDIUM = 1
    """A fair share of the batch in hand is done, or failures may be tried again."""
    HIGH = 2
    """More than half of the batch in hand is done, or something must be decided."""


class RecoveryStrategy(enum.IntEnum):
    """How a session is made ready to be carried on."""

    RESUME_CURRENT_BATCH = 0
    """The batches in hand go on at their first unfinished item; nothing that is done is lost."""
    RESTART_FAILED_BATCHES = 1
    """Failed batches that may be tried again wait for it; their completed items are kept."""
    PARTIAL_RECOVERY = 2
    """From one batch on, what was begun begins anew."""
    FULL_RESTART = 3
    """Everything begins anew, as a new version."""


class SessionKind(enum.IntEnum):
    """What a session is for."""

    WORK = 0
    """Batches of items."""
    DATA = 1
    """Versioned data alone (`save_state`); never judged by recovery."""


def label(member: enum.IntEnum) -> str:
    """The name by which people and JSON know an enum member, as in `network_error`."""
    return member.name.lower()


def _require(
    config: object,
    setting: str,
    rule: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    whole: bool = False,
) -> None:
    """Refuse a setting that is no number, or none within its bounds, naming it."""
    value = getattr(config, setting)
    kinds = int if whole else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    # Not a number is within no bounds, so it is refused as well.
    if not is_number or not least <= value <= most or not value > above:
        raise ConfigurationError(f"{setting} is {value!r}; it must be {rule}")


class TrackerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How progress is recorded.

    Attributes:
        checkpoint_interval_seconds: A snapshot is taken this long after the last one, if anything
            changed.
        max_detailed_progress_items: Items per batch kept with times and attempts; beyond it the
            oldest finished ones keep only their key.
        enable_item_tracking: Off: finished items keep only their key, whatever the number above.
        enable_performance_metrics: Whether batch ends carry speed, memory and CPU.
        sync_interval_seconds: At most this much of item updates is lost by a power cut.
    """

    checkpoint_interval_seconds: float = 30.0
    max_detailed_progress_items: int = 10_000
    enable_item_tracking: bool = True
    enable_performance_metrics: bool = True
    sync_interval_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name in ("checkpoint_interval_seconds", "sync_interval_seconds"):
            _require(self, name, "more than 0 seconds", above=0)
        rule = "0 or more, and less than 2**63"
        _require(self, "max_detailed_progress_items", rule, least=0, most=_INT_MAX, whole=True)

    @property
    def item_cap(self) -> int:
        """How many items of a batch keep their detail."""
        return self.max_detailed_progress_items if self.enable_item_tracking else 0


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the store keeps what was recorded.

    Attributes:
        enable_compression: Off stores raw blocks; the files stay valid Zstandard.
        max_state_history: Versions kept; those made by hand are counted apart.
        cleanup_interval_hours: How often the age clean-up runs by itself, and how old is old.
        backup_enabled: Whether a second, real copy of every snapshot is kept.
        backup_path: Where; `None` for `backups/` in the store. Another disk is better.
    """

    enable_compression: bool = True
    max_state_history: int = 10
    cleanup_interval_hours: float = 24.0
    backup_enabled: bool = True
    backup_path: str | None = None

    def __post_init__(self) -> None:
        rule = "at least 1: the newest state is never thrown away"
        _require(self, "max_state_history", rule, least=1, whole=True)
        rule = f"more than 0 hours, and at most {_HOURS_MAX:,}"
        _require(self, "cleanup_interval_hours", rule, above=0, most=_HOURS_MAX)


class RecoveryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How failed and dead work is taken up again.

    Attributes:
        auto_recovery_enabled: Off only reports.
        max_recovery_attempts: Runs a failed batch or item gets, and deaths in a row without
            progress, before it is left to `retry`.
        recovery_delay_seconds: Wait before a repeated restart; the first is at once.
        partial_recovery_threshold: Share of a batch from which it is worth carrying on where only
            counts were recorded.
        consistency_check_enabled: Whether inconsistent sessions are held back.
        stale_after_seconds: Silence of a writer on another host until it counts as gone.
        stalled_after_seconds: Time without progress until a live session is reported.
    """

    auto_recovery_enabled: bool = True
    max_recovery_attempts: int = 3
    recovery_delay_seconds: float = 10.0
    partial_recovery_threshold: float = 0.1
    consistency_check_enabled: bool = True
    stale_after_seconds: float = 60.0
    stalled_after_seconds: float = 3600.0

    def __post_init__(self) -> None:
        _require(self, "max_recovery_attempts", "at least 1", least=1, whole=True)
        _require(self, "recovery_delay_seconds", "0 seconds or more", least=0)
        share = "a share between 0 and 1"
        _require(self, "partial_recovery_threshold", share, least=0, most=1)
        for name in ("stale_after_seconds", "stalled_after_seconds"):
            _require(self, name, "more than 0 seconds", above=0)


class JobConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a job presents itself.

    Attributes:
        enabled: Off runs the job without a store, and says so: nothing is kept.
        batch_name: The session's name; `None` for the name given to the job.
        region_type: What a batch of this job is called: `region`, `page`, `sigungu`, …
        auto_resume: Off makes an unfinished session an error instead of carrying it on.
    """

    enabled: bool = True
    batch_name: str | None = None
    region_type: str = "batch"
    auto_resume: bool = True

    def __post_init__(self) -> None:
        for name in ("batch_name", "region_type"):
            if getattr(self, name) == "":
                raise ConfigurationError(f"{name} is empty; it must be a name")
