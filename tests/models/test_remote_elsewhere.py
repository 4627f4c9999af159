"""A module's model that is elsewhere: called through its contract, answered by an engine."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import free_port
from tests.models.stub_upstream import Fault, stub_upstream

from seamline import Contract, DeadlineExceeded, InternalError, Module, Overloaded
from seamline.kernel.settings import ContractModelSettings
from seamline.kernel.settings.errors import BadValueError
from seamline.mesh.outcome import Refusal
from seamline.models.chat import Chat, ChatAnswer, ChatChunk, ChatRequest, Embeddings, EmbedRequest, Message
from seamline.models.errors import EngineMalformed, EngineRefused, ModelError, ModelLoadError
from seamline.models.members import members
from seamline.models.remote.client import Patience
from seamline.models.remote.elsewhere import RemoteChat, instead, model_elsewhere
from seamline.models.runtimes.chat_model import LlamaChat
from seamline.models.serving.engine import Engine
from seamline.models.serving.served import served
from seamline.module.errors import CallError, InvalidArgument, Unavailable, Unimplemented
from seamline.module.wiring import check_model
from seamline.run.application import Application
from seamline.run.host import Host

HELLO = ChatRequest(messages=(Message(role="user", content="say hello there"),))


class Talk(Chat): ...


class Places(Embeddings): ...


class Both(Chat, Embeddings): ...


class Other(Contract):
    async def ask(self) -> int: ...


class _By:
    """Calls as they come from the mesh."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __iter__(self) -> Iterator[Engine]:
        yield self._engine

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        return await self._engine.call(method, arguments, float("inf"))

    def stream(self, method: str, arguments: tuple[Any, ...]) -> AsyncGenerator[Any]:
        return self._engine.stream(method, arguments)


@asynccontextmanager
async def answering(contract: type[Any], url: str, **more: str) -> AsyncGenerator[Any]:
    model = model_elsewhere(contract, url, **more)
    check_model(model)
    engine = Engine(model, _new(model.cls))
    await engine.start()
    try:
        yield served(contract, _By(engine))
    finally:
        await engine.stop()


def _new(cls: type[Any]) -> Any:
    async def build() -> object:
        return cls()

    return build


async def test_a_contract_is_answered_by_an_engine():
    """Whole and in pieces, by the name that the model has there."""
    async with stub_upstream() as stub, answering(Both, f"openai:{stub.url}/v1", model="theirs") as both:
        answer: ChatAnswer = await both.complete(HELLO)
        async with aclosing(both.stream(HELLO)) as stream:
            chunks: list[ChatChunk] = [chunk async for chunk in stream]
        vectors = (await both.embed(EmbedRequest(texts=("abc",)))).vectors
    assert answer.message.content == "".join(chunk.text for chunk in chunks) == "hello there"
    assert vectors == ((3.0, 0.5, 0.5, 0.5),)
    assert {request.body["model"] for request in stub.requests} == {"theirs"}


def test_a_class_of_ones_own_says_where():
    """It is a model like any other."""
    module = Module("talk", provides=Talk)

    @module.model(Talk, version="remote", runs_in="loop")
    class Remote(RemoteChat):
        engine = "openai:https://host/v1"

    (model,) = module.models
    check_model(model)
    assert model.cls is Remote


async def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    """The settings name the variable; without it the model is not loaded, and says which is missing."""
    monkeypatch.setenv("THEIR_KEY", "sesame")
    async with stub_upstream() as stub, answering(Talk, f"anthropic:{stub.url}", key="THEIR_KEY") as talk:
        await talk.complete(HELLO)
    assert stub.requests[0].headers["x-api-key"] == "sesame"
    monkeypatch.delenv("THEIR_KEY")
    with pytest.raises((BadValueError, ModelLoadError), match="THEIR_KEY"):
        async with answering(Talk, f"anthropic:{stub.url}", key="THEIR_KEY"):
            pass


@pytest.mark.parametrize(
    ("fault", "heard"),
    [
        (Fault(status=429, retry_after="4"), Overloaded),
        (Fault(status=529), Overloaded),
        (Fault(status=400), InvalidArgument),
        (Fault(status=500), Unavailable),
        (Fault(cut_after=1), Unavailable),
        (Fault(first_s=30), DeadlineExceeded),
    ],
    ids=str,
)
async def test_what_an_engine_says_callers_hear_as_calls_say_it(fault: Fault, heard: type[CallError]):
    """And the AI gateway, which asks the contract, hears the engine's words again."""

    class Hasty(RemoteChat):
        patience = Patience(first_s=0.3)

    async with stub_upstream(fault) as stub:
        Hasty.engine = f"openai:{stub.url}/v1"
        engine = Engine(model_of(Hasty), _new(Hasty))
        await engine.start()
        talk: Any = served(Talk, _By(engine))
        with pytest.raises(Refusal) as refused:
            async with aclosing(talk.stream(HELLO)) as chunks:
                _ = [chunk async for chunk in chunks]
        await engine.stop()
    error = refused.value.error
    assert type(error) is heard
    assert isinstance(error, CallError)
    if isinstance(error, Overloaded):
        assert error.retry_after_s == float(fault.retry_after or 0)


