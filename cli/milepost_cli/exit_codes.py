"""Exit codes: one table from what a command met to what its caller is told.

| code | meaning |
|---|---|
| 0 | fine |
| 1 | failed |
| 2 | wrong usage: options, arguments, settings, a job file without one job |
| 3 | ended with failed batches |
| 10 | no such store, session, version or checkpoint |
| 11 | another process writes the session, or took it over |
| 12 | damaged |
| 13 | of a newer format or schema |
| 130, 143 | stopped by SIGINT or SIGTERM after a clean save |
"""

from __future__ import annotations

from typing import Final

import milepost

FINE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
FAILED_BATCHES: Final = 3
NOT_FOUND: Final = 10
LOCKED: Final = 11
DAMAGED: Final = 12
NEWER: Final = 13
INTERRUPTED: Final = 130
TERMINATED: Final = 143

CODES: Final[dict[type[milepost.MilepostError], int]] = {
    milepost.MilepostError: FAILED,
    milepost.ConfigurationError: USAGE,
    milepost.StorageError: FAILED,
    milepost.AlreadyLockedError: LOCKED,
    milepost.StorageFullError: FAILED,
    milepost.DurabilityLostError: FAILED,
    milepost.FormatError: DAMAGED,
    milepost.NotAMilepostFileError: DAMAGED,
    milepost.UnsupportedVersionError: NEWER,
    milepost.TruncatedError: DAMAGED,
    milepost.ChecksumMismatchError: DAMAGED,
    milepost.DamagedError: DAMAGED,
    milepost.SchemaError: DAMAGED,
    milepost.EncodingError: FAILED,
    milepost.RecordTooLargeError: FAILED,
    milepost.StoreNotFoundError: NOT_FOUND,
    milepost.SessionNotFoundError: NOT_FOUND,
    milepost.SnapshotNotFoundError: NOT_FOUND,
    milepost.CheckpointNotFoundError: NOT_FOUND,
    milepost.SupersededError: LOCKED,
    milepost.ParametersChangedError: FAILED,
    milepost.InputChangedError: FAILED,
    milepost.UnfinishedError: FAILED,
    milepost.JobFailedError: FAILED_BATCHES,
    milepost.ConsumerError: FAILED,
    milepost.OutageError: FAILED,
    milepost.OutputError: FAILED,
    milepost.WorkerDiedError: FAILED,
    milepost.RecoveryError: FAILED,
    milepost.UnrecoverableError: DAMAGED,
    milepost.ClosedError: FAILED,
}


def code_of(error: BaseException) -> int:
    """The exit code for an error: that of its own class, else of the nearest class above it."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return FAILED


def is_damage(status: milepost.RecoveryStatus) -> bool:
    """Whether a session cannot be read, or is held back because it lacks or contradicts itself."""
    if isinstance(status, milepost.Unrecoverable):
        return True
    return (
        isinstance(status, milepost.RequiresRecovery)
        and status.is_held
        and status.reason is not milepost.RecoveryReason.STALLED
    )
