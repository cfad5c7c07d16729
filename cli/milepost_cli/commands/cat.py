"""`milepost cat PATH`: what is in any file of a store."""

from __future__ import annotations

import os
import pathlib

import click

import milepost
from milepost_cli import options, output
from milepost_cli.failure import WrongUseError


@click.command(short_help="Print what is in any file of a store, as JSON.")
@click.argument("path", type=click.Path())
@options.store
@options.as_json
def command(path: str) -> None:
    """Print what is in a file of a store: a snapshot, a segment, a journal, a lease, a manifest.

    PATH is a file, or one relative to the store. A framed file prints its header, then its body; a
    journal every record. With --json each part is one line.
    """
    place = _find(path)
    indent = None if options.json_wanted() else 2
    try:
        for part in milepost.read_file(place):
            output.say(output.encode(part, indent=indent))
    except milepost.NotAMilepostFileError as error:
        if _in_a_store(place):
            raise  # damaged beyond recognition
        raise WrongUseError(error.message, error.hint) from error


def _find(path: str) -> str:
    for place in (path, os.path.join(milepost.resolve_path(options.store_path()), path)):
        if os.path.isfile(place):
            return place
    if os.path.isdir(path):
        raise WrongUseError(f"{path} is a folder", "name a file in it")
    raise WrongUseError(
        f"{path} is no file, neither here nor in the store", "name a file below sessions/"
    )


def _in_a_store(file: str) -> bool:
    above = pathlib.Path(file).absolute().parents
    return any((folder / "MILEPOST").exists() for folder in above)
