"""What all loops and maps over one batch share, through whatever handles they go."""

from __future__ import annotations

import threading
from itertools import count
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from milepost.session.aside import working_task, working_thread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from milepost.types import Key


class Loops:
    """The loops over one batch.

    Attributes:
        times_put_down: How often items that one had in hand were made to wait again.
        found_again: Items of a source that were found on the way, too, the earliest first.
    """

    def __init__(self) -> None:
        self._left_in_hand: set[Key] = set()
        self._claims: dict[Key, object] = {}
        self._owners: set[tuple[int, int]] = set()
        self._taken_over: dict[Key, int] = {}
        self._ended_by: dict[Key, int | None] = {}
        self._numbers = count(1)
        self.times_put_down = 0
        self.found_again: list[Key] = []

    def next_number(self) -> int:
        """The number of a loop that is to begin."""
        return next(self._numbers)

    def note_begun(self) -> None:
        """One begins; whoever works here goes through its items."""
        self._owners.add((id(working_thread()), id(working_task())))

    @property
    def are_shared(self) -> bool:
        """Whether several threads or tasks began some, so that another one may be at work."""
        return len(self._owners) > 1

    # An item is claimed from when a loop chooses it until that is recorded, within one call: so no
    # other one chooses it meanwhile, and a loop that is left in the middle keeps nothing.

    def claim(self, key: Key, owner: object) -> bool:
        """Choose an item for a loop; whether no other one has."""
        return self._claims.setdefault(key, owner) is owner

    def is_claimed(self, key: Key) -> bool:
        """Whether a loop is about to take the item."""
        return key in self._claims

    def release(self, key: Key, owner: object) -> None:
        """It was not taken after all."""
        if self._claims.get(key) is owner:
            del self._claims[key]

    def release_all(self, owner: object) -> None:
        """Its loop is left, wherever it was interrupted."""
        for key in [key for key, each in tuple(self._claims.items()) if each is owner]:
            self.release(key, owner)

    def note_taken(self, keys: Iterable[Key]) -> None:
        """They are recorded as taken: whoever looks can see it."""
        for key in keys:
            self._claims.pop(key, None)

    # What loops that are gone had in hand.

    def take_over(self, key: Key, number: int) -> None:
        """The loop of this number takes what another one has in hand, or had when it was left."""
        self._left_in_hand.discard(key)
        self._taken_over[key] = number
        self._ended_by[key] = None

    def take_anew(self, key: Key) -> None:
        """It waited: whoever takes it now takes it from nobody."""
        self._left_in_hand.discard(key)
        self._taken_over.pop(key, None)

    # Of what was ever in the hands of two loops, the first end counts, with its rows or without.

    @property
    def have_doubled(self) -> bool:
        """Whether two loops ever had the same item in hand."""
        return bool(self._ended_by)

    def is_ended_by_another(self, key: Key, number: int) -> bool:
        """Whether the item, which is done, was in the hands of two, and the other one ended it."""
        return self._ended_by.get(key) not in {None, number}

    def note_ended(self, keys: Iterable[Key], number: int) -> None:
        """The loop of this number ended these, and that is recorded."""
        for key in keys:
            if self._ended_by.get(key, number) is None:
                self._ended_by[key] = number

    def parted(self, keys: Iterable[Key], number: int) -> tuple[list[Key], list[Key]]:
        """Of what a loop had in hand: what is still its own, and what another one took over."""
        own: list[Key] = []
        others: list[Key] = []
        for key in keys:
            (own if self._taken_over.get(key, number) == number else others).append(key)
        return own, others

    def leave(self, keys: Iterable[Key]) -> None:
        """What a loop had in hand that an error has dropped."""
        self._left_in_hand.update(keys)

    def take_left(self) -> set[Key]:
        """All that was left so; it is so no more."""
        left, self._left_in_hand = self._left_in_hand, set()
        return left

    @property
    def has_left(self) -> bool:
        """Whether something was left so."""
        return bool(self._left_in_hand)


class LoopsOfBatches:
    """The loops of each batch of a session, for as long as somebody has a handle on it."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
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
