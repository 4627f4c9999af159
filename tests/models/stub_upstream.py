"""An engine elsewhere, for tests and benchmarks: the wires of OpenAI and Anthropic, and every way to fail.

::

    async with stub_upstream() as stub:
        stub.url                                   # http://127.0.0.1:PORT, without /v1
        stub.fault = Fault(stall_after=3)          # from now on
        stub.next.append(Fault(status=429))        # the next request only
        stub.requests[-1].tokens, .left            # what was sent, whether the client left before the end

One request can also ask for its own fault: by the header ``x-stub-fault: stall_after=3,slow_s=0.1``, or by a model
named ``anything!stall_after=3``. What is answered follows from what is asked:

- ``say <words>`` is answered with these words, one a token; anything else with ``t0 t1 t2...``, ``max_tokens`` of them;
- with tools, and ``call`` in the last text, the first tool is called with ``{"query": "<text>"}``;
- with a schema of the answer, it is ``{"answer": "<text>"}``.

As a program it serves until it is ended: ``python -m tests.models.stub_upstream --port 9000``.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from seamline.kernel.lifetime import Runners
from seamline.kernel.wire.http1 import Disconnected, Exchange, HttpLimits, HttpServer

_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_TOKENS = 8


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong. Counts are of chunks with content; -1 is never."""

    hang: bool = False
    """Nothing is answered, not even a head."""
    status: int = 0
    """An error of this status, in the wire's own form."""
    retry_after: str = ""
    """Header of that error."""
    kind: str = ""
    """Its type or code, instead of the usual one."""
    first_s: float = 0.0
    """Before the first chunk, but after the head."""
    slow_s: float = 0.0
    """Before each chunk, or before the whole answer."""
    stall_after: int = -1
    """Then nothing, with the connection open."""
    cut_after: int = -1
    """Then the connection breaks."""
    end_after: int = -1
    """Then the answer ends as if it were whole, without its last events."""
    malformed_after: int = -1
    """Then an event that is no JSON."""
    error_after: int = -1
    """Then an event that tells an error."""
    huge_bytes: int = 0
    """Size of each chunk's text, or of the whole answer."""
    wrong_schema: bool = False
    """JSON, but not what the wire says."""
    no_usage: bool = False
    refuse: bool = False
    """The model declines to answer."""
    careless: bool = False
    """It goes on generating after the client has left."""


@dataclasses.dataclass
class Asked:
    """One request and what became of it."""

    path: str
    headers: dict[str, str]
    body: Any
    peer: Any = None
    """Address and port of the client."""
    tokens: int = 0
    """Sent, or generated if the fault is ``careless``."""
    left: bool = False
    """The client went before the end."""
    over: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


