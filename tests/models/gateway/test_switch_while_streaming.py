"""Answers stream on while the topology changes under them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

APP = Path(__file__).parents[1] / "talk_app"
TOPOLOGIES = ("services", "monolith", "services", "monolith")


def seamline(*words: str, data: Path) -> str:
    command = [sys.executable, "-m", "seamline.cli", *words, "--app", str(APP), "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Where the AI gateway listens, and the data of the application."""
    monkeypatch.setenv("SEAMLINE_AI_GATEWAY_LISTEN", "127.0.0.1:0")
    data = tmp_path / "data"
    seamline("up", "-d", "--port", "0", data=data)
    try:
        yield json.loads(seamline("status", "--json", data=data))["ai_url"], data
    finally:
        with contextlib.suppress(AssertionError):
            seamline("down", data=data)


async def heard(client: openai.AsyncOpenAI, question: str) -> str:
    pieces = [
        piece.choices[0].delta.content or ""
        async for piece in await client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": question}], stream=True
        )
        if piece.choices
    ]
    return "".join(pieces)


async def test_no_stream_breaks_off_while_the_topology_is_switched(running: tuple[str, Path]):
    """Short answers one after the other, and long ones that began before a switch: each is whole, none asked twice."""
    url, data = running
    over = asyncio.Event()
    answers = 0

    async def ask_on(client: openai.AsyncOpenAI, question: str, answer: str) -> None:
        nonlocal answers
        while not over.is_set():
            assert await heard(client, question) == answer
            answers += 1

    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client, asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(ask_on(client, "count to 9", "one two three four five six seven eight nine"))
        group.create_task(ask_on(client, "slowly", "and on " * 150))
        for topology in TOPOLOGIES:
            await asyncio.to_thread(seamline, "topology", "switch", topology, data=data)
        over.set()
    assert answers > 4 * len(TOPOLOGIES)
