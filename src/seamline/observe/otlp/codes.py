"""How other protocols say what went wrong, as the codes of the Connect protocol that all of our own calls have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from seamline.observe.records import Attribute

UNKNOWN: Final = "unknown"
CODES: Final = (
    "ok", "canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists",
    "permission_denied", "resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented",
    "internal", "unavailable", "data_loss", "unauthenticated",
)  # fmt: skip
"""By the number that gRPC gives them."""
_OF_HTTP: Final = {
    400: "invalid_argument", 401: "unauthenticated", 403: "permission_denied", 404: "not_found",
    408: "deadline_exceeded", 409: "aborted", 412: "failed_precondition", 413: "resource_exhausted",
    416: "out_of_range", 429: "resource_exhausted", 499: "canceled", 501: "unimplemented",
    502: "unavailable", 503: "unavailable", 504: "deadline_exceeded",
}  # fmt: skip
_NAMED: Final = {"cancelled": "canceled", "timeout": "deadline_exceeded"}


def code_of(attributes: Mapping[str, Attribute]) -> str:
    """The code of a span that failed."""
    for key in ("rpc.grpc.status_code", "rpc.response.status_code", "rpc.connect_rpc.error_code"):
        told = attributes.get(key)
        if isinstance(told, int) and not isinstance(told, bool):
            if 0 < told < len(CODES):
                return CODES[told]
        elif isinstance(told, str) and (code := _named(told)):
            return code
    for key in ("http.response.status_code", "http.status_code", "error.type"):
        told = attributes.get(key)
        if isinstance(told, str):
            if code := _named(told):
                return code
            told = int(told) if told.isascii() and told.isdigit() and len(told) == 3 else 0
        if isinstance(told, int) and 400 <= told < 600:
            return _OF_HTTP.get(told, "internal" if told >= 500 else UNKNOWN)
    return UNKNOWN


def _named(told: str) -> str:
    word = told.lower()
    word = _NAMED.get(word, word)
    return word if word in CODES and word != "ok" else ""
