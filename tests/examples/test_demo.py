"""The demo shows what it promises, and leaves nothing behind."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from support.scripts import EXAMPLES, command, load_script, run

if TYPE_CHECKING:
    from pathlib import Path

demo = load_script(EXAMPLES / "demo.py")


def test_the_demo_holds(tmp_path: Path) -> None:
    done = run(command("demo.py", "--quick"), tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    said = done.stdout
    for expected in (
        "1. An API starts",
        "2. A job collects them",
        "places: NEW in",
        "3. kill -9",
        "4. What the folder knows",
        "interrupted",
        "5. The same command again",
        "resumed after its process died",
        "places: complete, 250 batches, 20,278 items",
        "20,278 of 20,278 places are there",
        "0 came twice",
        "Nothing is missing, nothing came twice.",
    ):
        assert expected in said, said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "holds"),
    [
        (["a", "b", "c"], True),
        (["a", "b", "c", "b"], False),  # one came twice
        (["a", "b"], False),  # one is missing
        (["a", "b", "c", "d"], False),  # one is nobody's
    ],
)
def test_the_proof_can_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[str], holds: bool
) -> None:
    output = tmp_path / "places.jsonl"
    output.write_text("".join(json.dumps({"id": row}) + "\n" for row in rows), "utf-8")
    if holds:
        demo.prove(output, {"a", "b", "c"})
    else:
        with pytest.raises(demo.DemoError):
            demo.prove(output, {"a", "b", "c"})
    counted = sum(Counter(rows).values()) - len(set(rows))
    assert f"{counted} came twice" in capsys.readouterr().out


def test_half_a_line_is_no_proof(tmp_path: Path) -> None:
    output = tmp_path / "places.jsonl"
    output.write_text('{"id": "a"}\n{"id": "b', "utf-8")
    with pytest.raises(demo.DemoError, match="cannot be read"):
        demo.prove(output, {"a", "b"})
