"""The assistant at the counter, in every topology: what it says, how it comes, and what it is made of."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boutique.assistant
import msgspec
import pytest
from boutique.assistant import QUESTION_MAX, Assistant, Piece, QuestionRefused, ShopTalk, Turn
from boutique.assistant.module import Tinier, Tiny
from boutique.assistant.shelf import THINGS_MAX, things_for, told
from boutique.catalog.shelf import SHELF
from playwright.async_api import async_playwright
from tests.models import llama_oracle
from tests.models.stub_upstream import Fault, stub_upstream
from tokenizers import Tokenizer

from seamline import CallError, PermissionDenied
from seamline.models.chat import ChatRequest, Message
from seamline.models.formats.safetensors import open_safetensors
from seamline.run.application import Application
from seamline.testing.app import TopologyApp

WEIGHTS = Path(boutique.assistant.__file__).parent / "weights" / "tiny-1"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def asked(*texts: str) -> tuple[Turn, ...]:
    return tuple(Turn("assistant" if at % 2 else "shopper", text) for at, text in enumerate(texts))


async def said(app: TopologyApp, *texts: str) -> tuple[str, list[Piece]]:
    pieces = [piece async for piece in app.stub(Assistant).answer(asked(*texts))]
    return "".join(piece.text for piece in pieces), pieces


async def test_it_answers_from_the_shelf(topology_app: TopologyApp):
    """What it is told of the shelf is in its answer, which comes in pieces and ends with who made it."""
    text, pieces = await said(topology_app, "How much is the enamel kettle?")
    assert "Enamel Kettle" in text
    assert "54.50" in text
    assert len(pieces) > 4
    assert pieces[-1].model
    assert pieces[-1].tokens >= len(pieces) - 1
    again, _ = await said(topology_app, "How much is the enamel kettle?")
    assert again == text, "it takes the likeliest words, always"


async def test_a_conversation_goes_on(topology_app: TopologyApp):
    """A question that names nothing is about what the question before was about."""
    first, _ = await said(topology_app, "Do you have a bicycle bell?")
    assert "Bicycle Bell" in first
    text, _ = await said(topology_app, "Do you have a bicycle bell?", first, "What is there?")
    assert "Bicycle Bell" in text


async def test_what_is_no_question_is_refused(topology_app: TopologyApp):
    """Nothing, too much, and a conversation in which the shopper does not have the last word."""
    for turns in ((), asked(""), asked("x" * (QUESTION_MAX + 1)), asked("Hello", "Hello!")):
        with pytest.raises(QuestionRefused):
            async for _ in topology_app.stub(Assistant).answer(turns):
                pass


async def test_the_model_is_nobodys_but_the_assistants(topology_app: TopologyApp):
    """A neighbour that would like to use it for something else may not."""
    request = ChatRequest(messages=(Message(role="user", content="Hello"),))
    with pytest.raises(PermissionDenied):
        await topology_app.stub(ShopTalk, caller="ads").complete(request)


async def test_the_page_has_the_answer_without_a_script(topology_app: TopologyApp):
    """A form that asks for the page is enough; what was asked is shown as text, and nothing else."""
    page = await topology_app.http.get("/talk/?q=Tell+me+about+the+quiet+clock")
    assert page.status == 200
    assert "Quiet Clock" in page.text.split('class="assistant"')[1]
    assert re.search(r"\d+ tokens by tiny-1", page.text)
    assert "does not know much" in page.text
    marked = await topology_app.http.get("/talk/?q=%3Cb%3EHello%3C%2Fb%3E")
    assert "&lt;b&gt;Hello" in marked.text
    assert "<b>Hello" not in marked.text


async def test_the_page_gets_it_in_pieces(topology_app: TopologyApp):
    """Server-sent events: texts, then who made them; what cannot be read is refused."""
    body = msgspec.json.encode(asked("Do you have a wool throw?"))
    answer = await topology_app.http.post("/talk/answer", body=body)
    assert str(answer.header("content-type")).startswith("text/event-stream")
    events = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    kinds = [kind.removeprefix("event: ") for kind, _ in events]
    pieces = [msgspec.json.decode(data.removeprefix("data: "), type=Piece) for _, data in events]
    assert kinds == [*["piece"] * (len(kinds) - 1), "done"]
    assert "Wool Throw" in "".join(piece.text for piece in pieces)
    for wrong in (b"{", b'[{"who": "cook", "text": "x"}]', b'"' + b"x" * 40_000 + b'"'):
        refused = await topology_app.http.post("/talk/answer", body=wrong)
        assert refused.status == 400
    empty = await topology_app.http.post("/talk/answer", body=b"[]")
    assert empty.text.startswith("event: failed")


# Versions.


async def test_the_versions_differ_as_is_said_of_them():
    """On shelves that neither has seen, the larger one names the right price far more often."""
    scores: list[dict[str, float]] = []
    for cls in (Tiny, Tinier):
        model = cls()
        await model.load()
        scores.append(await model.evaluate())
        await model.unload()
    assert scores[0]["right_price"] >= scores[1]["right_price"] + 0.2
    assert scores[0]["right_thing"] >= 0.5


async def test_either_version_answers(tmp_path: Path):
    """Each call goes to one of them, by its share; from outside nothing but the name tells which."""
    with counter(tmp_path, 'weights = { "tiny-1" = 0.5, "tiny-2" = 0.5 }') as app:
        models = {(await said(app, "Hello"))[1][-1].model for _ in range(40)}
    assert models == {"tiny-1", "tiny-2"}


# Another model.

_COUNTER = """
[app]
name = "counter"
modules = ["boutique.catalog", "boutique.assistant"]

