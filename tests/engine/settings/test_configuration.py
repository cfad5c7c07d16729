"""Which of all settings counts, and where it comes from."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import milepost
from milepost.settings.configuration import Configuration
from milepost.settings.environment import as_environment
from milepost.settings.file import find_file
from milepost.settings.schema import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def said_by(environment: Mapping[str, str]) -> Configuration:
    return Configuration(environment, None)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """The folder in which settings are looked for."""
    with milepost.searching_from(tmp_path):
        yield tmp_path


def test_no_two_groups_share_a_field() -> None:
    names = [field.name for kind in GROUPS for field in msgspec.structs.fields(kind)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", GROUPS)
def test_nothing_said_is_the_default(kind: type[msgspec.Struct]) -> None:
    assert said_by({"MILEPOST_STORE": "x", "OTHER": "1"}).group(kind) == kind()


@pytest.mark.parametrize("kind", GROUPS)
def test_a_group_comes_back_from_its_variables(kind: type[msgspec.Struct]) -> None:
    assert said_by(as_environment(kind())).group(kind) == kind()


def test_what_was_changed_comes_back_from_its_variables() -> None:
    config = milepost.RecoveryConfig(
        auto_recovery_enabled=False, max_recovery_attempts=7, recovery_delay_seconds=1e-7
    )
    assert said_by(as_environment(config)).group(milepost.RecoveryConfig) == config
    store = milepost.StoreConfig(backup_path="/some where")
    assert said_by(as_environment(store)).group(milepost.StoreConfig) == store


def other_than(default: object) -> tuple[str, str, object]:
    """Another value: in the environment, in a file, and as it is."""
    if isinstance(default, bool):
        return ("off", "false", False) if default else ("yes", "true", True)
    if isinstance(default, int):
        return "7", "7", 7
    if isinstance(default, float):
        return "0.25", "0.25", 0.25
    return "/some where", '"/some where"', "/some where"


@pytest.mark.parametrize("kind", GROUPS)
def test_every_field_can_be_set(kind: type[msgspec.Struct], here: Path) -> None:
    for field in msgspec.structs.fields(kind):
        text, toml, expected = other_than(getattr(kind(), field.name))
        variable = f"MILEPOST_{field.name.upper()}"
        (here / "milepost.toml").write_text(f"\n{field.name} = {toml}\n")
        for said, source in (
            (said_by({variable: text}), f"${variable}"),
            (milepost.configuration(), f"{here / 'milepost.toml'}:2"),
        ):
            assert said.setting(kind, field.name) == (field.name, expected, source)
            found = said.group(kind)
            assert getattr(found, field.name) == expected
            default = getattr(kind(), field.name)
            assert msgspec.structs.replace(found, **{field.name: default}) == kind()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MILEPOST_MAX_RECOVERY_ATTEMPTS", "many"),
        ("MILEPOST_MAX_RECOVERY_ATTEMPTS", "1.5"),
        ("MILEPOST_MAX_RECOVERY_ATTEMPTS", "0"),
        ("MILEPOST_RECOVERY_DELAY_SECONDS", "nan"),
        ("MILEPOST_RECOVERY_DELAY_SECONDS", "-1"),
        ("MILEPOST_AUTO_RECOVERY_ENABLED", "perhaps"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(milepost.ConfigurationError) as caught:
        said_by({name: text}).group(milepost.RecoveryConfig)
    assert caught.value.message.startswith(f"${name}: ")


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    for name in milepost.JobConfig.__struct_fields__:
        empty = said_by({f"MILEPOST_{name.upper()}": ""})
        assert empty.setting(milepost.JobConfig, name) == said_by({}).setting(
            milepost.JobConfig, name
        )


@pytest.mark.parametrize(
    ("field", "most", "beyond"),
    [
        ("cleanup_interval_hours", "1e9", ["inf", "1e300", "1000000001"]),
        ("max_detailed_progress_items", str(2**63 - 1), [str(2**63), str(2**64)]),
    ],
)
def test_what_cannot_be_kept_or_waited_for_is_refused_with_its_bound(
    field: str, most: str, beyond: list[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = {"cleanup_interval_hours": "at most 1,000,000,000"}.get(field, "less than 2**63")
    for text in beyond:
        (here / "milepost.toml").write_text(f"{field} = {text}\n")
        with pytest.raises(milepost.ConfigurationError, match=re.escape(bound)) as caught:
            milepost.Store(here / "s")
        assert f"{field} is " in caught.value.message
    (here / "milepost.toml").unlink()
    monkeypatch.setenv(f"MILEPOST_{field.upper()}", most)
    store = milepost.Store(here / "s")
    for _ in range(2):  # the second opening asks whether the clean-up is due
        with store.session("x") as session:
            session.start_batch("a")
    assert store.cleanup().skipped == {}


def test_an_executor_of_the_file_is_not_for_tasks(here: Path) -> None:
    file = here / "milepost.toml"
    file.write_text('[job.x]\nexecutor = "threads"\n[job.y]\nexecutor = "processes"\n')
    said = milepost.configuration()
    assert said.executor("x", is_async=False) == "threads"
    assert said.executor("x", is_async=True) is None
    assert said.executor("y", is_async=False) == "processes"
    assert said.executor("z", is_async=True) is None
    with pytest.raises(milepost.ConfigurationError, match="in no executor") as caught:
        said.executor("y", is_async=True)
    assert caught.value.message.startswith(f'{file}:4: [job."y"]: ')


def test_the_order_is_environment_then_job_then_file_then_code_then_default(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = here / "milepost.toml"

    def word(job: str, **code: Any) -> tuple[Any, str]:
        base = milepost.JobConfig(**code) if code else None
        said = milepost.configuration()
        _, *found = said.setting(milepost.JobConfig, "region_type", job=job, base=base)
        return found[0], found[1]

    assert word("x") == ("batch", "default")
    assert word("x", region_type="row") == ("row", "the job's own config")
    file.write_text('region_type = "page"\n[job.x]\nregion_type = "region"\n')
    assert word("x", region_type="row") == ("region", f"{file}:3")
    assert word("y", region_type="row") == ("page", f"{file}:1")
    monkeypatch.setenv("MILEPOST_REGION_TYPE", "city")
    assert word("x", region_type="row") == ("city", "$MILEPOST_REGION_TYPE")


def test_all_settings_are_told_and_those_of_single_jobs(here: Path) -> None:
    file = here / "milepost.toml"
    file.write_text('recovery_delay_seconds = 2\n[job."a b"]\nworkers = 3\n')
    told = {each.name: each for each in milepost.configuration().settings()}
    assert set(told) == {
        *(field.name for kind in GROUPS for field in msgspec.structs.fields(kind)),
        'job."a b".workers',
    }
    assert told["recovery_delay_seconds"][1:] == (2.0, f"{file}:1")
    assert told['job."a b".workers'][1:] == (3, f"{file}:3")
    assert told["enabled"][1:] == (True, "default")


def test_a_store_takes_what_it_is_not_given(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "milepost.toml").write_text("max_recovery_attempts = 4\nsync_interval_seconds = 2\n")
    monkeypatch.setenv("MILEPOST_MAX_RECOVERY_ATTEMPTS", "9")
    monkeypatch.setenv("MILEPOST_MAX_STATE_HISTORY", "2")
    store = milepost.Store(here / "s", config=milepost.StoreConfig())
    assert store.recovery.max_recovery_attempts == 9
    assert store.tracker.sync_interval_seconds == 2
    assert store.config.max_state_history == 10, "what a program hands in goes first"


def test_paths_in_a_file_are_relative_to_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "elsewhere").mkdir()
    (here / "milepost.toml").write_text('store = "data/st"\nbackup_path = "../copies"\n')
    monkeypatch.chdir(here / "elsewhere")
    store = milepost.Store()
    assert store.path == str(here / "data" / "st")
    assert store.config.backup_path == str(here.parent / "copies")


def test_a_file_without_settings_changes_nothing(here: Path) -> None:
    (here / "milepost.toml").write_text("# nothing yet\n")
    file = find_file(os.fspath(here))
    said = Configuration({}, file)
    assert file is not None
    assert [said.group(kind) for kind in GROUPS] == [kind() for kind in GROUPS]
    assert said.store() is None
