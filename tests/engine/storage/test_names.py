"""Any Unicode name has a folder of its own, on any operating system, and the way back."""

from __future__ import annotations

import os
import re
import unicodedata
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from milepost.errors import ConfigurationError
from milepost.storage.names import (
    FOLDER_BYTES_MAX,
    NAME_CHARACTERS_MAX,
    check_name,
    folder_name,
    is_hashed,
    session_name,
)

if TYPE_CHECKING:
    from pathlib import Path

WINDOWS_FORBIDS = set('<>:"/\\|?*') | {chr(code) for code in range(32)}
DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)

letters = st.characters(exclude_categories=["Cs", "Cc"])
near = st.sampled_from(
    list("aAbBzZ.-_~!%/\\ :*é\u0301e가각\u1100\u1161ßẞ\u017f\u0131İKÅ中中지역ｱアﷺ①²")
)
texts = st.one_of(
    st.text(letters, min_size=1, max_size=40),
    st.text(near, min_size=1, max_size=12),
    st.text(letters, min_size=150, max_size=400),
).filter(lambda text: not text.isspace())


def folded(folder: str) -> str:
    """What a file system that ignores case and composition compares."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", folder).casefold())


@given(texts)
@example("지역-수집")
@example("a/b")
@example("..")
@example(".")
@example("~")
@example("%41")
@example("!a")
@example("a" * NAME_CHARACTERS_MAX)
@example("中" * NAME_CHARACTERS_MAX)
def test_every_name_leads_to_its_folder_and_back(text: str) -> None:
    name = check_name(text)
    folder = folder_name(name)
    if is_hashed(folder):
        assert session_name(folder) is None
    else:
        assert session_name(folder) == name


@given(texts)
@example("CON")
@example("con.txt")
@example("com¹")
@example("a.")
@example("...")
@example("a" * 199 + "..")
@example("lpt1." + "x" * 300)
def test_every_folder_name_is_safe_everywhere(text: str) -> None:
    folder = folder_name(check_name(text))
    assert 0 < len(folder.encode()) <= FOLDER_BYTES_MAX
    # HFS+ stores the decomposed form, at most 255 UTF-16 units.
    assert len(unicodedata.normalize("NFD", folder).encode("utf-16-le")) // 2 <= 255
    assert not set(folder) & WINDOWS_FORBIDS
    assert folder[0] != "."
    assert folder[-1] not in ". "
    assert not DEVICE.fullmatch(folder)
    assert unicodedata.normalize("NFC", folder) == folder
    assert not any(character.isspace() for character in folder)


@given(texts, texts)
@example("crawl", "Crawl")
@example("É", "é")
@example("ß", "ss")
@example("ﬁ", "fi")
@example("K", "k")
@example("i", "İ")
@example("①", "1")
@example("ア", "ｱ")
@example("a/b", "a%2Fb")
@example("a.", "a")
@example("a" * 300 + "b", "a" * 300 + "c")
@example("a" * 300, "A" * 300)
def test_two_names_never_share_a_folder(one: str, other: str) -> None:
    first, second = check_name(one), check_name(other)
    if first == second:
        return
    assert folded(folder_name(first)) != folded(folder_name(second))


def test_names_are_compared_in_their_composed_form() -> None:
    assert check_name("e\u0301") == check_name("é") == "é"
    assert check_name(unicodedata.normalize("NFD", "지역-수집")) == "지역-수집"


def test_plain_names_stay_readable() -> None:
    assert folder_name("places-2026_v1.2") == "places-2026_v1.2"
    assert folder_name("지역-수집") == "지역-수집"
    assert folder_name("a/b") == "a%2Fb"
    assert folder_name("Crawl") == "!crawl"
    assert folder_name("a b") == "a%20b"


@pytest.mark.parametrize("device", ["con", "prn", "aux", "nul", "com1", "lpt9", "con.zst"])
def test_device_names_are_escaped_and_come_back(device: str) -> None:
    folder = folder_name(device)
    assert folder.startswith("%")
    assert session_name(folder) == device


@pytest.mark.parametrize("text", ["..", ".", ".hidden", "a.", "...", "a..", "../../etc/passwd"])
def test_dots_cannot_lead_anywhere(text: str) -> None:
    folder = folder_name(text)
    assert folder not in {".", ".."}
    assert not folder.startswith(".")
    assert not folder.endswith(".")
    assert "/" not in folder
    assert session_name(folder) == text


def test_a_long_name_ends_in_its_hash() -> None:
    folder = folder_name("수" * 500)
    assert is_hashed(folder)
    assert re.fullmatch(r"수+~[0-9a-f]{32}", folder)
    assert len(folder.encode()) <= FOLDER_BYTES_MAX


def test_the_longest_name_that_needs_no_hash_has_none() -> None:
    assert not is_hashed(folder_name("a" * FOLDER_BYTES_MAX))
    assert is_hashed(folder_name("a" * (FOLDER_BYTES_MAX + 1)))


def test_a_tilde_of_the_users_is_no_hash() -> None:
    assert not is_hashed(folder_name("~" + "a" * 32))
    assert session_name(folder_name("home~1")) == "home~1"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("\u3000", "empty"),
        ("a" * (NAME_CHARACTERS_MAX + 1), "1,001 characters"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\x9fb", "control character"),
        ("\ud800", "surrogate"),
        (7, "not int"),
        (None, "not NoneType"),
        (b"crawl", "not bytes"),
    ],
)
def test_what_cannot_be_a_name_says_why(name: object, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        check_name(name)


@pytest.mark.parametrize(
    "folder",
    [
        "Crawl",  # a capital is written otherwise
        "a b",
        "con",
        ".git",
        "a.",
        "%2f",  # small hex digits
        "%zz",
        "%",
        "%4",
        "%41",  # an A is `!a`
        "%ff",
        "%FF",  # no UTF-8
        "!",
        "!!a",
        "!1",
        "%\udc80\udc80",  # bytes that are no text, as the system hands them out
        "\udcff",
        "e\u0301",
        "é",
        "",
        "lost+found",
    ],
)
def test_a_strangers_folder_has_no_name(folder: str) -> None:
    assert session_name(folder) is None


@given(st.text(max_size=30))
def test_whatever_a_folder_is_called_the_way_back_is_sure_or_none(folder: str) -> None:
    name = session_name(folder)
    assert name is None or folder_name(name) == unicodedata.normalize("NFC", folder)


def test_a_folder_name_that_was_decomposed_on_the_way_is_composed_again() -> None:
    # Some file systems and archives hand names out in NFD.
    folder = unicodedata.normalize("NFD", folder_name("지역-수집"))
    assert session_name(folder) == "지역-수집"


@pytest.mark.parametrize(
    "character",
    [
        "\U0001e4d0",  # Lo since Unicode 15.0
        "\U00011f04",  # the same
        "\U0002ebf0",  # Lo since 15.1
        "\U000105c0",  # Lo since 16.0
        "\U0001e5d0",  # the same
    ],
)
def test_the_folder_of_a_name_does_not_depend_on_pythons_unicode(character: str) -> None:
    # Pythons of different releases know different letters, and must find the same folder.
    assert folder_name(character) == "".join(f"%{byte:02X}" for byte in character.encode())


def test_names_live_on_a_real_file_system(tmp_path: Path) -> None:
    names = ["지역-수집", "a/b", "Crawl", "crawl", "con", "..", "x" * 900, "🚀 launch", "ß", "SS"]
    for name in names:
        os.mkdir(tmp_path / folder_name(name))
    found = {session_name(folder) for folder in os.listdir(tmp_path)}
    assert found == {*(name for name in names if len(name) < 900), None}
