"""`milepost config`: every setting, its value, and where that was said."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

import milepost
from milepost_cli import loading, options, output

if TYPE_CHECKING:
    from collections.abc import Iterable


@click.command(short_help="Show every setting, and where its value comes from.")
@click.argument("file", metavar="[FILE.py]", required=False)
@options.store
@options.as_json
def command(file: str | None) -> None:
    """Show every setting that counts here, or for FILE.py, and where its value comes from.

    Flags go before what a program hands in, that before the environment ($MILEPOST_ and the name
    in capitals), that before the nearest milepost.toml, or pyproject.toml with a [tool.milepost],
    upwards from FILE.py or from here. FILE.py is not run. A wrong key or value is an error that
    names file and line; a variable that is none is told on stderr. With --json one object: file,
    searched_from, store, settings (name, value, source) and unknown_variables.
    """
    if file is not None:
        loading.check_file(file)
    with milepost.searching_from(loading.search_folder([] if file is None else [file])):
        said = milepost.configuration()
        searched = milepost.search_start()
        store = _store()
    settings = said.settings()
    if options.json_wanted():
        output.document(
            {
                "file": None if said.file is None else said.file.path,
                "searched_from": searched,
                "store": store._asdict(),
                "settings": [each._asdict() for each in settings],
                "unknown_variables": said.unknown_variables,
            }
        )
        return
    if said.file is None:
        output.say(
            "no milepost.toml and no pyproject.toml with [tool.milepost] upwards from"
            f" {output.safe(searched)}"
        )
    else:
        output.say(f"settings of {output.safe(said.file.path)}")
    output.say("")
    for line in output.columns(list(_rows([store, *settings]))):
        output.say(line)
    for name, hint in said.unknown_variables.items():
        output.tell(f"${output.safe(name)} is no setting: {hint}")


def _store() -> milepost.Setting:
    path = options.store_path()
    found = milepost.find_store(path)
    return found if path is None else found._replace(source="--store")


def _rows(settings: Iterable[milepost.Setting]) -> Iterable[list[str]]:
    for each in settings:
        yield [output.safe(each.name), output.safe(_value(each.value)), output.safe(each.source)]


def _value(value: Any) -> str:
    """A value as it stands in a file; a dash where there is none."""
    if value is None:
        return "-"
    return "inf" if value == math.inf else json.dumps(value, ensure_ascii=False)
