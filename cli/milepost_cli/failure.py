"""How a failing command ends: what it says on stderr, and with which code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Any, Final

import click

import milepost
from milepost_cli import exit_codes, output

_OURS: Final = tuple(
    os.path.dirname(os.path.abspath(file)) + os.sep
    for file in (__file__, milepost.__file__, click.__file__)
)


class UserCodeError(Exception):
    """The user's own code raised outside of any batch.

    Attributes:
        traceback: Where, as lines, with nothing in it but the user's own code.
        hint: What to try; empty where there is nothing to advise.
    """

    def __init__(self, message: str, cause: BaseException, *, hint: str = "") -> None:
        super().__init__(message)
        self.traceback = user_traceback(cause)
        self.hint = hint


class WrongUseError(click.UsageError):
    """Wrong usage that click cannot see by itself, with its own hint."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class TargetError(Exception):
    """What was named to be run cannot be; another process found that out.

    Attributes:
        hint: What to try.
    """

    def __init__(self, message: str, hint: str, exit_code: int = exit_codes.FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self._exit_code = exit_code

    @property
    def exit_code(self) -> int:
        """What `milepost run` of it ends with."""
        return self._exit_code


def report(error: Exception, *, as_json: bool) -> int:
    """Say what went wrong, as text or as one JSON object; return the exit code."""
    if isinstance(error, (output.ReaderGoneError, BrokenPipeError)):
        return _end_quietly()
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        output.tell(error.format_message())
        return error.exit_code
    if isinstance(error, click.Abort):
        return exit_codes.INTERRUPTED
    if as_json:
        output.tell(output.encode(document_of(error)))
        return code_of(error)
    if isinstance(error, UserCodeError):
        for line in error.traceback:
            output.tell(output.safe(line, keep_tabs=True))
    elif not isinstance(error, (click.ClickException, milepost.MilepostError, TargetError)):
        traceback.print_exception(error)
    output.tell(f"{output.style('error:', 'red')} {output.safe(message_of(error))}")
    hint = hint_of(error)
    if hint:
        output.tell("")
        output.tell(f"{output.style('hint:', 'cyan')} {output.safe(hint)}")
    return code_of(error)


def document_of(error: Exception) -> dict[str, Any]:
    """What went wrong, as an object: see `output.error_document`."""
    return output.error_document(error, message_of(error), hint_of(error), code_of(error))


def code_of(error: Exception) -> int:
    """The exit code; some errors know theirs."""
    if isinstance(error, (click.ClickException, TargetError)):
        return error.exit_code
    return exit_codes.code_of(error)


def message_of(error: Exception) -> str:
    """What went wrong, as a sentence."""
    if isinstance(error, milepost.MilepostError):
        return error.message
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, (UserCodeError, TargetError)):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}"


def hint_of(error: Exception) -> str:
    """What to try, or nothing."""
    if isinstance(error, (milepost.MilepostError, UserCodeError, WrongUseError, TargetError)):
        return error.hint
    if isinstance(error, click.UsageError):
        return f"{error.ctx.command_path if error.ctx is not None else 'milepost'} --help"
    return ""


def user_traceback(error: BaseException) -> list[str]:
    """The traceback as Python prints it, without the frames of milepost and the import system."""
    told = traceback.TracebackException.from_exception(error)
    seen: traceback.TracebackException | None = told
    while seen is not None:
        seen.stack = traceback.StackSummary.from_list(
            [frame for frame in seen.stack if not _is_ours(frame.filename)]
        )
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return [line for part in told.format() for line in part.rstrip("\n").split("\n")]


def _is_ours(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or os.path.abspath(filename).startswith(_OURS)


def _end_quietly() -> int:
    """Nobody reads stdout any more; what is still buffered must not complain at shutdown."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return exit_codes.FINE
