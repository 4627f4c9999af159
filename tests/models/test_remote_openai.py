"""An engine that speaks OpenAI's wire: what it answers, and what becomes of each way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.conftest import free_port
from tests.models.stub_upstream import Fault, Stub, stub_upstream

from seamline.models.chat import (
    AnswerSchema,
    ChatChunk,
    ChatRequest,
    EmbedRequest,
    Message,
    RerankRequest,
    Tool,
)
from seamline.models.errors import (
    EngineCannotError,
    EngineError,
    EngineMalformed,
    EngineRefused,
    EngineStalled,
    EngineUnreachable,
)
from seamline.models.remote.client import EngineClient, Patience
from seamline.models.remote.engines import engine_of
from seamline.models.remote.openai import OpenAiEngine
from seamline.module.context import CURRENT, CallContext

SOON = Patience(connect_s=1.0, first_s=0.5, stall_s=0.3, answer_s=0.3)
"""Real time passes in these few: what hangs is another machine, and nobody moves its clock."""


@asynccontextmanager
async def engine_at_stub(patience: Patience | None = None) -> AsyncGenerator[tuple[OpenAiEngine, Stub]]:
    async with stub_upstream() as stub:
        engine = OpenAiEngine(EngineClient(f"{stub.url}/v1", patience=patience), "m")
        try:
            yield engine, stub
        finally:
            await engine.close()


def asked(text: str, **given: object) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=text),), **given)  # pyright: ignore[reportArgumentType]


async def read(engine: OpenAiEngine, request: ChatRequest) -> list[ChatChunk]:
    async with aclosing(engine.stream(request)) as chunks:
        return [chunk async for chunk in chunks]


async def test_an_answer_comes_whole():
    """Text, why it ended, what it took."""
    async with engine_at_stub() as (engine, stub):
        answer = await engine.complete(asked("say one two", tokens_max=2, temperature=0.5, stop=("x",), seed=7))
    assert answer.message.content == "one two"
    assert answer.finish == "length"
    assert answer.model == "m"
    assert answer.usage.input_tokens > answer.usage.cached_input_tokens > 0
    assert answer.usage.output_tokens == 2
    sent = stub.requests[0].body
    assert (sent["temperature"], sent["stop"], sent["seed"], sent["max_tokens"]) == (0.5, ["x"], 7, 2)


async def test_an_answer_comes_in_pieces():
    """The last piece says why it ended and what it took, although the wire tells it in two events."""
    async with engine_at_stub() as (engine, _):
        chunks = await read(engine, asked("say one two three"))
    assert "".join(chunk.text for chunk in chunks) == "one two three"
    assert [chunk.finish for chunk in chunks if chunk.finish] == ["stop"]
    last = chunks[-1]
    assert last.finish == "stop"
    assert last.usage is not None
    assert last.usage.output_tokens == 3


async def test_one_connection_serves_one_after_another():
    """Neither a whole answer nor a stream read to its end costs a connection."""
    async with engine_at_stub() as (engine, stub):
        for _ in range(3):
            await engine.complete(asked("say a"))
            await read(engine, asked("say a b"))
    assert len({request.peer for request in stub.requests}) == 1


async def test_a_tool_is_called():
    """Whole, and in pieces that add up to the same."""
    tool = Tool(name="find", parameters='{"type":"object"}')
    async with engine_at_stub() as (engine, stub):
        answer = await engine.complete(asked("please call", tools=(tool,), tool_choice="find"))
        chunks = await read(engine, asked("please call", tools=(tool,), tool_choice="find"))
    (call,) = answer.message.tool_calls
    assert (call.id, call.name, call.arguments) == ("call_1", "find", '{"query": "please call"}')
    pieces = [piece for chunk in chunks for piece in chunk.tool_calls]
    assert (pieces[0].id, pieces[0].name) == ("call_1", "find")
    assert "".join(piece.arguments for piece in pieces) == call.arguments
    assert {piece.index for piece in pieces} == {0}
    assert chunks[-1].finish == answer.finish == "tool_calls"
    assert stub.requests[0].body["tool_choice"] == {"type": "function", "function": {"name": "find"}}


async def test_an_answer_of_a_schema_is_asked_for():
    """The schema travels as JSON, not as text in it."""
    schema = AnswerSchema(schema='{"type":"object","properties":{"answer":{"type":"string"}}}')
    async with engine_at_stub() as (engine, stub):
        answer = await engine.complete(asked("hello", answer_schema=schema))
    assert answer.message.content == '{"answer": "hello"}'
    assert stub.requests[0].body["response_format"]["json_schema"]["schema"]["type"] == "object"


async def test_a_refusal_by_the_model_is_no_error():
    """It is an answer that ended with ``refusal``, whole or in pieces."""
    async with engine_at_stub() as (engine, stub):
        stub.fault = Fault(refuse=True)
        answer = await engine.complete(asked("hello"))
        chunks = await read(engine, asked("hello"))
    assert (answer.finish, answer.message.refusal) == ("refusal", "I will not.")
    assert "".join(chunk.refusal for chunk in chunks) == "I will not."


async def test_a_prompt_is_continued():
    """Without messages the older API is asked."""
    async with engine_at_stub() as (engine, stub):
        answer = await engine.complete(ChatRequest(prompt="say on and on"))
        chunks = await read(engine, ChatRequest(prompt="say on and on"))
    assert answer.message.content == "".join(chunk.text for chunk in chunks) == "on and on"
    assert {each.path for each in stub.requests} == {"/v1/completions"}


async def test_texts_are_embedded_and_documents_ordered():
    """One vector for each text, in order; the best document first."""
    async with engine_at_stub() as (engine, _):
        embedded = await engine.embed(EmbedRequest(texts=("a", "bbb"), dimensions=3))
        ranked = await engine.rerank(RerankRequest(query="q", documents=("a", "ccc", "bb"), top_n=2))
    assert embedded.vectors == ((1.0, 0.5, 0.5), (3.0, 0.5, 0.5))
    assert embedded.usage.input_tokens == 2
    assert [each.index for each in ranked.results] == [1, 2]


async def test_what_it_cannot_do_is_said_so():
    """An engine without a path for it is not unwell."""
    async with stub_upstream() as stub:
        engine = OpenAiEngine(EngineClient(f"{stub.url}/other"))
        with pytest.raises(EngineCannotError):
            await engine.rerank(RerankRequest(query="q", documents=("a",)))
        await engine.close()


async def test_a_status_becomes_a_refusal():
    """With its status, its kind in the engine's words, and when to come again."""
    async with engine_at_stub() as (engine, stub):
        stub.fault = Fault(status=429, retry_after="7", kind="insufficient_quota")
        for ask in (engine.complete(asked("a")), read(engine, asked("a"))):
            with pytest.raises(EngineRefused) as refused:
                await ask
            assert (refused.value.status, refused.value.kind) == (429, "insufficient_quota")
            assert refused.value.retry_after_s == 7
        stub.fault = Fault(status=503)
        with pytest.raises(EngineRefused) as refused:
            await engine.embed(EmbedRequest(texts=("a",)))
        assert refused.value.retry_after_s == 0
        stub.fault = Fault()
        assert (await engine.complete(asked("say fine"))).message.content == "fine"


