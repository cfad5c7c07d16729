"""The `milepost` command line: finds the sub-command, and turns what it raises into an exit code.

- Nothing heavy is imported here: neither the library nor the body of any command, until one is
  used. So the short descriptions of the commands stand in `COMMANDS`.
- Every error leaves in one form: `error: …` and `hint: …` lines on stderr, or one JSON object there
  under `--json` (see `output.error_document`); the exit code comes from `exit_codes`.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from milepost_cli import options
from milepost_cli.main import stopped

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS: Final = {
    "run": "Run the job in a Python file; carries on where it stopped.",
    "recover": "Find dead sessions, make them ready, and carry them on.",
    "list": "List the sessions of a store, one a line.",
    "show": "Show where a session stands, and what to do next.",
    "log": "Print the events of a session in plain words, one a line.",
    "cat": "Print what is in any file of a store, as JSON.",
    "retry": "Put what failed back to pending, with fresh attempts.",
    "restart": "Begin a session anew, as a new version; older versions stay.",
    "restore": "Make an older version of a session its state again.",
    "unlock": "Take a session at once from a host that is gone.",
    "config": "Show every setting, and where its value comes from.",
}

EPILOG: Final = (
    "Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 ended with failed batches, 10 no such store or"
    " session, 11 locked or superseded, 12 damaged, 13 written by a newer milepost, 130/143 stopped"
    " by a signal after a clean save."
)


class Milepost(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """All commands, in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"milepost_cli.commands.{cmd_name}")
        command: click.Command = module.command
        from milepost import searching_from  # noqa: PLC0415  # the command has imported it anyway

        ctx.with_resource(searching_from(os.curdir))  # of this script there are no settings
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """The list of commands in the help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the sub-command; Ctrl-C is one line and an exit code, not a traceback."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            stopped()  # before click makes an `Abort` and an empty line of it

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit."""
        given = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code: Any = super().main(given, *more, **extra)
            _flush()
        except Exception as error:
            from milepost_cli import failure  # noqa: PLC0415  # only a failing command needs it

            code = failure.report(error, as_json=options.wants_json(given))
        sys.exit(code if isinstance(code, int) else 0)


def _flush() -> None:
    """Meet a reader that is gone here, and not while the interpreter shuts down."""
    sys.stdout.flush()


@click.command(
    "milepost",
    cls=Milepost,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(package_name="milepost", message="%(prog)s %(version)s")
@options.store
@options.as_json
def cli() -> None:
    """Keep long batch work resumable with nothing but a folder.

    A store is a folder; a session is one named piece of work in it. Without --store it is
    $MILEPOST_STORE, else that of milepost.toml, else the nearest .milepost upwards from here.
    """
