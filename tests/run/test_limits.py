"""One limit for all gateways of a machine, though each is a process of its own."""

from __future__ import annotations

import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from supervised import Starter

FRONT = """
import json, os
from seamline import Module
module = Module("front")
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = json.dumps({"pid": os.getpid()}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
module.mount(app, at="/")
"""
POLICY = 'permit (principal == Module::"gateway", action == Action::"http", resource == Module::"front");\n'
LIMITS = """
[replicas]
front = 3
[[limits.rates]]
name = "all"
by = "address"
requests = 300
period_s = 3600
burst = 300
"""
ASKED = 1500


def test_replicas_of_the_gateway_share_a_limit(start: Starter, tmp_path: Path):
    """Three of them let through together what one may, but for what came before they heard of each other."""
    package = tmp_path / "shop" / "front"
    package.mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "module.py").write_text(FRONT, encoding="utf-8")
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "shop.cedar").write_text(POLICY, encoding="utf-8")
    start.write(more=LIMITS)
    toml = tmp_path / "seamline.toml"
    text = toml.read_text(encoding="utf-8").replace('["shop.front", "shop.cart", "shop.orders"]', '["shop.front"]')
    toml.write_text(text.replace('edge = ["front", "cart"]', 'edge = ["front"]').replace('back = "*"', ""), "utf-8")
    running = start(host_factory="", topology="services").until_ready()

    def ask(_: int) -> int | None:
        try:
            return running.get()["pid"]
        except urllib.error.HTTPError as error:
            error.close()
            return None

    with ThreadPoolExecutor(16) as clients:
        answered = [pid for pid in clients.map(ask, range(ASKED)) if pid is not None]
    assert len(set(answered)) > 1, "one process took all"
    assert 300 <= len(answered) < 600, "three limits would have let 900 through"
    assert "SL6301" not in running.messages()
