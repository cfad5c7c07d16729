"""`job`: a function made into a resumable run over batches."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from milepost.errors import ConfigurationError
from milepost.jobs.host import WHEN_COMPLETE
from milepost.jobs.loop import refuse_while_importing
from milepost.jobs.place import session_name
from milepost.jobs.runner import Runner
from milepost.session.arguments import check_choice, check_count, check_function, check_source
from milepost.session.mapping import is_async
from milepost.session.plan import PLANS
from milepost.settings.configuration import configuration
from milepost.storage.names import check_name
from milepost.work.executors import executor_named
from milepost.work.retry import Backoff

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from milepost.jobs.host import WhenComplete
    from milepost.jobs.progress import ProgressFactory
    from milepost.jobs.result import JobResult
    from milepost.session.plan import Plan
    from milepost.store import Store
    from milepost.types import Durability, JobConfig
    from milepost.work.pool import ExecutorOrFactory

P = ParamSpec("P")
R = TypeVar("R")


class Job(Generic[P, R]):
    """A function over a batch, with what it takes to run it over all of them.

    Calling it calls the function itself. `run` carries on where the last run stopped.

    Attributes:
        name: What the code calls it: the session's name, unless `batch_name` is another.
        workers: How many batches run at once, each in a thread.
        attempts: Tries a batch gets in one run where its error is recoverable.
        config: How it presents itself, by the code; environment and file go before it.
        function: The undecorated function.
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
        params: Any,
        give_up_after: int,
        executor: ExecutorOrFactory | None,
        config: JobConfig | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        if not callable(batches):
            check_source(batches, "batches, or what a function for them returns,")
        check_function("key", key)
        check_function("label", label)
        self.function = function
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
        self.params = params
        self.give_up_after = check_count("give_up_after", give_up_after, least=0)
        self.executor = self._fitting(executor)
        self.config = config

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the undecorated function."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Job {self.name!r}>"

    @property
    def session(self) -> str:
        """The name of its session, as environment, file and code have it now."""
        return session_name(self.name, self.config)

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
        params: Any = None,
        give_up_after: int | None = None,
        executor: ExecutorOrFactory | None = None,
    ) -> JobResult:
        """Run what is not done, and return when nothing is left that this run may do.

        What is not given is as the decorator said. Errors: `AlreadyLockedError` where another
        process runs it; `KeyboardInterrupt` or `SystemExit(143)` after a signal, with all saved;
        `OutageError` after too many failures in a row; `ParametersChangedError`.
        """
        options = {**locals()}
        del options["self"]
        if not is_async(self.function):
            return Runner(self, **self._settled(**options)).run()
        import asyncio  # noqa: PLC0415  # a plain job should not pay for it

        return asyncio.run(self.run_async(**options))

    async def run_async(
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
        params: Any = None,
        give_up_after: int | None = None,
        executor: ExecutorOrFactory | None = None,
    ) -> JobResult:
        """The same in an event loop, which it never keeps waiting for a disk.

        Batches of a coroutine function are tasks of the loop, those of a plain one run in threads.
        """
        options = {**locals()}
        del options["self"]
        from milepost.jobs.async_runner import AsyncRunner  # noqa: PLC0415  # it loads asyncio

        return await AsyncRunner(self, **self._settled(**options)).run_async()

    def _settled(
        self,
        *,
        store: Store | str | os.PathLike[str] | None,
        workers: int | None,
        attempts: int | None,
        durability: Durability | None,
        plan: Plan | None,
        when_complete: WhenComplete | None,
        total: int | None,
        progress: bool | ProgressFactory | None,
        params: Any,
        give_up_after: int | None,
        executor: ExecutorOrFactory | None,
    ) -> dict[str, Any]:
        """What a run goes by: its own options, else those of the file, else the decorator's."""
        refuse_while_importing(f"job {self.name!r}")
        settings = configuration()
        said = settings.job_options(self.name)
        workers = said.workers if workers is None else workers
        attempts = said.attempts if attempts is None else attempts
        if executor is None:
            executor = settings.executor(self.name, is_async=is_async(self.function))
        if give_up_after is None:
            give_up_after = said.give_up_after
        give_up = self.give_up_after if give_up_after is None else give_up_after
        return {
            "store": self.store if store is None else store,
            "workers": self.workers if workers is None else check_count("workers", workers),
            "attempts": self.attempts if attempts is None else check_count("attempts", attempts),
            "durability": durability or self.durability,
            "plan": check_choice("plan", plan or self.plan, PLANS),
            "when_complete": check_choice(
                "when_complete", when_complete or self.when_complete, WHEN_COMPLETE
            ),
            "total": self.total if total is None else check_count("total", total, least=0),
            "progress": self.progress if progress is None else progress,
            "params": self.params if params is None else params,
            "give_up_after": check_count("give_up_after", give_up, least=0),
            "executor": self._executor(executor),
        }

    def _executor(self, executor: ExecutorOrFactory | None) -> ExecutorOrFactory | None:
        # Where the function is one for batches in this process, threads are what it has anyway.
        if executor is None or (executor == "threads" and self.executor is None):
            return self.executor
        if isinstance(executor, str) and is_async(self.function):
            raise ConfigurationError(
                f"executor is {executor!r}, and job {self.name!r} is a coroutine function: it runs"
                " as tasks of an event loop, in no executor",
                hint="leave the executor out, or write the job with def",
            )
        return self._fitting(executor)

    def _fitting(self, executor: ExecutorOrFactory | None) -> ExecutorOrFactory | None:
        if executor is not None and is_async(self.function):
            raise TypeError(
                f"job {self.name!r} is a coroutine function: it runs as tasks of an event loop, and"
                " no executor= can run it"
            )
        if isinstance(executor, str):
            executor_named(executor, 1)  # a wrong name is refused before anything is begun
        return executor


_NOT_PLAIN = (
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
    params: Any = None,
    give_up_after: int = 20,
    executor: ExecutorOrFactory | None = None,
    config: JobConfig | None = None,
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
        params: What makes this run this run (a model, flags), as data: it is kept, and a later run
            that says something else is refused.
        give_up_after: So many batches failed in a row are an outage: they are pending again, and
            the run ends with `OutageError`; 0 for never.
        executor: A `concurrent.futures.Executor`, or a function that makes one. The function then
            gets a `RemoteBatch` and returns what became of its items, as `update_items` takes it.
            Also by name: `"threads"`, `"processes"`, `"dask://HOST:PORT"`.
        config: How it presents itself; what environment and file say goes before it.

    A coroutine function runs as tasks of an event loop, `workers` batches at once.
    """

    def decorate(function: Callable[P, R]) -> Job[P, R]:
        if any(test(function) for test in _NOT_PLAIN):
            raise ConfigurationError(
                f"job {name!r} is a generator function: calling it would only make a generator, and"
                " do nothing",
                hint="write it with def or async def, and without yield",
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
            params=params,
            give_up_after=give_up_after,
            executor=executor,
            config=config,
        )

    return decorate
