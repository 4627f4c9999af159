"""From one line to an engine: ``openai:https://host/v1``."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import urlsplit

from seamline.kernel.clock import Clock
from seamline.models.engine import LanguageEngine
from seamline.models.errors import ModelError
from seamline.models.remote.client import EngineClient, Patience
from seamline.models.remote.openai import OpenAiEngine

_OPENAI_OWN: Final = ("api.openai.com", ".openai.azure.com")


def engine_of(
    url: str,
    *,
    key: str = "",
    model: str = "",
    patience: Patience | None = None,
    tls: ssl.SSLContext | None = None,
    clock: Clock | None = None,
) -> LanguageEngine:
    """The engine at an address, by its wire.

    Args:
        url: ``openai:https://host/v1``.
        key: a secret that the engine wants.
        model: asked for instead of what a request names.
    """
    wire, _, address = url.partition(":")
    match wire:
        case "openai":
            parts = urlsplit(address)
            if parts.path in ("", "/"):
                address = f"{address.rstrip('/')}/v1"
            headers = [(b"authorization", b"Bearer " + key.encode())] if key else []
            client = EngineClient(address, headers, patience=patience, tls=tls, clock=clock)
            own = (parts.hostname or "").endswith(_OPENAI_OWN)
            return OpenAiEngine(client, model, tokens_field="max_completion_tokens" if own else "max_tokens")
        case _:
            raise ModelError(f"{url!r} names no engine", "Begin with openai:.")
