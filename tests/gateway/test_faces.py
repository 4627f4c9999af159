"""An existing app keeps its whole life when a module mounts it: lifespan, state, public face."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from tests.mesh.rig import PERMIT_ALL, rig

from seamline import Module
from seamline.gateway.gateway import Gateway
from seamline.gateway.routes import Route
from seamline.kernel.settings import GatewaySettings
from seamline.kernel.wire.http1_client import HttpPool
from seamline.mesh.policy import Policy
from seamline.run.faces import Faces


async def test_what_a_lifespan_leaves_reaches_its_requests(tmp_path: Path):
    """Starlette's ``request.state`` holds it, a copy for each request; the end of the lifespan is run."""
    ended: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        yield {"pool": "connected"}
        ended.append("closed")

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def home(request: Request):
        before = getattr(request.state, "note", None)
        request.state.note = "mine"
        return {"pool": request.state.pool, "before": before}

    module = Module("shop")
    module.mount(app)
    async with rig(tmp_path) as made:
        mesh = made.mesh(remote=False)
        mesh.policy = Policy.from_text(PERMIT_ALL, modules={"gateway": {}, "shop": {}}, contracts={})
        faces = Faces(mesh, lambda contract, caller: None)
        await faces.start(module)
        gateway = Gateway(GatewaySettings(), [Route(module="shop")], faces.app)
        sock = socket.create_server(("127.0.0.1", 0))
        pool = HttpPool("127.0.0.1", sock.getsockname()[1])
        await gateway.serve(sock)
        for _ in range(2):
            response = await pool.request("GET", "/", timeout_s=10)
            assert json.loads(await response.read_all()) == {"pool": "connected", "before": None}
        await pool.close()
        await gateway.stop()
        await faces.stop(module)
    assert ended == ["closed"]
