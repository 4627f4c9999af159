"""The AsyncAPI document is valid by AsyncAPI's own schema, and says what travels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from pydantic import BaseModel

from seamline import Event
from seamline.cli.app import run
from seamline.events.asyncapi import asyncapi_document
from seamline.events.cloudevents import to_headers, to_kafka
from seamline.events.codec import encode_event
from seamline.events.record import Record
from seamline.kernel.settings import EventsSettings, Settings

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "asyncapi-3.0.0.schema.json").read_text("utf-8"))
KIOSK = Path(__file__).parents[1] / "testing" / "kiosk_app"


class Line(BaseModel):
    sku: str
    mapping: dict[str, int] = {}
    parts: list[Line] = []


class Ordered(Event, key="order"):
    """A customer ordered.

    More of it.
    """

    order: str
    lines: list[Line]


class Moved(Event, version=3):
    sku: str


EVENTS: dict[type[Event], str] = {Ordered: "orders", Moved: "stock"}
HEARD = [("mail", "Ordered", "orders"), ("stock", "Ordered", "orders"), ("mail", "Moved", "stock")]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "seamline.toml").write_text('[app]\nname = "shop"\n')
    return Settings.load(tmp_path)


def document(settings: Settings, broker: str = "") -> dict[str, Any]:
    return asyncapi_document(dataclasses.replace(settings, events=EventsSettings(broker=broker)), EVENTS, HEARD)


def resolved(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [v if k == "$ref" else r for k, v in node.items() for r in ([v] if k == "$ref" else references(v))]  # pyright: ignore[reportUnknownVariableType]
    return [r for each in node for r in references(each)] if isinstance(node, list) else []  # pyright: ignore[reportUnknownVariableType]


@pytest.mark.parametrize(
    ("broker", "address"),
    [
        ("", "orders"),
        ("nats://user:secret@broker:4222", "shop.orders.{partition}"),
        ("rediss://:secret@broker", "shop:events:orders:{partition}"),
        ("kafka://k1:9092", "shop.orders"),
        ("postgresql://u:secret@h/db", "orders"),
    ],
)
def test_the_document_is_valid_and_every_reference_leads_somewhere(settings: Settings, broker: str, address: str):
    made = document(settings, broker)
    assert made["channels"]["orders"]["address"] == address
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(made)] == []  # pyright: ignore[reportUnknownMemberType]
    assert all(resolved(made, reference) for reference in references(made))
    assert len(references(made)) > 8
    assert "secret" not in json.dumps(made)
    if broker:
        assert "@" not in made["servers"]["broker"]["host"]


def test_the_schema_that_judges_the_document_finds_faults(settings: Settings):
    made = document(settings)
    made["operations"]["orders.send"]["action"] = "publish"
    made["channels"]["orders"]["messages"]["Ordered"] = 7
    assert len(list(Draft7Validator(SCHEMA).iter_errors(made))) >= 2  # pyright: ignore[reportUnknownMemberType]


def test_who_publishes_and_who_handles_is_told(settings: Settings):
    made = document(settings)
    assert {(name, each["action"], each["channel"]["$ref"], len(each["messages"]))
            for name, each in made["operations"].items()} == {
        ("orders.send", "send", "#/channels/orders", 1),
        ("stock.send", "send", "#/channels/stock", 1),
        ("mail.receive.orders", "receive", "#/channels/orders", 1),
        ("stock.receive.orders", "receive", "#/channels/orders", 1),
        ("mail.receive.stock", "receive", "#/channels/stock", 1),
    }  # fmt: skip
    ordered = resolved(made, made["channels"]["orders"]["messages"]["Ordered"]["$ref"])
    assert (ordered["summary"], ordered["name"]) == ("A customer ordered.", "shop.orders.Ordered")
    assert "summary" not in resolved(made, made["channels"]["stock"]["messages"]["Moved"]["$ref"])


@pytest.mark.parametrize(
    "event", [Ordered(order="7", lines=[Line(sku="mug", parts=[Line(sku="cup")])]), Moved(sku="mug")]
)
def test_what_travels_is_what_the_document_says(settings: Settings, event: Event):
    """Headers and payload of a real event fit the message's schemas, and altered ones do not."""
    made = document(settings)
    name, module = type(event).__name__, EVENTS[type(event)]
    record = Record(
        id="1",
        source=module,
        type=name,
        data=encode_event(event),
        time_ms=1,
        key="7",
        version=type(event).event_version,
    )
    message = made["components"]["messages"][f"{module}.{name}"]

    def misfits(schema: Any, value: Any) -> int:
        whole = {**schema, "components": made["components"]}
        return len(list(Draft202012Validator(whole).iter_errors(value)))  # pyright: ignore[reportUnknownMemberType]

    headers, payload = to_headers(record, "shop"), json.loads(record.data)
    assert misfits(message["headers"], headers) == misfits(message["payload"], payload) == 0
    assert misfits(message["headers"], headers | {"ce-type": "other"}) == 1
    in_kafka = document(settings, "kafka://k1:9092")["components"]["messages"][f"{module}.{name}"]["headers"]
    assert misfits(in_kafka, {name: value.decode() for name, value in to_kafka(record, "shop")}) == 0
    assert misfits(in_kafka, headers) > 0
    assert misfits(message["payload"], {"lines": [{"sku": 7}]}) >= 1


def test_the_command_prints_the_document(capsys: pytest.CaptureFixture[str]):
    assert run(["contracts", "--asyncapi", "--app", str(KIOSK)]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["asyncapi"] == "3.0.0"
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(made)] == []  # pyright: ignore[reportUnknownMemberType]
