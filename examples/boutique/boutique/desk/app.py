"""One page: the orders that wait, what is known of each, and two buttons."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from boutique.checkout import NotInReview, OrderReview
from seamline import CallError, use

_FORM_BYTES_MAX = 4 * 1024
_HEADERS = {
    "cache-control": "private, no-store",
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
_page = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
).get_template("desk.html")

_review = use(OrderReview)


async def desk(request: Request) -> Response:
    waiting = await (await _review()).waiting()
    late = request.query_params.get("notice") == "late"
    return Response(_page.render(waiting=waiting, late=late), headers=_HEADERS, media_type="text/html")


async def decide(request: Request) -> Response:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES_MAX:
            return PlainTextResponse("The form is longer than we can read.", 413)
    fields = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=8))
    by, comment = (" ".join(fields.get(name, "").split())[:80] for name in ("by", "comment"))
    if fields.get("decision") not in ("approve", "refuse") or not by:
        return PlainTextResponse("Say who you are, and approve or refuse.", 422)
    try:
        await (await _review()).decide(request.path_params["order_id"], fields["decision"] == "approve", by, comment)
    except NotInReview:
        return RedirectResponse("/desk/?notice=late", 303)
    return RedirectResponse("/desk/", 303)


async def _busy(request: Request, error: Exception) -> Response:
    _ = request, error
    return PlainTextResponse("A part of the shop does not answer just now.", 503, {"retry-after": "2"})


app = Starlette(
    routes=[Route("/", desk), Route("/{order_id}", decide, methods=["POST"])],
    exception_handlers={CallError: _busy},
)
