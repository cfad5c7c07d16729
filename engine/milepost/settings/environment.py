"""Settings in the environment: `MILEPOST_` and the field's name in capitals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from milepost.settings.schema import GROUPS, JobOptions, checked, fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    import msgspec

PREFIX: Final = "MILEPOST_"
_NO_FIELDS: Final = frozenset({"MILEPOST_STORE", "MILEPOST_SESSION", "MILEPOST_STARTED_BY"})
"""Variables that say where a program works and who started it."""
_WORDS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def variable(field: str) -> str:
    """The variable of a field."""
    return PREFIX + field.upper()


def read_variable(kind: type[msgspec.Struct], field: str, text: str) -> Any:
    """What a variable says of a field. Errors: `ConfigurationError` naming the variable."""
    told: Any = text.strip()
    if fields(kind)[field][1] is bool:
        told = _WORDS.get(told.lower(), told)
    return checked(kind, field, told, where=f"${variable(field)}", is_text=True)


def unknown_variables(names: Iterable[str]) -> dict[str, str]:
    """Variables that look like ours and say nothing, each with what to try."""
    import difflib  # noqa: PLC0415  # for mistakes alone

    known = _NO_FIELDS | {variable(field) for field in fields(*GROUPS)}
    in_table = {variable(field): field for field in fields(JobOptions)}
    found: dict[str, str] = {}
    for name in sorted(names):
        if not name.startswith(PREFIX) or name in known:
            continue
        if name in in_table:
            found[name] = f'{in_table[name]} belongs in a table of its job: [job."NAME"]'
        else:
            near = difflib.get_close_matches(name, known, n=1)
            found[name] = f"did you mean ${near[0]}?" if near else "no setting is called so"
    return found


def as_environment(config: msgspec.Struct) -> dict[str, str]:
    """A group of settings as variables, for a process that is to work by the same."""
    given = ((each, getattr(config, each)) for each in config.__struct_fields__)
    return {
        variable(field): str(value).lower() if isinstance(value, bool) else str(value)
        for field, value in given
        if value is not None
    }
