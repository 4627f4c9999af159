"""A host that is no mesh: answers HTTP on the public socket, and does what its environment's file tells it to.

``front`` has the public face. ``<data>/orders.json`` may say ``{"<module>": "raise" | "exit" | "exit later" | "hang"}``
to make the worker of a module fail as it starts, or a moment after it was ready.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seamline.kernel.audit import AuditLog
from seamline.kernel.errors import SeamlineError
from seamline.observe.records import Batch, Point, Source
from seamline.run.berth import Berth
from seamline.run.control import Address, Route

_log = logging.getLogger("stand_in")


class BrokenError(SeamlineError):
    code = "SL2999"


class StandIn:
    """Serves ``/`` (what it knows, as JSON) and ``/slow`` (answered when ``<data>/go`` exists)."""

    def __init__(self, berth: Berth) -> None:
        self._berth = berth
        self.audit = AuditLog(berth.data / "audit" / f"{berth.workload}.jsonl")
        self.gateway = "front" in berth.modules
        self.routes = [Route("front", "/")] if self.gateway else []
        self.versions: dict[str, str] = {}
        self._known: dict[str, list[int]] = {}
        self._routes: Sequence[Route] = []
        self._rules: Mapping[str, Any] = {}
        self._revoked: list[str] = []
        self._inflight = 0
        self._servers: list[asyncio.Server] = []
        orders = berth.data / "orders.json"
        self._orders: dict[str, str] = json.loads(orders.read_text()) if orders.exists() else {}

    def _told(self, order: str) -> bool:
        return any(self._orders.get(module) == order for module in self._berth.modules)

    async def start(self) -> None:
        self.audit.write("call", "deny", principal="stand-in", action="start")
        if self._told("raise"):
            raise BrokenError("the module is broken", "Mend it.", place="module.py:3")
        if self._told("error"):
            raise ValueError("no such thing")
        if self._told("exit"):
            _log.error("cannot go on: the disk is on fire")
            logging.shutdown()
            os._exit(13)
        if self._told("hang"):
            await asyncio.sleep(3600)
        if self._told("chatter"):
            for _ in range(20_000):
                sys.stdout.write("x" * 100 + "\n")
        if self._told("exit later"):
            asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGSEGV)
        if self._told("block"):
            asyncio.get_running_loop().call_later(0.3, time.sleep, 3600)

    async def serve_mesh(self, listener: socket.socket) -> None:
        self._servers.append(await asyncio.start_server(self._nothing, sock=listener))

    async def serve_public(self, listener: socket.socket, ai: socket.socket | None) -> None:
        assert ai is None
        if self._told("no public"):
            raise OSError("cannot accept")
        self._servers.append(await asyncio.start_server(self._serve, sock=listener))

    def set_endpoints(self, endpoints: Mapping[str, Sequence[Address]], routes: Sequence[Route]) -> None:
        self._known = {module: sorted(each.port for each in found) for module, found in endpoints.items()}
        self._routes = routes

    def reload_policy(self) -> None:
        _log.info("policy reloaded")

    def inject(self, rules: Mapping[str, Mapping[str, Any]]) -> None:
        self._rules = rules

    def revoke(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._revoked += [each["id"] for each in entries if not each["lifted"]]

    def stats(self) -> dict[str, Any]:
        return {"edges": [], "inflight": self._inflight}

    def wake(self, topics: Sequence[str]) -> None:
        _log.info("woken for %s", ", ".join(topics))

    def tell(self) -> Iterable[Batch]:
        yield Batch(Source(self._berth.workload, pid=os.getpid()), time.time_ns(), 1, points=[Point("stand.in", 1.0)])

    async def ask(self, room: str, operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "announce":
            self._berth.announce(arguments["topic"])
        if operation == "fail":
            raise BrokenError("the room is broken", "Mend it.")
        return {"room": room, "operation": operation, "arguments": arguments, "workload": self._berth.workload}

    async def drain(self, timeout_s: float) -> bool:
        for server in self._servers:
            server.close()
        end = time.monotonic() + timeout_s
        while self._inflight and time.monotonic() < end:  # noqa: ASYNC110  # the plainest thing
            await asyncio.sleep(0.01)
        return not self._inflight

    async def stop(self) -> None:
        if self._told("no end"):
            await asyncio.sleep(3600)

    async def _nothing(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._inflight += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /slow"):
                (self._berth.data / "slow").touch()
                while not (self._berth.data / "go").exists():  # noqa: ASYNC110  # another process makes it
                    await asyncio.sleep(0.01)
            body = json.dumps(
                {
                    "pid": os.getpid(),
                    "workload": self._berth.workload,
                    "modules": self._berth.modules,
                    "known": self._known,
                    "routes": [route.module for route in self._routes],
                    "rules": self._rules,
                    "offset_s": self._berth.clock.offset_s,
                    "revoked": self._revoked,
                    "until": {
                        name: self._berth.identity.validity(name)[1].timestamp()
                        for name in self._berth.identity.modules
                    },
                }
            ).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._inflight -= 1
            writer.close()


def host(berth: Berth) -> StandIn:
    return StandIn(berth)
