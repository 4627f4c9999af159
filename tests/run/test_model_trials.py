"""A model that chats, tried by hand: its answer comes in pieces, under policy, and stops when nobody reads it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from supervised import Running, Starter, until

from seamline.kernel.errors import SeamlineError
from seamline.run.admin import AdminClient

TOML = """
[app]
name = "chatty"
modules = ["chatty.talk", "chatty.desk"]
[gateway]
listen = "127.0.0.1:0"
[ai_gateway]
listen = "127.0.0.1:0"
open = true
[[ai_gateway.models.polly.targets]]
engine = "module:ShopTalk"
"""
SOURCES = {
    "chatty/__init__.py": "",
    "chatty/talk/__init__.py": "from seamline.models.chat import Chat\n\nclass ShopTalk(Chat): ...\n",
    "chatty/talk/module.py": """
import asyncio
from chatty.talk import ShopTalk
from seamline import Module
from seamline.models.chat import ChatAnswer, ChatChunk, Message, Usage

module = Module("talk", provides=ShopTalk)

@module.model(ShopTalk, version="parrot-1", runs_in="loop")
class Parrot:
    async def complete(self, request):
        return ChatAnswer(message=Message(role="assistant", content=request.messages[-1].content))

    async def stream(self, request):
        text = request.messages[-1].content
        with open("said.txt", "a") as said:
            said.write(f"begun {text}\\n")
        try:
            for word in text.split():
                yield ChatChunk(text=word + " ")
            while text == "for ever":
                await asyncio.sleep(0.01)
                yield ChatChunk(text="and ever ")
            if text == "fail":
                raise ValueError(text)
            yield ChatChunk(finish="stop", usage=Usage(output_tokens=2), model="parrot")
        finally:
            with open("said.txt", "a") as said:
                said.write(f"ended {text}\\n")
""",
    "chatty/desk/__init__.py": "",
    "chatty/desk/module.py": 'from seamline import Module\n\nmodule = Module("desk")\n',
    "policy/desk.cedar": 'permit (principal == Module::"desk", action, resource);\n',
}
PERMIT = 'permit (principal == Module::"portal", action in Action::"ShopTalk", resource == Module::"talk");\n'


@pytest.fixture(params=["monolith", "services"])
def running(start: Starter, request: pytest.FixtureRequest) -> Running:
    write(start.folder)
    return start(topology=request.param, host_factory="").until_ready()


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Everything is permitted that these tests do."""
    starter = Starter(tmp_path_factory.mktemp("chatty"))
    write(starter.folder)
    (starter.folder / "policy" / "tries.cedar").write_text(PERMIT + PERMIT.replace('"portal"', '"gateway"'))
    running = starter(topology="services", host_factory="").until_ready()
    yield running
    running.kill()


def write(folder: Path) -> None:
    for name, text in {**SOURCES, "seamline.toml": TOML}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def permitted(running: Running) -> Running:
    (running.folder / "policy" / "portal.cedar").write_text(PERMIT)
    running.ask("policy")
    return running


def asked(text: str) -> dict[str, Any]:
    return {"module": "talk", "contract": "ShopTalk", "request": {"messages": [{"role": "user", "content": text}]}}


def tried(running: Running, text: str, **more: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    pieces: list[str] = []
    done = asyncio.run(AdminClient(running.data).ask("model_try", pieces.append, **{**asked(text), **more}))
    return [json.loads(piece) for piece in pieces], done


def said(running: Running) -> str:
    file = running.folder / "said.txt"
    return file.read_text() if file.exists() else ""


def test_an_answer_comes_in_pieces_once_policy_permits_it(running: Running):
    """Refused with the permit to add; then each piece by itself, and the trace; a failure comes after what was said."""
    pieces, done = tried(running, "hello there")
    assert pieces == []
    assert 'Module::"portal"' in done["error"]["remedy"]
    permitted(running)
    pieces, done = tried(running, "hello there")
    assert [piece["text"] for piece in pieces] == ["hello ", "there ", ""]
    assert pieces[-1]["usage"]["output_tokens"] == 2
    assert len(bytes.fromhex(done["trace_id"])) == 16
    pieces, done = tried(running, "fail")
    assert [piece["text"] for piece in pieces] == ["fail "]
    assert done["error"]["code"] == "internal"
    with pytest.raises(SeamlineError, match="has no method"):
        running.ask("model_try", **{**asked("x"), "contract": "Other"})


def test_a_model_of_the_ai_gateway_is_tried_likewise(services: Running):
    """As strangers meet it; its accounts say that it was the portal, and what is no question is said to be none."""
    pieces, done = tried(services, "hello there", alias="polly")
    assert "".join(piece["text"] for piece in pieces) == "hello there "
    assert "error" not in done
    processes = services.ask("model_stats")["processes"]
    (gateway,) = [each["ai_gateway"]["gateway"] for each in processes if "gateway" in each["ai_gateway"]]
    assert [(each["model"], each["key"], each["output_tokens"]) for each in gateway["accounts"]] == [
        ("polly", "module:portal", 2)
    ]
    assert tried(services, "x", alias="polly", request={"messages": 7})[1]["error"]["code"] == "invalid_argument"
    assert tried(services, "x", alias="polly", request=[])[1]["error"]["code"] == "invalid_argument"
    with pytest.raises(SeamlineError, match="no AI gateway that is served has a model 'other'"):
        tried(services, "x", alias="other")


def test_it_stops_when_nobody_reads_it(services: Running):
    """Whoever asked goes away: so does the model's work."""

    async def leave() -> None:
        heard = asyncio.Event()
        reading = asyncio.get_running_loop().create_task(
            AdminClient(services.data).ask("model_try", lambda _: heard.set(), **asked("for ever"))
        )
        await asyncio.wait_for(heard.wait(), 20)
        reading.cancel()

    asyncio.run(leave())
    until(lambda: "ended for ever" in said(services), "the end of it")


def test_whoever_looks_sees_how_models_do(services: Running):
    """Each process tells of its models; a viewer may look, and try nothing."""
    tried(services, "hello")
    viewer = {"as": {"name": "session 9", "role": "viewer", "peer": "portal"}}
    processes = services.ask("model_stats", **viewer)["processes"]
    (talk,) = [each["contracts"]["ShopTalk"] for each in processes if each["contracts"]]
    assert (talk["module"], talk["chats"]) == ("talk", True)
    assert talk["versions"]["parrot-1"]["loaded"] is True
    with pytest.raises(SeamlineError, match="needs the role 'operator'"):
        services.ask("model_try", **asked("hello"), **viewer)
    text = (services.data / "audit" / "supervisor.jsonl").read_text()
    assert '"contract":"ShopTalk"' in text.replace(" ", "")
    assert "hello" not in text
