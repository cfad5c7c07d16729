"""A watcher or a supervisor in a thread of the test, and all that it told."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import milepost
from milepost.storage import lease as leases
from milepost.storage.directory import LocalDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

PATIENCE_SECONDS = 60.0

AT_ONCE = milepost.RecoveryConfig(recovery_delay_seconds=0)
"""Settings under which no test waits for nothing."""


class Told:
    """Notices, and a way to wait for the next one that fits."""

    def __init__(self) -> None:
        self.notices: list[milepost.WatchNotice] = []
        self.ticks: list[list[milepost.Row]] = []
        self._changed = threading.Condition()

    def __call__(self, notice: milepost.WatchNotice) -> None:
        with self._changed:
            self.notices.append(notice)
            self._changed.notify_all()

    def tick(self, rows: list[milepost.Row]) -> None:
        """What a watcher shows of all sessions."""
        with self._changed:
            self.ticks.append(rows)
            self._changed.notify_all()

    def of(self, event: str, session: str | None = None) -> list[milepost.WatchNotice]:
        """Those of one kind, of any session or of one."""
        return [
            each for each in self.notices if each.event == event and session in {None, each.session}
        ]

    def wait(self, event: str, session: str | None = None, *, count: int = 1) -> Any:
        """The n-th of one kind; waited for if need be."""
        self.wait_until(lambda: len(self.of(event, session)) >= count)
        return self.of(event, session)[count - 1]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when it holds after something was told."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_SECONDS), self.notices


class Watching:
    """A watcher at work in a thread.

    Attributes:
        result: What its `run` returned, or raised.
    """

    def __init__(self, watcher: milepost.Watcher, told: Told) -> None:
        self.watcher = watcher
        self.told = told
        self.result: Any = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.result = self.watcher.run()
        except milepost.MilepostError as error:
            self.result = error

    def start(self) -> None:
        """Let it watch."""
        self._thread.start()

    def join(self) -> Any:
        """Wait until it ends by itself; what its `run` returned."""
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), self.told.notices
        return self.result

    def rows(self) -> dict[str, milepost.Row]:
        """Its table, by session."""
        return {row.session: row for row in self.watcher.rows()}


def watcher_of(
    store: milepost.Store,
    *targets: milepost.Target,
    told: Told,
    config: milepost.RecoveryConfig = AT_ONCE,
    jobs: int = 4,
    keeps_watching: bool = False,
    **more: Any,
) -> milepost.Watcher:
    """A watcher that tells, and by default ends when nothing is left."""
    return milepost.Watcher(
        milepost.RecoveryService(store, config),
        targets,
        jobs=jobs,
        report=told,
        on_tick=told.tick,
        keeps_watching=keeps_watching,
        **more,
    )


@contextmanager
def watching(store: milepost.Store, *targets: milepost.Target, **more: Any) -> Generator[Watching]:
    """A watcher that keeps watching beside the test, and is stopped at the end of the block."""
    told = Told()
    watcher = watcher_of(store, *targets, told=told, keeps_watching=True, **more)
    found = Watching(watcher, told)
    found.start()
    try:
        yield found
    finally:
        for _ in range(3):
            watcher.stop(15)
        found.join()


def watch_to_the_end(
    store: milepost.Store, *targets: milepost.Target, **more: Any
) -> tuple[dict[str, milepost.Row], Told]:
    """Let a watcher work until nothing is left; its last table, and what it told."""
    told = Told()
    found = Watching(watcher_of(store, *targets, told=told, **more), told)
    found.start()
    assert found.join() is None, found.result
    return found.rows(), told


def program(folder: Path, text: str, name: str = "work.py") -> tuple[str, ...]:
    """The command that runs a program; a warning in it is an error, as in the tests themselves."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return (sys.executable, "-W", "error", str(path))


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when something outside of this process holds."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.005)


def turns(store: milepost.Store) -> dict[str, int]:
    """Session name to the number of its latest turn."""
    folders = {name: LocalDirectory(store.folder_of(name)) for name in store.names()}
    return {name: max(leases.epochs(folder)) for name, folder in folders.items()}
