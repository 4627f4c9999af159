"""Two pages: the orders that wait, with what is known of each and two buttons; and what was decided, and would be."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from boutique.checkout import Checkout, NotInReview, NotRefundable, OrderNotFound, OrderReview, Refunds
from boutique.decisions import Decision, DecisionDesk, ModelUnknown
from boutique.pages import templates
from seamline import CallError, PermissionDenied, User, use

_FORM_BYTES_MAX = 4 * 1024
_HEADERS = {
    "cache-control": "private, no-store",
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
_HOURS_MAX = 90 * 24
_pages = templates(Path(__file__).parent / "templates")
_page, _decided_page = _pages.get_template("desk.html"), _pages.get_template("decisions.html")

_review = use(OrderReview)
_orders = use(Checkout)
_refunds = use(Refunds)
_decisions = use(DecisionDesk)


async def desk(request: Request) -> Response:
    waiting = await (await _review()).waiting()
    notice = request.query_params.get("notice", "")
    why = await _why(tuple(each.order.id for each in waiting))
    page = _page.render(waiting=waiting, why=why, notice=notice, staff=_staff(request))
    return Response(page, headers=_HEADERS, media_type="text/html")


async def _why(order_ids: tuple[str, ...]) -> dict[str, Decision]:
    """Why each order waits. The page does without where nobody can say."""
    try:
        found = await (await _decisions()).explain(order_ids) if order_ids else ()
    except CallError:
        return {}
    return {each.order_id: each for each in found}


async def decided(request: Request) -> Response:
    """What was decided; asked for with ``hours``, also what would be decided today."""
    asked, version = request.query_params.get("hours", ""), request.query_params.get("version", "")[:64]
    hours = min(int(asked), _HOURS_MAX) if asked.isascii() and asked.isdigit() and len(asked) < 6 else 0
    desk = await _decisions()
    unknown, replay = False, None
    try:
        replay = await desk.replay(hours, version) if hours else None
    except ModelUnknown:
        unknown = True
    page = _decided_page.render(
        latest=await desk.latest(50), replay=replay, hours=hours or 168, version=version, unknown=unknown,
        staff=_staff(request),
    )  # fmt: skip
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
        Route("/decisions", decided),
        Route("/refund", refund, methods=["POST"]),
        Route("/{order_id}", decide, methods=["POST"]),
    ],
    exception_handlers={CallError: _busy},
)
