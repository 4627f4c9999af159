"""From one line to an engine: ``openai:https://host/v1``."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import urlsplit

from seamline.kernel.clock import Clock
from seamline.kernel.wire.http1_message import Header
from seamline.models.engine import LanguageEngine
from seamline.models.errors import ModelError
from seamline.models.remote.anthropic import AnthropicEngine
from seamline.models.remote.client import EngineClient, Patience
from seamline.models.remote.oip import OipEngine
from seamline.models.remote.openai import OpenAiEngine

WIRES: Final = ("openai:", "anthropic:", "ollama:", "oip:")
_OPENAI_OWN: Final = ("api.openai.com", ".openai.azure.com")


def engine_of(
    url: str,
    *,
    key: str = "",
    model: str = "",
    patience: Patience | None = None,
    tls: ssl.SSLContext | None = None,
    connections_max: int = 256,
    answer_bytes_max: int = 32 * 1024 * 1024,
    tokens_field: str = "",
    clock: Clock | None = None,
) -> LanguageEngine:
    """The engine at an address, by its wire. Raises ModelError.

    Args:
        url: ``openai:https://host/v1``, ``anthropic:https://host``, ``ollama:http://host:11434`` (by its
            OpenAI-compatible API), or ``oip:http://host`` (the Open Inference Protocol: KServe, Triton).
        key: a secret that the engine wants.
        model: asked for instead of what a request names.
        tls: instead of the machine's trust.
        tokens_field: what OpenAI's wire calls the most tokens of an answer there, if not what the address tells.
    """
    wire, _, address = url.partition(":")
    parts = urlsplit(address)
    if wire != "oip" and parts.path in ("", "/"):
        address = f"{address.rstrip('/')}/v1"

    def client(*headers: Header) -> EngineClient:
        return EngineClient(
            address,
            headers if key else (),
            patience=patience,
            tls=tls,
            connections_max=connections_max,
            answer_bytes_max=answer_bytes_max,
            clock=clock,
        )

    bearer = (b"authorization", b"Bearer " + key.encode())
    match wire:
        case "openai" | "ollama":
            own = (parts.hostname or "").endswith(_OPENAI_OWN)
            usual = "max_completion_tokens" if own else "max_tokens"
            return OpenAiEngine(client(bearer), model, provider=wire, tokens_field=tokens_field or usual)
        case "anthropic":
            return AnthropicEngine(client((b"x-api-key", key.encode())), model)
        case "oip":
            return OipEngine(client(bearer), model)
        case _:
            raise ModelError(f"{url!r} names no engine", f"Begin with {', '.join(WIRES)}.")
