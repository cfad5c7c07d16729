"""Immutable files: snapshots, segments, checkpoints; which to keep, and second copies of them."""
