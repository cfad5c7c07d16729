"""What callers hand in, checked before anything is made of it: not all of them are typed."""

from __future__ import annotations

from typing import TypeVar

from milepost.errors import ConfigurationError

C = TypeVar("C", bound=str)


def check_source(source: object, what: str) -> None:
    """Refuse what no loop can ask for items.

    By its type alone: asking it for an iterator may begin what is not to begin yet.
    """
    kind = type(source)
    if not (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")):
        raise TypeError(
            f"{what} must be something that a for loop takes, such as a list or a generator, not"
            f" {source!r:.80}"
        )


def check_function(name: str, value: object) -> None:
    """Refuse what cannot be called; nothing at all is fine."""
    if value is not None and not callable(value):
        raise TypeError(f"{name}= takes a function of one item or batch, not {value!r:.80}")


def check_count(name: str, value: int, *, least: int = 1) -> int:
    """A whole number that is large enough."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:  # pyright: ignore[reportUnnecessaryIsInstance]  # callers are not all typed
        raise ConfigurationError(f"{name} is {value!r}; it must be a whole number from {least}")
    return value


def check_choice(name: str, value: C, choices: tuple[C, ...]) -> C:
    """One of a few words."""
    if value not in choices:
        known = ", ".join(repr(each) for each in choices)
        raise ConfigurationError(f"{name} is {value!r}; it must be one of {known}")
    return value
