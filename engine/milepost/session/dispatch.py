"""Which items run at once, and what the end of one means: the rules of a concurrent map.

- No thread, task or process is known here: who runs the items asks what may begin, and tells what
  has ended. So threads, tasks and clusters behave alike.
- An item is in hand from the moment it is begun until its result was worked on: at most twice as
  many as there are workers, however slow the loop's body is.
- What was in hand when a process died runs alone, one after another; so does what was in hand when
  a pool of processes broke. What breaks it alone again and again is failed as poison.
- A failure is tried again as far as `attempts` goes. Failures in a row beyond `give_up_after` are
  an outage: those items are put back, and the work ends with the error.
- What ended and what was begun go into one record.
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from milepost.errors import OutageError
from milepost.model.events import ItemChange
from milepost.session.feed import Feed, PositionFeed, Taken
from milepost.session.outcomes import Retry, Skip
from milepost.session.outputs import Outputs, Slip
from milepost.text import error_text, in_a_row
from milepost.types import BatchErrorType, ItemStatus, Key
from milepost.work.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from milepost.session.batch import Batch

T = TypeVar("T")

_AHEAD: Final = 2
"""Results that wait for the loop's body keep no worker from the next item, up to as many again."""


class Rules(NamedTuple):
    """How a map works.

    Attributes:
        workers: How many items run at once.
        attempts: Tries an item gets in one run where its error is recoverable.
        give_up_after: So many failures in a row are an outage; 0 for never.
        backoff: How long to wait between tries.
    """

    workers: int = 8
    attempts: int = 3
    give_up_after: int = 20
    backoff: Backoff = Backoff()


class Ticket(Generic[T]):
    """An item in hand.

    Attributes:
        key: What it is known by.
        item: The item.
        slip: Its rows in this try; what an earlier one left behind cannot write into it.
        tries: How often it was begun in this run.
        breaks: How often in a row a pool broke with it alone.
    """

    __slots__ = ("breaks", "item", "key", "slip", "tries")

    def __init__(self, taken: Taken[T], outputs: Outputs) -> None:
        self.key = taken.key
        self.item = taken.item
        self.slip = Slip(outputs)
        self.tries = 0
        self.breaks = 0


