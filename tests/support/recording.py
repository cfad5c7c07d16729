"""A double of the operating system's calls that writes down their order, and fails where told."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from milepost.storage.syscalls import OperatingSystem

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Recording(OperatingSystem):
    """The real calls, written down as `name path`, paths relative to the root.

    Attributes:
        calls: What was called, in order; a temporary name is written as `TMP`.
        failing: Call name to the error number it raises from now on.
        at_most: The most bytes that one write takes; `None` for all of them.
        room: Bytes that can still be written before the disk is full; `None` for no end.
    """

    def __init__(self, root: str) -> None:
        self.calls: list[str] = []
        self.failing: dict[str, int] = {}
        self.at_most: int | None = None
        self.room: int | None = None
        self._root = root
        self._paths: dict[int, str] = {}

    def _note(self, name: str, *paths: str) -> None:
        short = [os.path.relpath(path, self._root) for path in paths]
        short = ["TMP" if path.endswith(".tmp") else path for path in short]
        self.calls.append(" ".join([name, *short]))
        if name in self.failing:
            number = self.failing[name]
            raise OSError(number, os.strerror(number))

    def open_new(self, path: str) -> int:
        self._note("open", path)
        descriptor = super().open_new(path)
        self._paths[descriptor] = path
        return descriptor

    def open_output(self, path: str) -> int:
        self._note("open-output", path)
        descriptor = super().open_output(path)
        self._paths[descriptor] = path
        return descriptor

    def pwrite(self, descriptor: int, data: Buffer, offset: int, /) -> int:
        self._note("write", self._paths[descriptor])
        view = memoryview(data)
        if self.at_most is not None:
            view = view[: self.at_most]
        if self.room is not None:
            if not self.room and len(view):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            view = view[: self.room]
            self.room -= len(view)
        return os.pwrite(descriptor, view, offset)

    def allocate(self, descriptor: int, offset: int, size_bytes: int) -> None:
        self._note("allocate", self._paths[descriptor])
        super().allocate(descriptor, offset, size_bytes)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        self._note("truncate", self._paths[descriptor])
        super().truncate(descriptor, size_bytes)

    def sync(self, descriptor: int) -> None:
        self._note("fsync", self._paths[descriptor])
        super().sync(descriptor)

    def sync_folder(self, path: str) -> None:
        self._note("fsync-folder", path)
        super().sync_folder(path)

    def rename(self, source: str, target: str) -> None:
        self._note("rename", source, target)
        os.replace(source, target)

    def remove(self, path: str) -> None:
        self._note("remove", path)
        os.unlink(path)

    def make_folder(self, path: str) -> None:
        self._note("mkdir", path)
        super().make_folder(path)

    def remove_folder(self, path: str) -> None:
        self._note("rmdir", path)
        os.rmdir(path)
