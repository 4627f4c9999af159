"""What a handler calls commits by itself, in one process as in many, also where the call comes back to its module."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from seamline.run.application import Application
from seamline.testing.app import TopologyApp

FILES = {
    "seamline.toml": '[app]\nname = "echoes"\nmodules = ["echoes.caller", "echoes.wall"]\n',
    "policy/all.cedar": "permit (principal, action, resource);\n",
    "echoes/__init__.py": "",
    "echoes/caller/__init__.py": """
from seamline import Contract, Event, readonly

class Shouted(Event):
    text: str

class Caller(Contract):
    async def shout(self, text: str) -> None: ...
    async def note(self, text: str) -> None: ...
    @readonly
    async def notes(self) -> list[str]: ...
""",
    "echoes/caller/module.py": """
from sqlalchemy import Column, MetaData, String, Table, insert, select
from seamline import Database, Events, Module
from echoes.caller import Caller, Shouted
from echoes.wall import Wall

metadata = MetaData()
notes = Table("notes", metadata, Column("text", String(100), primary_key=True))
module = Module("caller", provides=Caller, tables=metadata)

@module.service
class CallerService(Caller):
    def __init__(self, db: Database, events: Events) -> None:
        self.db, self.events = db, events

    async def shout(self, text: str) -> None:
        await self.events.publish(Shouted(text=text))

    async def note(self, text: str) -> None:
        async with self.db.transaction() as tx:
            await tx.execute(insert(notes).values(text=text))

    async def notes(self) -> list[str]:
        async with self.db.read() as r:
            return sorted((await r.execute(select(notes.c.text))).scalars())

@module.on(Shouted, attempts=1)
async def hear(event: Shouted, wall: Wall, db: Database) -> None:
    await wall.echo(event.text)
    async with db.transaction() as tx:
        await tx.execute(insert(notes).values(text=f"heard {event.text}"))
    if event.text == "bad":
        raise ValueError(event.text)
""",
    "echoes/wall/__init__.py": """
from seamline import Contract

class Wall(Contract):
    async def echo(self, text: str) -> None: ...
""",
    "echoes/wall/module.py": """
from seamline import Module
from echoes.caller import Caller
from echoes.wall import Wall

module = Module("wall", provides=Wall)

@module.service
class WallService(Wall):
    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    async def echo(self, text: str) -> None:
        await self.caller.note(f"echo of {text}")
""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("echoes")
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.mark.parametrize("topology", ["local", "copy", "processes"])
async def test_a_handlers_failure_undoes_what_it_wrote_and_not_what_those_did_whom_it_called(
    topology: str, folder: Path, tmp_path: Path
):
    with TopologyApp(Application.load(folder), topology, tmp_path) as app:
        contracts: dict[str, Any] = {each.__name__: each for each in app.application.contracts}
        caller = app.stub(contracts["Caller"])
        await caller.shout("bad")
        await caller.shout("good")
        found: list[str] = []
        for _ in range(400):
            if "heard good" in (found := await caller.notes()) and "echo of bad" in found:
                break
            await asyncio.sleep(0.05)
        assert found == ["echo of bad", "echo of good", "heard good"]
