"""Deaths: what was in hand, and what is to be blamed.

- What was alone in hand is blamed. Of several, it is only known that it may have been one of them:
  they become suspects, to run alone first, so that an innocent neighbour is never blamed.
- A suspect is cleared when it ends, whatever the end. An item's deaths count while it has not
  ended, a batch's while it finishes nothing in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from milepost.model.arms.runs import end_execution
from milepost.model.arms.shared import FoldError
from milepost.model.state import Suspect
from milepost.types import ItemStatus, Key

if TYPE_CHECKING:
    from milepost.model import events as e
    from milepost.model.state import SessionState


def execution_died(state: SessionState, event: e.ExecutionDied) -> SessionState:
    if state.execution is None:
        raise FoldError("no execution is without an end")
    if event.is_blamed:
        state.suspects = suspects_after_death(state, event.cause)
    end_execution(state, state.updated_ns, None, event.cause or None)
    return state


def suspects_after_death(state: SessionState, cause: str = "") -> list[Suspect]:
    """The suspects once the death of the open execution is known; the state stays as it is."""
    in_hand = _in_hand(state)
    suspects = [msgspec.structs.replace(each) for each in state.suspects]
    known = {(each.batch, each.key): each for each in suspects}
    for each in in_hand:
        suspect = known.get((each.batch, each.key))
        if suspect is None:
            suspects.append(suspect := each)
        elif each.key is None and each.items_finished > suspect.items_finished:
            suspect.deaths = 0  # it got on in between, so these deaths are not in a row
        # The most it ever had: a batch may begin to count anew, and that is no progress.
        suspect.items_finished = max(suspect.items_finished, each.items_finished)
        if len(in_hand) == 1:
            suspect.deaths += 1
            suspect.last_death = cause
    return suspects


def _in_hand(state: SessionState) -> list[Suspect]:
    """What may have killed the process: items in flight, or a batch that runs without any."""
    found: list[Suspect] = []
    for number, batch in state.active_batches.items():
        keys: list[Key | None] = [
            item.item_id for item in batch.open.values() if item.status is ItemStatus.PROCESSING
        ]
        # A loop's own batch is no suspect: between its items, only the loop's source was at work.
        if not keys and batch.resumed_ns and not batch.keeps_items:
            keys = [None]
        found += [Suspect(number, key, 0, batch.items_finished) for key in keys]
    return found
