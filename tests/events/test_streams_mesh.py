"""Views over the mesh, on a real application: policy decides who sees whose, and replays build new versions."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from seamline import PermissionDenied
from seamline.events.events import Events
from seamline.events.streams import QueryRefused, Views
from seamline.kernel.clock import ManualClock
from seamline.run.application import Application
from seamline.run.host import Host

PAGE = Path(__file__).parents[2] / "docs" / "streams.md"
FILE = re.compile(r"^`(?P<name>[\w./]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
VIEWS = """
materialise(module, "by_hour", orders.window(tumbling(3600)).aggregate(orders=count()), {options})
"""
CLOSED = """
from shop.stats import HourEnded
materialise(
    module, "by_hour", orders.window(tumbling(3600)).aggregate(orders=count()),
    on_close=lambda window: HourEnded(orders=int(window.values["orders"] or 0), revision=window.revision),
)
"""


class Shop:
    """The page's application, written to a folder and hosted in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self.clock = ManualClock()
        for found in FILE.finditer(PAGE.read_text(encoding="utf-8")):
            self.write(found["name"], found["text"])
        self.write("shop/__init__.py", "")
        self.stats = (folder / "shop/stats/module.py").read_text()

    def write(self, name: str, content: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")

    def host(self) -> Host:
        for name in [name for name in sys.modules if name == "shop" or name.startswith("shop.")]:
            self._monkeypatch.delitem(sys.modules, name)
        self._monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file is written twice in one second
        self._monkeypatch.setattr(sys, "path", [str(self.folder), *sys.path])
        return Host(Application.load(self.folder), data=self.folder / "data", clock=self.clock)


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Shop]:
    yield Shop(tmp_path, monkeypatch)
    for name in [name for name in sys.modules if name == "shop" or name.startswith("shop.")]:
        del sys.modules[name]


def views_of(host: Host, module: str) -> Views:
    """As the module is given them."""
    return host._views_for(host.application.modules[module])


def events_of(host: Host, module: str) -> Events:
    return host._events_runtime().events_of(module)


async def place(host: Host, *cents: int) -> None:
    placed: Any = sys.modules["shop.orders"]
    now = host.clock.now()
    for number, each in enumerate(cents):
        event = placed.OrderPlaced(order_id=f"{now} {number}", shopper="ada", currency="EUR", cents=each, at=now)
        await events_of(host, "orders").publish(event)


async def until(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    async with asyncio.timeout(20):
        while True:
            if await ask() == wanted:
                return
            await asyncio.sleep(0.02)


async def rows(host: Host, statement: str, module: str = "board") -> list[dict[str, Any]]:
    return [dict(row) for row in await views_of(host, module).query("stats", statement)]


async def test_policy_decides_who_sees_whose_views(shop: Shop):
    """The owner always; another with a permit for ``views``; nobody else, and the error says what to add."""
    async with shop.host() as host:
        await place(host, 100, 200)
        await until(lambda: rows(host, "SELECT orders, cents FROM sales_by_minute"), [{"orders": 2, "cents": 300}])
        assert await rows(host, "SELECT count(*) AS many FROM sales_by_minute", "stats") == [{"many": 1}]
        with pytest.raises(PermissionDenied, match='Action::"views", resource == Module::"stats"'):
            await rows(host, "SELECT * FROM sales_by_minute", "orders")


async def test_what_is_refused_is_a_fault_of_the_caller(shop: Shop):
    async with shop.host() as host:
        with pytest.raises(QueryRefused, match="not a view"):
            await rows(host, "SELECT * FROM seamline_stream_windows")
        with pytest.raises(QueryRefused, match="no module 'nobody'"):
            await views_of(host, "board").query("nobody", "SELECT 1")


async def test_a_view_goes_on_where_it_was_after_a_restart(shop: Shop):
    async with shop.host() as host:
        await place(host, 1, 2, 3)
        await until(lambda: rows(host, "SELECT sum(cents) AS cents FROM sales_by_minute"), [{"cents": 6}])
    async with shop.host() as host:
        await place(host, 4)
        await until(lambda: rows(host, "SELECT sum(cents) AS cents FROM sales_by_minute"), [{"cents": 10}])


async def test_a_raised_version_is_built_from_the_log(shop: Shop):
    """Events of before the change are in the new rows, each once."""
    shop.write("shop/stats/module.py", shop.stats + VIEWS.format(options="version=1"))
    async with shop.host() as host:
        await place(host, *range(30))
        await until(lambda: rows(host, "SELECT orders FROM by_hour"), [{"orders": 30}])
    changed = VIEWS.format(options="version=2").replace(
        "orders=count()", "orders=count(), cents=sum_(lambda e: e.cents)"
    )
    shop.write("shop/stats/module.py", shop.stats + changed)
    status = "SELECT version FROM stream_status WHERE name = 'by_hour' AND state = 'live'"
    async with shop.host() as host:
        await until(lambda: rows(host, status), [{"version": 2}])
        assert await rows(host, "SELECT orders, cents FROM by_hour") == [{"orders": 30, "cents": sum(range(30))}]
        await place(host, 1)
        await until(lambda: rows(host, "SELECT sum(orders) AS orders FROM by_hour"), [{"orders": 31}])


async def test_a_closed_window_is_told_as_an_event_of_the_module(shop: Shop):
    """Published with the closing, as the clock passes the window's end."""
    declared = "from seamline import Event\n\n\nclass HourEnded(Event):\n    orders: int\n    revision: int\n"
    shop.write("shop/stats/__init__.py", declared)
    shop.write("shop/stats/module.py", shop.stats + CLOSED)
    async with shop.host() as host:
        await place(host, 1, 2)
        await until(lambda: rows(host, "SELECT orders, closed FROM by_hour"), [{"orders": 2, "closed": 0}])
        log = host._events_runtime().logs["stats"]

        async def told() -> list[bytes]:
            shop.clock.advance(60)
            page = await log.read([0] * 16, types=frozenset({"HourEnded"}), partitions=frozenset(range(16)), limit=10)
            return [each.record.data for each in page]

        await until(told, [b'{"orders":2,"revision":1}'])
        assert await rows(host, "SELECT closed FROM by_hour") == [{"closed": 1}]
