"""A consumer that would acknowledge work that is not done is refused, and a loop never is."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest

from milepost.errors import ConsumerError
from milepost.session.consumer import Consumer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


# An iterator that asks its consumer's leave, as a session's items do. The look goes to the nearest
# frame that is not milepost's own, so this double is made as one of its modules.
DOUBLE = """
class Pulled:
    def __init__(self, count=5):
        self._consumer = Consumer()
        self._left = iter(range(count))
        self.given = []

    def __iter__(self):
        return self

    def __next__(self):
        self._consumer.check()
        number = next(self._left)
        self.given.append(number)
        return number

    def __length_hint__(self):
        self._consumer.note_length_hint()
        return 0
"""
namespace: dict[str, Any] = {"__name__": "milepost.double", "Consumer": Consumer}
exec(DOUBLE, namespace)
Pulled: Any = namespace["Pulled"]


def starred(items: Iterable[int]) -> list[int]:
    return [*items]


def starred_tuple(items: Iterable[int]) -> tuple[int, ...]:
    return (*items,)


def starred_set(items: Iterable[int]) -> set[int]:
    return {*items}


def starred_call(items: Iterable[int]) -> Any:
    return max(*items)


def unpacked(items: Iterable[int]) -> int:
    first, _second, *_rest = items
    return first


def unpacked_exactly(items: Iterable[int]) -> int:
    first, _second = items
    return first


def contained(items: Iterable[int]) -> bool:
    return 3 in items


def extended(items: Iterable[int]) -> list[int]:
    made: list[int] = []
    made.extend(items)
    return made


@pytest.mark.parametrize(
    "consume",
    [
        list,
        tuple,
        sorted,
        starred,
        starred_tuple,
        starred_set,
        starred_call,
        unpacked,
        unpacked_exactly,
        contained,
        extended,
    ],
)
def test_what_pulls_all_at_once_is_refused(consume: Callable[[Iterable[int]], Any]) -> None:
    items = Pulled()
    with pytest.raises(ConsumerError) as caught:
        consume(items)
    assert items.given == []
    assert isinstance(caught.value, TypeError)
    assert "workers=" in caught.value.hint


def test_a_loop_is_what_it_is_for() -> None:
    items = Pulled()
    seen: list[int] = []
    for number in items:
        seen.append(number)  # the loop is what is tested
    assert seen == [0, 1, 2, 3, 4]


def test_a_loop_with_much_in_its_body() -> None:
    seen: list[Any] = []
    for number in Pulled():
        # All of these have instructions of the kinds that are looked for, about other things.
        low, *rest = [number, *range(3)]
        seen.append(max(*rest, low) in {*rest})
        seen.extend(list(range(2)))
        seen.append(sorted([low], key=lambda each: each))
    assert len(seen) == 20


def test_pulling_by_hand_is_possible() -> None:
    items = Pulled()
    assert next(items) == 0
    assert next(items) == 1
    while (number := next(items, None)) is not None:
        assert number < 5


def test_a_comprehension_and_what_is_built_on_loops_are_loops() -> None:
    # Their body runs item by item; what does not is told in the documentation.
    assert [number * 2 for number in Pulled()] == [0, 2, 4, 6, 8]
    assert sum(number for number in Pulled()) == 10
    assert dict.fromkeys(Pulled(), 1) == dict.fromkeys(range(5), 1)


def test_two_loops_after_one_another_over_the_same_items() -> None:
    items = Pulled()
    for number in items:
        if number == 1:
            break
    assert [number for number in items] == [2, 3, 4]  # noqa: C416  # a loop, not list()


def test_a_loop_in_a_generator_of_the_users() -> None:
    def doubled(items: Iterable[int]) -> Iterator[int]:
        for number in items:
            yield number * 2

    seen = 0
    for number in doubled(Pulled()):
        seen += number
    assert seen == 20


def test_enumerate_and_zip_in_a_loop() -> None:
    for index, number in enumerate(Pulled()):
        assert index == number
    for number, letter in zip(Pulled(2), "ab", strict=True):
        assert (number, letter) in {(0, "a"), (1, "b")}
    for number in itertools.islice(Pulled(), 2):
        assert number < 2


def test_another_thread_that_pulls_is_refused() -> None:
    items = Pulled()
    assert next(items) == 0
    caught: list[BaseException] = []

    def pull() -> None:
        try:
            next(items)
        except ConsumerError as error:
            caught.append(error)

    thread = threading.Thread(target=pull)
    thread.start()
    thread.join()
    assert len(caught) == 1
    assert "another thread" in str(caught[0])
    assert items.given == [0]
    assert next(items) == 1


def test_a_length_hint_alone_harms_nobody() -> None:
    items = Pulled()
    assert items.__length_hint__() == 0
    for number in items:
        assert number >= 0
    assert len(items.given) == 5


def test_a_loop_is_looked_at_once_and_not_for_every_item() -> None:
    # The place of the pull is remembered; the same function may be a loop for one iterator and
    # unpack another.
    def both(first: Iterable[int], second: Iterable[int]) -> None:
        for _ in first:
            pass
        seen.extend([*second])

    seen: list[int] = []
    first, second = Pulled(), Pulled()
    with pytest.raises(ConsumerError):
        both(first, second)
    assert len(first.given) == 5
    assert second.given == []
