"""What `recover` may execute: the targets of the command line, then the user's own tables.

Nothing else is ever executed; a store has no say in it.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Final, NamedTuple

import milepost
from milepost_cli import asking, tables
from milepost_cli.asking import JobTarget
from milepost_cli.failure import TargetError, WrongUseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SPECIAL: Final = re.compile(r"([*?[])")


class Named(NamedTuple):
    """What was named to carry sessions on.

    Attributes:
        jobs: The job targets of the command line that can be imported.
        wrong: What is wrong with the others.
    """

    jobs: list[JobTarget]
    wrong: list[TargetError]

    @classmethod
    def on_command_line(cls, words: Sequence[str]) -> Named:
        """Ask what each target is.

        Errors: that of the first, where nothing is left that could be executed.
        """
        answers = asking.ask(words)
        jobs = [each for each in answers if isinstance(each, JobTarget)]
        wrong = [each for each in answers if isinstance(each, TargetError)]
        if wrong and not jobs and not tables.targets():
            raise wrong[0]
        return cls(jobs, wrong)

    def store_path(self) -> str | None:
        """The store that the jobs name themselves, if they do.

        Errors: `WrongUseError` where they keep their sessions in several.
        """
        paths = {milepost.resolve_path(each.store): each for each in self.jobs}
        if len(paths) > 1:
            first, second, *_ = paths.items()
            raise WrongUseError(
                f"{first[1].target} has its sessions in {first[0]}, {second[1].target} in"
                f" {second[0]}",
                "recover them apart, or name one store for all with --store",
            )
        return next(iter(paths), None)

    def targets(self, *, only: Sequence[str], options: Sequence[str]) -> list[milepost.Target]:
        """What carries on which sessions: those of the command line before those of the file.

        `only` leaves out all other sessions. Errors: `WrongUseError` for one that nothing fits.
        """
        found = [
            *(
                milepost.Target(escaped(job.session), asking.command_of(job.target, *options))
                for job in self.jobs
            ),
            *tables.targets(),
        ]
        return narrowed(found, only) if only and found else found


def escaped(name: str) -> str:
    """A session's name as a pattern that fits it alone."""
    return _SPECIAL.sub(r"[\1]", name)


def target_of(name: str, targets: Iterable[milepost.Target]) -> milepost.Target | None:
    """The first target whose pattern fits."""
    return next((each for each in targets if fnmatch.fnmatchcase(name, each.pattern)), None)


def narrowed(targets: Sequence[milepost.Target], names: Sequence[str]) -> list[milepost.Target]:
    """The targets for these sessions alone.

    Errors: `WrongUseError` for a session that no target fits.
    """
    found: list[milepost.Target] = []
    for name in names:
        target = target_of(name, targets)
        if target is None:
            raise WrongUseError(
                f"no target carries on session {name!r}", "name the job or the table that does"
            )
        found.append(target._replace(pattern=escaped(name)))
    return found
