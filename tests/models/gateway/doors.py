"""A gateway on a free port, in front of stubs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.models.stub_upstream import Fault, Stub, stub_upstream

from seamline.kernel.clock import Clock
from seamline.kernel.settings import AiGatewaySettings, AiModelSettings, AiTargetSettings
from seamline.kernel.signal.trace import Tracer
from seamline.kernel.wire.http1_client import HttpPool, HttpResponse
from seamline.models.engine import LanguageEngine
from seamline.models.gateway.gateway import AiGateway
from seamline.models.gateway.keys import Keys

CHAT = "/v1/chat/completions"


@dataclasses.dataclass
class Door:
    """A gateway that is open."""

    gateway: AiGateway
    port: int
    stubs: list[Stub]
    pool: HttpPool
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def post(self, body: Any, path: str = CHAT, **headers: str) -> HttpResponse:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        told = {"content-type": "application/json", "authorization": f"Bearer {self.key}"} | headers
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in told.items()]
        return await self.pool.request("POST", path, pairs, raw)

    async def ask(self, body: Any, path: str = CHAT, **headers: str) -> tuple[int, Any]:
        """Status, and the JSON that came."""
        answer = await self.post(body, path, **headers)
        return answer.status, json.loads(await answer.read_all())

    async def events(self, body: Any, path: str = CHAT) -> list[str]:
        """The data of each event of a streamed answer."""
        answer = await self.post({**body, "stream": True}, path)
        text = (await answer.read_all()).decode()
        assert answer.status == 200, text
        return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]

    def stats(self, alias: str = "m") -> dict[str, Any]:
        return self.gateway.stats()["models"][alias]


async def until(holds: Callable[[], object]) -> None:
    """Let everybody work until it holds."""
    while not holds():  # noqa: ASYNC110  # what is waited for belongs to others
        await asyncio.sleep(0)


def says(text: str, **more: Any) -> dict[str, Any]:
    """A chat request that the stub answers with these words."""
    return {"model": "m", "messages": [{"role": "user", "content": f"say {text}"}], **more}


def spoken(events: list[str]) -> str:
    """The text of a chat stream that ended well."""
    assert events[-1] == "[DONE]", events[-3:]
    chunks = [json.loads(event) for event in events[:-1]]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def target(stub: Stub, wire: str = "openai", **more: Any) -> AiTargetSettings:
    address = f"{stub.url}/v1" if wire == "openai" else stub.url
    return AiTargetSettings(engine=f"{wire}:{address}", **more)


@asynccontextmanager
async def door(
    *faults: Fault,
    folder: Path | None = None,
    wires: tuple[str, ...] = (),
    model: Mapping[str, Any] | None = None,
    targets: tuple[Mapping[str, Any], ...] = (),
    clock: Clock | None = None,
    models_of_app: Mapping[str, LanguageEngine] | None = None,
    more: tuple[AiTargetSettings, ...] = (),
    limits: tuple[Any, ...] = (),
    tracer: Tracer | None = None,
    **settings: Any,
) -> AsyncGenerator[Door]:
    """The model ``m`` behind one stub for each of ``faults``, tier by tier. With ``folder`` there are keys."""
    async with AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(stub_upstream(fault)) for fault in faults]
        chosen: list[AiTargetSettings] = []
        for at, stub in enumerate(stubs):
            given = {"tier": at, **(targets[at] if at < len(targets) else {})}
            chosen.append(target(stub, wires[at] if at < len(wires) else "openai", **given))
        models = {"m": AiModelSettings(targets=(*chosen, *more), **(model or {}))}
        asked = AiGatewaySettings(open=folder is None, models=models, **settings)
        key = ""
        if folder is None:
            gateway = AiGateway(asked, models_of_app=models_of_app, tracer=tracer, clock=clock)
        else:
            keys = Keys(folder / asked.keys, clock=clock)
            key, _ = keys.make("tests", models=["m"], limits=limits)
            keys.close()
            gateway = AiGateway.open(asked, folder, models_of_app=models_of_app, clock=clock)
        await gateway.start()
        listening = socket.create_server(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        await gateway.serve(listening)
        pool = HttpPool("127.0.0.1", port, connections_max=256)
        try:
            yield Door(gateway, port, stubs, pool, key)
        finally:
            await pool.close()
            await gateway.close()
