"""What one process writes, the others that host its module hear of through the supervisor."""

from __future__ import annotations

import json

from supervised import Starter, until

TOML = """\
[app]
name = "shop"
modules = ["shop.front"]
[replicas]
front = 2
[gateway]
listen = "127.0.0.1:0"
"""
CONTRACT = """
from seamline import Event
class Said(Event, key="word"):
    word: str
    publisher: int
"""
MODULE = """
import json, os
from pathlib import Path
from seamline import Events, Module
from seamline.events import reading
from seamline.events.log import durable
from shop.front import Said

assert durable.LOOK_S and reading.FOLLOW_S
durable.LOOK_S = reading.FOLLOW_S = 3600.0  # nobody looks by himself
module = Module("front")
published = []

@module.startup
async def keep(events: Events) -> None:
    published.append(events)

@module.on(Said, outside=True)
async def hear(event: Said) -> None:
    with Path(HEARD).open("a") as file:
        file.write(json.dumps([event.word, event.publisher, os.getpid()]) + "\\n")

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    turn = scope["path"].strip("/")
    await published[0].publish_all([Said(word=f"{turn}-{n}", publisher=os.getpid()) for n in range(64)])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})
module.mount(app, at="/")
"""
POLICY = 'permit (principal == Module::"gateway", action == Action::"http", resource == Module::"front");'
TURNS = 6


def test_an_event_is_heard_in_another_process_because_the_supervisor_tells_it(start: Starter):
    """With the looking of its own that a log does every quarter of a second put off by an hour."""
    heard = start.folder / "heard.jsonl"
    heard.touch()
    sources = {"front/__init__.py": CONTRACT, "front/module.py": MODULE.replace("HEARD", repr(str(heard)))}
    for name, text in {**sources, "__init__.py": ""}.items():
        path = start.folder / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (start.folder / "policy").mkdir()
    (start.folder / "policy" / "shop.cedar").write_text(POLICY)
    (start.folder / "seamline.toml").write_text(TOML)
    running = start(topology="services", host_factory="").until_ready()
    pids = set(running.pids().values())
    assert len(pids) == 2

    def rows() -> list[tuple[str, int, int]]:
        return [tuple(json.loads(line)) for line in heard.read_text().splitlines()]

    turn = 0

    def shared() -> bool:
        """Whether both take part by now."""
        nonlocal turn
        running.get(f"/before{turn}")
        turn += 1
        return {hearer for _, _, hearer in rows()} == pids

    until(shared, "both processes to take part")
    for each in range(TURNS):
        running.get(f"/{each}")
        until(
            lambda turn=each: len({word for word, *_ in rows() if word.startswith(f"{turn}-")}) == 64, "all to be heard"
        )
    told = [word for word, publisher, hearer in rows() if publisher != hearer and not word.startswith("before")]
    assert len(told) > TURNS, "some of it was another process's to hear"
