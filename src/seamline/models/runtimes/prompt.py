"""From messages to the text that a model was trained to continue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NoReturn, cast

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from seamline.models.chat import ChatRequest, Message
from seamline.models.errors import EngineRefused

CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)
"""For models that bring no template of their own."""


def rendered(request: ChatRequest, template: str, specials: Mapping[str, str]) -> str:
    """The prompt. A template comes with a model, so it is run where it can reach nothing.

    Raises:
        EngineRefused: the template does not take these messages.
    """
    if request.prompt:
        return request.prompt
    try:
        return _template(template or CHATML).render(
            messages=[_message(message) for message in request.messages],
            tools=[_tool(request, index) for index in range(len(request.tools))] or None,
            add_generation_prompt=True,
            bos_token=specials.get("bos_token", ""),
            eos_token=specials.get("eos_token", ""),
        )
    except TemplateError as error:
        refusal = EngineRefused(f"the model's template refuses the messages: {error}", "See what roles it takes.")
        refusal.status, refusal.kind = 400, "invalid_request_error"
        raise refusal from error


@lru_cache(maxsize=32)
def _template(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    cast("dict[str, Any]", environment.globals)["raise_exception"] = _refuse
    environment.filters["tojson"] = _json
    return environment.from_string(source)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _json(value: object, indent: int | None = None, **_: object) -> str:
    """Not Jinja's own, which escapes for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _message(message: Message) -> dict[str, Any]:
    text = message.content or "".join(part.text for part in message.parts)
    found: dict[str, Any] = {"role": message.role, "content": text}
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.loads(call.arguments or "{}")},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        found["tool_call_id"] = message.tool_call_id
    return found


def _tool(request: ChatRequest, index: int) -> dict[str, Any]:
    tool = request.tools[index]
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": json.loads(tool.parameters or "{}"),
    }
    return {"type": "function", "function": function}
