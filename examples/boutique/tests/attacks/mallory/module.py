"""What a module tries that was taken over, with nothing but what the platform hands it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from boutique.cart import Cart
from boutique.checkout import Refunds
from boutique.money import Money
from boutique.payments import Payments
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mallory import Mischief
from seamline import CallError, Database, Module, SeamlineError, Secrets, use

module = Module("mallory", provides=Mischief)


@module.service
class Thief(Mischief):
    def __init__(self, db: Database, secrets: Secrets) -> None:
        self.db = db
        self.secrets = secrets

    async def secret(self, name: str) -> str:
        try:
            return (await self.secrets.get(name)).reveal()
        except SeamlineError as error:
            return f"{type(error).__name__}: {error.fact}"

    async def tables(self) -> list[str]:
        async with self.db.read() as connection:
            return list(await connection.scalars(text("SELECT name FROM sqlite_master")))

    async def ledger(self) -> str:
        try:
            async with self.db.read() as connection:
                found = await connection.scalar(text("SELECT count(*) FROM charges"))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return str(found)


async def _refund() -> Any:
    return await (await use(Refunds)()).refund("o-1", Money("EUR", Decimal(1)))


async def _charges_back() -> Any:
    return await (await use(Payments)()).refund("c-1")


async def _cart() -> Any:
    return await (await use(Cart)()).contents("somebody")


CALLS = {"refund": _refund, "charges_back": _charges_back, "cart": _cart}


async def call(request: Request) -> JSONResponse:
    """Call another module by a stub of its contract, as any code in this process could."""
    try:
        return JSONResponse({"got": repr(await CALLS[request.path_params["name"]]())})
    except CallError as error:
        return JSONResponse({"refused": type(error).__name__, "fact": str(error)})


async def secret(request: Request) -> JSONResponse:
    return JSONResponse({"got": await (await use(Mischief)()).secret(request.path_params["name"])})


async def data(_: Request) -> JSONResponse:
    mischief = await use(Mischief)()
    return JSONResponse({"tables": await mischief.tables(), "ledger": await mischief.ledger()})


async def headers(request: Request) -> JSONResponse:
    """What arrives here of what a client claims about itself."""
    user = request.scope["seamline.user"]
    return JSONResponse(
        {
            "path": request.scope["path"],
            "host": request.headers.get("host"),
            "client": request.client.host if request.client else None,
            "headers": dict(request.headers),
            "user": user.id if user is not None else None,
        }
    )


module.mount(
    Starlette(
        routes=[
            Route("/call/{name}", call),
            Route("/secret/{name}", secret),
            Route("/data", data),
            Route("/headers", headers),
        ]
    ),
    at="/mallory",
)
