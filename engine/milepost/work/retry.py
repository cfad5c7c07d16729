"""How long to wait before the next try."""

from __future__ import annotations

import math
import random

import msgspec

from milepost.errors import ConfigurationError


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential waits with jitter, so that many workers do not come back at once.

    Attributes:
        first_seconds: Longest wait after the first failure.
        factor: By how much it grows with each further one.
        seconds_max: It never grows beyond this.

    Errors: `ConfigurationError` for numbers that no wait can have.
    """

    first_seconds: float = 0.5
    factor: float = 2.0
    seconds_max: float = 60.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not 0 <= value < math.inf:
                raise ConfigurationError(f"{name} is {value!r}; it must be a number from 0 up")

    def delay_seconds(self, failures: int) -> float:
        """Wait after this many failures in a row (from 1): half of it sure, half of it chance."""
        try:
            longest = min(self.seconds_max, self.first_seconds * self.factor ** (failures - 1))
        except OverflowError:  # after some hundred failures the power has no number any more
            longest = self.seconds_max if self.first_seconds else 0.0
        return longest / 2 + random.uniform(0, longest / 2)  # noqa: S311  # jitter is no secret