class Dispatch(Generic[T]):
    """The items of one map, between the feed and whoever runs them. It belongs to one thread.

    Attributes:
        outage: What ends the work: too many failures in a row; `None` while there is no such thing.
    """

    def __init__(
        self, batch: Batch, feed: Feed[T], rules: Rules, begin: Callable[[], None]
    ) -> None:
        """`begin` begins the run; it is called before items are recorded as taken."""
        self._begin_run = begin
        self._batch = batch
        self._feed = feed
        self._rules = rules
        self._in_hand: dict[Key, Ticket[T]] = {}
        self._running = 0
        self._waiting: list[tuple[float, int, Ticket[T]]] = []
        self._numbers = count()
        self._alone: deque[Ticket[T]] = deque()
        self._lone: Key | None = None
        self._is_last_lap = False
        self.outage: OutageError | None = None
        self._failed_in_a_row: list[Key] = []
        self._changes: list[ItemChange] = []
        self._taken: list[Key] = []
        self._slips: list[Slip] = []
        self._has_failed = False
        self._is_left = False

    # What may begin.

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand, and nothing waits to be tried again."""
        return not (self._in_hand or self._waiting or self._alone)

    @property
    def is_empty_handed(self) -> bool:
        """Whether nothing is in hand."""
        return not self._in_hand

    def has_room(self) -> bool:
        """Whether one more item may begin."""
        if self.outage is not None:
            return False
        if self._alone or self._lone in self._in_hand:
            return not self._in_hand
        workers = self._rules.workers
        return self._running < workers and len(self._in_hand) < workers * _AHEAD

    def due(self, now: float) -> Ticket[T] | None:
        """Begin an item that is to be tried again now; `None` as for `begin`."""
        if self._alone:
            ticket = self._alone.popleft()
            if not self._still_waits(ticket):
                return None
            self._lone = ticket.key
            return self._begun(ticket)
        if self._waiting and self._waiting[0][0] <= now:
            ticket = heapq.heappop(self._waiting)[2]
            return self._admitted(ticket) if self._still_waits(ticket) else None
        return None

    def _still_waits(self, ticket: Ticket[T]) -> bool:
        """Whether no other loop over the batch has taken it since."""
        if any(change.key == ticket.key for change in self._changes):
            return True  # nobody else can know yet that it does
        return self._feed.choose_again(Taken(ticket.key, ticket.item))

    def seconds_until_due(self, now: float) -> float | None:
        """How long until the next item is to be tried again; `None` where none waits."""
        return max(0.0, self._waiting[0][0] - now) if self._waiting else None

    def begin(self, taken: Taken[T]) -> Ticket[T] | None:
        """Begin an item of the source; `None` where it must wait until it can be alone."""
        return self._admitted(Ticket(taken, self._batch.session.outputs))

    def _admitted(self, ticket: Ticket[T]) -> Ticket[T] | None:
        if self._in_hand and self._is_suspect(ticket):
            self._alone.append(ticket)
            self._feed.release([ticket.key])
            return None
        return self._begun(ticket)

    def _is_suspect(self, ticket: Ticket[T]) -> bool:
        """Whether it was in hand when a process died, and has not ended since."""
        number = self._batch.number
        suspects = self._batch.session.live.suspects
        return any(each.key == ticket.key and each.batch == number for each in suspects)

    def begin_rest(self) -> Ticket[T] | None:
        """Begin what was found on the way; then, when all else has ended, what failed before."""
        taken = self._feed.found()
        if taken is None and (self._is_last_lap or self.is_idle):
            self._is_last_lap = True
            taken = self._feed.failed_before()
        return None if taken is None else self.begin(taken)

    def _begun(self, ticket: Ticket[T]) -> Ticket[T]:
        ticket.tries += 1
        self._running += 1
        if self._is_suspect(ticket):
            self._lone = ticket.key
        self._in_hand[ticket.key] = ticket
        self._taken.append(ticket.key)
        return ticket

    # What has ended.

    def returned(self, ticket: Ticket[T]) -> None:
        """The function came back; its result is to be worked on."""
        self._running -= 1
        ticket.breaks = 0
        self._failed_in_a_row.clear()

    def stopped(self, ticket: Ticket[T]) -> None:
        """What stops the work ended the function, too, before it came back: the item waits."""
        self._running -= 1
        ticket.slip.close()
        self._let_go(ticket, ItemStatus.PENDING, None)

    def raised(self, ticket: Ticket[T], error: BaseException, now: float) -> None:
        """The function raised; after so many in a row that it is not them, `outage` says so."""
        self._running -= 1
        ticket.breaks = 0
        self._renew_slip(ticket)
        if isinstance(error, Skip):
            self._failed_in_a_row.clear()
            self._let_go(ticket, ItemStatus.SKIPPED, error.reason or None)
            return
        _, _, is_recoverable = self._batch.session.judge(error)
        after = error.after_seconds if isinstance(error, Retry) else None
        if (is_recoverable or isinstance(error, Retry)) and ticket.tries < self._rules.attempts:
            delay = self._rules.backoff.delay_seconds(ticket.tries) if after is None else after
            heapq.heappush(self._waiting, (now + delay, next(self._numbers), ticket))
            self._let_go(ticket, ItemStatus.PENDING, error)
            return
        self._let_go(ticket, ItemStatus.FAILED, error)
        self._count_failure(ticket.key, error)

    def _count_failure(self, key: Key, error: BaseException) -> None:
        self._failed_in_a_row.append(key)
        number = len(self._failed_in_a_row)
        if not self._rules.give_up_after or number < self._rules.give_up_after:
            return
        recorded = {change.key for change in self._changes}
        self._changes += [
            ItemChange(each, ItemStatus.PENDING)
            for each in self._failed_in_a_row
            # What is recorded already, another loop may have taken since.
            if each in recorded or self._batch.status_of(each) is ItemStatus.FAILED
        ]
        last = error_text(error)
        self.outage = OutageError(
            f"{in_a_row(number, 'item')} failed, the last with {last}; pending again",
            hint=OutageError.hint_after(last),
        )
        self.outage.__cause__ = error

    def broke(
        self, tickets: list[Ticket[T]], error: BaseException, prove: Callable[[], None]
    ) -> None:
        """The pool broke with these in hand; whose fault it was is seen when each runs alone.

        Before one is blamed, `prove` raises where the pool is at fault itself.
        """
        limit = self._batch.session.recovery.max_recovery_attempts
        was_alone = len(tickets) == 1
        if any(ticket.breaks + was_alone >= limit for ticket in tickets):
            prove()
        self._running -= len(tickets)
        for ticket in tickets:
            self._renew_slip(ticket)
            ticket.breaks += was_alone
            if ticket.breaks >= limit:
                message = (
                    f"poison: its worker process died {ticket.breaks} times in a row with this"
                    f" alone in hand ({error_text(error)})"
                )
                kind = BatchErrorType.UNKNOWN_ERROR
                change = ItemChange(ticket.key, ItemStatus.FAILED, message, kind, False)
                self._changes.append(change)
                self._in_hand.pop(ticket.key, None)
                self._count_failure(ticket.key, error)
            else:
                self._alone.append(ticket)
                self._let_go(ticket, ItemStatus.PENDING, error)

    def _renew_slip(self, ticket: Ticket[T]) -> None:
        ticket.slip.close()
        ticket.slip = Slip(self._batch.session.outputs)

    def acknowledge(
        self, ticket: Ticket[T], status: ItemStatus, error: str | BaseException | None
    ) -> None:
        """The loop's body came back: this is what became of the item; its rows go with it."""
        if status is ItemStatus.COMPLETED:
            ticket.slip.is_open = False  # a row that comes now would miss the record
            ticket.slip.keys = (ticket.key,)
            self._slips.append(ticket.slip)
        else:
            ticket.slip.close()
        self._let_go(ticket, status, error)

    def _let_go(
        self, ticket: Ticket[T], status: ItemStatus, error: str | BaseException | None
    ) -> None:
        self._changes.append(self._batch.change(ticket.key, status, error))
        self._in_hand.pop(ticket.key, None)  # it may be left just now

    def is_within(self, slip: Slip | None) -> bool:
        """Whether these are the rows of an item in hand, or of one that its function runs."""
        own = {id(ticket.slip) for ticket in tuple(self._in_hand.values())}
        while slip is not None and id(slip) not in own:
            slip = slip.outer
        return slip is not None

    # Recording.

    def commit(self) -> None:
        """Record what ended and what was begun since the last time.

        After one that failed this does nothing: its rows are missing, and what it was to record is
        given up with what is in hand. So it does once the loop was left.
        """
        if self._has_failed or self._is_left:
            return
        self._has_failed = True  # until it is known that it has not
        try:
            in_hand = self._record(self._changes, self._taken, self._slips)
        except BaseException:
            self._feed.release(self._taken)
            raise
        if len(in_hand) < len(self._taken):
            self._lose(set(self._taken).difference(in_hand))
        for slip in self._slips:
            slip.close()
        self._changes, self._taken, self._slips = [], [], []
        self._has_failed = False

    def _record(
        self, changes: list[ItemChange], taken: list[Key], slips: list[Slip]
    ) -> Collection[Key]:
        """Returns what of the `taken` is in hand now: another loop may end one just before."""
        try:
            if taken:
                self._begin_run()
        except BaseException:
            self._record(changes, [], slips)  # what came back is done, whoever runs the rest
            raise
        if not changes and not taken:
            return ()
        feed: Feed[Any] = self._feed
        if isinstance(feed, PositionFeed):
            return self._batch.advance_positions(changes, taken, slips, feed)
        return self._batch.end_items(changes, taken, slips, feed.number)

    def _lose(self, keys: Iterable[Key]) -> None:
        """These were not taken after all."""
        for key in keys:
            if (ticket := self._in_hand.pop(key, None)) is not None:
                ticket.slip.close()
                self._running -= 1

    def has(self, ticket: Ticket[T]) -> bool:
        """Whether an item that was begun is still in hand."""
        return self._in_hand.get(ticket.key) is ticket

    def put_down(self) -> list[Key]:
        """What is in hand is given up: late rows of it are refused. Returns what that was."""
        self._is_left = True
        in_hand, self._in_hand = self._in_hand, {}
        for ticket in in_hand.values():
            ticket.slip.close()
        # What ended and was not recorded any more counts as in hand: it comes again.
        return [*in_hand, *(change.key for change in self._changes)]
