"""A model that chats, tried by hand: its answer comes in pieces, under policy, and stops when nobody reads it."""

from __future__ import annotations

import asyncio
import json
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


SERVICES = pytest.mark.parametrize("running", ["services"], indirect=True)


@pytest.fixture(params=["monolith", "services"])
def running(start: Starter, request: pytest.FixtureRequest) -> Running:
    for name, text in {**SOURCES, "seamline.toml": TOML}.items():
        path = start.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return start(topology=request.param, host_factory="").until_ready()


def permitted(running: Running) -> Running:
    (running.folder / "policy" / "portal.cedar").write_text(PERMIT)
    running.ask("policy")
    return running


def asked(text: str) -> dict[str, Any]:
    return {"module": "talk", "contract": "ShopTalk", "request": {"messages": [{"role": "user", "content": text}]}}


def tried(running: Running, text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    pieces: list[str] = []
    done = asyncio.run(AdminClient(running.data).ask("model_try", pieces.append, **asked(text)))
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


@SERVICES
def test_it_stops_when_nobody_reads_it(running: Running):
    """Whoever asked goes away: so does the model's work."""
    permitted(running)

    async def leave() -> None:
        heard = asyncio.Event()
        reading = asyncio.get_running_loop().create_task(
            AdminClient(running.data).ask("model_try", lambda _: heard.set(), **asked("for ever"))
        )
        await asyncio.wait_for(heard.wait(), 20)
        reading.cancel()

    asyncio.run(leave())
    until(lambda: "ended for ever" in said(running), "the end of it")


@SERVICES
def test_whoever_looks_sees_how_models_do(running: Running):
    """Each process tells of its models; a viewer may look, and try nothing."""
    permitted(running)
    tried(running, "hello")
    viewer = {"as": {"name": "session 9", "role": "viewer", "peer": "portal"}}
    processes = running.ask("model_stats", **viewer)["processes"]
    (talk,) = [each["contracts"]["ShopTalk"] for each in processes if each["contracts"]]
    assert (talk["module"], talk["chats"]) == ("talk", True)
    assert talk["versions"]["parrot-1"]["loaded"] is True
    with pytest.raises(SeamlineError, match="needs the role 'operator'"):
        running.ask("model_try", **asked("hello"), **viewer)
    text = (running.data / "audit" / "supervisor.jsonl").read_text()
    assert '"contract":"ShopTalk"' in text.replace(" ", "")
    assert "hello" not in text
