"""A model that talks, as a module's member: templates, counts, tools, answers bound to a schema."""

# what is imported needs the packages that are asked for first

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("onnxruntime", reason="the extra `models` is not installed")

from tests.models import llama_oracle as oracle

from seamline import CallError
from seamline.models.chat import AnswerSchema, ChatAnswer, ChatRequest, Message, Part, Tool, ToolCall
from seamline.models.errors import EngineRefused, EngineUnreachable
from seamline.models.formats.errors import WeightsError
from seamline.models.runtimes.chat_model import LlamaChat
from seamline.models.runtimes.opening import open_llama
from seamline.models.runtimes.prompt import rendered
from seamline.module.models import Artefacts
from seamline.run.application import Application
from seamline.testing.app import TopologyApp

ASK = ChatRequest(messages=(Message(role="user", content="how much is the kettle"),), tokens_max=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return oracle.write_folder(tmp_path_factory.mktemp("chat"), oracle.config(), oracle.weights(oracle.config()))


@pytest.fixture
async def chat(folder: Path) -> AsyncIterator[LlamaChat]:
    made = LlamaChat()
    await made.load(Artefacts(folder))
    yield made
    await made.unload()


async def test_the_stream_and_the_whole_answer_are_the_same(chat: LlamaChat):
    """Text, counts and why it ended; nothing comes after the chunk that says so."""
    answer = await chat.complete(ASK)
    chunks = [chunk async for chunk in chat.stream(ASK)]
    assert "".join(chunk.text for chunk in chunks) == answer.message.content != ""
    assert [bool(chunk.finish) for chunk in chunks] == [*[False] * (len(chunks) - 1), True]
    assert chunks[-1].finish == answer.finish == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.output_tokens == answer.usage.output_tokens == 20
    assert chunks[-1].usage.input_tokens == answer.usage.input_tokens > 10
    assert chunks[-1].usage.cached_input_tokens == answer.usage.input_tokens - 1
    assert len({chunk.id for chunk in chunks}) == 1


async def test_an_answer_is_bound_to_a_schema(chat: LlamaChat):
    """Weights drawn by lot know no JSON, and still every answer is the JSON that was asked for."""
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["question", "order"]}, "sure": {"type": "boolean"}},
    }
    bound = AnswerSchema(schema=json.dumps(schema))
    for seed in range(5):
        request = ChatRequest(messages=ASK.messages, answer_schema=bound, temperature=1.0, seed=seed, tokens_max=60)
        answer = await chat.complete(request)
        found = json.loads(answer.message.content)
        assert list(found) == ["kind", "sure"]
        assert found["kind"] in schema["properties"]["kind"]["enum"]  # type: ignore[index]
        assert answer.finish == "stop"


async def test_a_model_that_is_not_loaded_says_so(folder: Path):
    """Before it is loaded, and after it was unloaded."""
    chat = LlamaChat()
    with pytest.raises(EngineUnreachable):
        await chat.complete(ASK)
    await chat.load(Artefacts(folder))
    await chat.unload()
    with pytest.raises(EngineUnreachable):
        await chat.complete(ASK)


def test_a_folder_has_one_model(tmp_path: Path):
    """A .gguf beside nothing else is taken; of several, or none, the error says how many."""
    config = oracle.config()
    with pytest.raises(WeightsError, match=r"0 \.gguf"):
        open_llama(tmp_path)
    oracle.write_gguf(tmp_path / "one.gguf", config, oracle.weights(config), "Q8_0")
    open_llama(tmp_path).close()
    (tmp_path / "two.gguf").write_bytes((tmp_path / "one.gguf").read_bytes())
    with pytest.raises(WeightsError, match=r"2 \.gguf"):
        open_llama(tmp_path)


# In processes of its own.

_MODULE = """
from pathlib import Path

from seamline import Module
from seamline.models.runtimes.apart import Apart
from seamline.models.runtimes.chat_model import LlamaChat
from counter import Talk

module = Module("counter", provides=Talk)


@module.model(Talk, version="apart", runs_in="process", concurrency=4)
class Distant(Apart, LlamaChat):
    folder = Path(__file__).parent / "weights"
"""


