"""The events of an application as an AsyncAPI 3.0 document: who publishes what, who handles it, and how it looks.

A module's events are one channel, whose address is its topic, with a broker as that broker has it. A message's payload
is the event's JSON Schema; its headers are those of CloudEvents in binary mode. An event that somebody publishes is a
``send`` operation, a handler a ``receive`` operation, named for the module.

https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from seamline.kernel.codec import codec
from seamline.kernel.settings import Settings
from seamline.module.values import Event

_ADDRESSES = {
    "nats": "{app}.{module}.{{partition}}",
    "redis": "{app}:events:{module}:{{partition}}",
    "kafka": "{app}.{module}",
}
"""Where a module's events are at a broker that others can read from."""
_PROTOCOLS = {"postgresql": "postgresql", "nats": "nats", "tls": "nats", "redis": "redis", "rediss": "redis"}


def asyncapi_document(
    settings: Settings, events: Mapping[type[Event], str], heard: Iterable[tuple[str, str, str]]
) -> dict[str, Any]:
    """The document of an application.

    Args:
        settings: of the application; its broker, if any, is the document's server.
        events: each event, and the module that publishes it.
        heard: who handles what, as (module, event's name, publishing module).
    """
    app = settings.app.name
    by_module: dict[str, list[type[Event]]] = {}
    for event, module in sorted(events.items(), key=lambda item: (item[1], item[0].__name__)):
        by_module.setdefault(module, []).append(event)
    server = _server(settings.events.broker)
    protocol = server["protocol"] if server is not None else ""
    schemas: dict[str, Any] = {}
    messages = {
        _message(module, event.__name__): _described(app, module, event, schemas, protocol)
        for module, own in by_module.items()
        for event in own
    }
    document: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {
            "title": app,
            "version": "1.0.0",
            "description": f"The events of the modules of {app}, as CloudEvents 1.0.",
        },
        "defaultContentType": "application/json",
        "channels": {module: _channel(app, module, own, protocol) for module, own in by_module.items()},
        "operations": _operations(by_module, heard),
        "components": {"messages": messages, "schemas": schemas},
    }
    if server is not None:
        document["servers"] = {"broker": server}
    return document


def _message(module: str, event: str) -> str:
    return f"{module}.{event}"


def _channel(app: str, module: str, events: Iterable[type[Event]], protocol: str) -> dict[str, Any]:
    address = _ADDRESSES.get(protocol, "{module}").format(app=app, module=module)
    parts = {"partition": {"description": "A number from 0; events of one key are in one."}}
    return {
        "address": address,
        **({"parameters": parts} if "{partition}" in address else {}),
        "title": f"Events of {module}",
        "messages": {
            event.__name__: {"$ref": f"#/components/messages/{_message(module, event.__name__)}"} for event in events
        },
    }


def _operations(by_module: Mapping[str, list[type[Event]]], heard: Iterable[tuple[str, str, str]]) -> dict[str, Any]:
    operations: dict[str, Any] = {}
    for module, own in by_module.items():
        operations[f"{module}.send"] = _operation("send", module, [event.__name__ for event in own])
    taken: dict[tuple[str, str], list[str]] = {}
    for hearer, event, publisher in heard:
        taken.setdefault((hearer, publisher), []).append(event)
    for (hearer, publisher), names in taken.items():
        operations[f"{hearer}.receive.{publisher}"] = _operation("receive", publisher, names)
    return operations


def _operation(action: str, channel: str, names: Iterable[str]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
    }


def _described(app: str, module: str, event: type[Event], schemas: dict[str, Any], protocol: str) -> dict[str, Any]:
    doc = (event.__doc__ or "").strip()
    summary = "" if doc.startswith(f"{event.__name__}(") else doc.partition("\n")[0]
    found: dict[str, Any] = {
        "name": f"{app}.{module}.{event.__name__}",
        "title": event.__name__,
        "contentType": "application/json",
        "headers": _headers(app, module, event, "ce_" if protocol == "kafka" else "ce-"),
        "payload": _hoisted(codec(event).schema(), _message(module, event.__name__), schemas),
    }
    return found | ({"summary": summary} if summary else {})


def _headers(app: str, module: str, event: type[Event], prefix: str) -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string"}
    time: dict[str, Any] = {"type": "string", "format": "date-time"}
    attributes: dict[str, Any] = {
        "specversion": {"const": "1.0"},
        "id": {**text, "minLength": 1},
        "source": {"const": f"/{app}/{module}"},
        "type": {"const": f"{app}.{module}.{event.__name__}"},
        "time": time,
        "dataschema": {"const": f"urn:seamline:{app}:{module}:{event.__name__}:{event.event_version}"},
        "traceparent": text,
        "expirytime": time,
        "duetime": time,
    }
    required = ["specversion", "id", "source", "type"]
    if event.event_key:
        attributes["partitionkey"] = {**text, "description": f"The field {event.event_key}: its order is kept."}
        required.append("partitionkey")
    properties = {prefix + name: schema for name, schema in attributes.items()}
    properties["content-type"] = {"const": "application/json"}
    return {"type": "object", "properties": properties, "required": [prefix + name for name in required]}


def _hoisted(schema: dict[str, Any], name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema with what it defines moved under ``components``, where several messages keep theirs apart."""
    definitions = cast("dict[str, Any]", schema.pop("$defs", {}))
    renamed = {each: re.sub(r"[^A-Za-z0-9._-]", "_", f"{name}.{each}") for each in definitions}
    for each, definition in definitions.items():
        schemas[renamed[each]] = _moved(definition, renamed)
    return _moved(schema, renamed)


def _moved(node: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(node, list):
        return [_moved(each, renamed) for each in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    schema = cast("dict[str, Any]", node)
    moved = {key: _moved(value, renamed) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        moved["$ref"] = f"#/components/schemas/{renamed[reference.removeprefix('#/$defs/')]}"
    if "propertyName" in schema:  # a discriminator, whose mapping are references that do not say so
        moved.pop("mapping", None)
    return moved


def _server(broker: str) -> dict[str, Any] | None:
    """Where the broker is; never its user or password."""
    if not broker:
        return None
    url = urlsplit(broker)
    protocol = url.scheme.partition("+")[0]
    host = url.netloc.rpartition("@")[2]
    return {"host": host or "localhost", "protocol": _PROTOCOLS.get(protocol, protocol)}
