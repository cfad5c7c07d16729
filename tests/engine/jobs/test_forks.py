"""Processes that are forked while work runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="what is forked needs an operating system that forks"
)


@needs_fork
def test_they_end_by_a_signal_as_any_other(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import milepost, os, signal, sys, threading
            import milepost.jobs.signals as signals
            signals.GRACE_SECONDS = 3_600

            def fork():
                ready, told = os.pipe()
                child = os.fork()
                if not child:
                    os.write(told, b".")
                    while True:
                        signal.pause()
                os.read(ready, 1)
                return child

            def end(child, number):
                os.kill(child, number)
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

            for outer in milepost.resume("a", "outer", store="s", progress=False):
                end(fork(), signal.SIGTERM)
                for inner in milepost.resume("b", "inner", store="s", progress=False):
                    end(fork(), signal.SIGTERM)
                    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # not here
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == [str(-signal.SIGTERM)] * 2
    assert "finishing" not in done.stderr
