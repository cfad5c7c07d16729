"""A Python file as a module, and the one job in it.

- The file is imported under a name that is not `__main__`, with its folder first on `sys.path`, as
  Python does it for a script. The module stands in `sys.modules`, so that dataclasses and pickle
  find their classes.
- Nothing is looked up in a store: what to run comes from the command line alone.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import milepost
from milepost_cli.failure import UserCodeError, WrongUseError

if TYPE_CHECKING:
    from types import ModuleType

AnyJob = milepost.Job[..., Any]


def split_target(target: str) -> tuple[str, str | None]:
    """`FILE.py` or `FILE.py:job` as file and job."""
    if os.path.exists(target):
        return target, None
    file, colon, wanted = target.rpartition(":")
    if colon and wanted and not wanted.endswith(".py") and "\\" not in wanted and "/" not in wanted:
        return file, wanted
    return target, None


def load(file: str) -> ModuleType:
    """Import a file.

    Errors: `WrongUseError` for a missing one; `UserCodeError` where the file raises or exits.
    """
    path = os.path.abspath(file)
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        _refuse(f"{file} {what}", "name a Python file with a job in it")
    folder, base = os.path.split(path)
    stem, ending = os.path.splitext(base)
    if ending != ".py":
        _refuse(f"{file} is no Python file", "name a Python file with a job in it")
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    name = _module_name(stem)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        _refuse(f"{file} cannot be imported", "name a Python file with a job in it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _failed_import(file, error) from error
    return module


def _failed_import(file: str, error: Exception | SystemExit) -> UserCodeError:
    if isinstance(error, SystemExit):
        return UserCodeError(
            f"{file} ended the interpreter while it was imported",
            error,
            hint='put what only a script does under: if __name__ == "__main__":',
        )
    return UserCodeError(f"{file} raised {type(error).__name__} while it was imported", error)


def _module_name(stem: str) -> str:
    """The file's own name where that is free, so that other processes can import it as well."""
    is_free = stem.isidentifier() and stem not in sys.modules
    if is_free and stem not in sys.stdlib_module_names and stem != "__main__":
        return stem
    return f"milepost_job_{stem}"


def find_job(module: ModuleType, wanted: str | None, file: str) -> AnyJob:
    """The one job of a module, or the one of this variable or job name.

    Errors: `WrongUseError` where there is none, or more than one.
    """
    jobs = _jobs(module)
    if wanted is not None:
        chosen = {id(job): job for name, job in jobs if wanted in {name, job.name}}
        if len(chosen) == 1:
            return next(iter(chosen.values()))
        if len(chosen) > 1:
            _refuse(f"{file} has several jobs called {wanted!r}", "give each its own name")
        there = f"there are: {_listed(jobs)}" if jobs else "there is none in it"
        _refuse(f"{file} has no job {wanted!r}", there)
    if not jobs:
        _refuse(
            f"{file} has no job",
            f"decorate a function with @milepost.job, or run a plain script: python {file}",
        )
    distinct = {id(job) for _, job in jobs}
    if len(distinct) > 1:
        _refuse(
            f"{file} has {len(distinct)} jobs: {_listed(jobs)}",
            f"name one: milepost run {file}:{jobs[0][0]}",
        )
    return jobs[0][1]


def _jobs(module: ModuleType) -> list[tuple[str, AnyJob]]:
    return [
        (name, value) for name, value in vars(module).items() if isinstance(value, milepost.Job)
    ]


def _listed(jobs: list[tuple[str, AnyJob]]) -> str:
    return ", ".join(
        name if name == job.name else f"{name} (session {job.name!r})" for name, job in jobs
    )


def _refuse(message: str, hint: str) -> NoReturn:
    raise WrongUseError(message, hint)
