"""Makes a class resumable whose loop is its own; the lines that were added for it are marked.

    python examples/etl_class.py examples/data/regions.tsv places.sqlite3

`RegionEtl` stands for what grew over the years: one loop over the lines of a file that sees where a
region ends only when the next one begins, with callbacks and error handling of its own. No loop of
milepost can be put around it. So it asks the session what is done (`is_done`), and says what it did
(`update_item`), after that is committed. A place that was in hand at a kill is loaded again; here
that replaces its row, so it is in the table once.
"""

from __future__ import annotations

import sqlite3
import sys

import milepost


class RegionEtl:
    """Loads regions and their places from a text file into SQLite."""

    def __init__(self, source: str, target: str, session: milepost.Session) -> None:
        self.source = source
        self.database = sqlite3.connect(target, isolation_level=None)  # each row is committed
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("CREATE TABLE IF NOT EXISTS places (id PRIMARY KEY, name)")
        self.region = ""
        self.session = session  # milepost
        self.batch: milepost.Batch | None = None  # milepost: the region in hand, if it is not done

    def run(self) -> None:
        """Loads everything, line by line."""
        with open(self.source, encoding="utf-8") as lines:
            for line in lines:
                code, *names = line.rstrip("\n").split("\t")
                if len(code) == 5:
                    self.on_region_end()
                    self.region = " ".join(names)
                    self.on_region(code)
                    continue
                if self.batch is None or self.batch.is_done(code):  # milepost
                    continue  # milepost
                try:
                    self.load(code, " ".join([self.region, *names]))
                except sqlite3.Error as error:
                    self.on_error(code, error)
                else:
                    self.on_place(code)
        self.on_region_end()
        self.database.close()

    def load(self, code: str, name: str) -> None:
        """Writes a place."""
        self.database.execute("INSERT OR REPLACE INTO places VALUES (?, ?)", (code, name))

    def on_region(self, code: str) -> None:
        """Called when a region begins."""
        self.batch = None  # milepost
        if not self.session.is_done(code):  # milepost
            self.batch = self.session.start_batch(code, label=self.region)  # milepost

    def on_place(self, code: str) -> None:
        """Called when a place was loaded."""
        if self.batch is not None:  # milepost
            self.batch.update_item(code, milepost.ItemStatus.COMPLETED)  # milepost

    def on_error(self, code: str, error: Exception) -> None:
        """Called when a place could not be loaded; the others go on."""
        print(f"{code}: {error}", file=sys.stderr)
        if self.batch is not None:  # milepost
            self.batch.update_item(code, milepost.ItemStatus.FAILED, error)  # milepost

    def on_region_end(self) -> None:
        """Called after the last place of a region, and before the first region."""
        if self.batch is not None:  # milepost
            self.batch.complete()  # milepost


def main() -> int:
    """Runs it; the exit code is 3 where places are left that failed."""
    source, target = sys.argv[1:]
    with milepost.Store().session("etl") as session:  # milepost
        RegionEtl(source, target, session).run()
        session.complete()  # milepost
        state = session.state
    done, failed = state.total_items_processed, len(state.failed_batches)
    print(f"{done:,} places of {len(state.completed_batches):,} regions; {failed:,} regions failed")
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
