"""Which settings there are, what each may be, and what is wrong with a file.

At the top of a file stand the fields of the four groups and `store`; `[job."NAME"]` has those of
`JobConfig` and the options of that job alone, `[[recover]]` what carries sessions on.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import msgspec

from milepost.errors import ConfigurationError
from milepost.types import JobConfig, RecoveryConfig, StoreConfig, TrackerConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GROUPS: Final[tuple[type[msgspec.Struct], ...]] = (
    TrackerConfig,
    StoreConfig,
    RecoveryConfig,
    JobConfig,
)
TABLES: Final = ("job", "recover")
RECOVER_KEYS: Final = ("session", "command")

_RECOVER_EXAMPLE: Final = 'for example: session = "crawl-*" and command = ["python", "crawl.py"]'
_JOB_EXAMPLE: Final = 'write [job."NAME"] and its settings below'
_EXECUTORS: Final = ("threads", "processes")
_KINDS: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a file may say of one job beside its `JobConfig`; `None` where it does not.

    Attributes:
        workers: Batches at once.
        attempts: Tries a batch gets in one run.
        give_up_after: Failures in a row that are an outage.
        executor: Where batches run, by name.
    """

    workers: int | None = None
    attempts: int | None = None
    give_up_after: int | None = None
    executor: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("attempts", 1), ("give_up_after", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigurationError(f"{name} is {value}; it must be at least {least}")
        text = self.executor
        if text is not None and text not in _EXECUTORS and not text.startswith("dask://"):
            raise ConfigurationError(
                f"executor is {text!r}; it must be threads, processes or dask://HOST:PORT"
            )


@functools.cache
def fields(*kinds: type[msgspec.Struct]) -> dict[str, tuple[type[msgspec.Struct], Any]]:
    """The fields of groups: name to group and type."""
    return {each.name: (kind, each.type) for kind in kinds for each in msgspec.structs.fields(kind)}


def checked(
    kind: type[msgspec.Struct], name: str, value: Any, *, where: str, is_text: bool = False
) -> Any:
    """The value of one field, as its type; from `is_text` numbers are read.

    Errors: `ConfigurationError` that begins with `where`.
    """
    wanted = fields(kind)[name][1]
    try:
        found = msgspec.convert(value, wanted, strict=not is_text)
    except msgspec.ValidationError as error:
        words = next((told for plain, told in _KINDS.items() if _is_of(plain, wanted)), str(error))
        raise ConfigurationError(
            f"{where}: {name} is {value!r:.80}; it must be {words}",
            hint="correct it, or take it out",
        ) from error
    try:
        kind(**{name: found})
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{where}: {error.message}", hint="correct it, or take it out"
        ) from error
    return found


def _is_of(plain: Any, wanted: Any) -> bool:
    return wanted is plain or wanted == plain | None


def check_file(table: dict[str, Any], where: Callable[..., str]) -> None:
    """Refuse a file with a wrong key or value; give each setting the type of its field.

    `where` tells file and line of a key. Errors: `ConfigurationError`.
    """
    known = fields(*GROUPS)
    for key, value in table.items():
        if key == "recover":
            _check_recover(value, where)
        elif key == "job":
            _check_jobs(value, where)
        elif key == "store":
            if not isinstance(value, str) or not value:
                _refuse(f"{where(key)}: store is {value!r:.80}; it must be a folder", "name one")
        elif key in known:
            table[key] = checked(known[key][0], key, value, where=where(key))
        else:
            what = f"{where(key)}: unknown key {key!r}"
            _refuse(what, _meant(key, ("store", *known, *TABLES), "at the top of the file"))


def _check_jobs(tables: Any, where: Callable[..., str]) -> None:
    if not isinstance(tables, dict):
        _refuse(f"{where('job')}: job is no table of tables", _JOB_EXAMPLE)
    known = fields(JobConfig, JobOptions)
    for name, options in cast("dict[str, Any]", tables).items():
        if not isinstance(options, dict):
            _refuse(f"{where('job', name)}: job.{name} is no table", _JOB_EXAMPLE)
        table = cast("dict[str, Any]", options)
        for key, value in table.items():
            place = where("job", name, key)
            if key not in known:
                what = f'{place}: [job."{name}"]: unknown key {key!r}'
                _refuse(what, _meant(key, known, f'in [job."{name}"]'))
            table[key] = checked(known[key][0], key, value, where=place)


def _check_recover(tables: Any, where: Callable[..., str]) -> None:
    brackets = "write [[recover]], in double brackets"
    if not isinstance(tables, list):
        _refuse(f"{where('recover')}: recover is no list of tables", brackets)
    for index, table in enumerate(cast("Iterable[Any]", tables)):
        number = f"[[recover]] {index + 1}"
        at = where("recover", index)
        if not isinstance(table, dict):
            _refuse(f"{at}: {number}: it is no table", brackets)
        told = cast("dict[str, Any]", table)
        for key in told:
            if key not in RECOVER_KEYS:
                what = f"{where('recover', index, key)}: {number}: unknown key {key!r}"
                _refuse(what, _meant(key, RECOVER_KEYS, "in [[recover]]"))
        for key in RECOVER_KEYS:
            if key not in told:
                _refuse(f"{at}: {number}: {key} is missing", _RECOVER_EXAMPLE)
        session, words = told["session"], told["command"]
        if not isinstance(session, str) or not session:
            at = where("recover", index, "session")
            wrong = f"session is {session!r}; it must be a name or a pattern"
            _refuse(f"{at}: {number}: {wrong}", _RECOVER_EXAMPLE)
        if not _is_command(words):
            at = where("recover", index, "command")
            wrong = f"command is {words!r}; it must be a list of words"
            _refuse(f"{at}: {number}: {wrong}", _RECOVER_EXAMPLE)


def _is_command(words: Any) -> bool:
    if not isinstance(words, list):
        return False
    each = list(cast("Iterable[Any]", words))
    return all(isinstance(word, str) for word in each) and bool(each) and bool(each[0])


def _meant(key: str, known: Iterable[str], here: str) -> str:
    """What to try instead of a key that is unknown here."""
    import difflib  # noqa: PLC0415  # for mistakes alone

    there = list(known)
    near = difflib.get_close_matches(key, there, n=1)
    if near:
        return f"did you mean {near[0]}?"
    if key == "store" or key in fields(*GROUPS):
        return f"{key} belongs above the first table of the file"
    if key in fields(JobOptions):
        return f'{key} belongs in a table of its job: [job."NAME"]'
    return f"{here} there are: {', '.join(there)}"


def _refuse(message: str, hint: str) -> NoReturn:
    raise ConfigurationError(message, hint=hint)
