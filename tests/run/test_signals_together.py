"""One order through a whole host: the platform's spans, SQL, the application's own spans and lines are one trace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FILES = {
    "seamline.toml": '[app]\nname = "shop"\nmodules = ["shop.orders", "shop.mail"]\n[telemetry]\nsample = 1.0\n',
    "policy/all.cedar": "permit(principal, action, resource);",
    "shop/__init__.py": "",
    "shop/orders/__init__.py": """
from seamline import Contract, Event
class Placed(Event, key="item"):
    item: str
class Orders(Contract):
    async def place(self, item: str) -> None: ...
""",
    "shop/orders/module.py": """
from opentelemetry import metrics, trace
from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from seamline import Database, Events, Module
from shop.orders import Orders, Placed
tables = MetaData()
orders = Table("orders", tables, Column("id", Integer, primary_key=True), Column("item", String))
tracer, sold = trace.get_tracer("shop"), metrics.get_meter("shop").create_counter("sold")
module = Module("orders", provides=Orders, tables=tables)
@module.service
class Service(Orders):
    def __init__(self, db: Database, events: Events) -> None:
        self._db, self._events = db, events
    async def place(self, item: str) -> None:
        with tracer.start_as_current_span("place in the book"):
            async with self._db.transaction() as tx:
                await tx.execute(insert(orders).values(item=item))
                await self._events.publish(Placed(item=item))
        trace.get_current_span().set_attribute("item", item)
        sold.add(1)
""",
    "shop/mail/__init__.py": "",
    "shop/mail/module.py": """
import logging
from opentelemetry import trace
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select
from seamline import Database, Module
from shop.orders import Placed
tables = MetaData()
letters = Table("letters", tables, Column("id", Integer, primary_key=True), Column("item", String))
module = Module("mail", tables=tables)
@module.on(Placed)
async def write(event: Placed, db: Database) -> None:
    async with db.transaction() as tx:
        await tx.execute(insert(letters).values(item=event.item))
    with trace.get_tracer("shop").start_as_current_span("letter"):
        async with db.transaction() as tx:  # the same unit of work, though another span is at work
            await tx.execute(insert(letters).values(item=event.item))
        logging.getLogger("shop.mail").warning("written")
""",
}
PROGRAM = """
import asyncio, json
from pathlib import Path
from seamline.kernel.signal import log
from seamline.run.application import Application
from seamline.run.host import Host
log.configure("warning")
async def main():
    application = Application.load(Path())
    (contract,) = application.contracts
    async with Host(application) as host:
        await host.stub(contract, "mail").place("mug")
        spans = []
        async with asyncio.timeout(20):
            while not [span for span in spans if span.kind == "consumer"]:
                await asyncio.sleep(0.02)
                spans += host.mesh.tracer.take()
        measures = [(each.name, each.module, each.value) for each in host.take_measures()]
        flows = [(each.caller, each.callee, each.method) for each in host.take_flows() if each.side == "sql"]
    print(json.dumps({"spans": [span._asdict() for span in spans], "measures": measures, "flows": flows}))
asyncio.run(main())
"""


@pytest.fixture
def told(tmp_path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the host has to tell after one order, and the lines of its log."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout), [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]


def test_one_order_is_one_trace(told: tuple[dict[str, Any], list[dict[str, Any]]]):
    """From the call by the application's span and its SQL to the event, its handler, and the line written there."""
    found, lines = told
    spans = {(span["kind"], span["name"]): span for span in found["spans"]}
    server, book = spans["server", "Orders.place"], spans["internal", "place in the book"]
    consumer, letter = spans["consumer", "orders.Placed"], spans["internal", "letter"]
    assert {span["trace_id"] for span in (server, book, consumer, letter)} == {server["trace_id"]}
    assert server["attributes"]["item"] == "mug"
    assert book["parent_id"] == server["span_id"]
    assert spans["client", "INSERT orders"]["parent_id"] == book["span_id"]
    assert spans["producer", "publish orders.Placed"]["parent_id"] == book["span_id"]
    assert letter["parent_id"] == consumer["span_id"]
    inserts = [span for span in found["spans"] if span["name"] == "INSERT letters"]
    assert [span["parent_id"] for span in inserts] == [consumer["span_id"], letter["span_id"]]
    (line,) = [line for line in lines if line["message"] == "written"]
    assert line["module"] == letter["module"] == "mail"
    assert (int(line["trace_id"], 16), int(line["span_id"], 16)) == (letter["trace_id"], letter["span_id"])
    assert ["sold", "orders", 1.0] in found["measures"]
    assert ["seamline.events.lag", "mail"] in [measure[:2] for measure in found["measures"]]
    assert ["orders", "sqlite", "INSERT orders"] in found["flows"]
    assert ["mail", "sqlite", "INSERT letters"] in found["flows"]
