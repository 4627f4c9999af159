"""The gateway as a program, and as what another process drains."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest
from tests.models.gateway.doors import door, says, spoken
from tests.models.stub_upstream import Fault, fault_of, stub_upstream

from seamline.kernel.settings import AiGatewaySettings, AiModelSettings, AiTargetSettings, SettingsError
from seamline.kernel.settings.ai_gateway import load_ai_gateway
from seamline.kernel.signal import here
from seamline.kernel.signal.trace import TraceContext, Tracer
from seamline.kernel.wire.http1_client import HttpPool
from seamline.models.errors import ModelError
from seamline.models.gateway.gateway import AiGateway
from seamline.module.context import current


async def test_it_runs_alone_and_ends_when_it_is_asked_to(tmp_path: Path):
    """One file of settings, one line when it is ready, both wires answered, what is under way finished."""
    async with stub_upstream(fault_of("slow_s=0.02")) as stub:
        (tmp_path / "ai.toml").write_text(
            "[ai_gateway]\nopen = true\n[[ai_gateway.models.m.targets]]\n"
            f'engine = "openai:{stub.url}/v1"\nkey_variable = "ENGINE_KEY"\n'
        )
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "seamline.models.gateway", "--config", "ai.toml", "--listen", "127.0.0.1:0"),
            cwd=tmp_path,
            env={"ENGINE_KEY": "secret-of-the-engine"},
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout is not None
        try:
            port = int(json.loads(await child.stdout.readline())["listen"].rpartition(":")[2])
            pool = HttpPool("127.0.0.1", port)
            body = json.dumps(says("one two three four", stream=True)).encode()
            answer = await pool.request("POST", "/v1/chat/completions", [(b"content-type", b"application/json")], body)
            assert b"one" in await answer.read()
            child.send_signal(signal.SIGTERM)
            assert (await answer.read_all()).endswith(b"data: [DONE]\n\n")
            await pool.close()
            assert await asyncio.wait_for(child.wait(), 20) == 0
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        assert stub.requests[0].headers["authorization"] == "Bearer secret-of-the-engine"


async def test_draining_ends_what_is_under_way_and_takes_nothing_new():
    """A stream is finished; whoever comes then finds nobody."""
    async with door(fault_of("slow_s=0.02")) as it:
        answer = await it.post(says("one two three four", stream=True))
        assert answer.status == 200
        async with asyncio.TaskGroup() as group:
            drained = group.create_task(it.gateway.drain(10))
            text = (await answer.read_all()).decode()
        assert drained.result()
        events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        assert spoken(events) == "one two three four"
        with pytest.raises(OSError, match="no connection"):
            await HttpPool("127.0.0.1", it.port).request("GET", "/health")


async def test_what_does_not_end_in_time_is_cut_off():
    """And said so."""
    async with door(Fault(hang=True)) as it:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(_fails(it.post(says("x"))))
            while not it.stubs[0].requests:  # noqa: ASYNC110  # what is waited for is the stub's
                await asyncio.sleep(0)
            assert not await it.gateway.drain(0.05)
        assert asked.result()
        await asyncio.wait_for(it.stubs[0].requests[0].over.wait(), 5)


async def _fails(asking: object) -> bool:
    try:
        await asking  # pyright: ignore[reportGeneralTypeIssues]
    except OSError:
        return True
    return False


def test_a_target_that_is_no_module_is_found_before_anything_starts():
    """With the names that there are."""
    settings = AiGatewaySettings(models={"m": AiModelSettings(targets=(AiTargetSettings(engine="module:Talk"),))})
    with pytest.raises(ModelError, match="Talk"):
        AiGateway(settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[ai_gateway]\nlisten = "8090"', "Write 127.0.0.1:8090"),
        ('[ai_gateway]\nlisten = "0.0.0.0:1"\nopen = true', "this machine only"),
        ("[ai_gateway]\nmodles = 1", "Did you mean 'models'"),
        ("[ai_gateway.models.m]\npatience_s = 1", "has no target"),
        ('[[ai_gateway.models.m.targets]]\nengine = "http://x"', "One of openai"),
        ('[[ai_gateway.models.m.targets]]\nengine = "openai:x"', "One of openai"),
        ('[[ai_gateway.models.m.targets]]\nengine = "module:a b"', "One of openai"),
        ('[[ai_gateway.models.m.targets]]\nengine = "module:A"\nable = ["fly"]', "not one of the choices"),
        ('[ai_gateway.models.m]\npatience_s = 0\n[[ai_gateway.models.m.targets]]\nengine = "module:A"', "More than 0"),
        ('[[ai_gateway.budgets]]\nname = "a"\nby = "key"', "Say tokens"),
        ('[[ai_gateway.budgets]]\nname = "a"\nby = "moon"\ntokens = 1', "not one of the choices"),
        ("[ai_gateway]\nbody_bytes_max = 3", "1024 or more"),
        ("ai_gateway = 3", "not a table"),
        ("[ai_gateway", "not TOML"),
    ],
)
def test_settings_that_are_wrong_are_said_to_be(text: str, said: str, tmp_path: Path):
    """Before any port is bound, with what to write."""
    path = tmp_path / "ai.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        load_ai_gateway(path, {})


async def test_a_call_from_outside_is_in_the_trace_of_its_caller(monkeypatch: pytest.MonkeyPatch):
    """One span by the conventions, with who asked and what it cost; the answer's id is that of the trace."""
    monkeypatch.setattr(here, "_source", current)  # as a host does
    tracer = Tracer(1.0)
    trace = TraceContext(0xABC, 0xDEF, sampled=True)
    async with door(Fault(), targets=({"output_price": 1.0},), tracer=tracer) as it:
        answer = await it.post(says("one two"), traceparent=trace.to_traceparent())
        assert await answer.read_all()
        assert answer.header(b"x-request-id") == b"%032x" % 0xABC
        spans = [span for span in tracer.take() if span.name == "chat m"]
        assert [(span.trace_id, span.parent_id) for span in spans] == [(0xABC, 0xDEF)]
        told = dict(spans[0].attributes or {})
        assert told["gen_ai.usage.output_tokens"] == 2
        assert told["seamline.cost"] == "0.000002"
        assert told["seamline.key"] == "open"