class Stub:
    """See the module."""

    def __init__(self) -> None:
        self.port = 0
        self.fault = Fault()
        self.next: deque[Fault] = deque()
        self.requests: list[Asked] = []
        self.keep_requests = True
        self.tokens = 0
        """Of all requests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait, a few seconds at most, for what a request does."""
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110  # what is waited for is anything
                await asyncio.sleep(0.001)

    async def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        raw = request.body
        if raw is None:
            raw = await request.read_all()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        path = request.path.decode("ascii")
        asked = Asked(path, headers, json.loads(raw) if raw else None, exchange.transport.get_extra_info("peername"))
        if self.keep_requests:
            self.requests.append(asked)
        try:
            await self._answer(exchange, asked)
        finally:
            asked.left = exchange.disconnected
            asked.over.set()

    async def _answer(self, exchange: Exchange, asked: Asked) -> None:
        fault = self._fault_of(asked)
        if fault.hang:
            await exchange.wait_disconnected()
            return
        if fault.status:
            headers = [_JSON, *([(b"retry-after", fault.retry_after.encode())] if fault.retry_after else [])]
            exchange.respond(fault.status, headers, json.dumps(_error(asked.path, fault)).encode())
            return
        await asyncio.sleep(fault.slow_s if not _streams(asked) else 0)
        if fault.wrong_schema and not _streams(asked):
            exchange.respond(200, [_JSON], b'{"answer": 42, "choices": "none"}')
            return
        match asked.path:
            case "/v1/models":
                listed = {"object": "list", "data": [{"id": "stub", "object": "model", "owned_by": "tests"}]}
                exchange.respond(200, [_JSON], json.dumps(listed).encode())
            case "/v1/embeddings":
                exchange.respond(200, [_JSON], json.dumps(_embeddings(asked.body)).encode())
            case "/v1/rerank":
                exchange.respond(200, [_JSON], json.dumps(_reranked(asked.body)).encode())
            case "/v1/chat/completions" | "/v1/completions" | "/v1/responses" | "/v1/messages" if not _streams(asked):
                answer = _WHOLE[asked.path](_Said(asked.body, fault))
                asked.tokens = _Said(asked.body, fault).tokens
                self.tokens += asked.tokens
                exchange.respond(200, [_JSON], json.dumps(answer).encode())
            case "/v1/chat/completions" | "/v1/completions" | "/v1/responses" | "/v1/messages":
                await self._stream(exchange, asked, fault)
            case _:
                exchange.respond(
                    404, [_JSON], b'{"error": {"message": "no such path", "type": "invalid_request_error"}}'
                )

    async def _stream(self, exchange: Exchange, asked: Asked, fault: Fault) -> None:
        said = _Said(asked.body, fault)
        named = asked.path in ("/v1/responses", "/v1/messages")
        exchange.start(200, [_EVENTS])
        await asyncio.sleep(fault.first_s)
        try:
            async for chunk in self._paced(_STREAMED[asked.path](said), asked, fault):
                event = f"event: {chunk['type']}\n".encode() if named else b""
                if fault.careless and exchange.disconnected:
                    continue
                try:
                    await exchange.write(event + b"data: " + json.dumps(chunk).encode() + b"\n\n")
                except Disconnected:
                    if not fault.careless:
                        raise
        except _Cut:
            exchange.transport.abort()
            return
        except _Malformed:
            await exchange.write(b'data: {"choices": [{"delta": {"con\n\n')
        except _Failed:
            error = json.dumps(_error(asked.path, dataclasses.replace(fault, status=500))).encode()
            await exchange.write((b"event: error\n" if named else b"") + b"data: " + error + b"\n\n")
        except _Stalled:
            await exchange.wait_disconnected()
            return
        except _Ended:
            exchange.end()
            return
        exchange.end(b"" if named else b"data: [DONE]\n\n")

    async def _paced(self, chunks: list[dict[str, Any]], asked: Asked, fault: Fault) -> AsyncIterator[dict[str, Any]]:
        for chunk in chunks:
            if _has_content(chunk):
                for limit, event in (
                    (fault.stall_after, _Stalled),
                    (fault.cut_after, _Cut),
                    (fault.end_after, _Ended),
                    (fault.malformed_after, _Malformed),
                    (fault.error_after, _Failed),
                ):
                    if limit == asked.tokens:
                        raise event
                if fault.slow_s:
                    await asyncio.sleep(fault.slow_s)
                asked.tokens += 1
                self.tokens += 1
            yield chunk

    def _fault_of(self, asked: Asked) -> Fault:
        told = asked.headers.get("x-stub-fault", "")
        told = told or str(_object(asked.body).get("model", "")).partition("!")[2]
        if told:
            return fault_of(told)
        return self.next.popleft() if self.next else self.fault


class _Stalled(Exception): ...


class _Cut(Exception): ...


class _Ended(Exception): ...


class _Malformed(Exception): ...


class _Failed(Exception): ...


_KINDS = {"int": int, "float": float, "bool": bool}


def fault_of(text: str) -> Fault:
    """``stall_after=3,slow_s=0.1,hang=1``."""
    fault = Fault()
    for part in text.split(","):
        name, _, value = part.partition("=")
        kind = type(getattr(fault, name)).__name__
        told: dict[str, Any] = {name: value if kind == "str" else _KINDS[kind](float(value))}
        fault = dataclasses.replace(fault, **told)
    return fault


# What is said, whatever the wire.


class _Said:
    def __init__(self, body: dict[str, Any], fault: Fault) -> None:
        self.model = str(body.get("model", "stub")).partition("!")[0]
        asked = _last_text(body)
        limit: int = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens") or 0
        tools: list[Any] = body.get("tools") or []
        schema = _object(
            body.get("response_format") or _object(body.get("text")).get("format") or body.get("output_config")
        )
        words: list[str]
        self.call: tuple[str, str] | None = None
        self.refused = fault.refuse
        if tools and "call" in asked and body.get("tool_choice") not in ("none", {"type": "none"}):
            function = tools[0].get("function") or tools[0]
            self.call = (function["name"], json.dumps({"query": asked}))
            words = []
        elif schema.get("type", "text") != "text" or "format" in schema:
            words = [json.dumps({"answer": asked})]
        elif asked.startswith("say "):
            words = asked[4:].split(" ")[: limit or None]
        else:
            words = [f"t{n}" for n in range(limit or _TOKENS)]
        if fault.huge_bytes:
            words = ["x" * fault.huge_bytes for _ in words]
        self.words = [word if n == 0 else f" {word}" for n, word in enumerate(words)]
        self.cut = bool(limit) and len(self.words) == limit
        self.tokens = len(self.words) or 1
        messages: list[Any] = body.get("messages") or [asked]
        self.asked_tokens = sum(len(str(message).split()) for message in messages)
        self.usage_in_stream = not fault.no_usage and bool(_object(body.get("stream_options")).get("include_usage"))
        self.counts = not fault.no_usage

    @property
    def text(self) -> str:
        return "".join(self.words)


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _last_text(body: dict[str, Any]) -> str:
    asked: Any = body.get("messages") or body.get("input") or body.get("prompt") or ""
    if isinstance(asked, list):
        last = cast("list[Any]", asked)[-1]
        asked = _object(last).get("content") or ("" if isinstance(last, dict) else last)
    if isinstance(asked, list):
        return " ".join(str(_object(part).get("text", "")) for part in cast("list[Any]", asked))
    return str(asked)