[models.ShopTalk]
"""
_POLICY = """
permit (principal == Module::"gateway", action == Action::"http", resource == Module::"assistant");
permit (principal == Module::"assistant", action == Action::"Catalog.list_products", resource == Module::"catalog");
"""


@contextmanager
def counter(folder: Path, line: str) -> Generator[TopologyApp]:
    """The assistant and the shelf, with a line of settings."""
    (folder / "policy").mkdir()
    (folder / "policy" / "counter.cedar").write_text(_POLICY)
    (folder / "seamline.toml").write_text(_COUNTER + line)
    with TopologyApp(Application.load(folder), "local", folder / "data") as app:
        yield app


async def test_a_gguf_file_speaks_instead(tmp_path: Path):
    """By one line of settings; here, the same weights in 8 bits, so that it is known what it says."""
    config = json.loads((WEIGHTS / "config.json").read_text())
    made = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    tensors = open_safetensors(WEIGHTS / "model.safetensors")
    floats = {name: tensors[name].astype("f4") for name in tensors}
    llama_oracle.write_gguf(tmp_path / "shop.gguf", config, floats, "Q8_0", made)
    with counter(tmp_path, 'engine = "gguf:shop.gguf"') as app:
        text, pieces = await said(app, "How much is the enamel kettle?")
        assert text == "The Enamel Kettle costs 54.50 euros."
        assert pieces[-1].model == "ShopTalkOfFile"


async def test_a_model_elsewhere_speaks_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where the environment names an OpenAI-compatible engine; it is told of the shelf, and its answer streams."""
    async with stub_upstream() as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{stub.url}/v1")
        with counter(tmp_path, 'engine_variable = "OPENAI_BASE_URL"') as app:
            text, pieces = await said(app, "say wool is warm")
            assert text.split() == ["wool", "is", "warm"]
            assert pieces[-1].model != "tiny-1"
            stub.next.append(Fault(status=500))
            with pytest.raises(CallError):
                await said(app, "How much is the mug?")
        assert "Stoneware Mug, 18.00 euros" in json.dumps(stub.requests[-1].body)


# What it is told.


@pytest.mark.parametrize(
    ("question", "before", "names"),
    [
        ("How much is the kettle?", "", ["Enamel Kettle"]),
        ("do you have MUGS", "", ["Stoneware Mug"]),
        ("What does it cost?", "a brass pen", ["Brass Pen"]),
        ("Do you sell pianos?", "", []),
        ("Hello", "", []),
        ("Something cheap?", "", ["Field Notebook", "Beeswax Candle", "Terracotta Pot"]),
        ("anything for the garden", "", ["Watering Can", "Terracotta Pot"]),
    ],
)
def test_it_is_told_what_the_question_is_about(question: str, before: str, names: Sequence[str]):
    """By name, by kind, by what was asked before; and nothing when nothing fits."""
    assert [each.name for each in things_for(question, before, SHELF)] == list(names)


def test_it_is_told_little():
    """However many things fit, what the model reads stays short."""
    found = things_for("kitchen table home light garden desk wear travel", "", SHELF)
    assert len(found) <= THINGS_MAX
    assert told(found).count("\n- ") == len(found)
    assert told(()).endswith("nothing that fits.")


@pytest.mark.needs_server
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.seamline(topologies=["local"])
@pytest.mark.parametrize("width", [1240, 390], ids=["wide", "phone"])
async def test_the_page_streams_into_the_conversation(topology_app: TopologyApp, width: int):
    """Asked twice without a reload; the page fits, is accessible, and the console has nothing to say."""
    from axe_playwright_python.async_playwright import Axe

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = await browser.new_page(viewport={"width": width, "height": 900}, base_url=topology_app.http.base_url)
            complaints: list[str] = []
            page.on("console", lambda message: complaints.append(message.text))
            await page.goto("/talk/")
            for question, answer in (("How much is the harbour lamp?", "89.00"), ("And the mug?", "18.00")):
                await page.fill("#question", question)
                await page.press("#question", "Enter")
                await page.locator("#count", has_text="tokens").wait_for(timeout=20_000)
                assert answer in await page.locator(".talk .assistant").last.inner_text()
            assert await page.locator(".talk li").count() == 4
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            assert complaints == []
            axe: Any = Axe()
            results = await axe.run(page)
            assert results.violations_count == 0, results.generate_report()
        finally:
            await browser.close()
