"""How long to wait before the next try."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milepost.work.retry import Backoff


@given(
    st.floats(0, 1e6),
    st.floats(1, 1e3),
    st.floats(0, 1e6),
    st.integers(1, 10**9),
)
def test_a_wait_is_never_negative_and_never_beyond_its_end(
    first_seconds: float, factor: float, seconds_max: float, failures: int
) -> None:
    backoff = Backoff(first_seconds=first_seconds, factor=factor, seconds_max=seconds_max)
    assert 0 <= backoff.delay_seconds(failures) <= seconds_max


@given(st.integers(1, 30))
def test_half_of_it_is_sure_and_it_grows(failures: int) -> None:
    backoff = Backoff(first_seconds=0.5, factor=2.0, seconds_max=60.0)
    longest = min(60.0, 0.5 * 2.0 ** (failures - 1))
    assert longest / 2 <= backoff.delay_seconds(failures) <= longest


def test_workers_do_not_come_back_at_once() -> None:
    waits = {Backoff().delay_seconds(5) for _ in range(20)}
    assert len(waits) > 1


def test_no_wait_at_all_is_possible() -> None:
    assert Backoff(first_seconds=0.0).delay_seconds(7) == 0.0
