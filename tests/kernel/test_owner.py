"""Whether the holder of a lease still lives."""

from __future__ import annotations

import os
import subprocess
import sys

from seamline.kernel.owner import is_gone, process_owner


def test_a_process_that_lives_is_not_gone():
    assert not is_gone(process_owner("orders-2"))


def test_a_dead_process_is_gone_even_before_it_is_waited_for():
    code = "from seamline.kernel.owner import process_owner; print(process_owner('x'), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        name = child.stdout.readline().decode().strip()
        assert not is_gone(name)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a corpse
        assert is_gone(name)
    assert is_gone(name)


def test_a_pid_that_is_used_again_is_not_its_old_owner():
    head, _, _ = process_owner("x").rpartition(":")
    assert is_gone(f"{head}:1.00")


def test_a_process_of_another_machine_cannot_be_asked():
    assert not is_gone("x@elsewhere/1/2:1:1.00")
    assert not is_gone("nonsense")
