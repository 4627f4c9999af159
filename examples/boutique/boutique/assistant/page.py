"""The page of the assistant: it shows an answer as it is made, and works without a script, too."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from boutique.assistant import QUESTION_MAX, Assistant, QuestionRefused, Turn
from boutique.pages import static, templates
from seamline import CallError, use

_HERE = Path(__file__).parent
_HEADERS = {
    "cache-control": "private, no-cache",
    "content-security-policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}
_BODY_BYTES_MAX = 32_000
AWAY = "I cannot answer just now. Please try again in a moment."
_EXAMPLES = ("How much is the kettle?", "Something for the garden?", "Do you ship to Japan?")

_assistant = use(Assistant)
_page = templates(_HERE / "templates").get_template("talk.html")


async def page(request: Request) -> Response:
    """The page; with ``q``, the answer to it is already there."""
    question = request.query_params.get("q", "").strip()[:QUESTION_MAX]
    turns = [Turn("shopper", question)] if question else []
    model, tokens = "", 0
    if question:
        text = ""
        try:
            async with aclosing((await _assistant()).answer((turns[0],))) as pieces:
                async for piece in pieces:
                    text += piece.text
                    model, tokens = piece.model or model, piece.tokens or tokens
        except CallError:
            text = AWAY
        turns.append(Turn("assistant", text))
    body = _page.render(turns=turns, model=model, tokens=tokens, question_max=QUESTION_MAX, examples=_EXAMPLES)
    return Response(body, headers=_HEADERS, media_type="text/html")


async def answer(request: Request) -> Response:
    """The answer to a conversation, as server-sent events: pieces of text, then ``done``."""
    try:
        body = await _body(request)
        turns = msgspec.json.decode(body, type=tuple[Turn, ...])
    except (msgspec.MsgspecError, ValueError):
        return Response("These are no turns of a conversation.", 400, media_type="text/plain")
    return StreamingResponse(
        _events(turns), media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"}
    )


async def _body(request: Request) -> bytes:
    found = b""
    async for chunk in request.stream():
        found += chunk
        if len(found) > _BODY_BYTES_MAX:
            raise ValueError("too long")
    return found


async def _events(turns: tuple[Turn, ...]) -> AsyncGenerator[bytes]:
    try:
        async with aclosing((await _assistant()).answer(turns)) as pieces:
            async for piece in pieces:
                yield _event("done" if piece.model else "piece", piece)
    except QuestionRefused:
        yield _event("failed", {"text": f"A question has 1 to {QUESTION_MAX} characters."})
    except CallError:
        yield _event("failed", {"text": AWAY})


def _event(kind: str, content: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(content))


app = Starlette(
    routes=[
        Route("/", page),
        Route("/answer", answer, methods=["POST"]),
        static(_HERE / "static"),
    ]
)
