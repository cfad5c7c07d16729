"""milepost keeps long batch work resumable with nothing but a folder.

`resume` is a loop that survives, `job` a function over batches, `Store` the folder itself.
"""

from __future__ import annotations

from milepost.clock import Clock, ManualClock, SystemClock
from milepost.errors import (
    AlreadyLockedError,
    CheckpointNotFoundError,
    ChecksumMismatchError,
    ClosedError,
    ConfigurationError,
    ConsumerError,
    DamagedError,
    DurabilityLostError,
    EncodingError,
    FormatError,
    InputChangedError,
    JobFailedError,
    MilepostError,
    NotAMilepostFileError,
    OutageError,
    OutputError,
    ParametersChangedError,
    RecordTooLargeError,
    RecoveryError,
    SchemaError,
    SessionNotFoundError,
    SnapshotNotFoundError,
    StorageError,
    StorageFullError,
    StoreNotFoundError,
    SupersededError,
    TruncatedError,
    UnfinishedError,
    UnrecoverableError,
    UnsupportedVersionError,
)
from milepost.jobs.job import Job, job
from milepost.jobs.loop import refusing_loops, resume
from milepost.jobs.mapping import map  # noqa: A004  # the word of the public face
from milepost.jobs.progress import PlainProgress, progress_line
from milepost.jobs.remote import RemoteBatch, WorkerDiedError
from milepost.jobs.result import JobResult
from milepost.model.consistency import Finding, check
from milepost.model.estimate import (
    Counts,
    active_ns,
    batch_active_ns,
    batch_counts,
    batch_remaining_ns,
    is_growing,
    item_counts,
    items_waiting,
    percent,
    progress,
    remaining_ns,
)
from milepost.model.events import BatchEvent
from milepost.model.recoveries import (
    BatchRecoveryResult,
    FullRestart,
    PartialRecovery,
    RecoverySums,
    RestartedFailedBatches,
    ResumedBatch,
)
from milepost.model.state import (
    ActiveBatch,
    BatchMetrics,
    CheckpointInfo,
    CompletedBatch,
    Execution,
    FailedBatch,
    ItemProgress,
    Phase,
    RecoveryMark,
    Retrying,
    SessionState,
    SessionStatistics,
    Suspect,
)
from milepost.model.status import Presence, SessionStatus
from milepost.recovery.analysis import (
    NoRecoveryNeeded,
    RecoveryStatus,
    RequiresRecovery,
    Unrecoverable,
)
from milepost.recovery.monitor import RecoveryMonitorResult
from milepost.recovery.notice import WatchNotice
from milepost.recovery.service import RecoveryDetail, RecoveryReport, RecoveryService
from milepost.recovery.supervisor import Supervisor
from milepost.recovery.watched import Row, Target
from milepost.recovery.watcher import Watcher
from milepost.session.batch import Batch
from milepost.session.contents import plain
from milepost.session.items import Items
from milepost.session.mapping import Mapped
from milepost.session.outcomes import Retry, Skip
from milepost.session.outputs import Output
from milepost.session.results import CleanupResult, RetryResult, SessionInfo
from milepost.session.session import Session
from milepost.session.subscription import Subscription
from milepost.session.view import View
from milepost.settings.configuration import Configuration, Setting, configuration
from milepost.settings.file import ConfigFile, search_start, searching_from
from milepost.snapshots.segments import PlannedBatch
from milepost.snapshots.versions import VersionInfo
from milepost.storage.location import find_store, resolve_path
from milepost.store import (
    Store,
    cleanup,
    read_file,
)
from milepost.text import shortened, text_width
from milepost.types import (
    BatchErrorType,
    BatchPhase,
    BatchStatus,
    CheckpointType,
    Durability,
    ItemStatus,
    JobConfig,
    Key,
    Outcome,
    RecoveryConfig,
    RecoveryPriority,
    RecoveryReason,
    RecoveryStrategy,
    SessionKind,
    StoreConfig,
    TrackerConfig,
    label,
)
from milepost.work.classify import Classifier, Verdict, classify
from milepost.work.retry import Backoff

__all__ = [
    "ActiveBatch",
    "AlreadyLockedError",
    "Backoff",
    "Batch",
    "BatchErrorType",
    "BatchEvent",
    "BatchMetrics",
    "BatchPhase",
    "BatchRecoveryResult",
    "BatchStatus",
    "CheckpointInfo",
    "CheckpointNotFoundError",
    "CheckpointType",
    "ChecksumMismatchError",
    "Classifier",
    "CleanupResult",
    "Clock",
    "ClosedError",
    "CompletedBatch",
    "ConfigFile",
    "Configuration",
    "ConfigurationError",
    "ConsumerError",
    "Counts",
    "DamagedError",
    "Durability",
    "DurabilityLostError",
    "EncodingError",
    "Execution",
    "FailedBatch",
    "Finding",
    "FormatError",
    "FullRestart",
    "InputChangedError",
    "ItemProgress",
    "ItemStatus",
    "Items",
    "Job",
    "JobConfig",
    "JobFailedError",
    "JobResult",
    "Key",
    "ManualClock",
    "Mapped",
    "MilepostError",
    "NoRecoveryNeeded",
    "NotAMilepostFileError",
    "OutageError",
    "Outcome",
    "Output",
    "OutputError",
    "ParametersChangedError",
    "PartialRecovery",
    "Phase",
    "PlainProgress",
    "PlannedBatch",
    "Presence",
    "RecordTooLargeError",
    "RecoveryConfig",
    "RecoveryDetail",
    "RecoveryError",
    "RecoveryMark",
    "RecoveryMonitorResult",
    "RecoveryPriority",
    "RecoveryReason",
    "RecoveryReport",
    "RecoveryService",
    "RecoveryStatus",
    "RecoveryStrategy",
    "RecoverySums",
    "RemoteBatch",
    "RequiresRecovery",
    "RestartedFailedBatches",
    "ResumedBatch",
    "Retry",
    "RetryResult",
    "Retrying",
    "Row",
    "SchemaError",
    "Session",
    "SessionInfo",
    "SessionKind",
    "SessionNotFoundError",
    "SessionState",
    "SessionStatistics",
    "SessionStatus",
    "Setting",
    "Skip",
    "SnapshotNotFoundError",
    "StorageError",
    "StorageFullError",
    "Store",
    "StoreConfig",
    "StoreNotFoundError",
    "Subscription",
    "SupersededError",
    "Supervisor",
    "Suspect",
    "SystemClock",
    "Target",
    "TrackerConfig",
    "TruncatedError",
    "UnfinishedError",
    "Unrecoverable",
    "UnrecoverableError",
    "UnsupportedVersionError",
    "Verdict",
    "VersionInfo",
    "View",
    "WatchNotice",
    "Watcher",
    "WorkerDiedError",
    "active_ns",
    "batch_active_ns",
    "batch_counts",
    "batch_remaining_ns",
    "check",
    "classify",
    "cleanup",
    "configuration",
    "find_store",
    "is_growing",
    "item_counts",
    "items_waiting",
    "job",
    "label",
    "map",
    "percent",
    "plain",
    "progress",
    "progress_line",
    "read_file",
    "refusing_loops",
    "remaining_ns",
    "resolve_path",
    "resume",
    "search_start",
    "searching_from",
    "shortened",
    "text_width",
]