def _streams(asked: Asked) -> bool:
    return bool(_object(asked.body).get("stream"))


def _has_content(chunk: dict[str, Any]) -> bool:
    if "type" in chunk:
        return chunk["type"].endswith(".delta") or chunk["type"] == "content_block_delta"
    choice = _object(next(iter(chunk.get("choices") or []), None))
    delta = _object(choice.get("delta"))
    return bool(delta.get("content") or delta.get("tool_calls") or delta.get("refusal") or choice.get("text"))


def _error(path: str, fault: Fault) -> dict[str, Any]:
    limited = fault.status == 429
    if path == "/v1/messages":
        kind = fault.kind or (
            "rate_limit_error" if limited else "overloaded_error" if fault.status == 529 else "api_error"
        )
        return {"type": "error", "error": {"type": kind, "message": "the stub refuses"}}
    kind = fault.kind or ("rate_limit_exceeded" if limited else "server_error")
    return {"error": {"message": "the stub refuses", "type": kind, "param": None, "code": kind}}


# OpenAI's wire.


def _usage(said: _Said) -> dict[str, Any]:
    total = said.asked_tokens + said.tokens
    cached = {"cached_tokens": said.asked_tokens // 2}
    return {
        "prompt_tokens": said.asked_tokens,
        "completion_tokens": said.tokens,
        "total_tokens": total,
        "prompt_tokens_details": cached,
    }


def _openai_call(said: _Said, *, index: bool) -> list[dict[str, Any]]:
    assert said.call is not None
    called = {"id": "call_1", "type": "function", "function": {"name": said.call[0], "arguments": said.call[1]}}
    return [{"index": 0, **called} if index else called]


def _finish(said: _Said) -> str:
    return "tool_calls" if said.call else "length" if said.cut else "stop"


def _chat(said: _Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None}
    if said.call:
        message |= {"content": None, "tool_calls": _openai_call(said, index=False)}
    if said.refused:
        message |= {"content": None, "refusal": "I will not."}
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": said.model,
        "choices": [{"index": 0, "message": message, "finish_reason": _finish(said), "logprobs": None}],
    }
    return {**answer, "usage": _usage(said)} if said.counts else answer


def _chat_chunks(said: _Said) -> list[dict[str, Any]]:
    head: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": said.model}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    chunks: list[dict[str, Any]] = [chunk({"role": "assistant", "content": ""})]
    if said.refused:
        chunks += [chunk({"refusal": "I will"}), chunk({"refusal": " not."})]
    elif said.call:
        whole = _openai_call(said, index=True)[0]
        name, arguments = said.call
        half = len(arguments) // 2
        chunks.append(chunk({"tool_calls": [{**whole, "function": {"name": name, "arguments": ""}}]}))
        for piece in (arguments[:half], arguments[half:]):
            chunks.append(chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}))
    else:
        chunks += [chunk({"content": word}) for word in said.words]
    chunks.append(chunk({}, _finish(said)))
    if said.usage_in_stream:
        chunks.append({**head, "choices": [], "usage": _usage(said)})
    return chunks


def _text(said: _Said) -> dict[str, Any]:
    choice = {"index": 0, "text": said.text, "finish_reason": _finish(said), "logprobs": None}
    answer = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": said.model, "choices": [choice]}
    return {**answer, "usage": _usage(said)} if said.counts else answer


def _text_chunks(said: _Said) -> list[dict[str, Any]]:
    head: dict[str, Any] = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": said.model}
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "text": word, "finish_reason": None, "logprobs": None}]}
        for word in said.words
    ]
    chunks.append({**head, "choices": [{"index": 0, "text": "", "finish_reason": _finish(said), "logprobs": None}]})
    if said.usage_in_stream:
        chunks.append({**head, "choices": [], "usage": _usage(said)})
    return chunks


