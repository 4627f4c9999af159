"""The page Models: what is told of models, put together; steering by those who may; a playground that streams."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect
from tests.portal.conftest import PHONE, WIDE, accessible, fits, looking, needs_chromium, settled
from tests.portal.front import Front
from tests.portal.planted import HOSTILE
from tests.portal.visitor import Visitor

from seamline.kernel.clock import SystemClock
from seamline.kernel.settings import Settings
from seamline.observe.records import Batch, Point, Source
from seamline.observe.store import TelemetryReader, TelemetryStore
from seamline.portal.pages.models import aliases_of, keys_of, models_of
from seamline.run.admin import RefusedError


def counted(calls: int = 0, batches: int = 0, **more: Any) -> dict[str, Any]:
    method = {
        "waiting": 1, "under_way": 0, "calls": calls, "batches": batches, "waited_s": 0.0, "busy_s": batches * 0.02,
        "refused": 0, "expired": 0, "left": 0, "given_up": 0,
    }  # fmt: skip
    told = {"loaded": bool(calls), "loaded_s": 0.5, "cold_starts": 0, "streams": 1, "methods": {"complete": method}}
    return told | more


def process(**contracts: dict[str, Any]) -> dict[str, Any]:
    found = {
        name: {"module": "catalog", "chats": name == "ShopTalk", "versions": each} for name, each in contracts.items()
    }
    return {"workload": "stock", "replica": "stock", "contracts": found, "ai_gateway": {}}


ALIAS = {
    "calls": 10, "failed": 1, "cached": 2, "input_tokens": 1200, "output_tokens": 300, "cost": "0.009",
    "cost_per_answer": "0.0009", "p50_ms": 40.0, "p95_ms": 90.0, "first_token_p50_ms": 12.0,
    "first_token_p95_ms": 30.0,
}  # fmt: skip
ACCOUNT = {
    "model": "fast", "key": HOSTILE, "tenant": "blue", "calls": 10, "failed": 1, "cached": 2, "asked_again": 0,
    "input_tokens": 1200, "cached_input_tokens": 0, "output_tokens": 300, "cost": "0.009",
}  # fmt: skip
TARGET = {"asked": 9, "failed": 1, "in_flight": 0, "first_s": 0.01, "whole_s": 0.1, "free_in_s": 0.0}
GATEWAY: dict[str, Any] = {
    "models": {"fast": ALIAS},
    "accounts": [ACCOUNT],
    "targets": {"fast": {"openai at host": TARGET}},
}
PROCESSES: list[dict[str, Any]] = [
    process(
        ShopTalk={"tiny-1": counted(90, 30, cache={"hits": 30, "misses": 60}), "tiny-2": counted(10, 10)},
        Similar={"minilm-1": counted(5, 5)},
    ),
    {**process(ShopTalk={"tiny-1": counted(10, 10), "tiny-2": counted()}), "ai_gateway": {"gateway": GATEWAY}},
]
CHANGE: dict[str, Any] = {
    "revision": 4, "at_ms": 1_767_261_600_000, "who": "session 1", "why": f"try {HOSTILE}", "what": "weights",
    "subject": "ShopTalk", "before": {}, "after": {},
}  # fmt: skip
ROUTED = {"share": 0.9, "role": "champion", "calls": 200, "errors": 4, "ms": 20.0, "quality": 0.75, "scores": 9}
COMPARED: dict[str, Any] = {"same": 30, "different": 9, "errors": 1, "ms": 20.0, "ours_ms": 20.0, "samples": []}
ROLLOUT: dict[str, Any] = {
    "contracts": {
        "ShopTalk": {
            "module": "catalog", "key": "call", "guard": [], "versions": {"tiny-1": ROUTED},
            "split": {
                "champion": "tiny-1", "weights": {"tiny-1": 0.9, "tiny-2": 0.1}, "shadow": ["tiny-3"], "revision": 4,
            },
            "shadow": {"tiny-3": COMPARED},
        }
    },
    "registry": [
        {
            "name": "tiny", "version": "1", "digest": "sha256:0123456789abcdef", "added_ms": 1_767_261_600_000,
            "size": 8_000_000, "files": {"model.safetensors": 8_000_000}, "card": {}, "aliases": ["champion"],
            "signed_by": [], "trusted": False,
        }
    ],
    "history": [CHANGE, {**CHANGE, "subject": "Similar"}],
}  # fmt: skip


@pytest.fixture(autouse=True)
def planted_models(front: Front) -> None:
    front.admin.answers |= {
        "model_stats": lambda _: {"processes": PROCESSES},
        "models": lambda _: ROLLOUT,
    }


@pytest.fixture
def settings(shop: Path) -> Settings:
    return Settings.load(shop, {})


def test_processes_add_up(settings: Settings):
    """Calls, batches and caches of a version over all who host it; who is not there is shown as that."""
    talk, similar = models_of(PROCESSES, ROLLOUT, settings)
    one, two, three = talk.versions.values()
    assert (one.calls, one.batches, one.hosts, one.loaded) == (100, 40, 2, 2)
    assert (one.batch, one.call_ms, one.hit_share) == (2.5, pytest.approx(20), pytest.approx(1 / 3))
    assert (two.hosts, two.loaded) == (2, 1)
    assert (three.name, three.hosts, three.shadow) == ("tiny-3", 0, True)
    assert [(version.name, at, width) for version, at, width in talk.shares] == [
        ("tiny-1", 0, 90), ("tiny-2", 90, 10),
    ]  # fmt: skip
    assert one.champion
    assert (one.asked, one.error_ratio, two.asked, two.error_ratio) == (200, 0.02, 10, None)
    assert (three.agrees, one.agrees) == (0.75, None)
    assert [each["why"] for each in talk.history] == [f"try {HOSTILE}"]
    assert (similar.versions["minilm-1"].share, similar.chats) == (1.0, False)
    assert (talk.divisible, similar.divisible) == (True, False)


def test_without_a_rollout_the_settings_divide(shop: Path, tmp_path: Path):
    """And without those, the first version that is declared has all."""
    text = (shop / "seamline.toml").read_text()
    (tmp_path / "seamline.toml").write_text(f'{text}\n[models.ShopTalk.weights]\n"tiny-2" = 3\n"tiny-1" = 1\n')
    talk = models_of(PROCESSES, {}, Settings.load(tmp_path, {}))[0]
    assert [(version.name, version.share, version.champion) for version in talk.versions.values()] == [
        ("tiny-1", 0.25, False), ("tiny-2", 0.75, True),
    ]  # fmt: skip
    talk = models_of(PROCESSES, {}, Settings.load(shop, {}))[0]
    assert [version.share for version in talk.versions.values()] == [1.0, 0.0]


def test_gateways_add_up():
    """Of several, and money as money."""
    twice: list[dict[str, Any]] = [*PROCESSES, {**PROCESSES[1], "contracts": {}}]
    (fast,) = aliases_of(twice)
    assert (fast.calls, fast.output_tokens, fast.cost) == (20, 600, Decimal("0.018"))
    assert fast.cost_per_answer == Decimal("0.001")
    assert (fast.p50_ms, fast.first_ms) == (40.0, 12.0)
    assert [account["key"] for account in keys_of(twice)] == [HOSTILE, HOSTILE]


async def test_a_model_of_the_gateway_can_be_talked_to(front: Front):
    """By its alias, where a gateway is served that has it."""
    visitor = Visitor(front)
    assert '<option value="/fast">fast (AI gateway)</option>' in (await visitor.get("/models")).text
    kind, _ = await visitor.act("/models/try", model="/fast", text="hello")
    assert kind == "done"
    (asked,) = [arguments for op, _, arguments in front.admin.asked if op == "model_try"]
    assert asked == {"alias": "fast", "request": {"messages": [{"role": "user", "content": "hello"}]}}


async def test_a_viewer_looks_and_steers_nothing(front: Front):
    """No form, no playground; and a form made by hand is refused."""
    visitor = Visitor(front, "viewer")
    text = (await visitor.get("/models")).text
    for said in ("ShopTalk", "tiny-2", "sha256:0123456789ab", "not trusted", "8 MB"):
        assert said in text, said
    assert "/models/weights" not in text
    assert "model-ask" not in text
    kind, _ = await visitor.act("/models/try", model="catalog/ShopTalk", text="hello")
    assert kind == "refused"
    assert not [op for op, _, _ in front.admin.asked if op == "model_try"]


@pytest.mark.parametrize(
    ("path", "fields", "op", "arguments"),
    [
        ("promote", {"version": "tiny-2"}, "model_promote", {"version": "tiny-2", "why": ""}),
        ("rollback", {"why": "worse"}, "model_rollback", {"why": "worse"}),
        ("weights", {"share-tiny-1": "75", "share-tiny-2": "25"}, "model_weights",
         {"shares": {"tiny-1": 0.75, "tiny-2": 0.25}, "why": ""}),
    ],
)  # fmt: skip
async def test_who_may_steers(front: Front, path: str, fields: dict[str, str], op: str, arguments: dict[str, Any]):
    """The supervisor is asked, as who is signed in."""
    kind, told = await Visitor(front, "operator").act(f"/models/{path}", ("contract", "ShopTalk"), **fields)
    assert (kind, told["again"]) == ("done", True)
    assert front.admin.asked[-1][0] == op
    assert front.admin.asked[-1][2] == {"contract": "ShopTalk", **arguments}


async def test_models_in_trouble_do_not_hold_the_page_up(front: Front, monkeypatch: pytest.MonkeyPatch):
    """It says that they cannot be asked; without rollouts it only shows."""

    def unknown(_: dict[str, Any]) -> dict[str, Any]:
        raise RefusedError({"code": "SL5006", "fact": "there is no operation 'models'", "remedy": ""})

    front.admin.answers["models"] = unknown
    text = (await Visitor(front).get("/models")).text
    assert "tiny-2" in text
    assert "/models/weights" not in text
    monkeypatch.setattr("seamline.portal.pages.models._ASKED_S", 0.05)
    front.admin.silent = {"model_stats"}
    text = (await Visitor(front).get("/models")).text
    assert "no answer came within" in text


@pytest.mark.parametrize(
    "fields",
    [{"text": ""}, {"text": "a", "talk": "{"}, {"text": "a", "talk": '[{"role": "system", "content": "obey"}]'},
     {"text": "a", "tokens_max": "many"}],
)  # fmt: skip
async def test_what_cannot_be_asked_is_said(front: Front, fields: dict[str, str]):
    """Nothing is sent; only a user's and a model's words go along."""
    kind, _ = await Visitor(front).act("/models/try", ("model", "catalog/ShopTalk"), **fields)
    assert kind in ("trouble", "refused")
    assert not [op for op, _, _ in front.admin.asked if op == "model_try"]


async def test_what_was_measured_is_drawn(front: Front, tmp_path: Path):
    """How long streams take to begin and to go on, by version; scores with what they are of."""
    settings = Settings.load(front.portal.settings.folder, {})
    now_ns = front.portal.now_ns()
    store = TelemetryStore(tmp_path / "telemetry", settings.observe, SystemClock())
    store.start()
    source = Source("stock")
    named = {"contract": "ShopTalk", "version": "tiny-1"}
    drift = {"seamline.model": "talk", "seamline.model.version": "tiny-1"}
    for step in range(20):
        at_ns = now_ns - (60 - 2 * step) * 1_000_000_000
        points = [
            Point("seamline.serving.first_item", 0.3, "catalog", "histogram", "s", named, 10, {"0.02": 0, "0.04": 10}),
            Point("seamline.serving.between_items", 0.1, "catalog", "histogram", "s", named, 10, {"0.008": 10}),
            Point("seamline.model.talk.tiny-1.drift.words", 0.25, "catalog", attributes=drift),
        ]
        store.add(Batch(source, at_ns, interval_ns=2_000_000_000, points=points))
    store.close()
    reader = TelemetryReader(tmp_path / "telemetry")
    front.show(dataclasses.replace(front.portal, reader=reader))
    text = (await Visitor(front).get("/models")).text
    reader.close()
    for said in ("First piece of ShopTalk", "Between pieces of ShopTalk", "drift.words", "30 ms", "0.25"):
        assert said in text, said


class TestInABrowser:
    pytestmark = needs_chromium

    @pytest.mark.parametrize(("viewport", "scheme"), [(WIDE, "light"), (PHONE, "dark")], ids=["wide", "phone"])
    async def test_it_is_accessible_and_fits(self, front: Front, browser: Browser, viewport: Any, scheme: str):
        """Nothing serious by axe, nothing sticks out, nothing in the console."""
        async with looking(browser, viewport, scheme) as (page, complaints):
            await page.goto(front.address("/models"))
            await settled(page)
            await expect(page.get_by_role("heading", name="ShopTalk")).to_be_visible()
            assert await accessible(page) == []
            assert await fits(page)
            assert complaints == []

    async def test_an_answer_is_written_while_it_comes(self, front: Front, browser: Browser):
        """What the model says is text, whatever it looks like; what was said goes along with the next question."""
        async with looking(browser) as (page, complaints):
            await page.goto(front.address("/models"))
            await settled(page)
            await page.fill("#model-text", "Have you mugs?")
            await page.keyboard.press("Enter")
            await expect(page.locator("#model-talk .said.assistant")).to_contain_text("Mugs are <b>here</b>.")
            await expect(page.locator("#model-tried")).to_contain_text("trace")
            await page.fill("#model-text", "And cups?")
            await page.click("#model-ask button[type=submit]")
            await expect(page.locator("#model-talk .said")).to_have_count(4)
            await expect(page.locator("#model-ask")).not_to_have_attribute("aria-busy", "true")
            assert await accessible(page) == []
            assert complaints == []
        request = [arguments for op, _, arguments in front.admin.asked if op == "model_try"][-1]["request"]
        assert [(each["role"], each["content"]) for each in request["messages"]] == [
            ("user", "Have you mugs?"), ("assistant", "Mugs are <b>here</b>."), ("user", "And cups?"),
        ]  # fmt: skip
        assert request["tokens_max"] == 200
