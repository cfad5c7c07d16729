"""What counts of all that was said, and where it was said.

The environment goes before the file, the file before the default. What a program hands in to a
`Store` or a run goes before all of these, as do the flags of a command.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec

from milepost.errors import ConfigurationError
from milepost.settings.environment import read_variable, unknown_variables, variable
from milepost.settings.file import find_file
from milepost.settings.schema import GROUPS, JobOptions, fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from milepost.settings.file import ConfigFile

C = TypeVar("C", bound=msgspec.Struct)

PATHS: Final = ("store", "backup_path")
"""In a file they are relative to its folder, so that it does not matter where one stands."""
DEFAULT: Final = "default"
IN_CODE: Final = "the job's own config"


@functools.cache
def _defaults(kind: type[msgspec.Struct]) -> msgspec.Struct:
    return kind()


class Setting(NamedTuple):
    """A setting in force.

    Attributes:
        name: What it is called in a file.
        value: What it is.
        source: Where that was said: `default`, `$MILEPOST_X`, `/path/milepost.toml:12`.
    """

    name: str
    value: Any
    source: str


class Configuration:
    """The environment and the user's file, as they are now.

    Attributes:
        environment: The variables.
        file: The file; `None` where there is none.
    """

    def __init__(self, environment: Mapping[str, str], file: ConfigFile | None) -> None:
        self.environment = environment
        self.file = file

    def settings(self) -> list[Setting]:
        """All fields of all groups, then what the file says of single jobs."""
        found = [self.setting(kind, name) for name, (kind, _) in fields(*GROUPS).items()]
        for job, table in self._jobs().items():
            found += [self._in_job(job, name, value) for name, value in table.items()]
        return found

    @property
    def unknown_variables(self) -> dict[str, str]:
        """Variables that look like settings and are none, each with what to try."""
        return unknown_variables(self.environment)

    def group(self, kind: type[C], *, job: str | None = None, base: C | None = None) -> C:
        """One group of settings; `base` is what the code says, and `job` whose they are."""
        return kind(
            **{name: self.setting(kind, name, job=job, base=base).value for name in fields(kind)}
        )

    def setting(
        self, kind: type[C], name: str, *, job: str | None = None, base: C | None = None
    ) -> Setting:
        """One setting. Errors: `ConfigurationError` naming the variable."""
        text = self.environment.get(variable(name))
        if text:  # an empty one is a variable that is not set
            return Setting(name, read_variable(kind, name, text), f"${variable(name)}")
        if self.file is not None:
            table = self._jobs().get(job) if job is not None else None
            if job is not None and table is not None and name in table:
                return Setting(name, table[name], self.file.where("job", job, name))
            if name in self.file.table:
                return self._in_file(self.file, name)
        default = getattr(_defaults(kind), name)
        value = default if base is None else getattr(base, name)
        return Setting(name, value, DEFAULT if value == default else IN_CODE)

    def job_options(self, job: str) -> JobOptions:
        """What the file says of one job beside its `JobConfig`."""
        table = self._jobs().get(job, {})
        return JobOptions(**{name: table[name] for name in fields(JobOptions) if name in table})

    def executor(self, job: str, *, is_async: bool) -> str | None:
        """The executor that the file names for one job; none for tasks, which run in this process.

        Errors: `ConfigurationError` naming file and line where tasks are to run anywhere else.
        """
        name = self.job_options(job).executor
        if self.file is None or name is None or not is_async:
            return name
        if name == "threads":
            return None
        raise ConfigurationError(
            f'{self.file.where("job", job, "executor")}: [job."{job}"]: executor is {name!r}, and'
            " what runs is a coroutine function: it runs as tasks of an event loop, in no executor",
            hint="take it out, or write the function with def",
        )

    def store(self) -> Setting | None:
        """The store that the file names, relative to its folder."""
        if self.file is None or "store" not in self.file.table:
            return None
        return self._in_file(self.file, "store")

    @staticmethod
    def _in_file(file: ConfigFile, name: str) -> Setting:
        value = file.table[name]
        if name in PATHS:
            value = os.path.abspath(os.path.join(file.folder, value))
        return Setting(name, value, file.where(name))

    def _jobs(self) -> dict[str, dict[str, Any]]:
        return {} if self.file is None else self.file.table.get("job", {})

    def _in_job(self, job: str, name: str, value: Any) -> Setting:
        assert self.file is not None  # noqa: S101  # it has the table
        return Setting(f'job."{job}".{name}', value, self.file.where("job", job, name))


def configuration(start: str | None = None) -> Configuration:
    """What the environment and the file say now, the file upwards from a folder.

    By default from that of the main script. Errors: `ConfigurationError` naming file and line.
    """
    return Configuration(os.environ, find_file(start))
