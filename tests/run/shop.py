"""A small application on the real host: front calls cart and orders, orders calls cart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from supervised import Running, Starter

SOURCES = {
    "cart/__init__.py": """
from seamline import Contract, Fault, idempotent
class Empty(Fault):
    '''There is nothing in it.'''
class Carts(Contract):
    async def add(self, user: str, item: str) -> list[str]: ...
    @idempotent
    async def lines(self, user: str) -> list[str]: ...
""",
    "cart/module.py": """
import logging
from seamline import Module
from shop.cart import Carts, Empty
module = Module("cart", provides=Carts)
@module.service
class CartService(Carts):
    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}
    async def add(self, user: str, item: str) -> list[str]:
        logging.getLogger("shop.cart").info("%s adds %s", user, item)
        self._lines.setdefault(user, []).append(item)
        return self._lines[user]
    async def lines(self, user: str) -> list[str]:
        if user not in self._lines:
            raise Empty()
        return self._lines[user]
""",
    "orders/__init__.py": """
from seamline import Contract, idempotent
class Orders(Contract):
    @idempotent
    async def place(self, user: str) -> str: ...
""",
    "orders/module.py": """
from seamline import Module
from shop.cart import Carts, Empty
from shop.orders import Orders
module = Module("orders", provides=Orders)
@module.service
class OrderService(Orders):
    def __init__(self, carts: Carts) -> None:
        self._carts = carts
    async def place(self, user: str) -> str:
        try:
            return ",".join(await self._carts.lines(user))
        except Empty:
            return "nothing"
""",
    "front/__init__.py": "",
    "front/module.py": """
import json
import os
from seamline import Module, use
from shop.cart import Carts
from shop.orders import Orders
module = Module("front")
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    carts, orders = await use(Carts)(), await use(Orders)()
    added = await carts.add("ann", scope["path"]) if scope["path"] != "/" else []
    body = json.dumps({"pid": os.getpid(), "added": added, "placed": await orders.place("ann")}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
module.mount(app, at="/")
""",
}
POLICY = """
permit (principal == Module::"gateway", action == Action::"http", resource == Module::"front");
permit (principal == Module::"front", action in Action::"Carts", resource == Module::"cart");
permit (principal == Module::"front", action in Action::"Orders", resource == Module::"orders");
permit (principal == Module::"orders", action in Action::"Carts", resource == Module::"cart");
"""


def write_shop(folder: Path) -> None:
    """Its sources and its policy, into ``folder``."""
    for name, text in SOURCES.items():
        path = folder / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "shop" / "__init__.py").touch()
    (folder / "policy").mkdir()
    (folder / "policy" / "shop.cedar").write_text(POLICY)


def up(shop: Starter, topology: str, **options: Any) -> Running:
    return shop(topology=topology, host_factory="", **options).until_ready()
