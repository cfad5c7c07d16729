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


@pytest.mark.parametrize(("number", "said"), [(1, "1 item failed"), (2, "2 items in a row failed")])
def test_an_outage_counts_as_people_do(number: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(milepost.OutageError, match=f"^{said}, the last with ValueError: down"):
        for _ in milepost.map(
            fail(ValueError("down")),
            range(9),
            "w",
            store=tmp_path,
            attempts=1,
            give_up_after=number,
        ):
            pass


def test_a_job_is_resumed_with_what_its_open_batches_have_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @milepost.job("work", batches=["a", "b"], store=tmp_path)
    def work(batch: milepost.Batch) -> None:
        for item in batch.items(range(5)):
            if batch.key == "b" and item == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work.run()
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        work.run()
    assert "resumed with 1 of 2 batches done and 3 items of others, " in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["resume", "map", "job"])
def test_params_that_cannot_be_kept_make_no_session(kind: str, tmp_path: Path) -> None:
    def work(_: Any) -> None:
        raise AssertionError

    with pytest.raises(milepost.EncodingError, match="params"):
        if kind == "resume":
            milepost.resume("ab", "w", store=tmp_path, params=object())
        elif kind == "map":
            milepost.map(work, "ab", "w", store=tmp_path, params=object())
        else:
            milepost.job("w", batches="ab", store=tmp_path, params=object())(work).run()
    assert not list(tmp_path.iterdir())
