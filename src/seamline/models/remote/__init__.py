"""Engines elsewhere: one client for each wire, over the kernel's own HTTP.

    engine_of("openai:https://host/v1", key=..., model=...)   a LanguageEngine (engines)
    OpenAiEngine.raw(path, body, headers) -> RawAnswer        bytes as they come, to be passed on (openai, client)
    SseParser().feed(chunk) -> [Event(type, data)]            server-sent events (sse)
    Patience(first_s=..., stall_s=...)                        how long to wait for what (client)

Every failure is an :class:`~seamline.models.errors.EngineError`. What JSON means is said in
:mod:`seamline.models.wire`; who may ask, what it costs and where else to ask is the AI gateway's.
"""