def _response(said: _Said, status: str = "completed") -> dict[str, Any]:
    content: dict[str, Any] = {"type": "output_text", "text": said.text, "annotations": []}
    if said.refused:
        content = {"type": "refusal", "refusal": "I will not."}
    item: dict[str, Any] = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": status,
        "content": [content],
    }
    if said.call:
        item = {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": said.call[0],
            "arguments": said.call[1],
            "status": status,
        }
    usage = {
        "input_tokens": said.asked_tokens,
        "output_tokens": said.tokens,
        "total_tokens": said.asked_tokens + said.tokens,
        "input_tokens_details": {"cached_tokens": said.asked_tokens // 2},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": said.model,
        "status": status,
        "output": [item] if status == "completed" else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage if status == "completed" and said.counts else None,
    }


def _response_events(said: _Said) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response(said, "in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": {**_response(said)["output"][0]}},
    ]
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    if said.call:
        events.append({"type": "response.function_call_arguments.delta", **where, "delta": said.call[1]})
        events.append({"type": "response.function_call_arguments.done", **where, "arguments": said.call[1]})
    else:
        events += [{"type": "response.output_text.delta", **where, "delta": word} for word in said.words]
        events.append({"type": "response.output_text.done", **where, "text": said.text})
    events.append({"type": "response.output_item.done", "output_index": 0, "item": _response(said)["output"][0]})
    events.append({"type": "response.completed", "response": _response(said)})
    return [{**event, "sequence_number": n} for n, event in enumerate(events)]


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    texts: list[Any] = [body["input"]] if isinstance(body["input"], str) else body["input"]
    size = body.get("dimensions") or 4
    data = [
        {"object": "embedding", "index": n, "embedding": [float(len(str(text)))] + [0.5] * (size - 1)}
        for n, text in enumerate(texts)
    ]
    tokens = sum(len(str(text).split()) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": body.get("model", "stub"), "data": data, "usage": usage}


def _reranked(body: dict[str, Any]) -> dict[str, Any]:
    """The longer a document, the better."""
    scores = [(len(document), n) for n, document in enumerate(body["documents"])]
    best = sorted(scores, reverse=True)[: body.get("top_n") or None]
    results = [{"index": n, "relevance_score": size / 100} for size, n in best]
    return {"id": "rr-1", "model": body.get("model", "stub"), "results": results, "usage": {"total_tokens": 7}}


# Anthropic's wire.


def _message(said: _Said) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": said.text}]
    if said.call:
        content = [{"type": "tool_use", "id": "toolu_1", "name": said.call[0], "input": json.loads(said.call[1])}]
    if said.refused:
        content = []
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": content,
        "stop_reason": _stop_reason(said),
        "stop_sequence": None,
        "usage": _message_usage(said),
    }


def _stop_reason(said: _Said) -> str:
    return "refusal" if said.refused else "tool_use" if said.call else "max_tokens" if said.cut else "end_turn"


def _message_usage(said: _Said, output: int | None = None) -> dict[str, Any]:
    cached = said.asked_tokens // 2
    return {
        "input_tokens": said.asked_tokens - cached,
        "output_tokens": said.tokens if output is None else output,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
    }


def _message_events(said: _Said) -> list[dict[str, Any]]:
    head: dict[str, Any] = {**_message(said), "content": [], "stop_reason": None, "usage": _message_usage(said, 1)}
    block: dict[str, Any] = {"type": "text", "text": ""}
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": word} for word in said.words]
    if said.call:
        block = {"type": "tool_use", "id": "toolu_1", "name": said.call[0], "input": {}}
        half = len(said.call[1]) // 2
        pieces = (said.call[1][:half], said.call[1][half:])
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    events: list[dict[str, Any]] = [{"type": "message_start", "message": head}]
    if not said.refused:
        events.append({"type": "content_block_start", "index": 0, "content_block": block})
        events.append({"type": "ping"})
        events += [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": 0})
    stop = {"stop_reason": _stop_reason(said), "stop_sequence": None}
    events.append({"type": "message_delta", "delta": stop, "usage": {"output_tokens": said.tokens}})
    events.append({"type": "message_stop"})
    return events


_WHOLE = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _text,
    "/v1/responses": _response,
    "/v1/messages": _message,
}
_STREAMED = {
    "/v1/chat/completions": _chat_chunks,
    "/v1/completions": _text_chunks,
    "/v1/responses": _response_events,
    "/v1/messages": _message_events,
}


@asynccontextmanager
async def stub_upstream(
    fault: Fault | None = None, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Stub]:
    """The stub on a free port of this machine, until the block ends."""
    stub = Stub()
    stub.fault = fault or Fault()
    runners = Runners()
    server = HttpServer(
        stub.handle, HttpLimits(body_bytes_max=64 * 1024 * 1024), runners=runners, cancel_on_disconnect=False
    )
    listening = await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", port, ssl=tls)
    stub.port = listening.sockets[0].getsockname()[1]
    try:
        yield stub
    finally:
        listening.close()
        await server.close()
        await runners.stop()


async def _serve(port: int) -> None:
    async with stub_upstream(port=port) as stub:
        stub.keep_requests = False
        print(stub.url, flush=True)  # noqa: T201  # whoever started it waits for this line
        await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(_serve(parser.parse_args().port))
