"""What modules with pages share. How a page looks, and what a browser may do with it, each says for itself."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def templates(folder: Path) -> Environment:
    """Those of a folder, each read once. Values are text, not markup, and a value that is missing is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def static(folder: Path) -> Route:
    """``/static/<name>`` answers with the file of that name, as it was when the process began."""
    files = {path.name: (_KINDS[path.suffix], path.read_bytes()) for path in folder.iterdir()}

    async def answer(request: Request) -> Response:
        found = files.get(str(request.path_params["name"]))
        if found is None:
            return Response(status_code=404)
        return Response(found[1], headers={"cache-control": "public, max-age=60"}, media_type=found[0])

    return Route("/static/{name}", answer)
