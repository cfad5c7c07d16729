"""The plan: the frozen list of a session's batches, enumerated once and sealed before any of them.

- A kill during the enumeration leaves nothing, and it starts again.
- Keys are unique; what the key function gives is turned to text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from milepost.errors import ConfigurationError, FormatError, SchemaError, StorageError
from milepost.session.arguments import check_source
from milepost.snapshots import segments
from milepost.snapshots.segments import PlannedBatch
from milepost.storage import frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from milepost.model.state import PlanPart, SessionState
    from milepost.session.writer import Writer
    from milepost.storage.directory import LocalDirectory

Plan = Literal["frozen", "extend"]
"""What a run does about batches that are new in the source: nothing, or add them to the plan."""
PLANS: Final[tuple[Plan, ...]] = ("frozen", "extend")


def load(
    folder: LocalDirectory, backups: tuple[LocalDirectory, ...], state: SessionState
) -> list[PlannedBatch]:
    """The sealed plan; from a backup where the session's own copy is damaged.

    Errors: `FormatError` or `StorageError` where no copy of a part can be read.
    """
    batches: list[PlannedBatch] = []
    for part in state.plan:
        batches += _read_part(folder, backups, part, state.uid)
    return batches


def _read_part(
    folder: LocalDirectory, backups: tuple[LocalDirectory, ...], part: PlanPart, uid: str
) -> list[PlannedBatch]:
    try:
        return segments.read_plan(folder, part, uid)
    except (FormatError, SchemaError, StorageError):
        for place in backups:
            try:
                return segments.read_plan(place, part, uid)
            except (FormatError, SchemaError, StorageError):
                continue
        raise


def index(state: SessionState, plan: list[PlannedBatch]) -> dict[str, int]:
    """Batch key to number, for all batches that are planned or were ever begun."""
    numbers = {batch.key: number for number, batch in enumerate(plan)}
    for group in (
        state.completed_batches,
        state.active_batches,
        state.failed_batches,
        state.pending_batches,
    ):
        for number, batch in group.items():
            numbers.setdefault(batch.batch_id, number)
    return numbers


def enumerate_batches(
    source: Iterable[Any] | Callable[[], Iterable[Any]],
    *,
    key: Callable[[Any], Any] | None,
    label: Callable[[Any], str] | None,
) -> list[PlannedBatch]:
    """Ask the source for all batches.

    Errors: `ConfigurationError` for a batch without a usable key, or two with the same;
        `TypeError` for a source that lists nothing.
    """
    listed = source() if callable(source) else source
    check_source(listed, "batches, or what a function for them returns,")
    batches = [_planned(each, key, label) for each in listed]
    segments.check_new_keys(batches)
    return batches


def _planned(
    each: Any, key: Callable[[Any], Any] | None, label: Callable[[Any], str] | None
) -> PlannedBatch:
    found = key(each) if key is not None else each
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        raise ConfigurationError(
            f"a batch's key is {found!r:.80}, a {type(found).__name__}; it must be text or a whole"
            " number",
            hint="pass key=, a function that returns one: key=lambda region: region['code']",
        )
    name = label(each) if label is not None else _label_in(each)
    if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers are not all typed
        raise ConfigurationError(f"the label of batch {found!r} is {name!r:.80}; it must be text")
    return PlannedBatch(str(found), name, each)


def _label_in(each: Any) -> str | None:
    """A batch that is a mapping with a name is called by it."""
    if isinstance(each, dict):
        name: Any = each.get("label") or each.get("name")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return name if isinstance(name, str) else None
    return None


def seal(writer: Writer, batches: list[PlannedBatch], *, first: int) -> list[PlanPart]:
    """Publish the batches as segments; on return they are durable, and events may mention them."""
    parts: list[PlanPart] = []
    # An empty plan is a plan too: the enumeration must not be repeated.
    for start in range(0, max(1, len(batches)), segments.PART_BATCHES_MAX):
        part = batches[start : start + segments.PART_BATCHES_MAX]
        if not part and first:
            break
        parts.append(
            segments.seal_plan(
                writer.folder,
                part,
                first=first + start,
                sequence=writer.state.sequence,
                created_ns=writer.now_ns(),
                identity=writer.identity,
                level=frame.LEVEL_SEALED if writer.archive.level > 0 else writer.archive.level,
            )
        )
    return parts
