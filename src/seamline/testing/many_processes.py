"""The application in processes of its own, under a real supervisor; the test takes part in its mesh.

The test's process has a certificate for every module it acts as, and for every module that it stands in for, which
the supervisor issues only because it was started for tests. Calls leave here unjudged, so that it is the callee in
the other process that permits or refuses them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, cast
from urllib.parse import urlsplit

import msgspec

from seamline.mesh.balance import Endpoint
from seamline.mesh.identity import WorkloadIdentity, new_key_and_csr
from seamline.mesh.identity.keyring import KnownKey
from seamline.mesh.identity.revocation import Revocation
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy
from seamline.module import Contract
from seamline.run.admin import AdminClient, RefusedError
from seamline.run.errors import ControlError, NotRunningError
from seamline.run.placement import GATEWAY
from seamline.run.sockets import listen_mesh
from seamline.testing import leftovers
from seamline.testing.errors import TestingError, TooSlowError
from seamline.testing.ground import TEST, SharedClock, policy_of
from seamline.testing.site import START_S, STOP_S, Fakes, Plan, Rules, check_fakes
from seamline.testing.supervisor import SupervisorOptions

C = TypeVar("C", bound=Contract)

_LOOK_EVERY_S = 0.1
_LIFETIME_S = 12 * 3600
_LAST_LINES = 40


class ManyProcesses:
    """A :class:`Site` under a supervisor."""

    one_process = False

    def __init__(self, plan: Plan, topology: str, wire: str = "") -> None:
        self._plan = plan
        self._wire = wire
        self._topology = topology
        self._admin = AdminClient(plan.data)
        self._clock = SharedClock(plan.data)
        self._log = log_of(plan.data)
        self._process: subprocess.Popen[bytes] | None = None
        self._url = self._ai_url = ""
        self._watch: asyncio.Task[None] | None = None
        settings = plan.application.settings
        self._callers = WorkloadIdentity(settings.trust_domain, settings.app.name)
        self._stand_ins = WorkloadIdentity(settings.trust_domain, settings.app.name)
        everything = Policy.from_text(
            "permit (principal, action, resource);",
            modules={name: {} for name in (*settings.modules, TEST)},
            contracts=plan.application.contract_methods(),
        )
        self._calls = self._mesh(everything, self._callers)
        self._fakes = self._mesh(policy_of(plan.application, plan.data), self._stand_ins)
        self._fakes_port = 0

    def _mesh(self, policy: Policy, identity: WorkloadIdentity) -> Mesh:
        application = self._plan.application
        settings = application.settings.mesh
        if self._wire:
            settings = dataclasses.replace(settings, wire=cast("Literal['frames', 'http']", self._wire))
        mesh = Mesh(application.settings.app.name, policy, settings, identity=identity)
        for contract, module in application.contracts.items():
            mesh.know(contract, module)
        return mesh

    # Start and stop.

    async def start(self) -> None:
        options = SupervisorOptions(
            folder=str(self._plan.application.folder),
            data=str(self._plan.data),
            topology=self._topology,
            log=str(self._log),
        )
        self._process = process = await asyncio.to_thread(_spawn, options, self._log, self._wire)
        leftovers.watch(process.pid)
        said = await asyncio.wait_for(asyncio.to_thread(cast("IO[bytes]", process.stdout).readline), START_S)
        answer: dict[str, Any] = json.loads(said) if said else {"error": {"fact": "the supervisor ended at its start"}}
        if "error" in answer:
            await self.stop()
            refused = RefusedError({"code": TestingError.code, **answer["error"]})
            refused.add_note(self._last_words())
            raise refused
        self._url, self._ai_url = str(answer["ready"]["url"]), str(answer["ready"]["ai_url"])
        await self._look()
        self._watch = asyncio.get_running_loop().create_task(self._keep_looking(), name="endpoints of the application")

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._calls.stop()
        await self._fakes.stop()
        if self._process is not None:
            process, self._process = self._process, None
            await asyncio.to_thread(_end, process)
        self._clock.close()

    def _last_words(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        return "\n".join(["The end of its log:", *text.splitlines()[-_LAST_LINES:]])

    # Where everything is.

    def address(self) -> tuple[str, int]:
        parts = urlsplit(self._url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def ai_url(self) -> str:
        return self._ai_url

    async def _look(self) -> None:
        found = (await self._admin.ask("endpoints"))["endpoints"]
        self._calls.set_endpoints(
            {
                module: [
                    Endpoint(each["host"], each["port"], workload=each["workload"], wire=each["wire"])
                    for each in addresses
                ]
                for module, addresses in found.items()
            }
        )

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            with contextlib.suppress(NotRunningError):
                await self._look()

    async def wait_ready(self, timeout_s: float, gone: Iterable[int] = ()) -> None:
        """Until every replica is ready, none of them in a process that is gone. Raises TooSlowError."""
        dead = set(gone)
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._ready(dead):  # noqa: ASYNC110  # the supervisor is asked
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise TooSlowError(
                f"the application was not ready again within {timeout_s:g} s", "See its log below."
            ) from None
        await self._look()

    async def _ready(self, dead: set[int]) -> bool:
        status = await self._admin.ask("status")
        replicas = [each for workload in status["workloads"] for each in workload["replicas"]]
        return all(
            each["state"] == "ready" and each["pid"] not in dead and leftovers.lives(each["pid"]) for each in replicas
        )

    # Calls, fakes and faults.

    async def stub(self, contract: type[C], caller: str) -> C:
        await self._certify(self._callers, caller)
        return self._calls.stub(contract, caller)

    async def _certify(self, identity: WorkloadIdentity, module: str) -> None:
        if module not in identity.modules:
            key, request = new_key_and_csr()
            issued = await self._admin.ask("issue", module=module, csr=request.decode(), lifetime_s=_LIFETIME_S)
            identity.set_bundle(issued["bundle"].encode())
            identity.install(module, key, issued["chain"].encode())
            self._stand_ins.keys.add(KnownKey(*key) for key in issued["keys"])

    async def gateway(self) -> Mesh:
        await self._certify(self._callers, GATEWAY)
        return self._calls

    async def revoke(self, entry: Mapping[str, Any]) -> None:
        await self._admin.ask("revoke", entries=[dict(entry)], by=TEST)
        self._fakes.revocations.apply([Revocation(**entry)])

    async def set_rules(self, rules: Rules) -> None:
        self._calls.override(rules)
        told = {name: dict(changes) for name, changes in rules.items()}
        async with asyncio.timeout(START_S):
            while True:
                try:
                    await self._admin.ask("inject", rules=told)
                except RefusedError as error:
                    # A worker died while it was being told, as rules may make it do; its successor is told at birth.
                    if error.code != ControlError.code:
                        raise
                    await asyncio.sleep(_LOOK_EVERY_S)
                else:
                    return

    async def set_fakes(self, fakes: Fakes) -> None:
        by_module = check_fakes(self._plan.application, fakes)
        for module in {entry.module for entry in self._fakes.services.entries.values()} - by_module.keys():
            self._fakes.withdraw(module)
        for module, services in by_module.items():
            await self._certify(self._stand_ins, module)
            for contract, service in services.items():
                self._fakes.provide(module, contract, service)
        if by_module and not self._fakes_port:
            listener = listen_mesh()
            self._fakes_port = int(listener.getsockname()[1])
            await self._fakes.port.listen(listener)
        await self._admin.ask("external", endpoints=dict.fromkeys(by_module, f"127.0.0.1:{self._fakes_port}"))
        await self._look()

    def now(self) -> datetime:
        return self._clock.now()

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def kill(self, module: str) -> list[int]:
        status = await self._admin.ask("status")
        pids = [
            int(replica["pid"])
            for workload in status["workloads"]
            if module in workload["modules"]
            for replica in workload["replicas"]
            if replica["pid"]
        ]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    async def restart(self) -> None:
        await self._admin.ask("restart")
        await self._look()


def log_of(data: Path) -> Path:
    """Where the processes of an application under test write."""
    return data / "test" / "processes.log"


def _spawn(options: SupervisorOptions, log: Path, wire: str) -> subprocess.Popen[bytes]:
    argument = msgspec.json.encode(options).decode()
    # -P: a file of the application must not take the place of a module of the standard library.
    command = [sys.executable, "-P", "-m", "seamline.testing.supervisor", argument]
    if wire:
        # Workers read the settings themselves; `env` replaces itself by the command, so that the process id is right.
        command = ["env", f"SEAMLINE_MESH_WIRE={wire}", *command]
    with log.open("ab") as errors:
        return subprocess.Popen(  # noqa: S603  # the command is our own interpreter and module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, process_group=0
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait, and if need be kill; then nothing of it may be left."""
    family = leftovers.family(process.pid)
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise TooSlowError(f"the application did not stop within {STOP_S:g} s and was killed") from None
    finally:
        process.stdout.close()
        leftovers.expect_gone(family)
