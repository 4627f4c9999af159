"""``python -m benchmarks.ours.revocation <folder> <topology>``: how long a revoked API key is still good for, in ms.

An application with a public face and a module behind it runs in its own processes (in ``services``, two of each).
In each round a new key makes requests on many connections without a pause, is revoked by the admin socket, and the
time of the last answer that is not a refusal is taken, counted from the moment before the supervisor was asked.
Answers ``{"rounds": n}`` with ``{"ms": [...]}``; a key that is good no longer than its revocation takes to ask is 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path
from time import monotonic

from benchmarks.driver import run, say
from benchmarks.processes import ROOT
from seamline.gateway.auth.api_keys import ApiKeys
from seamline.kernel.clock import SystemClock
from seamline.kernel.settings import Settings
from seamline.kernel.wire.http1_client import HttpPool
from seamline.run.admin import AdminClient
from seamline.run.doorway import gateway_records

CONNECTIONS = 16
LOAD_S = 0.15
FILES = {
    "seamline.toml": """
[app]
name = "desk"
modules = ["desk.front", "desk.back"]
[gateway]
listen = "127.0.0.1:0"
[auth]
api_keys = true
[replicas]
front = 2
back = 2
""",
    "policy/desk.cedar": """
permit (principal == Module::"gateway", action == Action::"http", resource == Module::"front");
permit (principal == Module::"front", action in Action::"Desk", resource == Module::"back");
""",
    "desk/__init__.py": "",
    "desk/front/__init__.py": "",
    "desk/front/module.py": """
from seamline import Module, use
from desk.back import Desk
module = Module("front")
async def app(scope, receive, send):
    if scope["type"] == "http":
        desk = await use(Desk)()
        body = (await desk.whose()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
module.mount(app, at="/")
""",
    "desk/back/__init__.py": """
from seamline import Contract
class Desk(Contract):
    async def whose(self) -> str: ...
""",
    "desk/back/module.py": """
from seamline import Module, Principal
from desk.back import Desk
module = Module("back", provides=Desk)
@module.service
class DeskService(Desk):
    def __init__(self, who: Principal) -> None:
        self.who = who
    async def whose(self) -> str:
        return self.who.require_user().id
""",
}


async def main() -> None:
    folder, topology = Path(sys.argv[1]), sys.argv[2]
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    command = (sys.executable, "-m", "seamline.cli", "up", "--app", str(folder), "--topology", topology)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    settings = Settings.load(folder)
    admin = AdminClient(settings.data_folder)
    try:
        port = await _ready(admin)
        say({"ready": True})
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            rounds = json.loads(line)["rounds"]
            say({"ms": [await _round(settings, admin, port) for _ in range(rounds)]})
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _ready(admin: AdminClient) -> int:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(Exception):
                status = await admin.ask("status")
                if status["ready"]:
                    return int(status["url"].rpartition(":")[2])
            await asyncio.sleep(0.05)


async def _round(settings: Settings, admin: AdminClient, port: int) -> float:
    records = gateway_records(settings, settings.data_folder, SystemClock())
    await records.open()
    try:
        key, text = await ApiKeys(records).create("bench", valid_s=600)
    finally:
        await records.close()
    last = [0.0] * CONNECTIONS
    pool = HttpPool("127.0.0.1", port, connections_max=CONNECTIONS)

    async def ask_on(number: int) -> None:
        while True:
            response = await pool.request("GET", "/", [(b"x-api-key", text.encode())], b"", 10.0)
            await response.read_all()
            if response.status == 401:
                return
            if response.status != 200:
                raise RuntimeError(f"answered {response.status}")
            last[number] = monotonic()

    try:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for number in range(CONNECTIONS):
                group.create_task(ask_on(number))
            await asyncio.sleep(LOAD_S)
            before = monotonic()
            await admin.ask("revoke", entries=[{"kind": "client", "id": key.id}])
    finally:
        await pool.close()
    if not min(last):
        raise RuntimeError("not every connection was under load")
    return 1000 * max(0.0, max(last) - before)


if __name__ == "__main__":
    run(main)
