"""The options that many commands share; they count the same before and after the sub-command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

F = TypeVar("F", bound="Callable[..., Any]")

_STORE: Final = "milepost.store"
_JSON: Final = "milepost.json"


def _keep(key: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value:
            ctx.meta[key] = value

    return callback


def store(function: F) -> F:
    """`--store/-s FOLDER`."""
    return click.option(
        "--store",
        "-s",
        metavar="FOLDER",
        expose_value=False,
        callback=_keep(_STORE),
        help="The store's folder.",
    )(function)


def as_json(function: F) -> F:
    """`--json`."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_keep(_JSON),
        help="Print JSON on stdout; errors are JSON on stderr.",
    )(function)


def dry_run(function: F) -> F:
    """`--dry-run`."""
    return click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")(
        function
    )


def store_path() -> str | None:
    """What `--store` said, before or after the sub-command; `None` if it was not given."""
    path: str | None = click.get_current_context().meta.get(_STORE)
    return path


def json_wanted() -> bool:
    """Whether `--json` was given."""
    return bool(click.get_current_context().meta.get(_JSON))


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` is among arguments that may not even parse."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options
