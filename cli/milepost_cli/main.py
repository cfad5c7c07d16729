"""The way in: Ctrl-C ends the command in one line from here on, also while all else is imported."""

from __future__ import annotations

import sys

EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the `milepost` script."""
    try:
        from milepost_cli.group import cli  # noqa: PLC0415  # the import takes the most time

        cli.main()
    except KeyboardInterrupt:
        stopped()


def stopped() -> None:
    """End as Ctrl-C ends a program, and say so."""
    print("milepost: stopped", file=sys.stderr)
    sys.exit(EXIT_INTERRUPTED)
