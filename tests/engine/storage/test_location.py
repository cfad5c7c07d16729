from __future__ import annotations

from typing import TYPE_CHECKING

import milepost
from milepost.storage.location import command

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_command_names_the_store_where_it_would_not_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MILEPOST_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    found, other = str(tmp_path / ".milepost"), str(tmp_path / "an other")
    assert command(found, "show", "a b") == "milepost show 'a b'"
    assert command(other, "show", "x") == f"milepost show x --store '{other}'"
    monkeypatch.setenv("MILEPOST_STORE", other)
    assert command(other, "show", "x") == "milepost show x"


def test_a_command_can_be_told_where_the_current_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MILEPOST_STORE", raising=False)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert command("/data/store", "show", "x") == "milepost show x --store /data/store"


def test_a_command_is_typed_here_and_not_where_the_script_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MILEPOST_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "milepost.toml").write_text('store = "s"')
    store = str(tmp_path / "script" / "s")
    with milepost.searching_from(tmp_path / "script"):
        assert milepost.resolve_path() == store
        assert command(store, "show", "x") == f"milepost show x --store {store}"
        (tmp_path / "milepost.toml").write_text('store = "script/s"')
        assert command(store, "show", "x") == "milepost show x"
        (tmp_path / "milepost.toml").write_text("wrong = 1")
        assert command(store, "show", "x") == f"milepost show x --store {store}"
