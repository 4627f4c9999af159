"""The plugin, from outside: what a project that uses it sees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

KIOSK = Path(__file__).parent / "kiosk_app"
Run = Callable[..., "subprocess.CompletedProcess[str]"]
IMPORTS = f"""
import sys
sys.path.insert(0, {str(KIOSK)!r})
import pytest
from kiosk.stock import Stock
"""


@pytest.fixture
def project(tmp_path: Path) -> Run:
    """A project beside the kiosk, with one test file; the function writes it and runs pytest there."""
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\nseamline_app = {KIOSK}\n")

    def run(tests: str, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(IMPORTS + tests)
        asyncio = () if "no:asyncio" in options else ("-o", "asyncio_default_fixture_loop_scope=function")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *asyncio, *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return run


DIFFERS = """
async def test_it(topology_app, transcript):
    await transcript.call("count", topology_app.stub(Stock).count("pen"))
    transcript.add("where", f"a long line, of which the end tells: {topology_app.topology}")
"""


def test_a_difference_between_topologies_fails_and_is_shown(project: Run):
    """The second topology is held against the first, line by line."""
    done = project(DIFFERS, "--topologies", "local,copy", "-o", "asyncio_mode=auto")
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert "SL8008: 'copy' did not do what 'local' did" in done.stdout
    assert "copy: " in done.stdout
    assert "tells: copy" in done.stdout
    assert '"count"' not in done.stdout.partition("SL8008")[2], "lines that are the same are not shown"


def test_golden_files(project: Run, tmp_path: Path):
    """Written when asked for, then held against; one topology is enough to see a change."""
    tests = """
async def test_it(topology_app, transcript):
    await transcript.call("count", topology_app.stub(Stock).count("pen"))
"""
    options = ("--topologies", "copy", "-o", "asyncio_mode=auto")
    assert project(tests, *options, "--update-golden").returncode == 0
    golden = tmp_path / "golden" / "test_it-test_it.jsonl"
    assert golden.read_bytes() == b'{"call":"count","result":100}\n'
    assert project(tests, *options).returncode == 0
    golden.write_bytes(b'{"call":"count","result":99}\n')
    done = project(tests, *options)
    assert done.returncode == 1
    assert "'copy' did not do what 'test_it-test_it.jsonl' did" in done.stdout
    assert '"result":99' in done.stdout
    assert '"result":100' in done.stdout


def test_a_failing_test_is_not_also_told_to_differ(project: Run):
    """The test's own failure is the one to read."""
    tests = """
async def test_it(topology_app, transcript):
    transcript.add("where", topology_app.topology)
    assert topology_app.topology == "local"
"""
    done = project(tests, "--topologies", "local,copy", "-o", "asyncio_mode=auto")
    assert "1 failed, 1 passed" in done.stdout
    assert "SL8008" not in done.stdout


def test_with_anyio_and_without_any_loop(project: Run):
    """The fixtures are no plugin's own: anyio runs async tests, and tests that are not async run too."""
    tests = """
import asyncio
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_async(topology_app):
    assert await topology_app.stub(Stock).count("pen") == 100
    assert (await topology_app.http.get("/nowhere")).status == 404
def test_plain(topology_app):
    assert asyncio.run(topology_app.stub(Stock).count("pen")) == 100
def test_uvloop(topology_app):
    import uvloop
    assert uvloop.run(topology_app.stub(Stock).count("pen")) == 100
"""
    done = project(tests, "--topologies", "local,processes", "-p", "no:asyncio")
    assert "6 passed" in done.stdout, done.stdout


def test_asking_wrongly(project: Run):
    """An unknown topology and a missing application are told in a sentence."""
    tests = "def test_it(topology_app): ...\n"
    assert (
        "SL8002: there is no topology 'sevices'. Did you mean 'services'?"
        in project(tests, "--topologies", "sevices").stdout
    )
    assert "SL8001: nothing says which application is under test" in project(tests, "-o", "seamline_app=").stdout


def test_a_process_that_is_left_fails_the_session(project: Run):
    """It is named and killed."""
    tests = """
import subprocess, sys
from seamline.testing import leftovers
def test_it():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    leftovers.watch(child.pid)
    child.returncode = 0  # nobody will wait for it
"""
    done = project(tests)
    assert done.returncode == 1
    assert "SL8007" in done.stdout
    assert "time.sleep(600)" in done.stdout
    (pid,) = [int(word) for word in done.stdout.partition("killed: ")[2].split()[:1]]
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_nothing_outlives_a_killed_test_run(tmp_path: Path):
    """`kill -9` of the tests' process ends the supervisor and every worker."""
    script = f"""
import sys, pathlib, time
sys.path.insert(0, {str(KIOSK)!r})
from seamline.run.application import Application
from seamline.testing.app import TopologyApp
app = TopologyApp(Application.load({str(KIOSK)!r}), "processes", pathlib.Path({str(tmp_path)!r})).start()
print("ready", flush=True)
time.sleep(600)
"""
    runner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "ready\n"
        family = psutil.Process(runner.pid).children(recursive=True)
        assert len(family) == 5, "a supervisor, the process that workers are copies of, and three workers"
        os.kill(runner.pid, signal.SIGKILL)
        runner.wait(10)
        runner.stdout.close()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive
    finally:
        runner.kill()
        runner.wait()