def model_of(cls: type[RemoteChat]) -> Any:
    module = Module("talk", provides=Talk)
    module.model(Talk, version="remote", runs_in="loop")(cls)
    return module.models[0]


async def test_nobody_there_is_unavailable():
    """Not when it is loaded, but when it is asked."""
    async with answering(Talk, f"openai:http://127.0.0.1:{free_port()}") as talk:
        with pytest.raises(Refusal) as refused:
            await talk.complete(HELLO)
    assert isinstance(refused.value.error, Unavailable)


async def test_what_only_its_keeper_can_mend_is_no_business_of_callers():
    """A wrong key, an answer that cannot be read: logged where it happened, and internal to whoever called."""
    async with stub_upstream(Fault(status=401)) as stub, answering(Talk, f"openai:{stub.url}/v1") as talk:
        with pytest.raises(EngineRefused):
            await talk.complete(HELLO)
        stub.fault = Fault(wrong_schema=True)
        with pytest.raises(EngineMalformed):
            await talk.complete(HELLO)


async def test_what_it_cannot_do_is_unimplemented():
    """Anthropic has no embeddings."""
    async with stub_upstream() as stub, answering(Places, f"anthropic:{stub.url}") as places:
        with pytest.raises(Refusal) as refused:
            await places.embed(EmbedRequest(texts=("a",)))
    assert isinstance(refused.value.error, Unimplemented)


@pytest.mark.parametrize(
    ("error", "status"), [(InvalidArgument("no"), 400), (Overloaded("busy"), 429), (InternalError("broken"), 500)]
)
async def test_the_ai_gateway_hears_what_a_status_would_have_said(error: CallError, status: int):
    """Of a module's model as of an engine."""

    class Refusing:
        async def complete(self, request: ChatRequest) -> ChatAnswer:
            raise error

    (engine,) = members([Talk], lambda _: Refusing()).values()
    with pytest.raises(EngineRefused) as refused:
        await engine.complete(HELLO)
    assert refused.value.status == status


def test_other_contracts_are_not_for_engines():
    """Said when it is read, and where it stands."""
    with pytest.raises(ModelError, match=r"models\.Other"):
        model_elsewhere(Other, "openai:https://host/v1")


def test_an_engine_can_be_left_to_who_starts_the_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where the variable is set it goes before all; its key only where there is one; else what the settings say."""
    told = ContractModelSettings(engine_variable="OPENAI_BASE_URL", engine_key="OPENAI_API_KEY", engine_model="m")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert instead(Talk, told, tmp_path) is None
    fallback = instead(Talk, dataclasses.replace(told, engine="ollama:http://localhost:11434"), tmp_path)
    assert fallback is not None
    assert fallback.cls.engine == "ollama:http://localhost:11434"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    model = instead(Talk, dataclasses.replace(told, engine="ollama:http://localhost:11434"), tmp_path)
    assert model is not None
    check_model(model)
    assert (model.cls.engine, model.cls.engine_model) == ("openai:http://localhost:8000/v1", "m")
    assert model.cls.engine_key == ""
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    model = instead(Talk, told, tmp_path)
    assert model is not None
    assert model.cls.engine_key == "OPENAI_API_KEY"


def test_a_model_in_a_file_answers_in_place_of_the_class(tmp_path: Path):
    """Looked for in the application's folder; only where the contract chats."""
    model = instead(Talk, ContractModelSettings(engine="gguf:weights/tiny.gguf"), tmp_path)
    assert model is not None
    check_model(model)
    assert issubclass(model.cls, LlamaChat)
    assert model.cls.file == tmp_path / "weights" / "tiny.gguf"
    with pytest.raises(ModelError, match=r"models\.Places"):
        instead(Places, ContractModelSettings(engine="gguf:tiny.gguf"), tmp_path)


FILES = {
    "seamline.toml": """
[app]
name = "faraway"
modules = ["faraway.talk"]

[models.ShopTalk]
engine = "openai:{url}/v1"
engine_model = "theirs"
""",
    "faraway/__init__.py": "",
    "faraway/talk/__init__.py": """
from seamline.models.chat import Chat

class ShopTalk(Chat): ...
""",
    "faraway/talk/module.py": """
from faraway.talk import ShopTalk
from seamline import Module

module = Module("talk", provides=ShopTalk)

@module.model(ShopTalk, version="own")
class Own:
    def load(self):
        raise AssertionError("the settings name another")

    async def complete(self, request): ...

    async def stream(self, request):
        yield
""",
}


async def test_one_line_of_settings_puts_an_engine_in_the_place_of_the_modules_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Called as before; the class is not even loaded."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    async with stub_upstream() as stub:
        for name, text in FILES.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text.replace("{url}", stub.url), encoding="utf-8")
        application = Application.load(tmp_path)
        (contract,) = application.contracts
        async with Host(application) as host:
            talk: Any = host.stub(contract, "talk")
            answer = await talk.complete(HELLO)
            assert [chunk.text async for chunk in talk.stream(HELLO) if chunk.text] == ["hello", " there"]
    assert answer.message.content == "hello there"
    assert stub.requests[0].body["model"] == "theirs"
