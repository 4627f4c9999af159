"""A small application with secrets, written into a folder: one module that may read them and one that may not."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "seamline.toml": """\
[app]
name = "shop"
modules = ["shop.pay", "shop.spy"]
[gateway]
listen = "127.0.0.1:0"
[run]
drain_timeout_s = 5
backoff_first_s = 0.05
heartbeat_s = 0.1
[telemetry]
log = "json"
log_level = "debug"
sample = 1.0
""",
    "policy/shop.cedar": """\
permit(principal == Module::"gateway", action == Action::"http", resource);
permit(principal == Module::"spy", action in Action::"Pay", resource == Module::"pay");
permit(principal == Module::"pay", action in [Action::"secret", Action::"rotate"], resource == Secret::"stripe-key");
permit(principal == Module::"pay", action == Action::"secret", resource == Secret::"tls/key");
""",
    "shop/__init__.py": "",
    "shop/pay/__init__.py": """\
from seamline import Contract


class Pay(Contract):
    async def tail(self) -> str: ...
    async def fail(self, how: str) -> str: ...
    async def crash(self) -> str: ...
""",
    "shop/pay/module.py": """\
import logging
import os
import subprocess
import sys

from fastapi import FastAPI

from seamline import Contract, Module, Secret, Secrets, use
from shop.pay import Pay

module = Module("pay", provides=Pay)
app = FastAPI()
log = logging.getLogger("seamline.pay")


@module.service
class PayService(Pay):
    def __init__(self, secrets: Secrets) -> None:
        self.secrets = secrets

    async def tail(self) -> str:
        key = await self.secrets.get("stripe-key")
        pem = await self.secrets.get("tls/key")
        log.info("using %s and %r", key, pem, extra={"key": key})
        return f"{key.version}:{key.reveal()[-4:]}"

    async def fail(self, how: str) -> str:
        key = await self.secrets.get("stripe-key")
        value = key.reveal()
        if how == "log":
            log.error("the key is %s", value)
            print("and printed:", value, flush=True)
            print((await self.secrets.get("tls/key")).reveal(), file=sys.stderr, flush=True)
        if how == "child":
            return subprocess.run(["env"], capture_output=True, text=True).stdout
        raise RuntimeError(f"failed with {value} and {key}")

    async def crash(self) -> str:
        key = (await self.secrets.get("stripe-key")).reveal()
        print(f"dying with {key}", file=sys.stderr, flush=True)
        import faulthandler

        faulthandler.dump_traceback()
        os.abort()


@module.rotates("stripe-key", overlap_s=600)
async def next_key(current: Secret) -> str:
    return current.reveal().replace("one", "two")


@app.get("/{what}")
async def answer(what: str) -> str:
    pay = await use(Pay)()
    if what == "tail":
        return await pay.tail()
    if what == "crash":
        return await pay.crash()
    return await pay.fail(what)


module.mount(app, at="/pay")
""",
    "shop/spy/__init__.py": """\
from seamline import Contract


class Spy(Contract):
    async def look(self) -> str: ...
""",
    "shop/spy/module.py": """\
from fastapi import FastAPI

from seamline import Module, PermissionDenied, Secrets, use
from shop.spy import Spy

module = Module("spy", provides=Spy)
app = FastAPI()


@module.service
class SpyService(Spy):
    def __init__(self, secrets: Secrets) -> None:
        self.secrets = secrets

    async def look(self) -> str:
        try:
            return (await self.secrets.get("stripe-key")).reveal()
        except PermissionDenied:
            pass
        # The worker's own channel, asked in another module's name.
        try:
            found = await self.secrets._source.ask("pay", "get", {"name": "stripe-key"})
        except Exception as error:
            return f"{error}"
        return str(found)


@app.get("/")
async def look() -> str:
    return await (await use(Spy)()).look()


module.mount(app, at="/spy")
""",
}


def write(folder: Path) -> Path:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
