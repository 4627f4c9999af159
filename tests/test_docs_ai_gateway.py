"""What the page on the AI gateway says of its wires, its targets and of engines that fail is the code's."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.models.gateway.doors import door, says
from tests.models.stub_upstream import Fault, fault_of
from tests.pages import read_page

from seamline.kernel.settings.ai_gateway import AiTargetSettings, load_ai_gateway
from seamline.models.chat import ChatRequest
from seamline.models.gateway import __main__ as alone
from seamline.models.gateway import race, targets
from seamline.models.gateway.pipeline import LanguageModels
from seamline.models.gateway.server import ROUTES
from seamline.models.runtimes.scripted import Rule, Scripted

PAGE = read_page("ai-gateway.md").partition("## Keys and budgets")[0]
SAID = re.sub(r"\s+", " ", PAGE)
BEFORE: dict[str, tuple[str, int]] = {
    "cannot be reached": ("cut_after=0", 200),
    "refuses with 429": ("status=429", 200),
    "answers 5xx": ("status=500", 200),
    "refuses our own key": ("status=401", 200),
    "finds the question too long": ("status=400,kind=context_length_exceeded", 200),
    "finds a fault": ("status=422", 422),
    "hangs": ("hang=1", 200),
}


def test_the_paths_of_the_page_are_the_codes():
    """No other is served."""
    assert set(re.findall(r"^\| `(/v1/[\w/]+)` \|", PAGE, re.MULTILINE)) == {path.decode() for path in ROUTES}


def test_the_settings_of_the_page_are_read(tmp_path: Path):
    """As they stand there."""
    example = re.search(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert example
    (tmp_path / "ai.toml").write_text(example[1])
    found = load_ai_gateway(tmp_path / "ai.toml", {}).models
    assert [each.engine.partition(":")[0] for model in found.values() for each in model.targets] == [
        "openai", "anthropic", "module",
    ]  # fmt: skip


def test_the_numbers_of_the_page_are_the_codes():
    """Of circuits, patience and stopping."""
    breaker = targets.Target("t", "t", Scripted(), _any(), targets.price_of(_any()))._breaker
    assert (breaker._error_ratio, breaker._calls_min, breaker._slice_s * breaker.SLICES) == (0.5, 5, 10)
    assert "half of at least 5 calls in ten seconds failed" in SAID
    assert f"left alone for {targets.OPEN_S:g} s" in SAID
    assert f"its last {targets._REMEMBERED} answers" in SAID
    assert race._IMPATIENT == 0.2
    assert "after a fifth of the patience" in SAID
    assert f"for at most {alone._DRAIN_S:g} s" in SAID


def test_each_row_of_the_page_is_tried():
    """None is left out, none is made up."""
    rows = re.findall(r"^\| ([\w ]+)[,(|].*\|$", PAGE.partition("| it | before")[2], re.MULTILINE)
    assert len(rows) == len(BEFORE)
    assert all(any(row.strip().startswith(each) for each in BEFORE) for row in rows), rows


@pytest.mark.parametrize("row", BEFORE)
async def test_what_the_page_says_of_an_engine_that_fails_is_so(row: str):
    """Before the answer has begun: another is asked, or the caller hears it."""
    fault, expected = BEFORE[row]
    stream = row == "cannot be reached"
    async with door(fault_of(fault), Fault(), model={"patience_s": 0.05}) as it:
        answer = await it.post(says("yes", stream=stream))
        assert answer.status == expected
        await answer.read_all()
        assert bool(it.stubs[1].requests) == (expected == 200)


async def test_the_module_of_the_page_gets_its_answer():
    """With the gateway's own models behind it."""
    example = re.search(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert example
    names: dict[str, Any] = {}
    exec(example[1], names)  # our own page
    engines = {"Talk": Scripted([Rule(pattern="One word for: fog", answer="weather")])}
    async with door(more=(_any(),), models_of_app=engines) as it:
        inside = it.gateway.inside("labels")

        class Renamed(LanguageModels):
            async def complete(self, request: ChatRequest) -> Any:
                assert request.model == "fast"
                return await inside.complete(ChatRequest(model="m", messages=request.messages))

        assert await names["Labels"](Renamed(it.gateway._pipeline)).of("fog") == "weather"
        assert it.gateway.stats()["accounts"][0]["key"] == "module:labels"


def _any() -> AiTargetSettings:
    return AiTargetSettings(engine="module:Talk")
