"""`job`: a function made into a resumable run over batches."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from milepost.errors import ConfigurationError
from milepost.jobs.loop import WHEN_COMPLETE
from milepost.jobs.runner import Runner
from milepost.session.arguments import check_choice, check_count, check_function, check_source
from milepost.session.plan import PLANS
from milepost.storage.names import check_name
from milepost.work.retry import Backoff

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from milepost.jobs.loop import WhenComplete
    from milepost.jobs.progress import ProgressFactory
    from milepost.jobs.result import JobResult
    from milepost.session.plan import Plan
    from milepost.store import Store
    from milepost.types import Durability

P = ParamSpec("P")
R = TypeVar("R")


class Job(Generic[P, R]):
    """A function over a batch, with what it takes to run it over all of them.

    Calling it calls the function itself. `run` carries on where the last run stopped.

    Attributes:
        name: The session's name.
        workers: How many batches run at once, each in a thread.
        attempts: Tries a batch gets in one run where its error is recoverable.
    """

    def __init__(
        self,
        function: Callable[P, R],
        name: str,
        *,
        batches: Iterable[Any] | Callable[[], Iterable[Any]],
        key: Callable[[Any], Any] | None,
        label: Callable[[Any], str] | None,
        workers: int,
        attempts: int,
        plan: Plan,
        when_complete: WhenComplete,
        durability: Durability,
        store: Store | str | os.PathLike[str] | None,
        backoff: Backoff,
        total: int | None,
        progress: bool | ProgressFactory | None,
    ) -> None:
        functools.update_wrapper(self, function)
        if not callable(batches):
            check_source(batches, "batches, or what a function for them returns,")
        check_function("key", key)
        check_function("label", label)
        self._function = function
        self.name = check_name(name)
        self.batches = batches
        self.key = key
        self.label = label
        self.workers = check_count("workers", workers)
        self.attempts = check_count("attempts", attempts)
        self.plan: Plan = check_choice("plan", plan, PLANS)
        self.when_complete: WhenComplete = check_choice(
            "when_complete", when_complete, WHEN_COMPLETE
        )
        self.durability: Durability = durability
        self.store = store
        self.backoff = backoff
        self.total = None if total is None else check_count("total", total, least=0)
        self.progress = progress

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the undecorated function."""
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Job {self.name!r}>"

    def run(
        self,
        *,
        store: Store | str | os.PathLike[str] | None = None,
        workers: int | None = None,
        attempts: int | None = None,
        durability: Durability | None = None,
        plan: Plan | None = None,
        when_complete: WhenComplete | None = None,
        total: int | None = None,
        progress: bool | ProgressFactory | None = None,
    ) -> JobResult:
        """Run what is not done, and return when nothing is left that this run may do.

        What is not given is as the decorator said. Errors: `AlreadyLockedError` where another
        process runs it; `KeyboardInterrupt` or `SystemExit(143)` after a signal, with all saved.
        """
        return Runner(
            self,
            store=self.store if store is None else store,
            workers=self.workers if workers is None else check_count("workers", workers),
            attempts=self.attempts if attempts is None else check_count("attempts", attempts),
            durability=durability or self.durability,
            plan=check_choice("plan", plan or self.plan, PLANS),
            when_complete=check_choice(
                "when_complete", when_complete or self.when_complete, WHEN_COMPLETE
            ),
            total=self.total if total is None else check_count("total", total, least=0),
            progress=self.progress if progress is None else progress,
        ).run()


_NOT_PLAIN = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)


def job(
    name: str,
    *,
    batches: Iterable[Any] | Callable[[], Iterable[Any]],
    key: Callable[[Any], Any] | None = None,
    label: Callable[[Any], str] | None = None,
    workers: int = 1,
    attempts: int = 3,
    plan: Plan = "frozen",
    when_complete: WhenComplete = "stop",
    durability: Durability = "process",
    store: Store | str | os.PathLike[str] | None = None,
    backoff: Backoff | None = None,
    total: int | None = None,
    progress: bool | ProgressFactory | None = None,
) -> Callable[[Callable[P, R]], Job[P, R]]:
    """Make a function over one batch into a job over all of them.

    Args:
        name: The session's name.
        batches: All batches, or a function that lists them; asked once, and sealed as the plan
            before the first batch starts.
        key: What a batch is known by: text or a whole number. Text and numbers are their own key.
        label: What people call it; a mapping's `label` or `name` by default.
        workers: Batches at once, each in a thread.
        attempts: Tries a batch gets in one run where its error is recoverable.
        plan: `"extend"` asks for the batches in every run and adds what is new.
        when_complete: What a run after the end does.
        durability: What an update survives when its call returns.
        store: The store or its folder; default as `resolve_path` says.
        backoff: How long to wait between tries.
        total: How many batches there are, for who looks on while they are still being listed; once
            the plan is sealed, it says so itself.
        progress: `True` for a progress line, `False` for no line at all; by default the start and
            the end are told on stderr.
    """

    def decorate(function: Callable[P, R]) -> Job[P, R]:
        if any(test(function) for test in _NOT_PLAIN):
            raise ConfigurationError(
                f"job {name!r} is not a plain function: calling it would only make a coroutine or a"
                " generator, and do nothing",
                hint="write it with def and without yield",
            )
        return Job(
            function,
            name,
            batches=batches,
            key=key,
            label=label,
            workers=workers,
            attempts=attempts,
            plan=plan,
            when_complete=when_complete,
            durability=durability,
            store=store,
            backoff=backoff or Backoff(),
            total=total,
            progress=progress,
        )

    return decorate
