"""The background thread of a writer: syncs, heartbeats, due snapshots, backups.

- It is a daemon thread and holds no reference that keeps a forgotten session alive, so it keeps
  no interpreter from exiting.
- What it cannot do makes the next call of the session raise; nothing fails in silence.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Final

from milepost.errors import MilepostError

if TYPE_CHECKING:
    from milepost.session.writer import Writer

BEAT_SECONDS: Final = 2.0


class Keeper:
    """Looks after one writer until told to stop."""

    def __init__(self, writer: Writer) -> None:
        self._writer = weakref.ref(writer)
        self._stop = threading.Event()
        self._clock = writer.settings.clock
        self._interval = min(writer.settings.tracker.sync_interval_seconds, BEAT_SECONDS)
        self._thread = threading.Thread(
            target=self._run, name=f"milepost-keeper-{writer.site.name}", daemon=True
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether it still looks after the writer."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End it, and wait until the step in hand is done."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        beat_at = self._clock.monotonic()
        while not self._stop.wait(self._interval):
            writer = self._writer()
            if writer is None or writer.closed:
                return
            try:
                writer.sync_behind()
                if self._clock.monotonic() >= beat_at:
                    writer.turn.beat()
                    beat_at = self._clock.monotonic() + BEAT_SECONDS
                writer.snapshot_if_due()
                writer.back_up()
            except MilepostError as error:
                writer.fail(error)
            except BaseException as error:  # a thread has nobody to raise to
                failure = MilepostError(f"the background thread died: {error!r}")
                failure.__cause__ = error
                writer.fail(failure)
                return
            del writer
