"""The page on standards is true: attributes, pauses, answers and the example are the code's."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.events.test_cloudevents import PLACED

from seamline.events.cloudevents import attributes
from seamline.events.webhooks.egress import PAUSES_S
from seamline.events.webhooks.ingress import REMEMBERED_S, Endpoint
from seamline.kernel.settings import Settings, WebhookSettings
from seamline.kernel.wire.signatures import TOLERANCE_S, read_secrets, sign
from seamline.run.application import Application
from seamline.testing import TopologyApp

PAGE = (Path(__file__).parent.parent / "docs" / "events-standards.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`(?P<name>[\w./]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_attributes_are_those_of_such_an_event():
    rows = dict(re.findall(r"^\| `([a-z]+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
    assert rows == attributes(msgspec.structs.replace(PLACED, headers={"tenant": "north"}), "shop")


def test_the_pauses_and_limits_are_the_codes():
    said = re.search(r"after (5 s, .*?) and (24 h),", PAGE)
    assert said
    units = {"s": 1, "min": 60, "h": 3600}
    pauses = [each.split(" ") for each in f"{said[1]}, {said[2]}".split(", ")]
    assert tuple(int(number) * units[unit] for number, unit in pauses) == PAUSES_S
    defaults = {field.name: field.default for field in WebhookSettings.__dataclass_fields__.values()}
    assert f"in all, {defaults['attempts']} unless" in PAGE
    assert f"{Endpoint(secret='A').bytes_max:,}" in PAGE
    assert f"more than {TOLERANCE_S} s off" in PAGE
    assert REMEMBERED_S == 7 * 86_400


def test_the_settings_are_read(tmp_path: Path):
    block = re.search(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert block
    (tmp_path / "seamline.toml").write_text(f'[app]\nname = "shop"\nmodules = ["shop.orders"]\n{block[1]}')
    (webhook,) = Settings.load(tmp_path, {}).events.webhooks
    assert webhook.url == tomllib.loads(block[1])["events"]["webhooks"][0]["url"]


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TopologyApp]:
    """The application of the page, running."""
    for found in FILE.finditer(PAGE):
        file = tmp_path / found["name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found["text"], encoding="utf-8")
    (tmp_path / "seamline.toml").write_text('[app]\nname = "shop"\nmodules = ["billing"]\n')
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "app.cedar").write_text(
        'permit (principal == Module::"gateway", action == Action::"http", resource == Module::"billing");\n'
    )
    monkeypatch.setenv("BANK_WEBHOOK_SECRET", SECRET)
    monkeypatch.setattr(sys, "path", list(sys.path))
    application = Application.load(tmp_path)
    with TopologyApp(application, "local", tmp_path / "data") as app:
        yield app
    for name in [name for name in sys.modules if name.partition(".")[0] == "billing"]:
        del sys.modules[name]


async def test_the_bank_is_heard(bank: TopologyApp):
    """Through the gateway and the wiring of a real application: signed is kept, once; unsigned and malformed is not."""
    body = b'{"invoice": "i7", "cents": 1250}'

    async def post(body: bytes, message_id: str, path: str = "/hooks/bank") -> int:
        headers = sign(read_secrets(SECRET), message_id, int(bank.clock.now().timestamp()), body)
        return (await bank.http.post(path, body=body, headers={"content-type": "application/json", **headers})).status

    assert [await post(body, "m1"), await post(body, "m1")] == [204, 204]
    assert [await post(b"{}", "m2"), await post(body, "m3", "/hooks/else")] == [400, 404]
    assert (await bank.http.post("/hooks/bank", body=body)).status == 401
    assert (await bank.http.get("/hooks/bank")).status == 405
