"""Errors of a model on their way from a process of its own."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from seamline.kernel.wire.frames import ErrorBody
from seamline.mesh.outcome import FAULT_CODE, error_of
from seamline.models.serving.errors import WorkerRaised
from seamline.module.values import Fault

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ErrorBody)


def encoded_error(error: Exception | ErrorBody) -> bytes:
    """An error that a model raised; a declared fault comes as the body that it has on the mesh."""
    if isinstance(error, ErrorBody):
        return _encoder.encode(error)
    return _encoder.encode(ErrorBody("internal", f"{type(error).__name__}: {error}"))


def decoded_error(data: bytes, method: str, faults: Mapping[str, type[Fault]]) -> Exception:
    body = _decoder.decode(data)
    if body.code == FAULT_CODE:
        return error_of(body, method, faults)
    return WorkerRaised(f"{method} raised {body.message}", "The traceback stands in the log before this.")
