"""`[[recover]]` tables: which command carries on which sessions, from the user's own file.

- The file is the one that all settings come from; never one inside a store, because nothing in a
  store is ever executed.
- A command runs in the folder of its file.
"""

from __future__ import annotations

import milepost


def targets() -> list[milepost.Target]:
    """The tables of the user's file, in their order; none without a file.

    Errors: `ConfigurationError` naming file, line and key: left out in silence, another table could
        take its sessions.
    """
    file = milepost.configuration().file
    if file is None:
        return []
    return [
        milepost.Target(table["session"], tuple(table["command"]), file.folder)
        for table in file.table.get("recover", [])
    ]
