"""A Python file or module, and the one job in it.

- A file is imported under a name that is not `__main__`, with its real folder first on `sys.path`,
  as Python does it for a script. The module stands in `sys.modules`, so that dataclasses and pickle
  find their classes.
- `package.module:job` is imported by its name, with the current folder first on `sys.path`, as
  `python -m` does it.
- Nothing is looked up in a store: what to run comes from the command line alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import milepost
from milepost_cli.failure import UserCodeError, WrongUseError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

AnyJob = milepost.Job[..., Any]


def job_of(target: str) -> AnyJob:
    """The job of `FILE.py`, `FILE.py:JOB` or `package.module:JOB`.

    Errors: `WrongUseError` where there is no such file, module or job; `UserCodeError` where the
        import raises or exits.
    """
    source, wanted = split_target(target)
    return find_job(load(source, is_module=_is_module(source, wanted)), wanted, source)


def split_target(target: str) -> tuple[str, str | None]:
    """`FILE.py`, `FILE.py:job` or `package.module:job` as file or module, and job."""
    if os.path.exists(target):
        return target, None
    file, colon, wanted = target.rpartition(":")
    if colon and wanted and not wanted.endswith(".py") and "\\" not in wanted and "/" not in wanted:
        return file, wanted
    return target, None


def search_folder(targets: Sequence[str]) -> str:
    """Where the user's settings are looked for: by the first file, else in the current folder.

    Of a file behind a link it is the real folder, as for a script.
    """
    files = (split_target(target)[0] for target in targets)
    found = next((file for file in files if os.path.isfile(file)), os.curdir)
    return os.path.dirname(os.path.realpath(found)) if found != os.curdir else found


def _is_module(source: str, wanted: str | None) -> bool:
    """Whether it is the name of a module: no file, and a job is named after it."""
    return (
        wanted is not None
        and all(part.isidentifier() for part in source.split("."))
        and not source.endswith(".py")
        and not os.path.exists(source)
    )


_LOOKING: Final = "milepost looks for a job in its file"


def load(source: str, *, is_module: bool = False) -> ModuleType:
    """Import a file, or a module by its name.

    Errors: `WrongUseError` for a missing one, and for a script that begins a loop or runs its job
        while it is imported: that is not begun; `UserCodeError` where it raises or exits.
    """
    with milepost.refusing_loops(_LOOKING):
        return _load_module(source) if is_module else _load_file(source)


def _load_module(name: str) -> ModuleType:
    _put_first(os.getcwd())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        # What the module itself fails to import is the user's own matter.
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            _refuse(
                f"there is no file and no module {name!r}",
                "name a Python file, or a module that can be imported from the current folder",
            )
        raise _failed_import(name, error) from error


def _put_first(folder: str) -> None:
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)


def check_file(file: str) -> None:
    """Refuse what is no file."""
    if not os.path.isfile(file):
        what = "is a folder" if os.path.isdir(file) else "does not exist"
        _refuse(f"{file} {what}", "name a Python file with a job in it, or package.module:JOB")


def _load_file(file: str) -> ModuleType:
    path = os.path.abspath(file)
    check_file(file)
    stem, ending = os.path.splitext(os.path.basename(path))
    if ending != ".py":
        _refuse(f"{file} is no Python file", "name a Python file with a job in it")
    _put_first(os.path.dirname(os.path.realpath(path)))
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


def _failed_import(file: str, error: Exception | SystemExit) -> UserCodeError | WrongUseError:
    refused = error.message if isinstance(error, milepost.ConfigurationError) else ""
    if _LOOKING in refused and refused.startswith("job "):
        return WrongUseError(
            f"{file} runs its job while it is imported, which would do the work twice",
            'put the run under: if __name__ == "__main__":',
        )
    if _LOOKING in refused:
        return WrongUseError(
            f"{file} has no job: it is a plain script, and its loop was not begun",
            f"run it as a program: python {file}, or milepost run --supervise -- python {file}; for"
            " milepost recover name it in a [[recover]] table",
        )
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
