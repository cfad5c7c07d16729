"""A process is known by more than its number."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import msgspec
import pytest

from milepost.storage.host import HostIdentity, this_process

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system has no /proc")
SHOW = (
    "import msgspec, sys\n"
    "from milepost.storage.host import this_process\n"
    "sys.stdout.buffer.write(msgspec.json.encode(this_process()))\n"
)


def of_another_process() -> HostIdentity:
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, check=True, timeout=60)
    return msgspec.json.decode(done.stdout, type=HostIdentity)


def test_a_process_knows_who_it_is() -> None:
    here = this_process()
    assert here.pid == os.getpid()
    assert here.host == platform.node()
    assert here.process_started
    assert this_process() == here


@needs_proc
def test_processes_of_one_boot_share_it_and_nothing_else() -> None:
    here, there = this_process(), of_another_process()
    assert here.boot_id == there.boot_id != ""
    assert here.host == there.host
    assert here.pid != there.pid
    assert here.process_started != there.process_started


@needs_proc
def test_the_start_is_what_the_system_says() -> None:
    with open("/proc/self/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    assert this_process().process_started == fields[19]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_somebody_else() -> None:
    # In a process of its own, so that no thread of the tests is there when it forks.
    script = (
        "import os\n"
        "from milepost.storage.host import this_process\n"
        "before = this_process()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(0 if this_process().pid == os.getpid() != before.pid else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "0"
