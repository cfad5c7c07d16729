"""Bytes on a disk: folders, files, frames, names, leases. Knows no session."""
