"""Settings in the environment: `MILEPOST_` and the field's name in capitals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from milepost.settings.schema import checked, fields

if TYPE_CHECKING:
    import msgspec

PREFIX: Final = "MILEPOST_"
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


def as_environment(config: msgspec.Struct) -> dict[str, str]:
    """A group of settings as variables, for a process that is to work by the same."""
    given = ((each, getattr(config, each)) for each in config.__struct_fields__)
    return {
        variable(field): str(value).lower() if isinstance(value, bool) else str(value)
        for field, value in given
        if value is not None
    }
