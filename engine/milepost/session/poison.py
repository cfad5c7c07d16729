"""What is said of something that killed its process again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.model.state import Retrying
from milepost.types import BatchPhase, label

if TYPE_CHECKING:
    from milepost.model.state import ActiveBatch, Phase, Suspect


def poison_message(suspect: Suspect, batch: ActiveBatch) -> str:
    """Why it is failed, with what is known of the deaths."""
    known = [f"phase {_phase(batch.current_phase)}"]
    if suspect.last_death:
        known.insert(0, suspect.last_death)
    return (
        f"poison: its process died {suspect.deaths} times in a row with this alone in hand"
        f" ({', '.join(known)})"
    )


def _phase(phase: Phase) -> str:
    if isinstance(phase, Retrying):
        return f"{_phase(phase.phase)}, tried again"
    return label(phase) if isinstance(phase, BatchPhase) else phase
