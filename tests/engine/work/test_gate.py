"""A gate through which some go alone and the others together."""

from __future__ import annotations

import threading

import pytest

from milepost.work.gate import Gate

pytestmark = pytest.mark.usefixtures("no_thread_left")
PATIENCE_SECONDS = 60.0


def test_many_pass_together() -> None:
    gate = Gate()
    together = threading.Barrier(4)

    def go() -> None:
        with gate.passing(alone=False):
            together.wait(PATIENCE_SECONDS)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert not together.broken


def test_one_alone_is_alone_and_goes_before_those_who_come_after() -> None:
    gate = Gate()
    inside: list[str] = []
    order: list[str] = []
    errors: list[str] = []
    waits = threading.Event()

    def go(name: str, *, alone: bool) -> None:
        if alone:
            waits.set()
        with gate.passing(alone=alone):
            inside.append(name)
            order.append(name)
            if "alone" in "".join(inside) and len(inside) > 1:
                errors.append(f"{inside} together")
            inside.remove(name)

    with gate.passing(alone=False):
        first = threading.Thread(target=go, args=["alone"], kwargs={"alone": True})
        first.start()
        assert waits.wait(PATIENCE_SECONDS)
        while not vars(gate)["_waiting_alone"]:
            pass  # it stands at the gate, or is about to
        others = [
            threading.Thread(target=go, args=[f"other-{n}"], kwargs={"alone": False})
            for n in range(3)
        ]
        for thread in others:
            thread.start()
        assert order == []  # nobody comes in while somebody waits to be alone
    for thread in (first, *others):
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert order[0] == "alone"
    assert len(order) == 4
    assert errors == []


def test_an_exception_inside_gives_the_gate_free() -> None:
    gate = Gate()
    for alone in (True, False, True):
        with pytest.raises(RuntimeError), gate.passing(alone=alone):
            raise RuntimeError
    with gate.passing(alone=True):
        pass