async def test_nobody_there_is_unreachable():
    """Told at once, not when patience ends."""
    engine = OpenAiEngine(EngineClient(f"http://127.0.0.1:{free_port()}/v1"))
    with pytest.raises(EngineUnreachable):
        await engine.complete(asked("a"))
    await engine.close()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(hang=True), EngineStalled),
        (Fault(first_s=30), EngineStalled),
        (Fault(stall_after=2), EngineStalled),
        (Fault(cut_after=2), EngineUnreachable),
        (Fault(end_after=2), EngineUnreachable),
        (Fault(malformed_after=2), EngineMalformed),
        (Fault(error_after=2), EngineRefused),
        (Fault(huge_bytes=5 * 1024 * 1024), EngineMalformed),
    ],
    ids=str,
)
async def test_each_fault_of_a_stream_has_its_error(fault: Fault, error: type[EngineError]):
    """After the pieces that came before it; the next request is answered all the same."""
    async with engine_at_stub(SOON if error is EngineStalled else None) as (engine, stub):
        stub.fault = fault
        came: list[str] = []
        with pytest.raises(error):
            async with asyncio.timeout(5), aclosing(engine.stream(asked("say a b c d"))) as chunks:
                async for chunk in chunks:
                    came.append(chunk.text)  # noqa: PERF401  # what came before the error counts
        before = max(fault.stall_after, fault.cut_after, fault.end_after, fault.malformed_after, fault.error_after, 0)
        assert "".join(came) == "a b"[: 2 * before]
        stub.fault = Fault()
        assert (await engine.complete(asked("say fine"))).message.content == "fine"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(hang=True), EngineStalled),
        (Fault(slow_s=30), EngineStalled),
        (Fault(wrong_schema=True), EngineMalformed),
    ],
    ids=str,
)
async def test_each_fault_of_a_whole_answer_has_its_error(fault: Fault, error: type[EngineError]):
    """Chat, vectors and rankings alike."""
    async with engine_at_stub(SOON if error is EngineStalled else None) as (engine, stub):
        stub.fault = fault
        for ask in (
            engine.complete(asked("a")),
            engine.embed(EmbedRequest(texts=("a",))),
            engine.rerank(RerankRequest(query="q", documents=("a",))),
        ):
            async with asyncio.timeout(5):
                with pytest.raises(error):
                    await ask


async def test_an_answer_is_bounded():
    """What is larger than may be is not taken into memory."""
    async with stub_upstream(Fault(huge_bytes=300_000)) as stub:
        engine = OpenAiEngine(EngineClient(f"{stub.url}/v1", answer_bytes_max=1_000_000))
        with pytest.raises(EngineMalformed, match="larger than 1000000"):
            await engine.complete(asked("say a b c d e f g h"))
        await engine.close()


