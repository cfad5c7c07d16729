"""Running the example scripts as a user would: from a shell, by path, in a folder of one's own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import milepost

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_SECONDS = 60.0


def load_script(path: Path) -> Any:
    """The module of a script, which is in no package and so is found by its path."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def command(script: str, *arguments: str) -> list[str]:
    """What runs an example; a warning in it is an error, as in the tests themselves."""
    return [sys.executable, "-W", "error", str(EXAMPLES / script), *arguments]


def run(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        words,
        cwd=folder,
        env=_environment(environment),
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


@contextmanager
def started(words: list[str], folder: Path, **environment: str) -> Generator[subprocess.Popen[str]]:
    """A command that runs beside the test and never outlives the block."""
    with subprocess.Popen(
        words,
        cwd=folder,
        env=_environment(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def kill_when(
    process: subprocess.Popen[str],
    store: Path,
    name: str,
    condition: Callable[[milepost.SessionState], bool],
) -> milepost.SessionState:
    """Kills with SIGKILL once the store says so; returns what the store says afterwards."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition(state_of(store, name)):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until, "what should have been seen before the kill never came"
        time.sleep(0.01)
    process.kill()
    process.wait()
    return state_of(store, name)


def state_of(store: Path, name: str) -> milepost.SessionState:
    """The state of a session that somebody else may be writing, or may not have begun yet."""
    try:
        return milepost.Store(store).load_progress(name)
    except LookupError:
        return milepost.SessionState(name, "")


def _environment(more: dict[str, str]) -> dict[str, str]:
    # The user's own settings are none of a test's business.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MILEPOST_")}
    return {**kept, **more}
