"""The background threads of a writer: one for syncs, due snapshots and backups, one for the pulse.

- The pulse has a thread to itself: a backup to a slow disk must not make a living writer look dead.
- They are daemon threads and hold no reference that keeps a forgotten session alive, so they keep
  no interpreter from exiting.
- What they cannot do makes the next call of the session raise; nothing fails in silence.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from milepost.errors import MilepostError
from milepost.storage.heartbeat import BEAT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.session.writer import Writer


class Keeper:
    """Looks after one writer until told to stop."""

    def __init__(self, writer: Writer) -> None:
        self._writer = weakref.ref(writer)
        self._stop = threading.Event()
        often = min(writer.settings.tracker.sync_interval_seconds, BEAT_SECONDS)
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(step, seconds),
                name=f"milepost-{word}-{writer.site.name}",
                daemon=True,
            )
            for word, step, seconds in (("keeper", _keep, often), ("pulse", _beat, BEAT_SECONDS))
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def is_alive(self) -> bool:
        """Whether it still looks after the writer in every way."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End it, and wait until the steps in hand are done."""
        self._stop.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _run(self, step: Callable[[Writer], None], seconds: float) -> None:
        while not self._stop.wait(seconds):
            writer = self._writer()
            if writer is None or writer.closed:
                return
            try:
                step(writer)
            except MilepostError as error:
                writer.fail(error)
            except BaseException as error:  # a thread has nobody to raise to
                failure = MilepostError(f"the background thread died: {error!r}")
                failure.__cause__ = error
                writer.fail(failure)
                self._stop.set()  # the next call begins with a whole keeper
                return
            del writer


def _keep(writer: Writer) -> None:
    writer.sync_behind()
    writer.snapshot_if_due()
    writer.back_up()


def _beat(writer: Writer) -> None:
    writer.turn.beat()
