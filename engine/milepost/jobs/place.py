"""Where a run has its session: in its store, or, with milepost off, in a folder that goes with it.

- What is off runs the same code on a folder of its own, so that bodies see no difference. The
  folder is gone at the end, also at that of the interpreter; only `kill -9` leaves it.
- A run that is off says so, also where it was told to be quiet: somebody relies on what is kept.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Final

import msgspec

from milepost.errors import MilepostError, UnfinishedError
from milepost.jobs import notices
from milepost.settings.configuration import Setting, configuration
from milepost.storage.names import check_name
from milepost.store import Store
from milepost.text import say
from milepost.types import JobConfig

if TYPE_CHECKING:
    from milepost.session.session import Session
    from milepost.types import Durability

_AGAIN: Final = {
    True: "run it again to carry on",
    False: "run it again with MILEPOST_AUTO_RESUME=1 to carry on",
}
"""What to do after a stop, by whether unfinished work is carried on by itself."""


def session_name(name: str, config: JobConfig | None = None) -> str:
    """The session of what code calls `name`: that, unless `batch_name` says otherwise."""
    return _named(name, configuration().setting(JobConfig, "batch_name", job=name, base=config))


def _named(name: str, told: Setting) -> str:
    if told.value is None:
        return check_name(name)
    try:
        return check_name(told.value)
    except MilepostError as error:
        raise type(error)(f"{told.source}: {error.message}", hint=error.hint) from error


class Place:
    """Where one run has its session.

    Attributes:
        name: The session's name.
        is_off: Whether nothing is kept.
        again: What to do after a stop.
    """

    def __init__(
        self,
        name: str,
        store: Store | str | os.PathLike[str] | None,
        durability: Durability,
        config: JobConfig | None = None,
    ) -> None:
        """Read the settings for what code calls `name`; `config` is what code says of it."""
        said = configuration()

        def setting(field: str) -> Setting:
            return said.setting(JobConfig, field, job=name, base=config)

        self.name = _named(name, setting("batch_name"))
        self._word: str = setting("region_type").value
        self._enabled = setting("enabled")
        self._auto_resume = setting("auto_resume")
        self._store = store if isinstance(store, Store) else Store(store)
        self._durability: Durability = durability
        self._remove: weakref.finalize[[str, int], Place] | None = None
        self.is_off = not self._enabled.value
        self.again = "nothing was kept" if self.is_off else _AGAIN[bool(self._auto_resume.value)]

    def open(self) -> Session:
        """Open the session. Errors: `UnfinishedError` where it may not be carried on."""
        try:
            session = self._open()
        except BaseException:
            self.leave()
            raise
        session.batch_word = self._word
        return session

    def _open(self) -> Session:
        if self.is_off:
            say(
                f"{self.name}: milepost is OFF (enabled = false in {self._enabled.source}):"
                " nothing is kept, and a killed run begins anew"
            )
            import tempfile  # noqa: PLC0415  # hardly anybody needs it

            folder = tempfile.mkdtemp(prefix="milepost-off-")
            self._remove = weakref.finalize(self, _remove, folder, os.getpid())
            config = msgspec.structs.replace(self._store.config, backup_enabled=False)
            store = self._store.at(folder, config=config)
            return store.session(self.name, durability="buffered", execute=False)
        session = self._store.session(self.name, durability=self._durability, execute=False)
        state = session.live
        if not self._auto_resume.value and state.has_run and state.outcome is None:
            session.close()
            raise UnfinishedError(
                f"session {self.name!r} is unfinished, and is not carried on by itself:"
                f" auto_resume = false in {self._auto_resume.source}",
                hint="to carry it on, run the same with MILEPOST_AUTO_RESUME=1; to start afresh:"
                f" {notices.command(session, 'restart')}",
            )
        return session

    def leave(self) -> None:
        """The session is closed: keep nothing of what is off. A second time does nothing."""
        if self._remove is not None:
            self._remove()


def _remove(folder: str, pid: int) -> None:
    import shutil  # noqa: PLC0415  # the same

    if os.getpid() == pid:  # a forked child ends too, and the folder is not its own
        shutil.rmtree(folder, ignore_errors=True)
