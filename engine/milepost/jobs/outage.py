"""Failures in a row: so many of them are an outage, and no batch's fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.errors import OutageError
from milepost.text import in_a_row
from milepost.types import ItemStatus, Key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from milepost.session.session import Session


class Outage:
    """Watches the ends of batches, as they are recorded."""

    def __init__(self, session: Session, limit: int) -> None:
        """`limit` failures in a row are an outage; 0 for never."""
        self._session = session
        self._limit = limit
        self._is_met = False
        self._failed: list[int] = []

    def note(self, numbers: Iterable[int]) -> None:
        """These batches have ended.

        Errors: `OutageError` where too many failed in a row; they are pending again, with what
            failed in them in this run. So is all that fails after them: it was in hand then.
        """
        failed_batches = self._session.live.failed_batches
        for number in numbers:
            if number in failed_batches:
                self._failed.append(number)
            elif not self._is_met:
                self._failed.clear()
            self._is_met = self._is_met or 0 < self._limit <= len(self._failed)
        if self._is_met and self._failed:
            self._put_back()

    def _put_back(self) -> None:
        session = self._session
        failed, self._failed = self._failed, []
        last = session.live.failed_batches[failed[-1]]
        items = {number: keys for number in failed if (keys := self._failed_items(number))}
        session.put_back(failed, items)
        raise OutageError(
            f"{in_a_row(len(failed), session.batch_word)} failed, the last, {last.batch_id!r}, with"
            f" {last.error_message}; pending again",
            hint=OutageError.hint_after(last.error_message),
        )

    def _failed_items(self, number: int) -> list[Key]:
        batch = self._session.live.failed_batches[number].partial_progress
        return [
            key
            for key, item in batch.open.items()
            if item.status is ItemStatus.FAILED and item.failed_in == self._session.epoch
        ]
