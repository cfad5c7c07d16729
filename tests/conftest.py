"""What all tests share: the settings of hypothesis, and a look for what a test left behind."""

from __future__ import annotations

import gc
import glob
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# The same examples in every run: no test fails by chance for somebody who changed something else.
settings.register_profile(
    "check",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Other examples in every run, and many: pytest --hypothesis-profile=campaign
settings.register_profile(
    "campaign",
    database=None,
    deadline=None,
    max_examples=3_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("check")

# Run in the background of a shell, or under nohup, we would hand this on to the programs that tests
# send signals to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The user's own settings are none of a test's business.
for _name in [name for name in os.environ if name.startswith("MILEPOST_")]:
    if not _name.startswith("MILEPOST_TEST_"):
        del os.environ[_name]

_DESCRIPTORS = "/proc/self/fd"
_GRACE_SECONDS = 3.0


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No test leaves a thread of milepost's, a descriptor or a process behind."""
    threads = set(_threads())
    descriptors = _descriptors()
    children = _children()
    yield
    deadline = time.monotonic() + _GRACE_SECONDS
    while True:
        left = [thread.name for thread in _threads() if thread not in threads]
        opened = [
            f"{number} -> {target}"
            for number, target in _descriptors().items()
            if descriptors.get(number) != target
        ]
        running = _children() - children
        if not left and not opened and not running:
            return
        if time.monotonic() > deadline:
            break
        gc.collect()  # what waits in a cycle is no leak
        time.sleep(0.02)
    assert not left, f"threads left behind: {left}"
    assert not opened, f"descriptors left behind: {opened}"
    assert not running, f"processes left behind: {running}"


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """The test leaves no thread behind, whoever made it."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _GRACE_SECONDS
    while left := [each.name for each in threading.enumerate() if each not in before]:
        assert time.monotonic() < deadline, f"threads left behind: {left}"
        gc.collect()
        time.sleep(0.02)


def _threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("milepost-")]


def _descriptors() -> dict[int, str]:
    """The open descriptors and what they lead to, where the system tells."""
    found: dict[int, str] = {}
    if not os.path.isdir(_DESCRIPTORS):
        return found
    kept = _kept_by_python()
    for name in os.listdir(_DESCRIPTORS):
        try:
            target = os.readlink(f"{_DESCRIPTORS}/{name}")
        except OSError:
            continue  # the descriptor of this very listing
        if int(name) not in kept:
            found[int(name)] = target
    return found


def _children() -> set[str]:
    """The processes that this one has begun and not waited for, where the system tells."""
    found: set[str] = set()
    for path in glob.glob("/proc/self/task/*/children"):
        try:
            with open(path) as file:
                found.update(file.read().split())
        except OSError:
            continue  # that thread has just ended
    return found - {str(getattr(tracker, "_pid", None)) for tracker in _trackers()}


def _kept_by_python() -> set[int]:
    """The pipes to what the makers of processes keep for good once they made one."""
    return {number for each in _trackers() if isinstance(number := getattr(each, "_fd", None), int)}


def _trackers() -> list[object]:
    """The resource trackers of the standard library and of loky, where they are loaded."""
    names = ("multiprocessing.resource_tracker", "loky.backend.resource_tracker")
    return [getattr(sys.modules.get(name), "_resource_tracker", None) for name in names]
