"""A whole application on PostgreSQL whose workers have only logins that end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from seamline.kernel.errors import SeamlineError
from seamline.run.admin import AdminClient

pytestmark = pytest.mark.needs_server
WAIT_S = 40.0
FILES = {
    "seamline.toml": """\
[app]
name = "stock"
modules = ["stock.goods", "stock.spy"]
[gateway]
listen = "127.0.0.1:0"
[data]
credentials = "dynamic"
credentials_s = 4
""",
    "policy/p.cedar": 'permit(principal == Module::"gateway", action == Action::"http", resource);',
    "stock/__init__.py": "",
    "stock/goods/__init__.py": """\
from seamline import Contract, Event


class Goods(Contract):
    async def add(self) -> str: ...


class Added(Event):
    number: int
""",
    "stock/goods/module.py": """\
from fastapi import FastAPI
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select, text

from seamline import Database, Events, Module, use
from stock.goods import Added, Goods

metadata = MetaData()
goods = Table("goods", metadata, Column("id", Integer, primary_key=True))
module = Module("goods", provides=Goods, tables=metadata)
app = FastAPI()


@module.service
class GoodsService(Goods):
    def __init__(self, db: Database, events: Events) -> None:
        self.db = db
        self.events = events

    async def add(self) -> str:
        async with self.db.transaction() as tx:
            await tx.execute(insert(goods).values())
            count = (await tx.execute(select(func.count()).select_from(goods))).scalar_one()
            await self.events.publish(Added(number=count))
        await self.events.publish(Added(number=-count))
        async with self.db.read() as r:
            return (await r.execute(text("SELECT session_user::text"))).scalar_one()


@app.get("/")
async def add() -> str:
    return await (await use(Goods)()).add()


module.mount(app, at="/goods")
""",
    "stock/spy/__init__.py": """\
from seamline import Contract


class Spy(Contract):
    async def look(self) -> str: ...
""",
    "stock/spy/module.py": """\
from fastapi import FastAPI
from sqlalchemy import text

from seamline import Database, Module, use
from stock.spy import Spy

module = Module("spy", provides=Spy)
app = FastAPI()


@module.service
class SpyService(Spy):
    def __init__(self, db: Database) -> None:
        self.db = db

    async def look(self) -> str:
        try:
            async with self.db.transaction() as tx:
                return str((await tx.execute(text("SELECT * FROM goods.goods"))).all())
        except Exception as error:
            return str(error)


@app.get("/")
async def look() -> str:
    return await (await use(Spy)()).look()


module.mount(app, at="/spy")
""",
}


def until(found: Callable[[], Any]) -> Any:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            if value := found():
                return value
        except (SeamlineError, OSError):
            pass
        time.sleep(0.02)
    raise AssertionError(f"waited {WAIT_S:g} s")


def asked(url: str, statement: str) -> list[str]:
    async def ask() -> list[str]:
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            result = await connection.execute(text(statement))
            found = [str(each) for each in result.scalars()] if result.returns_rows else []
        await engine.dispose()
        return found

    return asyncio.run(ask())


@pytest.mark.parametrize("topology", ["monolith", "services"])
def test_an_application_runs_on_logins_that_end(tmp_path: Path, postgres_server: Any, topology: str):
    """Three logins, one after another, each of four seconds, and no request fails; nobody else's schema is read;
    the url with its password is in no worker; at the end no login is left.
    """
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    name = f"stock_{topology}"
    asked(postgres_server.url(), f"CREATE DATABASE {name}")
    url = postgres_server.url(name)
    output = tmp_path / "output.log"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "seamline.cli", "up", "--app", str(tmp_path), "--topology", topology],
            stdout=stream, stderr=subprocess.STDOUT,
            env={**os.environ, "SEAMLINE_DATA_URL": url},  # noqa: TID251  # for the child
        )  # fmt: skip
    try:
        client = AdminClient(tmp_path / ".seamline")

        def ready() -> Any:
            assert process.poll() is None, output.read_text()
            status = asyncio.run(client.ask("status"))
            return status["ready"] and status

        public = until(ready)["url"]

        def get(path: str) -> str:
            with urllib.request.urlopen(f"{public}{path}", timeout=WAIT_S) as answer:
                return answer.read().decode()

        seen: set[str] = set()
        until(lambda: seen.add(get("/goods/")) or len(seen) >= 3)
        assert all(each.startswith(f'"{name}_goods~') for each in seen)
        assert "permission denied for schema goods" in get("/spy/")
        for child in psutil.Process(process.pid).children(recursive=True):
            assert "tests-only" not in str(child.environ())
        rows = asked(url, "SELECT count(*) FROM goods.goods")
        assert int(rows[0]) >= 3
    finally:
        process.terminate()
        process.wait(WAIT_S)
        process.kill()
    assert asked(url, f"SELECT rolname FROM pg_roles WHERE rolname LIKE '{name}%~%'") == [], output.read_text()
    assert "tests-only" not in output.read_text()
    asked(postgres_server.url(), f"DROP DATABASE {name} WITH (FORCE)")