async def test_a_reader_who_leaves_stops_the_tokens():
    """Closing the stream, or cancelling who reads it, closes the connection at once."""
    async with engine_at_stub() as (engine, stub):
        stub.fault = Fault(slow_s=0.01)
        chunks = engine.stream(asked("hello", tokens_max=1000))
        async for chunk in chunks:
            if chunk.text:
                break
        await chunks.aclose()
        reader = asyncio.get_running_loop().create_task(read(engine, asked("hello", tokens_max=1000)))
        await stub.until(lambda: len(stub.requests) == 2 and stub.requests[1].tokens > 0)
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        stub.fault = Fault(hang=True)
        whole = asyncio.get_running_loop().create_task(engine.complete(asked("hello")))
        await stub.until(lambda: len(stub.requests) == 3)
        whole.cancel()
        for request in stub.requests:
            await asyncio.wait_for(request.over.wait(), 5)
            assert request.left
            assert request.tokens < 20


async def test_a_slow_reader_is_not_a_stalled_engine():
    """Time that the reader takes does not count, and what waits for them is bounded."""
    async with engine_at_stub(SOON) as (engine, stub):
        stub.fault = Fault(huge_bytes=100_000)
        count = 0
        async with aclosing(engine.stream(asked("hello", tokens_max=300))) as chunks:
            async for chunk in chunks:
                count += bool(chunk.text)
                if count == 2:
                    await asyncio.sleep(0.6)
                    assert stub.requests[0].tokens < 150
        assert count == 300


async def test_a_raw_answer_is_bytes_of_any_status():
    """Nothing is parsed on the way, and a refusal can be understood afterwards."""
    async with engine_at_stub() as (engine, stub):
        async with await engine.raw(
            "/chat/completions", b'{"model":"x!slow_s=0","messages":[],"stream":true}'
        ) as answer:
            assert answer.status == 200
            body = b"".join([chunk async for chunk in answer.chunks])
        assert body.startswith(b'data: {"id"')
        assert body.endswith(b"data: [DONE]\n\n")
        stub.fault = Fault(status=429, retry_after="2")
        refused = await engine.refused(await engine.raw("/chat/completions", b"{}", [(b"x-more", b"1")]))
        assert (refused.status, refused.retry_after_s) == (429, 2)
        assert stub.requests[-1].headers["x-more"] == "1"


async def test_a_raw_answer_that_stalls_ends():
    """Bytes that never come are not waited for; those that came are handed on first."""
    async with engine_at_stub(SOON) as (engine, stub):
        stub.fault = Fault(stall_after=1)
        async with await engine.raw("/chat/completions", b'{"messages":[],"stream":true}') as answer:
            got = b""
            with pytest.raises(EngineStalled):
                async for chunk in answer.chunks:
                    got += chunk
        assert b"t0" in got


async def test_an_engine_is_reached_over_tls(tmp_path: Path):
    """With whose certificate nobody vouches it is not; with trust in it, it is."""
    certificate, key = self_signed(tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    async with stub_upstream(tls=serving) as stub:
        address = f"openai:https://localhost:{stub.port}"
        stranger = engine_of(address, key="k")
        with pytest.raises(EngineUnreachable, match="certificate"):
            await stranger.complete(asked("say hello"))
        await stranger.close()
        friend = engine_of(address, key="k", tls=ssl.create_default_context(cafile=certificate))
        assert (await friend.complete(asked("say hello"))).message.content == "hello"
        await friend.close()
    assert [request.headers["authorization"] for request in stub.requests] == ["Bearer k"]


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


async def test_a_deadline_of_the_call_at_work_holds():
    """Sooner than any patience."""
    async with engine_at_stub() as (engine, stub):
        stub.fault = Fault(hang=True)
        loop = asyncio.get_running_loop()
        token = CURRENT.set(CallContext("shop", "gateway", deadline=loop.time() + 0.2))
        try:
            async with asyncio.timeout(5):
                for ask in (engine.complete(asked("a")), read(engine, asked("a"))):
                    with pytest.raises(EngineStalled):
                        await ask
                stub.fault = Fault(stall_after=1)
                CURRENT.set(CallContext("shop", "gateway", deadline=loop.time() + 0.4))
                with pytest.raises(EngineStalled):
                    await read(engine, asked("say a b"))
        finally:
            CURRENT.reset(token)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", EngineUnreachable),
        (b"SSH-2.0-OpenSSH_9.6\r\n", EngineUnreachable),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", EngineUnreachable),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", EngineUnreachable),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 200_000, EngineUnreachable),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", EngineUnreachable),
        (b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n", EngineRefused),
        (b"HTTP/1.1 204 No Content\r\n\r\n", EngineUnreachable),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 5\r\n\r\n<htm", EngineRefused),
    ],
)
async def test_what_is_no_engine_has_an_error_as_well(answer: bytes, error: type[EngineError]):
    """Whatever stands at the address; nobody is sent on to another one with the key."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    engine = OpenAiEngine(EngineClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"))
    async with asyncio.timeout(10):
        with pytest.raises(error):
            await read(engine, asked("hello"))
        with pytest.raises(EngineError):
            await engine.complete(asked("hello"))
    await engine.close()
    server.close()
