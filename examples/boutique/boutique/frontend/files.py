"""Static files, read once and answered from memory under names that change with their content."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path
from typing import NamedTuple

from starlette.types import Receive, Scope, Send

_FOREVER = b"public, max-age=31536000, immutable"


class _File(NamedTuple):
    body: bytes
    headers: list[tuple[bytes, bytes]]


class StaticFiles:
    """An ASGI app for every file below ``folder``; ``url(name)`` is where one is found."""

    def __init__(self, folder: Path, at: str) -> None:
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        digest = hashlib.blake2b(digest_size=6)
        for name, body in files.items():
            digest.update(name.encode() + b"\0" + body)
        self.version = digest.hexdigest()
        self._base = f"{at}/{self.version}/"
        self._files = {f"{self._base}{name}": _file(name, body) for name, body in files.items()}

    def url(self, name: str) -> str:
        return self._base + name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _ = receive
        path = str(scope["path"])
        found = self._files.get(path.removeprefix(str(scope.get("root_path", ""))), self._files.get(path))
        status, headers, body = 404, [(b"content-length", b"0")], b""
        if found is not None:
            status, headers, body = 200, found.headers, found.body
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _file(name: str, body: bytes) -> _File:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return _File(
        body,
        [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", _FOREVER),
        ],
    )
