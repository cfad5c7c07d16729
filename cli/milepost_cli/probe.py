"""`python -m milepost_cli.probe TARGET`: what a job is called and where its store is, as JSON.

- It is a process of its own, so that a file which crashes, exits or hangs while it is imported
  takes nobody with it. Whatever the file prints goes to stderr; stdout has the answer alone.
- Shape: `{"session", "store"}`, where `store` is null if neither the job nor a file names one; or
  `{"error"}` as `output.error_document` has it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import milepost
from milepost_cli import failure, loading, output

if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Answer, and end at once: what the file has started must not keep this process."""
    answers = os.dup(1)
    os.dup2(2, 1)
    answer = output.encode(_answer(sys.argv[1]))
    os.write(answers, answer.encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _answer(target: str) -> dict[str, Any]:
    sys.argv = [loading.split_target(target)[0]]
    try:
        job = loading.job_of(target)
        with milepost.searching_from(loading.search_folder([target])):
            return {"session": job.session, "store": _path_of(job.store)}
    except Exception as error:
        return failure.document_of(error)


def _path_of(store: milepost.Store | str | os.PathLike[str] | None) -> str | None:
    if store is None:
        in_file = milepost.configuration().store()
        return None if in_file is None or os.environ.get("MILEPOST_STORE") else in_file.value
    return store.path if isinstance(store, milepost.Store) else milepost.resolve_path(store)


if __name__ == "__main__":
    main()
