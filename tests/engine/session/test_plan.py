"""The plan: enumerated once, unique keys, read back from a backup where it must."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost.errors import ConfigurationError, FormatError, StorageError
from milepost.session import plan
from milepost.snapshots import segments
from milepost.snapshots.segments import Identity, PlannedBatch
from milepost.storage import frame
from milepost.storage.directory import LocalDirectory
from support.histories import UID, Story

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from milepost.model.state import PlanPart


def enumerate_all(source: Any, **how: Any) -> list[PlannedBatch]:
    return plan.enumerate_batches(source, **({"key": None, "label": None} | how))


# Enumerating.


def test_batches_from_a_list_a_generator_and_a_function() -> None:
    expected = [PlannedBatch("a", None, "a"), PlannedBatch("b", None, "b")]
    assert enumerate_all(["a", "b"]) == expected
    assert enumerate_all(letter for letter in "ab") == expected
    assert enumerate_all(lambda: iter("ab")) == expected
    assert enumerate_all([]) == []


def test_keys_by_a_function_are_turned_to_text() -> None:
    regions = [{"code": 11110, "name": "종로구"}, {"code": 11140}]
    planned = enumerate_all(regions, key=itemgetter("code"))
    assert [each.key for each in planned] == ["11110", "11140"]
    assert [each.label for each in planned] == ["종로구", None]
    assert [each.payload for each in planned] == regions


def test_labels_by_a_function_win() -> None:
    planned = enumerate_all([{"name": "x"}], key=len, label=str)
    assert (planned[0].key, planned[0].label) == ("1", "{'name': 'x'}")


@pytest.mark.parametrize("each", [None, 1.5, True, ("a",), {"code": 1}, b"a", object()])
def test_a_batch_without_a_usable_key_is_refused(each: Any) -> None:
    with pytest.raises(ConfigurationError, match="a batch's key is") as caught:
        enumerate_all([each])
    assert "key=" in caught.value.hint


def test_two_batches_with_one_key_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="have the key 'a'"):
        enumerate_all(["a", "b", "a"])
    with pytest.raises(ConfigurationError, match="have the key '1'"):
        enumerate_all([1, "1"])


def test_what_the_source_raises_goes_through() -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise OSError("the list is not there")

    with pytest.raises(OSError, match="the list is not there"):
        enumerate_all(broken)


# The index.


def test_every_batch_that_is_planned_or_was_begun_has_its_number() -> None:
    story = Story()
    for number in (5, 6, 7, 8):
        story.start(number)
    story.end(5)
    story.give_up(6)
    story.give_up(7)
    story.retry([7])
    found = plan.index(story.state, [PlannedBatch("x"), PlannedBatch("y")])
    assert found == {"x": 0, "y": 1, "b5": 5, "b6": 6, "b7": 7, "b8": 8}


# Loading.


def seal(folder: LocalDirectory, *keys: str, first: int) -> PlanPart:
    return segments.seal_plan(
        folder,
        [PlannedBatch(key) for key in keys],
        first=first,
        sequence=1,
        created_ns=5,
        identity=Identity("crawl", UID, 1),
        level=frame.LEVEL_SEALED,
    )


@pytest.fixture
def places(tmp_path: Path) -> tuple[LocalDirectory, LocalDirectory]:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    return LocalDirectory(str(tmp_path / "first")), LocalDirectory(str(tmp_path / "second"))


def damage(folder: LocalDirectory, path: str) -> None:
    with open(folder.full(path), "r+b") as file:
        file.truncate(20)


def test_a_plan_of_several_parts_is_one_list(
    places: tuple[LocalDirectory, LocalDirectory],
) -> None:
    folder, _ = places
    state = Story().state
    state.plan = [seal(folder, "a", "b", first=0), seal(folder, "c", first=2)]
    assert [each.key for each in plan.load(folder, (), state)] == ["a", "b", "c"]


@pytest.mark.parametrize("missing", [True, False])
def test_a_damaged_part_is_read_from_its_backup(
    places: tuple[LocalDirectory, LocalDirectory], *, missing: bool
) -> None:
    folder, backup = places
    state = Story().state
    state.plan = [seal(folder, "a", first=0), seal(folder, "b", first=1)]
    seal(backup, "b", first=1)
    if missing:
        folder.remove(state.plan[1].path)
    else:
        damage(folder, state.plan[1].path)
    assert [each.key for each in plan.load(folder, (backup,), state)] == ["a", "b"]
    # With no good copy left, the session's own is what is complained of.
    damage(backup, state.plan[1].path)
    with pytest.raises((StorageError, FormatError)) as caught:
        plan.load(folder, (backup,), state)
    assert isinstance(caught.value, StorageError if missing else FormatError)
    assert caught.value.path == state.plan[1].path


# Against batches begun by hand.


def test_a_plan_takes_no_number_from_a_batch_begun_by_hand(tmp_path: Path) -> None:
    # Else the batch of the plan with that number would count as done and never run.
    store = milepost.Store(str(tmp_path / "store"))
    with store.session("crawl") as session:
        session.start_batch("by hand").complete()
        with pytest.raises(ConfigurationError, match="'by hand' was begun by hand"):
            session.ensure_plan(["a", "b"])
        assert session.state.plan == []
    with store.session("planned") as session:
        assert [batch.key for batch in session.batches(["a", "b"])] == ["a", "b"]
        session.start_batch("by hand").complete()
        assert [batch.key for batch in session.batches(["a", "b"])] == []
        with pytest.raises(ConfigurationError, match="begun by hand"):
            session.ensure_plan(["a", "b", "c"], plan="extend")
        assert session.ensure_plan(["a", "b"], plan="extend") == 0
        session.complete()
