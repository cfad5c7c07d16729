"""What the body of an item may say of it: leave it out, or try it again later."""

from __future__ import annotations

from milepost.errors import ConfigurationError

AFTER_SECONDS_MAX = 30 * 24 * 3600


class Skip(Exception):  # noqa: N818  # it is no error, and the name is the public one
    """Raise it in a body: the item is left out on purpose, and never run again.

    Attributes:
        reason: Why, for people.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = str(reason or "")  # callers are not all typed


class Retry(Exception):  # noqa: N818  # it is no error, and the name is the public one
    """Raise it in a body: the item is tried again after a while, as far as its tries go.

    Attributes:
        after_seconds: How long to wait before that; `None` for the usual, growing wait.
    """

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        super().__init__(reason)
        is_number = isinstance(after, (int, float)) and not isinstance(after, bool)
        if after is not None and not (is_number and 0 <= after <= AFTER_SECONDS_MAX):
            raise ConfigurationError(
                f"after is {after!r}; it must be from 0 to {AFTER_SECONDS_MAX:,} seconds"
            )
        self.after_seconds = after
