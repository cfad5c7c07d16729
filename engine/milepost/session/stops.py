"""Telling a stop that work within other work heard, too, from what ends all of it at once.

- A signal reaches all work, also that in the functions and bodies of other work. The inner one ends
  as it would alone; its `KeyboardInterrupt` or `SystemExit` must not cut what else the outer one
  has in hand.
- What a second signal raises drops everything. So it is marked, and is never taken for the former.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from milepost.groups import ungrouped
from milepost.session.host import StopRequested

if TYPE_CHECKING:
    from milepost.session.session import Session

E = TypeVar("E", bound=BaseException)

_STOPS: Final = (KeyboardInterrupt, SystemExit, StopRequested)
_AT_ONCE: Final = "milepost_at_once"


def at_once(error: E) -> E:
    """Mark what is to end all work it passes through."""
    setattr(error, _AT_ONCE, True)
    return error


def is_at_once(error: BaseException) -> bool:
    """Whether it is marked so."""
    return getattr(error, _AT_ONCE, False) is True


def is_stop_within(error: BaseException, session: Session) -> bool:
    """Whether work within a function or body ended so, while the session is to stop as well."""
    return session.stop_requested and isinstance(error, _STOPS) and not is_at_once(error)


def counting(error: BaseException, session: Session) -> BaseException:
    """What counts of what a function or body raised: out of a group, what ends all work first."""
    return ungrouped(error, is_at_once, _is_an_end, session.is_no_bodys)


def _is_an_end(error: BaseException) -> bool:
    return not isinstance(error, Exception)
