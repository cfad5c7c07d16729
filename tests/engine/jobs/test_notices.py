"""What a run tells its user of what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import milepost

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OWN_MISTAKE = "looks like a mistake of the program itself"
WEATHER = "run it again when what they need is there"


def test_why_a_batch_failed_is_told_by_its_first_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @milepost.job("work", batches=["b"], store=tmp_path / "s")
    def work(batch: milepost.Batch) -> None:
        raise ValueError("line 1\nline 2")

    result = work.run()
    assert result.failures == {"b": "ValueError: line 1\nline 2"}
    assert "milepost: work: failed: b: ValueError: line 1\n" in capsys.readouterr().err


def fail(raises: Exception) -> Callable[[Any], None]:
    def function(_: Any) -> None:
        raise raises

    return function


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (AttributeError("no such thing"), OWN_MISTAKE),
        (ModuleNotFoundError("no module named x"), OWN_MISTAKE),
        (ConnectionError("down"), WEATHER),
        (ConnectionError("the server says TypeError"), WEATHER),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["items", "batches", "items of batches"])
def test_an_outage_by_the_program_s_own_mistake_is_said_to_be_one(
    kind: str, error: Exception, hint: str, tmp_path: Path
) -> None:
    def each_item(batch: milepost.Batch) -> None:
        for _ in batch.map(fail(error), range(2), attempts=1, give_up_after=0):
            pass

    function: Callable[[Any], None]
    function = fail(error) if kind == "batches" else each_item
    with pytest.raises(milepost.OutageError) as caught:
        if kind == "items":
            for _ in milepost.map(
                fail(error), range(9), "w", store=tmp_path, attempts=1, give_up_after=2
            ):
                pass
        else:
            milepost.job("w", batches=["a", "b", "c"], store=tmp_path, give_up_after=2)(
                function
            ).run(attempts=1, progress=False)
    assert hint in caught.value.hint
    assert "give_up_after= sets how many" in caught.value.hint
    hints = milepost.Store(tmp_path).load_progress("w").executions[-1].error_message
    assert (hints or "").endswith(f"\nhint: {caught.value.hint}")
