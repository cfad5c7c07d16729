"""Whose an item is, among all loops and maps over one batch, through whatever handles they go.

- A loop claims an item when it chooses it, and waits for nobody. It has it in hand from the record
  that says so to the one that says what became of it. That is noted under the session's lock, and
  so is as the records are.
- A loop may take over what another one has in hand, for that one may be gone without a word. Who
  had it first may still be the first to end it: once an item is done, no other end of it counts,
  and no row.
- A loop that has ended takes nothing more, whatever it is in the middle of.
"""

from __future__ import annotations

import threading
from itertools import count
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from milepost.session.aside import working_task, working_thread
from milepost.types import ItemStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from milepost.types import Key

_DONE: Final = frozenset({ItemStatus.COMPLETED, ItemStatus.SKIPPED})


class Loops:
    """The loops over one batch.

    Attributes:
        times_put_down: How often items that one had in hand were made to wait again.
        found_again: Items of a source that were found on the way, too, the earliest first.
    """

    def __init__(self) -> None:
        self._claims: dict[Key, object] = {}
        self._holders: dict[Key, int] = {}
        self._open: set[int] = set()
        self._left: set[int] = set()
        self._workers: set[tuple[int, int]] = set()
        self._numbers = count(1)
        self.times_put_down = 0
        self.found_again: list[Key] = []

    def note_begun(self) -> None:
        """One begins; whoever works here goes through its items."""
        self._workers.add((id(working_thread()), id(working_task())))

    @property
    def are_shared(self) -> bool:
        """Whether several threads or tasks began some, so that another one may be at work."""
        return len(self._workers) > 1

    # An item is claimed from when a loop chooses it until that is recorded, within one call: so no
    # other one chooses it meanwhile, and a loop that is left in the middle keeps nothing.

    def claim(self, key: Key, owner: object) -> bool:
        """Choose an item for a loop; whether no other one has."""
        return self._claims.setdefault(key, owner) is owner

    def release(self, key: Key, owner: object) -> None:
        """It was not taken after all."""
        if self._claims.get(key) is owner:
            del self._claims[key]

    def release_all(self, owner: object) -> None:
        """Its loop is left, wherever it was interrupted."""
        for key in [key for key, each in tuple(self._claims.items()) if each is owner]:
            self.release(key, owner)

    # In hand. Whoever calls these holds the session's lock.

    def begin(self) -> int:
        """The number of a loop that begins."""
        number = next(self._numbers)
        self._open.add(number)
        return number

    def is_open(self, number: int) -> bool:
        """Whether the loop may take items."""
        return number in self._open

    def has(self, key: Key, number: int) -> bool:
        """Whether the loop has the item in hand."""
        return self._holders.get(key) == number

    def may_end(self, key: Key, status: ItemStatus, *, is_done: bool) -> bool:
        """Whether it counts what a loop says of an item that it has not in hand any more."""
        return not is_done and (key not in self._holders or status in _DONE)

    def note_ended(self, keys: Iterable[Key]) -> None:
        """It is recorded what became of these: nobody has them in hand."""
        for key in keys:
            self._holders.pop(key, None)

    def note_taken(self, keys: Iterable[Key], number: int) -> None:
        """They are recorded as taken by the loop: whoever looks can see it."""
        for key in keys:
            self._holders[key] = number
            self._claims.pop(key, None)

    def drop_claims(self, keys: Iterable[Key]) -> None:
        """They were to be taken, and were not after all."""
        for key in keys:
            self._claims.pop(key, None)

    def end(self, number: int) -> list[Key]:
        """The loop ends; returns what it has in hand, which waits to be put down."""
        self._open.discard(number)
        in_hand = [key for key, holder in self._holders.items() if holder == number]
        if in_hand:
            self._left.add(number)
        return in_hand

    @property
    def has_left(self) -> bool:
        """Whether something waits to be put down."""
        return bool(self._left)

    def left_in_hand(self) -> list[Key]:
        """All that waits to be put down."""
        return [key for key, holder in self._holders.items() if holder in self._left]

    def forget_left(self) -> None:
        """Forget the loops that have nothing in hand any more."""
        self._left.intersection_update(self._holders.values())


class LoopsOfBatches:
    """The loops of each batch of a session, for as long as somebody has a handle on it."""

    def __init__(self) -> None:
        self._lock: Final = threading.RLock()  # what is collected meanwhile may ask, too
        self._of: WeakValueDictionary[int, Loops] = WeakValueDictionary()
        self._kept: dict[int, Loops] = {}

    def of(self, number: int) -> Loops:
        """The loops of a batch."""
        with self._lock:
            found = self._of.get(number)
            if found is None:
                found = self._of[number] = Loops()
            return found

    def keep(self, number: int, loops: Loops) -> None:
        """Remember what was left in hand there, also while nobody has a handle; or forget it."""
        if loops.has_left:
            self._kept[number] = loops
        else:
            self._kept.pop(number, None)
