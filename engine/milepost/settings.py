"""Settings from the environment: `MILEPOST_` and the field's name in capitals.

What is handed in by a program goes before the environment, and the environment before the default.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from milepost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

C = TypeVar("C", bound=msgspec.Struct)

PREFIX: Final = "MILEPOST_"
_YES: Final = {"1", "true", "yes", "on"}
_NO: Final = {"0", "false", "no", "off"}


def from_environment(kind: type[C], environment: Mapping[str, str] | None = None) -> C:
    """A group of settings as the environment has it; what it does not name has its default.

    Errors: `ConfigurationError` naming the variable.
    """
    there = os.environ if environment is None else environment
    given: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        name = PREFIX + field.name.upper()
        if name in there:
            given[field.name] = _value(name, there[name], field.type)
    return kind(**given)


def as_environment(config: msgspec.Struct) -> dict[str, str]:
    """A group of settings as variables, for a process that is to work by the same."""
    given = ((each, getattr(config, each)) for each in config.__struct_fields__)
    return {
        PREFIX + field.upper(): str(value).lower() if isinstance(value, bool) else str(value)
        for field, value in given
        if value is not None
    }


def _value(name: str, text: str, wanted: Any) -> Any:
    word = text.strip().lower()
    if wanted is bool and word in _YES | _NO:
        return word in _YES
    try:
        return msgspec.convert(text.strip(), wanted, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"${name} is {text!r}: {error}", hint="correct it, or take it out of the environment"
        ) from error
