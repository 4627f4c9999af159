"""Engines that speak the Open Inference Protocol v2: KServe, Triton, MLServer and others. They take tensors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from seamline.models.chat import (
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    EmbedAnswer,
    EmbedRequest,
    RerankAnswer,
    RerankRequest,
)
from seamline.models.errors import EngineCannotError, EngineMalformed, EngineRefused
from seamline.models.remote.client import EngineClient
from seamline.models.wire.oip import Described, Tensor, infer_body, read_described, read_outputs, read_server

JSON_BYTES: Final = b"inference-header-content-length"
_BINARY: Final = "binary_tensor_data"


class OipEngine:
    """A server of models that take tensors; of what a :class:`~seamline.models.engine.LanguageEngine` does, it embeds.

    Args:
        client: to the address before ``/v2``.
        model: asked for instead of what a request names.
    """

    provider = "oip"

    def __init__(self, client: EngineClient, model: str = "") -> None:
        self._client = client
        self._model = model
        self._binary: bool | None = None
        self._described: dict[str, Described] = {}

    @property
    def name(self) -> str:
        """Where it is."""
        return self._client.name

    async def infer(
        self, inputs: Mapping[str, Tensor], *, model: str = "", outputs: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        """What the model makes of the inputs, by name. As bytes if the server can, else as JSON."""
        if self._binary is None:
            server = read_server(await self._client.ask("/v2", method="GET"))
            self._binary = _BINARY in server.extensions
        body, json_bytes = infer_body(inputs, outputs=outputs, binary=self._binary)
        headers = [(JSON_BYTES, b"%d" % json_bytes)] if self._binary else []
        path = f"{self._path(model)}/infer"
        async with await self._client.open(path, body, headers, streams=False) as answer:
            told = answer.header(JSON_BYTES)
            data = await answer.read_all(self._client.answer_bytes_max)
        return read_outputs(data, int(told) if told is not None and told.isdigit() else None)

    async def describe(self, model: str = "") -> Described:
        """What the model takes and gives."""
        path = self._path(model)
        if path not in self._described:
            self._described[path] = read_described(await self._client.ask(path, method="GET"))
        return self._described[path]

    async def ready(self, model: str = "") -> bool:
        """Whether the model answers calls now."""
        try:
            await self._client.ask(f"{self._path(model)}/ready", method="GET")
        except EngineRefused:
            return False
        return True

    async def embed(self, request: EmbedRequest) -> EmbedAnswer:
        """By a model of which the first input is texts and the first output one row of numbers for each."""
        described = await self.describe(request.model)
        if not described.inputs or described.inputs[0].datatype != "BYTES" or not described.outputs:
            raise EngineCannotError(f"{described.name!r} at {self.name} takes no texts", "Ask one that does.")
        taken, given = described.inputs[0], described.outputs[0].name
        count = len(request.texts)
        texts = Tensor.of_texts(request.texts)
        if len(taken.shape) > 1:  # a batch of rows with one text each, as Triton's models have it
            texts = Tensor(texts.datatype, (count, 1), texts.data)
        found = (await self.infer({taken.name: texts}, model=request.model, outputs=[given])).get(given)
        if found is None or not found.shape or found.shape[0] != count:
            raise EngineMalformed(f"{given!r} has not one row for each text", "Is this a model that embeds?")
        values = found.values()
        size = len(values) // count if count else 0
        rows = (values[at * size : (at + 1) * size] for at in range(count))
        return EmbedAnswer(vectors=tuple(tuple(row) for row in rows), model=described.name)

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        raise self._cannot(request)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatChunk]:
        raise self._cannot(request)
        yield ChatChunk()

    async def rerank(self, request: RerankRequest) -> RerankAnswer:
        raise self._cannot(request)

    async def close(self) -> None:
        await self._client.close()

    def _cannot(self, request: ChatRequest | RerankRequest) -> EngineCannotError:
        kind = type(request).__name__.removesuffix("Request").lower()
        return EngineCannotError(f"{self.name} takes tensors: it has no {kind}", "Ask its OpenAI-compatible address.")

    def _path(self, model: str) -> str:
        return f"/v2/models/{quote(self._model or model, safe='')}"
