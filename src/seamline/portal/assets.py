"""Scripts, styles and icons: read once, and served for ever under the digest of them all."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PACKED_BYTES_MIN: Final = 512


class Assets:
    """The files below ``static/``. All of them share one digest, so that scripts can import each other by name."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        files = sorted(each for each in folder.rglob("*") if each.suffix in _TYPES)
        self._files = {each.relative_to(folder).as_posix(): each.read_bytes() for each in files}
        digest = hashlib.sha256()
        for name, content in self._files.items():
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        self.digest = digest.hexdigest()[:16]
        self._packed: dict[str, bytes] = {}

    def url(self, name: str) -> str:
        """Where ``name`` is served. Raises KeyError for what is not there."""
        if name not in self._files:
            raise KeyError(name)
        return f"/assets/{self.digest}/{name}"

    async def serve(self, request: Request) -> Response:
        name = request.path_params["name"]
        content = self._files.get(name)
        if content is None or request.path_params["digest"] != self.digest:
            return Response("There is no such file.", 404, media_type="text/plain")
        headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
        if len(content) >= _PACKED_BYTES_MIN and "gzip" in request.headers.get("accept-encoding", ""):
            content = self._packed.get(name) or self._packed.setdefault(name, gzip.compress(content, 9, mtime=0))
            headers["content-encoding"] = "gzip"
        return Response(content, headers=headers, media_type=_TYPES[name[name.rindex(".") :]])
