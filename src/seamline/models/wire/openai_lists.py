"""OpenAI's wire, both sides: embeddings, reranking (as Cohere, Jina and vLLM have it) and the list of models."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from seamline.models.chat import EmbedAnswer, EmbedRequest, Ranked, RerankAnswer, RerankRequest
from seamline.models.errors import EngineMalformed
from seamline.models.wire import openai_json as of
from seamline.models.wire.openai import usage_of
from seamline.models.wire.openai_server import told_usage
from seamline.models.wire.reading import decoded, understood, unfit

_encode = msgspec.json.Encoder().encode
_vectors = msgspec.json.Decoder(of.Vectors)
_places = msgspec.json.Decoder(of.Places)
_asked_vectors = msgspec.json.Decoder(of.AskedVectors)
_asked_ranking = msgspec.json.Decoder(of.AskedRanking)
_FLOAT_BYTES: Final = 4


def embed_body(request: EmbedRequest, *, model: str = "") -> bytes:
    """The body for ``/embeddings``."""
    body: dict[str, Any] = {
        "model": model or request.model,
        "input": request.texts,
        "encoding_format": "float",
    }
    if request.dimensions:
        body["dimensions"] = request.dimensions
    if request.user:
        body["user"] = request.user
    return _encode(body)


def read_vectors(data: bytes, count: int) -> EmbedAnswer:
    """Raises EngineMalformed, also when there are not ``count`` vectors."""
    answer = decoded(_vectors, data)
    vectors: dict[int, tuple[float, ...]] = {each.index: _floats(each.embedding) for each in answer.data}
    if len(answer.data) != count or set(vectors) != set(range(count)):
        raise EngineMalformed(
            f"{len(answer.data)} vectors came for {count} texts", "One is due for each, with its index."
        )
    return EmbedAnswer(
        vectors=tuple(vectors[at] for at in range(count)), usage=usage_of(answer.usage), model=answer.model or ""
    )


def _floats(told: tuple[float, ...] | str) -> tuple[float, ...]:
    if not isinstance(told, str):
        return told
    try:
        packed = base64.b64decode(told, validate=True)
        return struct.unpack(f"<{len(packed) // _FLOAT_BYTES}f", packed)
    except (ValueError, struct.error):
        raise EngineMalformed("an embedding is neither numbers nor base64 of float32", "Is this its wire?") from None


def rerank_body(request: RerankRequest, *, model: str = "") -> bytes:
    """The body for ``/rerank``."""
    body: dict[str, Any] = {
        "model": model or request.model,
        "query": request.query,
        "documents": request.documents,
        "return_documents": False,
    }
    if request.top_n:
        body["top_n"] = request.top_n
    return _encode(body)


def read_ranking(data: bytes, count: int) -> RerankAnswer:
    """Raises EngineMalformed, also when a place is not that of one of ``count`` documents."""
    answer = decoded(_places, data)
    ranked: list[Ranked] = []
    for place in answer.results:
        score = place.score if place.relevance_score is None else place.relevance_score
        if score is None or not 0 <= place.index < count:
            raise EngineMalformed(f"{place.index!r} of {count} documents has no place", "Is this its wire?")
        ranked.append(Ranked(index=place.index, score=score))
    ranked.sort(key=lambda each: -each.score)
    return RerankAnswer(results=tuple(ranked), usage=usage_of(answer.usage), model=answer.model or "")


def asked_vectors(data: bytes) -> tuple[EmbedRequest, bool]:
    """The body of ``/embeddings``, and whether the vectors are wanted as base64. Raises WireError."""
    asked = understood(_asked_vectors, data)
    if asked.encoding_format not in (None, "float", "base64"):
        raise unfit("encoding_format", f"{asked.encoding_format!r} is no encoding", "Write float or base64.")
    request = EmbedRequest(
        texts=(asked.input,) if isinstance(asked.input, str) else tuple(asked.input),
        model=asked.model,
        dimensions=asked.dimensions or 0,
        user=asked.user or "",
    )
    return request, asked.encoding_format == "base64"


def told_vectors(answer: EmbedAnswer, *, packed: bool = False) -> bytes:
    data = [
        {"object": "embedding", "index": at, "embedding": _packed(vector) if packed else vector}
        for at, vector in enumerate(answer.vectors)
    ]
    usage = {"prompt_tokens": answer.usage.input_tokens, "total_tokens": answer.usage.input_tokens}
    return _encode({"object": "list", "model": answer.model, "data": data, "usage": usage})


def _packed(vector: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def asked_ranking(data: bytes) -> RerankRequest:
    """The body of ``/rerank``. Raises WireError."""
    asked = understood(_asked_ranking, data)
    documents = tuple(each if isinstance(each, str) else str(each.get("text", "")) for each in asked.documents)
    return RerankRequest(query=asked.query, documents=documents, model=asked.model, top_n=asked.top_n or 0)


def told_ranking(answer: RerankAnswer, *, id: str = "") -> bytes:  # noqa: A002  # the wire's name
    results = [{"index": each.index, "relevance_score": each.score} for each in answer.results]
    return _encode({"id": id, "model": answer.model, "results": results, "usage": told_usage(answer.usage)})


def told_models(names: Iterable[str], *, owner: str, created: int) -> bytes:
    """The body of ``/models``."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": owner} for name in names]
    return _encode({"object": "list", "data": data})
