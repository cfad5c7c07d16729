"""A gate for work of which some pieces must be alone."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


class Gate:
    """Lets many in at once, or one alone; who is to be alone goes before the others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._waiting_alone = 0
        self._is_alone = False

    @property
    def is_busy(self) -> bool:
        """Whether somebody is inside."""
        return self._inside > 0

    @contextmanager
    def passing(self, *, alone: bool) -> Generator[None]:
        """Be inside, with others or alone."""
        with self._changed:
            self._waiting_alone += alone
            self._changed.wait_for(lambda: self._is_free(alone=alone))
            self._waiting_alone -= alone
            self._inside += 1
            self._is_alone = alone
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._is_alone = False
                self._changed.notify_all()

    def _is_free(self, *, alone: bool) -> bool:
        if alone:
            return not self._inside
        return not (self._is_alone or self._waiting_alone)
