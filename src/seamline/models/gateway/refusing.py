"""What a caller is told when there is no answer, in the words of the wire that it speaks."""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.kernel.wire.http1 import Header
from seamline.models.errors import (
    EngineCannotError,
    EngineError,
    EngineMalformed,
    EngineRefused,
    EngineStalled,
)
from seamline.models.gateway.errors import AiGatewayError

Wire = Literal["chat", "responses", "messages"]
"""``chat`` is all of OpenAI's wire but responses, ``messages`` is Anthropic's."""

_JSON: Final[Header] = (b"content-type", b"application/json")
_OURS_TO_MEND: Final = frozenset({401, 402, 403, 404, 407})
"""What an engine says of our key, our account or our name for its model is no fault of the caller's."""
_ANTHROPIC_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Refusal(NamedTuple):
    status: int
    kind: str
    message: str
    retry_after_s: float = 0.0

    def headers(self) -> list[Header]:
        if not self.retry_after_s:
            return [_JSON]
        seconds, milliseconds = math.ceil(self.retry_after_s), math.ceil(self.retry_after_s * 1000)
        return [_JSON, (b"retry-after", b"%d" % seconds), (b"retry-after-ms", b"%d" % milliseconds)]

    def body(self, wire: Wire) -> bytes:
        if wire == "messages":
            kind = _ANTHROPIC_KINDS.get(self.status, "api_error")
            return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": self.message}})
        kind = "invalid_request_error" if self.status < 500 and self.status not in (401, 403, 429) else self.kind
        told = {"message": self.message, "type": kind, "param": None, "code": self.kind}
        return msgspec.json.encode({"error": told})

    def event(self, wire: Wire, number: int = 0) -> bytes:
        """The last event of a stream that cannot go on. OpenAI's and Anthropic's own clients raise it as an error."""
        if wire != "responses":
            name = b"event: error\n" if wire == "messages" else b""
            return b"%bdata: %b\n\n" % (name, self.body(wire))
        told = {
            "type": "error", "code": self.kind, "message": self.message, "param": None, "sequence_number": number,
        }  # fmt: skip
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(told)


def refusal_of(error: SeamlineError) -> Refusal:
    """What ``error`` is to a caller."""
    if isinstance(error, AiGatewayError):
        return Refusal(error.status, error.kind, f"{error.fact}. {error.remedy}".strip(), error.retry_after_s)
    if isinstance(error, EngineRefused):
        return _refused(error)
    if isinstance(error, EngineCannotError):
        return Refusal(400, "unsupported", error.fact)
    if isinstance(error, EngineStalled):
        return Refusal(504, "timeout", error.fact)
    if isinstance(error, EngineMalformed):
        return Refusal(502, "bad_answer", error.fact)
    if isinstance(error, EngineError):
        return Refusal(502, "unreachable", error.fact)
    return Refusal(500, "internal", "the gateway failed")


def _refused(error: EngineRefused) -> Refusal:
    if error.status in _OURS_TO_MEND:
        return Refusal(502, "engine_refused", f"the engine does not let the gateway in ({error.status})")
    if error.status == 429:
        return Refusal(429, error.kind or "rate_limit_exceeded", error.fact, error.retry_after_s or 1.0)
    if 400 <= error.status < 500:
        return Refusal(error.status, error.kind or "invalid_request_error", error.fact)
    return Refusal(503 if error.retry_after_s else 502, error.kind or "engine_failed", error.fact, error.retry_after_s)
