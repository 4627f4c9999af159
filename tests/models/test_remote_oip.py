"""Engines that take tensors: KServe's and Triton's protocol, as JSON and as bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seamline.kernel.lifetime import Runners
from seamline.kernel.wire.http1 import Exchange, HttpServer
from seamline.models.chat import ChatRequest, EmbedRequest, RerankRequest
from seamline.models.errors import EngineCannotError, EngineMalformed, EngineRefused
from seamline.models.remote.engines import engine_of
from seamline.models.remote.oip import JSON_BYTES, OipEngine
from seamline.models.wire.oip import Tensor, infer_body, read_outputs

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
_JSON = (b"content-type", b"application/json")


class TensorServer:
    """Has two models: ``echo`` gives back what it takes, ``lengths`` embeds a text by its length."""

    def __init__(self, *, binary: bool) -> None:
        self.binary = binary
        self.bodies: list[bytes] = []

    async def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        body = await request.read_all()
        match request.path.decode().split("/")[2:]:
            case []:
                extensions = ["binary_tensor_data"] if self.binary else []
                exchange.respond(
                    200, [_JSON], json.dumps({"name": "x", "version": "1", "extensions": extensions}).encode()
                )
            case ["models", "lengths"]:
                texts = {"name": "text", "datatype": "BYTES", "shape": [-1, 1]}
                rows = {"name": "vector", "datatype": "FP32", "shape": [-1, 2]}
                told = {"name": "lengths", "inputs": [texts], "outputs": [rows], "versions": ["1"]}
                exchange.respond(200, [_JSON], json.dumps(told).encode())
            case ["models", "lengths" | "echo", "ready"]:
                exchange.respond(200, [_JSON], b"{}")
            case ["models", "lengths" | "echo" as model, "infer"]:
                self.bodies.append(body)
                self._infer(exchange, model, body, request.header(JSON_BYTES))
            case _:
                exchange.respond(404, [_JSON], b'{"error": "unknown model"}')

    def _infer(self, exchange: Exchange, model: str, body: bytes, json_bytes: bytes | None) -> None:
        asked: dict[str, Any] = json.loads(body[: int(json_bytes)] if json_bytes else body)
        packed = body[int(json_bytes) :] if json_bytes else b""
        if model == "echo":
            outputs = asked["inputs"]
        else:
            count = asked["inputs"][0]["shape"][0]
            tensor = Tensor.of("FP32", [count, 2], [0.5] * count * 2)
            packed = tensor.data if json_bytes else b""
            head = {"name": "vector", "datatype": "FP32", "shape": [count, 2]}
            outputs = [
                head
                | ({"parameters": {"binary_data_size": len(packed)}} if json_bytes else {"data": [[0.5, 0.5]] * count})
            ]
        told = json.dumps({"model_name": model, "outputs": outputs}).encode()
        headers = [_JSON, *([(JSON_BYTES, b"%d" % len(told))] if json_bytes else [])]
        exchange.respond(200, headers, told + packed)


@asynccontextmanager
async def tensor_engine(*, binary: bool) -> AsyncGenerator[tuple[OipEngine, TensorServer]]:
    served, runners = TensorServer(binary=binary), Runners()
    server = HttpServer(served.handle, runners=runners)
    listening = await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", 0)
    engine = engine_of(f"oip:http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    assert isinstance(engine, OipEngine)
    try:
        yield engine, served
    finally:
        await engine.close()
        listening.close()
        await server.close()
        await runners.stop()


@pytest.mark.parametrize("binary", [True, False])
async def test_tensors_go_there_and_come_back(binary: bool):
    """As bytes where the server can, which are then no JSON; of several types in one call."""
    inputs = {
        "a": Tensor.of("FP32", [2, 2], [1.5, -2.0, 0.25, 4.0]),
        "b": Tensor.of("INT64", [3], [1, -(2**62), 3]),
        "c": Tensor.of("BOOL", [2], [True, False]),
        "d": Tensor.of_texts(["é", ""]),
    }
    async with tensor_engine(binary=binary) as (engine, served):
        assert await engine.infer(inputs, model="echo") == inputs
        assert await engine.ready("echo")
        assert not await engine.ready("other")
        with pytest.raises(EngineRefused, match="unknown model"):
            await engine.infer(inputs, model="other")
    assert (inputs["a"].data in served.bodies[0]) == binary


@pytest.mark.parametrize("binary", [True, False])
async def test_texts_are_embedded(binary: bool):
    """By a model that says that it takes texts; of anything else of a language model it says that it cannot."""
    async with tensor_engine(binary=binary) as (engine, _):
        answer = await engine.embed(EmbedRequest(texts=("a", "bb", "c"), model="lengths"))
        assert answer.vectors == ((0.5, 0.5),) * 3
        with pytest.raises(EngineCannotError):
            await engine.complete(ChatRequest(prompt="a"))
        with pytest.raises(EngineCannotError):
            await anext(engine.stream(ChatRequest(prompt="a")))
        with pytest.raises(EngineCannotError):
            await engine.rerank(RerankRequest(query="a", documents=("b",)))


def test_arrays_are_tensors():
    """Of NumPy, without loss, row by row."""
    np = pytest.importorskip("numpy", reason="the extra `models` has it")
    for kind in ("?", "u1", "<i4", "<i8", "<f2", "<f4", "<f8"):
        array = np.arange(6).reshape(2, 3).astype(kind)
        tensor = Tensor.of_array(array)
        assert (tensor.array() == array).all()
        assert tensor.values() == array.ravel().tolist()
    with pytest.raises(ValueError, match="no name"):
        Tensor.of_array(np.zeros(1, "complex64"))


NUMBERS = st.lists(st.integers(-128, 127), max_size=6)


@PATIENT
@given(NUMBERS, st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=4), st.booleans())
def test_what_is_sent_can_be_read(numbers: list[int], texts: list[str], binary: bool):
    """Both forms of the same tensors."""
    inputs = {"n": Tensor.of("INT8", [len(numbers)], numbers), "t": Tensor.of_texts(texts)}
    body, json_bytes = infer_body(inputs, binary=binary)
    sent = json.loads(body[:json_bytes])
    told = json.dumps({"outputs": sent["inputs"]}).encode()
    assert read_outputs(told + body[json_bytes:], len(told)) == inputs


@PATIENT
@given(
    st.sampled_from(["FP32", "BYTES", "INT8", "BF16", "what"]),
    st.lists(st.integers(-2, 4), max_size=3),
    st.none() | st.lists(st.integers(-3, 300) | st.text(max_size=2) | st.lists(st.integers(), max_size=2), max_size=3),
    st.none() | st.integers(-2, 9),
    st.binary(max_size=9),
)
def test_any_outputs_are_read_or_refused(kind: str, shape: list[int], data: Any, size: int | None, rest: bytes):
    """Nothing but the error of the wire comes of it."""
    output: dict[str, Any] = {"name": "a", "datatype": kind, "shape": shape, "data": data}
    if size is not None:
        output["parameters"] = {"binary_data_size": size}
    told = json.dumps({"outputs": [output]}).encode()
    with contextlib.suppress(EngineMalformed):
        read_outputs(told + rest, len(told))
