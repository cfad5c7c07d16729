"""Whose items a loop gives out: a batch in the hands of a job or a program, or a loop's own.

The host is asked for the batch when the first item is wanted, told when the run begins, and told in
the end how the work was left.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, NoReturn

from milepost.errors import ClosedError, MilepostError
from milepost.session.aside import wait_for_left

if TYPE_CHECKING:
    from collections.abc import Collection

    from milepost.session.batch import Batch
    from milepost.session.workload import Workload
    from milepost.types import Key


_ENDS: Final = (KeyboardInterrupt, SystemExit)


class StopRequested(BaseException):  # no error: nobody's `except Exception` may eat it
    """The work was asked to stop, and the item in hand is acknowledged.

    It passes through the body up to the runner that asked.
    """


class Host:
    """Whose items they are; this one is a batch in the hands of a job or of a program.

    Attributes:
        owns_session: Whether the session ends with the loop.
        number: Of the loop, among those over its batch.
    """

    owns_session = False

    def __init__(self, batch: Batch | None = None) -> None:
        self._batch = batch
        self.number = 0

    def open(self) -> Batch:
        """The batch whose items these are, begun or not. It may wait for the disk."""
        if self._batch is None:
            raise ClosedError("these items belong to no batch")
        wait_for_left()
        self.number = self._batch.begin_loop()
        return self._batch

    def attach(self) -> None:
        """Called once where the loop begins, in its thread; `add` may have had it opened before."""
        if self._batch is not None:
            self._batch.loops.note_begun()

    def detach(self) -> None:
        """Called once in the end, in the thread of the loop."""

    def begin(self, batch: Batch, total: int | None) -> None:
        """Called before items are taken; `total` is how many the source has, if that is known."""

    def finish(self, batch: Batch, work: Workload[Any]) -> None:  # noqa: ARG002  # others tell of it
        """Called when all items were given out and acknowledged."""
        batch.end_loop(self.number)

    def leave(
        self,
        error: BaseException | None,
        in_hand: Collection[Key],  # noqa: ARG002  # others tell of it
        *,
        on_purpose: bool,
    ) -> None:
        """Called when the loop was left before its end: what it had in hand may come again.

        Where an error that nobody knows of has dropped a plain loop, it stays in hand until another
        loop begins: whoever catches the error sees what it was. So does all at the program's end.
        What another loop has taken over since is that one's.
        """
        batch = self._batch
        if batch is None:
            return
        batch.loops.times_put_down += 1  # also what waited here for its next try
        is_unknown = isinstance(error, _ENDS) if error is not None else not on_purpose
        with contextlib.suppress(MilepostError):  # a batch that has ended has nothing in hand
            batch.end_loop(self.number, stays=is_unknown)

    def raise_stop(self) -> NoReturn:
        """Called where the loop was left because somebody asked for it."""
        raise StopRequested
