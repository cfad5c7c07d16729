"""Batches that are worked on in other processes, or on other machines.

- The function gets what it needs to know of its batch as plain data, and returns what became of the
  items. Only the process that holds the session writes.
- When a worker process dies, its pool is made anew, and what was in hand runs alone, one after
  another. What breaks the pool alone again and again is failed as poison, unless a call that does
  nothing breaks it as well.
- What the executor itself raises, while it is made, takes a call or is made anew, is no batch's
  fault: it ends the run.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import wait
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from milepost.errors import ConfigurationError, EncodingError, MilepostError, OutageError
from milepost.session.host import StopRequested
from milepost.session.keys import check_key
from milepost.session.stops import is_stop_within
from milepost.text import error_text
from milepost.types import ItemStatus, Key
from milepost.work.gate import Gate
from milepost.work.pool import Engine, outcome
from milepost.work.returned import check_returned

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from concurrent.futures import Future

    from milepost.jobs.job import Job
    from milepost.session.batch import Batch, ItemUpdate
    from milepost.session.session import Session
    from milepost.work.pool import ExecutorOrFactory

T = TypeVar("T")

_POLL_SECONDS = 0.1
_PARTS_LEAST = 2
_PARTS_MOST = 3


class RemoteBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as another process sees it: plain data, and nothing that could write.

    Attributes:
        key: What it is known by.
        number: Its number in the session.
        label: What people call it.
        payload: What it is about.
        done: Keys of the items that are done.
    """

    key: str
    number: int
    label: str
    payload: Any
    done: frozenset[Key] = frozenset()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"a batch in the hands of an executor has no {name!r}: it is plain data, in another"
            " process perhaps; return what became of its items, as tuples of key and"
            " milepost.ItemStatus"
        )

    def is_done(self, key: Key) -> bool:
        """Whether an item of it is done."""
        return key in self.done

    def todo(
        self, source: Iterable[T], *, key: Callable[[T], Key] | None = None
    ) -> Iterator[tuple[Key, T]]:
        """The items of a source that are not done, each with its key."""
        for item in source:
            known_by = check_key(item if key is None else key(item), f"the key of {item!r:.80}")
            if known_by not in self.done:
                yield known_by, item


class WorkerDiedError(MilepostError):
    """A worker process died again and again with one batch alone in hand."""


class Remote:
    """The executor of one run of a job. Its methods may be called from any thread."""

    def __init__(
        self,
        job: Job[..., Any],
        session: Session,
        executor: ExecutorOrFactory,
        workers: int,
        is_over: Callable[[], bool],
    ) -> None:
        """Make the executor, before any batch begins. Errors: whatever making it raises.

        `is_over` tells whether nothing more is to be begun.
        """
        self._job = job
        self._session = session
        self._is_over = is_over
        self._engine = Engine(executor, workers)
        self._gate = Gate()
        self._faults: list[Exception] = []
        self._has_left_calls = False
        self._engine.make()

    def is_fault(self, error: Exception) -> bool:
        """Whether the executor itself raised this, and no function."""
        return any(error is fault for fault in self._faults)

    def run(self, batch: Batch) -> None:
        """Have the function run on a batch, and record what became of its items.

        Errors: what the function raised; `WorkerDiedError` for poison; `StopRequested`, also where
        the run has ended; a fault of the executor (`is_fault`).
        """
        limit = self._session.recovery.max_recovery_attempts
        breaks = 0
        alone = False
        while True:
            with self._gate.passing(alone=alone), self._noting_faults():
                if self._is_over() or self._faults:
                    raise StopRequested
                # Read first: read late, it may be that of a good one made meanwhile.
                generation = self._engine.generation
                future = self._submit(batch)
                self._wait(future)
                if not self._engine.has_broken(future):
                    break
                if self._is_over():
                    raise StopRequested  # the same signal may have killed its worker
                self._engine.rebuild(generation)
                breaks += alone
                if breaks >= limit:
                    self._engine.prove(self._wait)
            if breaks >= limit:
                death = cast("BaseException", future.exception())
                raise WorkerDiedError(
                    f"poison: its worker process died {breaks} times in a row with this alone in"
                    f" hand ({error_text(death)})"
                ) from death
            alone = True
        value, error = outcome(future)
        if error is not None:
            if is_stop_within(error, self._session):
                raise StopRequested from None
            raise error
        check_returned(value, f"the function of batch {batch.key!r}")
        batch.update_items(_updates(batch, value))

    @contextmanager
    def _noting_faults(self) -> Generator[None]:
        """What is raised in here is the executor's."""
        try:
            yield
        except Exception as error:
            if self._engine.is_closed:  # we were left behind when the run ended
                raise StopRequested from error
            self._faults.append(error)
            raise

    def _submit(self, batch: Batch) -> Future[Any]:
        recorded = batch.recorded
        done = (*recorded.finished, *recorded.done) if recorded is not None else ()
        task = RemoteBatch(
            key=batch.key,
            number=batch.number,
            label=batch.label,
            payload=batch.payload,
            done=frozenset(done),
        )
        return self._engine.submit(_portable(self._job, self._engine), task)

    def _wait(self, future: Future[Any]) -> None:
        """Return when a call has ended. Errors: `OutageError` where the executor drops it."""
        try:
            while not future.done():  # `wait` alone does not see that a pool cancelled it
                self._engine.check()
                is_over = self._is_over() or bool(self._faults)
                if self._engine.is_closed or (is_over and future.cancel()):
                    raise StopRequested
                wait([future], timeout=_POLL_SECONDS)
        except OutageError:
            raise  # nobody is there to be told
        except BaseException:
            if not future.cancel():  # in an executor that was lent it would begin after the run
                self._has_left_calls = True
            raise
        self._engine.refuse_dropped(future)

    def close(self) -> None:
        """Leave the executor; one made here is shut down, and what it still runs is cut."""
        self._engine.close(wait=not (self._gate.is_busy or self._has_left_calls))


