"""Somebody who has signed in, without a browser."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from tests.portal.front import Front, Reply

from seamline.run.roles import Role


class Visitor:
    """Asks as the portal's script does: with the cookie, the page's word, and ``hx-request``."""

    def __init__(self, front: Front, role: Role = "admin") -> None:
        self._front = front
        self._role: Role = role
        self._headers: dict[str, str] = {}

    async def get(self, path: str) -> Reply:
        return await self._front.send(path, **await self._signed())

    async def act(self, path: str, *pairs: tuple[str, str], **fields: str) -> tuple[str, dict[str, Any]]:
        """``done`` or ``trouble`` with what was told, or ``refused`` with the error."""
        headers = {**await self._signed(), "content_type": "application/x-www-form-urlencoded"}
        reply = await self._front.send(path, "POST", urlencode([*fields.items(), *pairs]), **headers)
        if reply.status != 200:
            return "refused", json.loads(reply.text)["error"]
        last = reply.text.strip().split("\n\n")[-1].split("\n")
        return last[0].removeprefix("event: "), json.loads(last[1].removeprefix("data: "))

    async def _signed(self) -> dict[str, str]:
        if not self._headers:
            body = json.dumps({"token": self._front.token(self._role), "cookie": True})
            reply = await self._front.send("/v1/session", "POST", body, content_type="application/json")
            page, cookie = json.loads(reply.text)["page"], reply.headers["set-cookie"].partition(";")[0]
            self._headers = {"hx_request": "true", "x_seamline_page": page, "cookie": cookie}
        return self._headers
