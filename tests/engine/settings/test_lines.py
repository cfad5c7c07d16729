"""In which line a key stands, whatever stands around it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.settings.lines import Place, line_of, lines_of

TRICKY = """\
# store = "not this one"
store = 'x' # enabled = 1

"quoted key" = 1
a.b . "c d" = 2
"esc\\u0061ped" = 3
text = \"\"\"
store = "inside"
[job.inside]
\\\"\"\" enabled = true
\"\"\"
literal = '''
enabled = false
'''
list = [
  1, # ]
  "]",
  [2],
]
enabled = true
inline = { workers = 3, x = { y = 1 } }

[job]
[job."a.b"] # store = 1
store = 1
  enabled = true
[job.'c']
enabled = false
[[recover]]
session = "one"
[[recover]]
command = []
session = "two"
[recover.more]
deep = 1
[ tool . milepost ]
store = "s"
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("store",), 2),
        (("quoted key",), 4),
        (("a", "b", "c d"), 5),
        (("a",), 5),
        (("escaped",), 6),
        (("text",), 7),
        (("literal",), 12),
        (("list",), 15),
        (("enabled",), 20),
        (("inline", "x", "y"), 21),
        (("job",), 23),
        (("job", "a.b"), 24),
        (("job", "a.b", "store"), 25),
        (("job", "a.b", "enabled"), 26),
        (("job", "c", "enabled"), 28),
        (("recover", 0, "session"), 30),
        (("recover", 1), 31),
        (("recover", 1, "command"), 32),
        (("recover", 1, "session"), 33),
        (("recover", 1, "more", "deep"), 35),
        (("tool", "milepost", "store"), 37),
        (("job", "c", "not there"), 27),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_key_is_found_in_its_table(place: Place, line: int, ending: str) -> None:
    assert line_of(lines_of(TRICKY.replace("\n", ending)), place) == line


def test_what_is_nowhere_has_no_line() -> None:
    assert line_of(lines_of(TRICKY), ("inside",)) is None
    assert ("job", "inside") not in lines_of(TRICKY)
    assert lines_of("") == {}


def test_the_example_is_toml() -> None:
    told: Any = tomllib.loads(TRICKY)
    assert told["recover"][1]["more"] == {"deep": 1}


_KEYS = st.text(st.sampled_from("ab.\"' #=[]{}\\é"), min_size=1, max_size=5)
_TEXTS = st.text(st.sampled_from("a=[]{}#\"'\\ \n"), max_size=12)


def _basic(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


@given(st.dictionaries(_KEYS, st.tuples(_TEXTS, st.booleans()), min_size=1, max_size=6))
def test_any_keys_and_any_text_as_values(entries: dict[str, tuple[str, bool]]) -> None:
    lines: list[str] = []
    expected: dict[Place, int] = {}
    for key, (value, is_long) in entries.items():
        expected[(key,)] = len(lines) + 1
        safe = value.replace("\\", "\\\\").replace('"', '\\"')
        text = f'["""\n{safe}""", 1]' if is_long else _basic(value)
        lines += f"{_basic(key)} = {text}".split("\n")
    document = "\n".join(lines)
    assert set(tomllib.loads(document)) == set(entries)
    assert lines_of(document) == expected
