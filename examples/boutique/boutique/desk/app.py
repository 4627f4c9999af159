"""One page: the orders that wait, what is known of each, and two buttons."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from boutique.checkout import Checkout, NotInReview, NotRefundable, OrderNotFound, OrderReview, Refunds
from seamline import CallError, PermissionDenied, User, use

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
_orders = use(Checkout)
_refunds = use(Refunds)


async def desk(request: Request) -> Response:
    waiting = await (await _review()).waiting()
    notice = request.query_params.get("notice", "")
    page = _page.render(waiting=waiting, notice=notice, staff=_staff(request))
    return Response(page, headers=_HEADERS, media_type="text/html")


def _staff(request: Request) -> str:
    """Who decides. Policy lets nobody in here who has not signed in as staff."""
    user: User = request.scope["seamline.user"]
    return user.name or user.id


async def _fields(request: Request) -> dict[str, str] | None:
    """What a form says; None if it is longer than we can read."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES_MAX:
            return None
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=8))


async def decide(request: Request) -> Response:
    fields = await _fields(request)
    if fields is None:
        return PlainTextResponse("The form is longer than we can read.", 413)
    comment = " ".join(fields.get("comment", "").split())[:80]
    if fields.get("decision") not in ("approve", "refuse"):
        return PlainTextResponse("Approve or refuse.", 422)
    by = _staff(request)
    try:
        await (await _review()).decide(request.path_params["order_id"], fields["decision"] == "approve", by, comment)
    except NotInReview:
        return RedirectResponse("/desk/?notice=late", 303)
    return RedirectResponse("/desk/", 303)


async def refund(request: Request) -> Response:
    """Give back what an order cost. How much somebody may give back is said in policy and not here."""
    fields = await _fields(request)
    if fields is None:
        return PlainTextResponse("The form is longer than we can read.", 413)
    try:
        order = await (await _orders()).order(fields.get("order", "").strip())
        await (await _refunds()).refund(order.id, order.total)
    except (OrderNotFound, NotRefundable):
        return RedirectResponse("/desk/?notice=unknown", 303)
    except PermissionDenied:
        return RedirectResponse("/desk/?notice=denied", 303)
    return RedirectResponse("/desk/?notice=refunded", 303)


async def _busy(request: Request, error: Exception) -> Response:
    _ = request, error
    return PlainTextResponse("A part of the shop does not answer just now.", 503, {"retry-after": "2"})


app = Starlette(
    routes=[
        Route("/", desk),
        Route("/refund", refund, methods=["POST"]),
        Route("/{order_id}", decide, methods=["POST"]),
    ],
    exception_handlers={CallError: _busy},
)