def _updates(batch: Batch, outcomes: Any) -> list[ItemUpdate]:
    """What the function says became of its items: a mapping, or tuples as `update_items` takes."""
    if outcomes is None:
        return []
    if isinstance(outcomes, Mapping):
        pairs = cast("Mapping[Key, ItemStatus]", outcomes)
        return list(pairs.items())
    found: list[ItemUpdate] = []
    if not isinstance(outcomes, Iterable):
        outcomes = [outcomes]
    for each in cast("Any", outcomes):
        if not isinstance(each, tuple) or not _PARTS_LEAST <= len(each) <= _PARTS_MOST:  # pyright: ignore[reportUnknownArgumentType]
            raise EncodingError(
                f"the function of batch {batch.key!r} returned {each!r:.80} among the outcomes of"
                " its items",
                hint="return tuples of key, milepost.ItemStatus and, where it failed, the error",
            )
        found.append(cast("ItemUpdate", each))
    return found


def _portable(job: Job[..., Any], engine: Engine) -> Callable[..., Any]:
    """The job's function in the form in which it travels.

    The name of a decorated function is that of its job. So where functions travel by their names,
    it is the name of the job that does.
    """
    name = getattr(job.function, "__qualname__", None)
    if name is None or not engine.pickles_by_name:
        return job.function
    module = job.function.__module__
    # Not the file of its code: that of a decorated function is its decorator's.
    return _ByName(module, name, getattr(sys.modules.get(module), "__file__", None) or "")


class _ByName(msgspec.Struct, frozen=True):
    """A job that is found by its name where it arrives.

    Attributes:
        module: Name of its module.
        name: Its name in there.
        file: Where the module was read from, for one that cannot be imported.
    """

    module: str
    name: str
    file: str

    def __call__(self, task: RemoteBatch) -> Any:
        job: Any = attrgetter(self.name)(self._imported())
        return job(task)

    def _imported(self) -> Any:
        if self.module in sys.modules:
            return sys.modules[self.module]
        try:
            return importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if not f"{self.module}.".startswith(f"{error.name}."):
                raise  # it is the module itself that misses something
        spec = importlib.util.spec_from_file_location(self.module, self.file)
        if spec is None or spec.loader is None:
            raise ConfigurationError(f"module {self.module!r} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[self.module] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[self.module]  # half of it is no module
            raise
        return module