async def test_it_runs_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Several stream at once; when its process is killed in the middle, streams end, and the next call is answered."""
    package = tmp_path / "counter"
    config = oracle.config(max_position_embeddings=2048)
    oracle.write_folder(package / "weights", config, oracle.weights(config))
    (package / "__init__.py").write_text("from seamline.models.chat import Chat\n\n\nclass Talk(Chat): ...\n")
    (package / "module.py").write_text(_MODULE)
    (tmp_path / "seamline.toml").write_text('[app]\nname = "talk"\nmodules = ["counter"]\n')
    patch: Any = monkeypatch
    patch.syspath_prepend(str(tmp_path))
    with TopologyApp(Application.load(tmp_path), "local", tmp_path / "data") as app:
        (contract,) = app.application.modules["counter"].provides
        talk: Any = app.stub(contract)
        whole = (await talk.complete(ASK)).message.content
        heard = await asyncio.gather(*(_heard(talk) for _ in range(4)))
        assert heard == [whole] * 4
        (worker,) = [each for each in psutil.Process().children(recursive=True) if "worker" in " ".join(each.cmdline())]
        with pytest.raises(CallError):
            # Longer than what a process may be ahead of its reader.
            async for _ in talk.stream(dataclasses.replace(ASK, tokens_max=1900)):
                worker.kill()
        assert (await talk.complete(ASK)).message.content == whole


async def _heard(talk: Any) -> str:
    return "".join([chunk.text async for chunk in talk.stream(ASK)])


# Tools.


class Says(LlamaChat):
    """Its engine says what it is told to."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def load(self, artefacts: Artefacts | None = None) -> None:
        from seamline.models.runtimes.tokens import Token

        await super().load(artefacts)
        pieces = [self.text[at : at + 3] for at in range(0, len(self.text), 3)]

        async def generate(*_: Any) -> AsyncIterator[Token]:
            for at, piece in enumerate(pieces):
                yield Token(id=at, text=piece, index=at, finish="stop" if at == len(pieces) - 1 else "")

        self._engine.generate = generate  # type: ignore[method-assign, union-attr]


async def answered(folder: Path, text: str, **request: Any) -> ChatAnswer:
    chat = Says(text)
    await chat.load(Artefacts(folder))
    asked: dict[str, Any] = {"tools": (Tool(name="find", parameters='{"type": "object"}'),), **request}
    answer = await chat.complete(ChatRequest(messages=ASK.messages, **asked))
    await chat.unload()
    return answer


async def test_calls_of_tools_are_taken_out_of_the_text(folder: Path):
    """Two at once, with the text before them; the text has no trace of the marks."""
    one = '<tool_call>\n{"name": "find", "arguments": {"q": "wool"}}\n</tool_call>'
    answer = await answered(folder, f"Let me look. {one}\n{one.replace('wool', 'mug')}")
    assert answer.finish == "tool_calls"
    assert answer.message.content == "Let me look. "
    assert answer.message.tool_calls == (
        ToolCall(id="call_0", name="find", arguments='{"q": "wool"}', index=0),
        ToolCall(id="call_1", name="find", arguments='{"q": "mug"}', index=1),
    )


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("a < b, <tool, and <tool_", {}),
        ("<tool_call>find wool</tool_call>", {}),
        ('<tool_call>{"name": "find"}</tool_call>', {"tool_choice": "none"}),
        ('<tool_call>{"name": "find"}</tool_call>', {"tools": ()}),
    ],
)
async def test_what_is_no_call_is_text(folder: Path, text: str, request_: dict[str, Any]):
    """Half a mark, a call that is no JSON, and any call where tools were not given: nothing is lost."""
    answer = await answered(folder, text, **request_)
    assert (answer.message.content, answer.finish) == (text, "stop")


# Prompts.


def test_a_template_gets_messages_tools_and_marks():
    """As Hugging Face's templates expect them."""
    template = (
        "{{ bos_token }}{% if tools %}{{ tools[0].function.name }}: "
        "{{ tools[0].function.parameters | tojson }} {% endif %}"
        "{% for m in messages %}[{{ m['role'] }}] {{ m.content }}"
        "{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.q }}{% endif %};{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    request = ChatRequest(
        messages=(
            Message(role="user", parts=(Part(text="a <b>"), Part(text=" c"))),
            Message(role="assistant", tool_calls=(ToolCall(name="find", arguments='{"q": "wool"}'),)),
        ),
        tools=(Tool(name="find", parameters='{"x": "<é>"}'),),
    )
    assert rendered(request, template, {"bos_token": "<s>"}) == (
        '<s>find: {"x": "<é>"} [user] a <b> c;[assistant] wool;>'
    )
    assert rendered(ChatRequest(prompt="Once"), template, {}) == "Once"
    assert rendered(ASK, "", {}).endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('only users speak') }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% for m in messages %}{{ m.content",
    ],
)
def test_a_template_reaches_nothing(template: str):
    """It comes with a model, from strangers: what it may not, or cannot, is a refusal."""
    with pytest.raises(EngineRefused) as refused:
        rendered(ASK, template, {})
    assert (refused.value.status, refused.value.kind) == (400, "invalid_request_error")
