"""``python -m benchmarks.ours.signed_in <folder>``: what it costs the gateway to know who is asking, in µs of CPU.

Requests go through a real socket to a gateway in this process, whose app answers at once; the client's share is in all
kinds alike. Answers each command ``{"blocks": n}`` with medians over n blocks of each kind, taken in turns.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from benchmarks.driver import run, say
from seamline.gateway.auth.api_keys import ApiKeys
from seamline.gateway.auth.door import Door
from seamline.gateway.auth.records import Records
from seamline.gateway.auth.sessions import SessionCookies, session_of
from seamline.gateway.gateway import Gateway
from seamline.gateway.routes import Route
from seamline.kernel.clock import SystemClock
from seamline.kernel.settings import AuthSettings, GatewaySettings, IssuerSettings
from seamline.kernel.store import Database, sqlite_url
from seamline.kernel.wire.http1_client import HttpPool
from seamline.module.principal import User

REQUESTS = 500
ISSUER = "https://id.example"
KEY = ECKey.generate_key("P-256", auto_kid=True)
Header = tuple[bytes, bytes]


async def main() -> None:
    folder = Path(sys.argv[1])
    plain, open_gate, _ = await _gateway(None)
    door = _door(folder)
    locked, guarded, port = await _gateway(door)
    cookie, key, token = await _credentials(door, port)
    kinds: dict[str, Callable[[], Awaitable[float]]] = {
        "open": lambda: _requests(open_gate, ()),
        "nobody": lambda: _requests(guarded, ()),
        "session": lambda: _requests(guarded, ((b"cookie", cookie),)),
        "api_key": lambda: _requests(guarded, ((b"x-api-key", key),)),
        "token": lambda: _requests(guarded, ((b"authorization", b"Bearer " + token),)),
    }
    for block in kinds.values():
        await block()
    say({"ready": True})
    for line in sys.stdin:  # nothing else is to run on this event loop
        taken: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(json.loads(line)["blocks"]):
            for name, block in kinds.items():
                taken[name].append(1e6 * await block())
        say({name: median(values) for name, values in taken.items()})
    await plain.stop()
    await locked.stop()


async def _app(scope: Any, receive: Any, send: Any) -> None:
    _ = scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def _gateway(door: Door | None) -> tuple[Gateway, HttpPool, int]:
    gateway = Gateway(GatewaySettings(), [Route(module="shop")], lambda _: _app, door=door)
    listener = socket.create_server(("127.0.0.1", 0))
    await gateway.serve(listener)
    port: int = listener.getsockname()[1]
    return gateway, HttpPool("127.0.0.1", port), port


def _not_written(decision: str, **line: str) -> None:
    """Nothing is refused here."""


def _door(folder: Path) -> Door:
    async def ask(method: str, url: str, headers: object, body: bytes) -> tuple[int, bytes]:
        _ = method, headers, body
        if url.endswith("/openid-configuration"):
            return 200, json.dumps({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}).encode()
        return 200, json.dumps({"keys": [KEY.as_dict(private=False)]}).encode()

    (folder / "users.toml").write_text("", encoding="utf-8")
    clock = SystemClock()
    settings = AuthSettings(
        development="users.toml", api_keys=True, issuers=(IssuerSettings(issuer=ISSUER, audience=("shop",)),)
    )
    return Door(
        settings, app="shop", folder=folder, identity=folder / "identity",
        records=Records(Database(sqlite_url(folder, "gateway"), "gateway"), clock), clock=clock,
        audit=_not_written, fetch=ask,
    )  # fmt: skip


async def _credentials(door: Door, port: int) -> tuple[bytes, bytes, bytes]:
    now = door.records.now()
    user = User("ada", f"http://127.0.0.1:{port}/.seamline/id", frozenset({"support"}), name="Ada Example")
    session = session_of(user, now=now, renewable=False)
    _, text = await ApiKeys(door.records).create("bench", roles=["reader"], valid_s=3600)
    claims: dict[str, Any] = {"iss": ISSUER, "aud": "shop", "sub": "robot", "exp": now + 3600, "scope": "read"}
    token = jwt.encode({"alg": "ES256", "kid": KEY.kid or "", "typ": "at+jwt"}, claims, KEY)
    _, line = SessionCookies(door.sealer).write(session, 3600)
    return line.partition(b";")[0], text.encode(), token.encode()


async def _requests(pool: HttpPool, headers: tuple[Header, ...]) -> float:
    began = process_time()
    for _ in range(REQUESTS):
        response = await pool.request("GET", "/", headers)
        await response.read_all()
    return (process_time() - began) / REQUESTS


if __name__ == "__main__":
    run(main)
