"""What a program that is killed again and again may do, and may not."""

from __future__ import annotations

from collections import Counter


class Campaign:
    """Watches over the items a program worked on, from one kill to the next."""

    def __init__(self, in_hand: int) -> None:
        """`in_hand` is the most that a kill may find in flight."""
        self._in_hand = in_hand
        self._read = 0
        self._acknowledged: set[str] = set()
        self._may_come_again: Counter[str] = Counter()

    def after_kill(self, log: list[str], acknowledged: set[str]) -> None:
        """What was acknowledged stays so, and what was in flight is little.

        `log` are all items worked on so far, and `acknowledged` is what the store says is done.
        """
        fresh = log[self._read :]
        assert not self._acknowledged & set(fresh), "an acknowledged item was worked on again"
        assert len(fresh) == len(set(fresh)), "an item came twice in one run"
        assert acknowledged >= self._acknowledged
        assert acknowledged <= set(log), "acknowledged before it was worked on"
        in_flight = [item for item in fresh if item not in acknowledged]
        assert len(in_flight) <= self._in_hand
        self._may_come_again.update(in_flight)
        self._read, self._acknowledged = len(log), acknowledged

    def at_end(self, log: list[str], acknowledged: set[str], items: set[str]) -> None:
        """All is done, and nothing came again but what a kill met in flight."""
        self.after_kill(log, acknowledged)
        assert set(log) == items, "every item was worked on"
        assert acknowledged == items
        assert Counter(log) - Counter(items) <= self._may_come_again
