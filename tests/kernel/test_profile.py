"""CPU time by module and stack, without being in the way of anybody."""

from __future__ import annotations

import asyncio
import copy
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import pytest

from seamline.kernel.signal import profile
from seamline.kernel.signal.profile import Profiler
from seamline.kernel.signal.stacks import FRAMES_MAX, Stacks

HZ = 200
MODULE = ContextVar("module", default="")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no timer of CPU time")


def burn(cpu_s: float) -> None:
    end = time.thread_time() + cpu_s
    while time.thread_time() < end:
        sum(range(200))


@pytest.fixture
def profiler() -> Iterator[Profiler]:
    made = Profiler(HZ, MODULE.get, {"kernel_tests": str(Path(__file__).parent)})
    yield made
    made.stop()
    assert signal.getsignal(signal.SIGPROF) in (signal.SIG_DFL, signal.SIG_IGN)


def cpu_by_module(profiler: Profiler) -> dict[str, float]:
    found: dict[str, float] = {}
    for module, _, cpu_ns in profiler.take():
        found[module] = found.get(module, 0.0) + cpu_ns / 1e9
    return found


async def work(module: str, cpu_s: float) -> None:
    MODULE.set(module)
    for _ in range(30):
        burn(cpu_s / 30)
        await asyncio.sleep(0)


async def test_modules_that_share_a_loop_are_told_apart(profiler: Profiler):
    """By turns of a few milliseconds; all of the main thread's CPU is somebody's, and each has its share."""
    profiler.start()
    assert profiler.trouble == ""
    await asyncio.gather(work("cart", 0.6), work("orders", 0.2))
    found = cpu_by_module(profiler)
    assert 0.45 < found["cart"] < 0.8
    assert 0.1 < found["orders"] < 0.35
    assert profiler.take() == []


async def test_the_stack_says_where(profiler: Profiler):
    """From the outermost in, with the file and line, and without what runs the loop."""
    profiler.start()
    await work("cart", 0.2)
    module, stack, _ = max(profiler.take(), key=lambda each: each[2])
    frames = stack.split(";")
    assert module == "cart"
    assert any(frame.startswith("work (") and "test_profile.py:" in frame for frame in frames)
    assert any(frame.startswith("burn (") for frame in frames)
    assert "Handle._run" not in stack


def test_other_threads_have_their_own_time(profiler: Profiler):
    """Told by their names and stacks; whose module it is, the code's folder says."""
    profiler.start()
    thread = threading.Thread(target=burn, args=(0.4,), name="cruncher")
    thread.start()
    thread.join()
    keep = threading.Thread(target=burn, args=(0.4,), name="living")  # a thread is asked while it lives
    keep.start()
    found: list[tuple[str, str, int]] = []
    while keep.is_alive():
        keep.join(0.2)
        found = [(module, stack, cpu_ns) for module, stack, cpu_ns in profiler.take() if "living" in stack]
        if found:
            break
    keep.join()
    assert found
    module, stack, _ = max(found, key=lambda each: each[2])
    assert module == "kernel_tests"
    assert "burn (" in stack


class Deep:
    """Notes the stack from within a library's recursion."""

    stacks = Stacks()
    noted = ""

    def __deepcopy__(self, _: object) -> Deep:
        Deep.noted = self.stacks.spelled(self.stacks.note(sys._getframe()))  # pyright: ignore[reportPrivateUsage]
        return self


def test_a_deep_stack_keeps_the_application_and_where_it_is():
    """At most 24 frames: the innermost, those of the application, and the libraries' nearest to it."""
    nested: object = Deep()
    for _ in range(60):
        nested = [nested]
    copy.deepcopy(nested)
    frames = Deep.noted.split(";")
    assert len(frames) == FRAMES_MAX
    assert frames[-1].startswith("Deep.__deepcopy__ (")
    assert frames[-2].startswith("deepcopy (copy.py:")
    assert any(frame.startswith("test_a_deep_stack_keeps") for frame in frames)


def test_stacks_are_bounded(profiler: Profiler, monkeypatch: pytest.MonkeyPatch):
    """What is beyond the bound is added up for the module."""
    monkeypatch.setattr(profile, "STACKS_MAX", 0)
    token = MODULE.set("cart")
    profiler.start()
    burn(0.1)
    MODULE.reset(token)
    ((module, stack, _),) = [each for each in profiler.take() if each[0]]
    assert (module, stack) == ("cart", "(more stacks than were kept)")


def test_somebody_elses_profiler_is_left_alone(profiler: Profiler):
    """Whether it was there before or comes later; ours stops and says why."""

    def theirs(*_: object) -> None: ...

    signal.signal(signal.SIGPROF, theirs)
    try:
        profiler.start()
        assert "another profiler" in profiler.trouble
        assert not profiler.running
        assert signal.getsignal(signal.SIGPROF) is theirs
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        profiler.start()
        assert profiler.running
        signal.signal(signal.SIGPROF, theirs)
        profiler.take()
        assert not profiler.running
        assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
        assert signal.getsignal(signal.SIGPROF) is theirs
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)


def test_in_another_thread_and_switched_off_it_does_nothing():
    """Only the main thread hears signals; 0 Hz asks for nothing."""
    elsewhere, off = Profiler(HZ, MODULE.get), Profiler(0, MODULE.get)
    thread = threading.Thread(target=elsewhere.start)
    thread.start()
    thread.join()
    off.start()
    assert "main thread" in elsewhere.trouble
    assert not off.running
    assert signal.getsignal(signal.SIGPROF) is signal.SIG_DFL
    assert off.take() == elsewhere.take() == []


def run_program(text: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, (ran.returncode, ran.stderr)


def test_starting_and_stopping_under_fire_ends_nobody():
    """A signal that is on its way when the profiler stops would end the process by its default."""
    run_program(
        """
        from seamline.kernel.signal.profile import Profiler
        for _ in range(300):
            profiler = Profiler(1000, str)
            profiler.start()
            assert profiler.running, profiler.trouble
            sum(range(60_000))
            profiler.stop()
        """
    )


def test_uvloop_its_children_and_its_signals_live_with_it():
    """Children are neither profiled nor ended, a signal handler of the application's is called, calls go on."""
    run_program(
        """
        import asyncio, os, signal, sys, time, uvloop
        from seamline.kernel.signal.profile import Profiler

        async def main():
            profiler = Profiler(500, lambda: "m")
            profiler.start()
            told = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
            busy = "import time\\nwhile time.process_time() < 0.3: pass\\nprint('done')"
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", busy, stdout=asyncio.subprocess.PIPE)
            end = time.thread_time() + 0.3
            while time.thread_time() < end:
                await asyncio.sleep(0)
            out, _ = await child.communicate()
            assert (out.strip(), child.returncode) == (b"done", 0), (out, child.returncode)
            if (pid := os.fork()) == 0:
                end = time.thread_time() + 0.1
                while time.thread_time() < end:
                    pass
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.wait_for(told.wait(), 10)
            profiler.stop()
            assert sum(cpu for module, _, cpu in profiler.take() if module == "m") > 0.2e9
        uvloop.run(main())
        """
    )
