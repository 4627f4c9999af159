"""Webhooks of others become events: only signed ones, each once, and answered only when they are kept."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.events import shop as shop_module
from tests.events.shop import Process, Returned, Sold, running, shop

from seamline import Event
from seamline.events.cloudevents import BATCH, STRUCTURED, to_batch, to_headers, to_structured
from seamline.events.errors import LogFullError
from seamline.events.record import Record
from seamline.events.webhooks.ingress import Endpoint, WebhookIngress, received, webhook_ingress
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import BadValueError
from seamline.kernel.wire.signatures import read_secrets, sign
from seamline.module import Module
from seamline.module.errors import EventError
from seamline.module.values import Event as BaseEvent

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"sku": "mug", "number": 3}'
FOREIGN = Record(id="c1", source="/partner", type="com.partner.sold", data=BODY, time_ms=1000)


def only_mugs(record: Record) -> BaseEvent | None:
    sku = json.loads(record.data)["sku"]
    return Returned(sku=sku) if sku == "mug" else None


ENDPOINTS = {
    "partner": Endpoint(secret="PARTNER", event=Sold, bytes_max=2000),
    "mugs": Endpoint(secret="PARTNER", make=only_mugs),
}


class Site:
    """An application that takes in webhooks."""

    def __init__(self, process: Process, clock: ManualClock) -> None:
        self.process = process
        self.clock = clock
        self.ingress = WebhookIngress(ENDPOINTS)
        self.endpoint = "partner"

    async def post(
        self, body: bytes, headers: Mapping[str, str] | None = None, *, message_id: str = "msg_1", method: str = "POST",
        pieces: int = 1, **changes: str,
    ) -> int:  # fmt: skip
        """The status of a request that is signed, unless ``changes`` spoil it."""
        signed = sign(read_secrets(SECRET), message_id, int(self.clock.now().timestamp()), body)
        sent = {"content-type": "application/json", **signed, **(headers or {})}
        sent.update({name.replace("_", "-"): value for name, value in changes.items()})
        size = len(body) // pieces + 1
        parts = [body[at : at + size] for at in range(0, len(body) or 1, size)]
        messages = [{"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts]
        answered: list[Any] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: Any) -> None:
            answered.append(message)

        scope = {
            "type": "http", "method": method, "path": f"/hooks/{self.endpoint}", "root_path": "/hooks",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
        }  # fmt: skip
        await self.ingress(scope, receive, send)
        self.said = answered[1]["body"].decode()
        return int(answered[0]["status"])

    async def published(self) -> list[tuple[str, Any]]:
        log = self.process.runtime.logs["shop"]
        return [
            (s.record.type, json.loads(s.record.data))
            for s in await log.read(0, types=None, partitions=None, limit=100)
        ]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    clock = ManualClock()
    async with running(tmp_path, shop(), clock=clock) as process:
        site = Site(process, clock)
        await site.ingress.begin(process.events, process.databases["shop"], clock, {"PARTNER": SECRET})
        yield site


SOLD = ("Sold", {"sku": "mug", "number": 3})


async def test_a_signed_message_is_published_and_answered_without_a_body(site: Site):
    assert await site.post(BODY) == 204
    assert site.said == ""
    assert await site.published() == [SOLD]


async def test_the_same_id_again_is_answered_alike_and_published_once(site: Site):
    """Also when it is signed anew hours later, as senders do, and when both come at once."""
    assert await asyncio.gather(*(site.post(BODY) for _ in range(5))) == [204] * 5
    site.clock.advance(7200)
    assert await site.post(BODY) == 204
    assert await site.published() == [SOLD]
    assert await site.post(BODY, message_id="msg_2") == 204
    assert await site.published() == [SOLD, SOLD]


async def test_ids_are_each_endpoints_own_and_are_forgotten_after_a_week(site: Site):
    await site.post(BODY)
    site.endpoint = "mugs"
    assert await site.post(BODY) == 204
    assert await site.published() == [SOLD, ("Returned", {"sku": "mug"})]
    site.clock.advance(8 * 86_400)
    site.ingress.taken = 1000
    await site.post(BODY, message_id="msg_2")
    async with site.process.databases["shop"].read() as r:
        assert [row.message_id for row in await r.execute(select(received))] == ["msg_2"]


async def test_cloudevents_are_taken_in_every_mode(site: Site):
    modes = [
        (BODY, to_headers(FOREIGN, "x")),
        (to_structured(FOREIGN, "x"), {"content-type": STRUCTURED}),
        (to_batch([FOREIGN, FOREIGN], "x"), {"content-type": BATCH}),
    ]
    for number, (body, headers) in enumerate(modes):
        assert await site.post(body, headers, message_id=f"m{number}") == 204, site.said
    assert await site.published() == [SOLD] * 4


async def test_a_batch_is_published_whole_or_not_at_all(site: Site):
    bad = Record(id="c2", source="/partner", type="com.partner.sold", data=b'{"sku": "mug"}', time_ms=1000)
    assert await site.post(to_batch([FOREIGN, bad], "x"), {"content-type": BATCH}) == 400
    assert "$.number" in site.said
    assert await site.published() == []
    assert await site.post(to_batch([FOREIGN], "x"), {"content-type": BATCH}) == 204


async def test_what_an_endpoint_leaves_out_is_answered_and_remembered(site: Site):
    site.endpoint = "mugs"
    assert await site.post(b'{"sku": "cup"}') == 204
    assert await site.published() == []


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"webhook_signature": "v1,AAAA"}, 401),
        ({"webhook_id": "msg_9"}, 401),
        ({"webhook_timestamp": "1"}, 401),
        ({"webhook_signature": ""}, 401),
        ({"method": "GET"}, 405),
        ({"method": "PUT"}, 405),
        ({"content_length": "2001"}, 413),
    ],
)
async def test_what_is_not_signed_or_not_asked_for_is_refused(site: Site, changes: dict[str, Any], status: int):
    assert await site.post(BODY, **changes) == status
    assert SECRET.removeprefix("whsec_") not in site.said
    assert await site.published() == []


async def test_a_recorded_message_cannot_be_sent_again_later(site: Site):
    """Who recorded a message has its old signature only, which is too old after five minutes."""
    recorded = sign(read_secrets(SECRET), "msg_1", int(site.clock.now().timestamp()), BODY)
    site.clock.advance(301)
    assert await site.post(BODY, recorded) == 401


@pytest.mark.parametrize("pieces", [1, 40])
async def test_a_body_is_bounded_however_it_comes(site: Site, pieces: int):
    assert await site.post(b'{"sku": "' + b"x" * 3000 + b'", "number": 1}', pieces=pieces) == 413
    assert await site.post(b'{"sku": "' + b"x" * 1000 + b'", "number": 1}', pieces=pieces) == 204


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"{", {}, "does not fit"),
        (b'{"sku": 7, "number": 1}', {}, "$.sku"),
        (b"", {}, "does not fit"),
        (b'{"sku": "a\\u0000", "number": 1}', {}, "control characters"),
        (b"{}", {"content-type": STRUCTURED}, "no specversion"),
        (b"[{}]", {"content-type": BATCH}, "event 0 of the batch"),
        (BODY, {"ce-specversion": "0.3"}, "specversion"),
    ],
)
async def test_what_does_not_fit_is_the_senders_mistake_and_named(
    site: Site, body: bytes, headers: dict[str, str], said: str
):
    assert await site.post(body, headers) == 400
    assert said in site.said
    assert await site.published() == []


async def test_who_sends_what_could_not_be_kept_is_asked_to_send_it_again(site: Site, monkeypatch: pytest.MonkeyPatch):
    """The note of the id is undone with the event, so that the next time counts."""

    async def full(*_: object) -> None:
        raise LogFullError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(site.process.runtime.logs["shop"], "append", full)
        assert await site.post(BODY) == 503
        assert "disk" not in site.said
    assert await site.post(BODY) == 204
    assert await site.published() == [SOLD]


async def test_an_unknown_endpoint_is_not_found(site: Site):
    for name in ("", "other", "partner/more", "../partner"):
        site.endpoint = name
        assert await site.post(BODY) == 404


async def test_two_secrets_are_good_while_one_is_replaced(site: Site):
    other = "whsec_" + base64.b64encode(b"o" * 24).decode()
    process = site.process
    await site.ingress.begin(process.events, process.databases["shop"], site.clock, {"PARTNER": f"{other} {SECRET}"})
    assert await site.post(BODY) == 204
    signed = sign(read_secrets(other), "msg_3", int(site.clock.now().timestamp()), BODY)
    assert await site.post(BODY, signed) == 204


async def test_a_missing_secret_is_named_by_its_variable(site: Site):
    process = site.process
    with pytest.raises(BadValueError, match="environment PARTNER"):
        await site.ingress.begin(process.events, process.databases["shop"], site.clock, {})


def test_an_endpoint_needs_an_event_of_its_module():
    class Strange(Event):
        a: int

    Strange.__module__ = "somewhere.else"
    module = Module("shop")
    module.package = shop_module.__name__
    for endpoint in (Endpoint(secret="A"), Endpoint(secret="A", event=Strange)):
        with pytest.raises(EventError, match="names no event that the module declares"):
            webhook_ingress(module, {"partner": endpoint})
    ingress = webhook_ingress(module, {"partner": Endpoint(secret="A", event=Sold)}, at="/in")
    assert [(mount.app, mount.at) for mount in module.mounts] == [(ingress, "/in")]
    assert len(module.startups) == 1


async def test_a_lifespan_is_acknowledged(site: Site):
    messages, sent = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}], list[str]()

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await site.ingress({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
