"""What every service shares: its settings, its FastAPI app, and its one httpx client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, TypeAdapter

from benchmarks.certificates import client_context

CONNECTIONS_MAX = 200
TIMEOUT_S = 10
_JSON = {"content-type": "application/json"}

T = TypeVar("T")
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Settings:
    """``ports`` by service; ``data`` holds the shop's tables, ``folder`` is where databases go."""

    certificates: Path
    folder: Path
    example: Path
    ports: dict[str, int]
    data: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> Settings:
        told = json.loads(path.read_text())
        return cls(
            certificates=Path(told["certificates"]),
            folder=Path(told["folder"]),
            example=Path(told["example"]),
            ports=told["ports"],
            data=json.loads(Path(told["data"]).read_text()),
        )


class Refused(Exception):
    """Another service answered with an error that it declares."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail


class Services:
    """Calls of other services through one shared client."""

    def __init__(self, settings: Settings) -> None:
        self._ports = settings.ports
        self._client = httpx.AsyncClient(
            verify=client_context(settings.certificates),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX),
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, service: str, path: str, answer: TypeAdapter[T], **query: Any) -> T:
        return await self._exchange("GET", service, path, answer, params=query or None)

    async def send(
        self, method: str, service: str, path: str, body: BaseModel | None, answer: TypeAdapter[T], **query: Any
    ) -> T:
        content = None if body is None else body.model_dump_json()
        return await self._exchange(method, service, path, answer, content=content, headers=_JSON, params=query or None)

    async def _exchange(self, method: str, service: str, path: str, answer: TypeAdapter[T], **options: Any) -> T:
        url = f"https://localhost:{self._ports[service]}{path}"
        response = await self._client.request(method, url, **options)
        if response.is_error:
            raise Refused(response.status_code, response.json().get("detail"))
        return answer.validate_json(response.content)


def service(name: str, settings: Settings, *, opened: Lifespan | None = None) -> FastAPI:
    """A service's app; ``app.state.services`` calls the others."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.services = Services(settings)
        try:
            if opened is None:
                yield
            else:
                async with opened(app):
                    yield
        finally:
            await app.state.services.close()

    app = FastAPI(title=name, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.settings = settings
    app.add_exception_handler(Refused, _pass_on)
    return app


async def _pass_on(_request: Request, error: Exception) -> Any:
    from fastapi.responses import JSONResponse

    assert isinstance(error, Refused)
    return JSONResponse({"detail": error.detail}, status_code=error.status)


async def _services(request: Request) -> Services:
    return request.app.state.services


Others = Annotated[Services, Depends(_services)]

__all__ = ["HTTPException", "Others", "Refused", "Services", "Settings", "service"]
