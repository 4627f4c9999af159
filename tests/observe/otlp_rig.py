"""A receiver on free ports, and ways to talk to it that no well-behaved client has."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from seamline.kernel.settings.observe import ObserveSettings
from seamline.kernel.wire.http1_client import HttpPool
from seamline.observe.otlp import OtlpReceiver
from seamline.observe.records import Batch, Log, Point, Span, Traffic

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Place:
    """One receiver and what it took."""

    receiver: OtlpReceiver
    taken: list[Batch] = field(default_factory=list[Batch])
    full: bool = False

    @property
    def port(self) -> int:
        assert self.receiver.address is not None
        return self.receiver.address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc_target(self) -> str:
        assert self.receiver.grpc_address is not None
        return f"127.0.0.1:{self.receiver.grpc_address[1]}"

    @property
    def spans(self) -> list[Span]:
        return [span for batch in self.taken for span in batch.spans]

    @property
    def logs(self) -> list[Log]:
        return [line for batch in self.taken for line in batch.logs]

    @property
    def points(self) -> list[Point]:
        return [point for batch in self.taken for point in batch.points]

    @property
    def traffic(self) -> list[Traffic]:
        return [one for batch in self.taken for one in batch.traffic]

    async def post(
        self,
        path: str,
        body: bytes,
        content_type: str = PROTOBUF,
        *,
        method: str = "POST",
        **headers: str,
    ) -> Answer:
        """One request on a connection of its own."""
        pool = HttpPool("127.0.0.1", self.port)
        try:
            sent = [(b"content-type", content_type.encode())]
            sent += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
            response = await pool.request(method, path, sent, body, 60)
            answer = await response.read_all()
        finally:
            await pool.close()
        return Answer(response.status, {k.decode(): v.decode() for k, v in response.headers}, answer)


@asynccontextmanager
async def place(
    *, own: Collection[str] = (), grpc: bool = False, bytes_max: int = 4 * 1024 * 1024
) -> AsyncGenerator[Place]:
    settings = ObserveSettings(
        otlp_listen="127.0.0.1:0", otlp_grpc_listen="127.0.0.1:0" if grpc else "", otlp_bytes_max=bytes_max
    )
    taken: list[Batch] = []
    here: Place
    receiver = OtlpReceiver(settings, taken.append, own=own, room=lambda: not here.full)
    here = Place(receiver, taken)
    await receiver.start()
    try:
        yield here
    finally:
        await receiver.stop()


async def until(condition: object, seconds: float = 20.0) -> None:
    """Wait until ``condition()``; a failure of the test when that never comes."""
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # others act in threads and processes of their own
            await asyncio.sleep(0.01)


ATTACKED = """
import asyncio, sys
from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.otlp import OtlpReceiver

async def main():
    spans = 0
    def sink(batch):
        nonlocal spans
        spans += len(batch.spans)
    receiver = OtlpReceiver(ObserveSettings(otlp_listen="127.0.0.1:0", otlp_grpc_listen=sys.argv[1]), sink)
    await receiver.start()
    print(receiver.address[1], receiver.grpc_address[1] if receiver.grpc_address else 0, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await receiver.stop()
    print(spans, flush=True)

asyncio.run(main())
"""


class Attacked:
    """A receiver in a process of its own, so that its memory can be looked at."""

    def __init__(self, grpc: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ATTACKED, grpc], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        ports = self.process.stdout.readline().split()
        if not ports:
            self.process.communicate()
            raise AssertionError("the receiver did not start")
        self.port, self.grpc_port = int(ports[0]), int(ports[1])
        self._rss = psutil.Process(self.process.pid)

    def peak_mib(self) -> float:
        """The most it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024

    def rss_mib(self) -> float:
        return self._rss.memory_info().rss / MIB

    def end(self) -> int:
        """How many spans it took."""
        out, _ = self.process.communicate("\n", timeout=30)
        return int(out)

    def post(self, body: bytes, kind: str = PROTOBUF, coding: str = "", path: str = "/v1/traces") -> int:
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            extra = f"content-encoding: {coding}\r\n" if coding else ""
            head = (
                f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n{extra}content-length: {len(body)}\r\n\r\n"
            )
            client.sendall(head.encode() + body)
            return int(client.makefile("rb").readline().split()[1])
