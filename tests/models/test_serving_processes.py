"""A model in processes of its own: whatever becomes of them, its host and its other callers go on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from seamline import Contract, InternalError, Module, Unavailable, Workers
from seamline.models.errors import ModelLoadError
from seamline.models.serving.engine import Engine
from seamline.models.serving.errors import PoisonError, WorkerLost, WorkerRaised
from seamline.module.errors import ServiceError
from seamline.module.models import Artefacts, ModelType
from seamline.module.wiring import check_model
from seamline.testing.app import TopologyApp
from similar.page import Page
from similar.shaky import NoSuchWord, Shaky
from similar.shaky.model import ShakyModel, Unloadable
from similar.words import Words

APP = pytest.mark.seamline(app="tests/models/shop_app", topologies=["monolith", "services"])
NEVER = float("inf")


@asynccontextmanager
async def running(cls: type[Any] = ShakyModel, count: int = 1, **more: Any) -> AsyncGenerator[Engine]:
    settings: dict[str, Any] = {"grace_s": 0.1, **more}
    workers = Workers(count=count, **settings)
    engine = Engine(ModelType(cls=cls, contract=Shaky, version="1", runs_in="process", workers=workers), _nothing)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


async def _nothing() -> object:
    raise AssertionError("no instance is made in the host")


async def ask(engine: Engine, method: str, *arguments: Any, within_s: float = 20) -> Any:
    async with asyncio.timeout(within_s):
        return await engine.call(method, arguments, NEVER)


def processes(engine: Engine) -> list[dict[str, Any]]:
    return engine.stats()["processes"]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  # another process is looked at, which tells nobody
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_answers_from_elsewhere():
    """In batches, with faults as themselves and other errors as what they say; the host has no instance."""
    async with running() as engine:
        assert await ask(engine, "pid") != os.getpid()
        answers = await asyncio.gather(*(ask(engine, "double", each) for each in (1, 7, 3)), return_exceptions=True)
        assert answers[0] == 2
        assert answers[2] == 6
        assert isinstance(answers[1], WorkerRaised)
        assert "ValueError: seven" in str(answers[1])
        with pytest.raises(NoSuchWord) as caught:
            await ask(engine, "look_up", "xyzzy")
        assert caught.value.word == "xyzzy"
        assert engine.stats()["methods"]["double"]["batches"] == 1


@pytest.mark.parametrize("how", ["kill", "segfault"])
async def test_a_call_whose_process_dies_is_made_once_more(how: str, tmp_path: Path):
    """In another process, as the method may be called again; the caller hears nothing of it."""
    async with running() as engine:
        before = await ask(engine, "pid")
        assert await ask(engine, "crash", how, 1, str(tmp_path / "crashes")) == 1
        assert await ask(engine, "pid") != before
        assert engine.stats()["restarts"] == 1


async def test_a_call_that_must_not_be_repeated_is_not(tmp_path: Path):
    """Its caller is told that the process was lost: nobody knows what it has done."""
    async with running() as engine:
        with pytest.raises(WorkerLost, match="signal SIGKILL"):
            await ask(engine, "crash_once", "kill")
        assert await ask(engine, "double", 4) == 8


async def test_a_call_that_kills_twice_is_refused(tmp_path: Path):
    """Two processes die of it, and no third, however often it comes; other calls are answered."""
    async with running() as engine:
        call = ("segfault", 1000, str(tmp_path / "crashes"))
        for _ in range(3):
            with pytest.raises(PoisonError):
                await ask(engine, "crash", *call)
        assert (tmp_path / "crashes").read_text() == "2"
        assert await ask(engine, "double", 4) == 8
        with pytest.raises(WorkerLost):
            await ask(engine, "crash_once", "kill")
        for _ in range(2):
            with pytest.raises((WorkerLost, PoisonError)):
                await ask(engine, "crash_once", "kill")
        await until(lambda: len(processes(engine)) == 1)
        assert engine.stats()["restarts"] == 4, "what is not repeated by itself is refused in the end, too"


async def test_who_was_put_together_with_poison_is_answered():
    """Each is tried for itself, and only the one that kills is refused; it costs no more than two processes."""
    async with running(count=2) as engine:
        answers = await asyncio.gather(
            *(ask(engine, "double", each) for each in (1, 2, -1, 3, 4, 5)), return_exceptions=True
        )
        assert isinstance(answers.pop(2), PoisonError)
        assert answers == [2, 4, 6, 8, 10]
        assert engine.stats()["restarts"] <= 2


async def test_a_call_that_does_not_end_is_ended():
    """Its deadline has passed, and a moment more: the process is killed, the next call is answered by another; and
    all the while the host's loop is free."""
    async with running() as engine:
        before = await ask(engine, "pid")
        with pytest.raises(TimeoutError):
            await ask(engine, "spin", 1000.0, within_s=0.1)
        assert await ask(engine, "pid") != before
        assert not alive(before)
        assert engine.stats()["methods"]["spin"]["given_up"] == 1


async def test_a_call_that_ends_in_time_after_its_caller_left_kills_nobody():
    """The grace is for it."""
    async with running(grace_s=10) as engine:
        before = await ask(engine, "pid")
        with pytest.raises(TimeoutError):
            await ask(engine, "spin", 0.2, within_s=0.05)
        assert await ask(engine, "pid") == before


async def test_one_that_has_grown_is_replaced_and_nobody_waits():
    """The new one is there before the old one goes; no call fails."""
    async with running(rss_max_mb=150) as engine:
        first = await ask(engine, "grow", 40)
        for _ in range(5):
            await ask(engine, "grow", 40)
        await until(lambda: not alive(first))
        assert await ask(engine, "pid") != first
        assert engine.stats()["recycled"] >= 1
        assert engine.stats()["restarts"] == 0


async def test_one_that_grows_without_end_within_a_call_is_killed():
    """Before it takes the machine's memory."""
    async with running(rss_max_mb=100) as engine:
        with pytest.raises(PoisonError):
            await ask(engine, "grow", 4000)
        assert await ask(engine, "double", 2) == 4


async def test_one_that_has_served_long_enough_is_replaced():
    """By count of calls; none is lost on the way."""
    async with running(requests_max=20) as engine:
        answers = [await ask(engine, "double", number) for number in range(100, 300)]
        assert answers == [2 * number for number in range(100, 300)]
        await until(lambda: engine.stats()["recycled"] >= 1)
        assert engine.stats()["restarts"] == 0


async def test_a_stream_comes_item_by_item_and_no_further_ahead_than_it_may():
    """Its reader sets the pace; one that leaves frees the process for the next."""
    async with running() as engine:
        assert [item async for item in engine.stream("count", (40,))] == list(range(40))
        stream = engine.stream("count", (10**9,))
        assert await anext(stream) == 0
        await stream.aclose()
        assert await ask(engine, "double", 4) == 8
        assert engine.stats()["restarts"] == 0


async def test_a_stream_whose_process_dies_ends_with_an_error():
    """After what came before; it is not begun again behind its reader's back."""
    async with running() as engine:
        heard: list[int] = []
        with pytest.raises(WorkerLost):
            async for item in engine.stream("count", (10, 3)):
                heard.append(item)  # noqa: PERF401  # those before the failure are wanted
        assert heard == [0, 1, 2]
        assert [item async for item in engine.stream("count", (3,))] == [0, 1, 2]


async def test_what_cannot_be_loaded_is_said_by_its_host():
    """With the model's own words, and no process stays behind."""
    with pytest.raises(ModelLoadError, match=r"FileNotFoundError: weights\.safetensors"):
        async with running(Unloadable):
            pass


async def test_processes_end_with_their_engine():
    """Also those that are busy."""
    async with running(count=2) as engine:
        pids = [each["pid"] for each in processes(engine)]
        task = asyncio.get_running_loop().create_task(ask(engine, "spin", 1000.0))
        await asyncio.sleep(0)
    await asyncio.wait([task])
    assert not any(alive(pid) for pid in pids)


async def test_processes_end_with_their_host(tmp_path: Path):
    """Even where it is killed and can tell nobody."""
    program = tmp_path / "host.py"
    program.write_text(
        "import asyncio, sys\n"
        f"sys.path[:0] = {[str(Path(__file__).parent / 'shop_app'), str(Path(__file__).parent)]!r}\n"
        "from test_serving_processes import running\n"
        "async def main():\n"
        "    async with running() as engine:\n"
        "        print(engine.stats()['processes'][0]['pid'], flush=True)\n"
        "        await engine.call('spin', (1000.0,), float('inf'))\n"
        "asyncio.run(main())\n"
    )
    host = await asyncio.create_subprocess_exec(sys.executable, str(program), stdout=asyncio.subprocess.PIPE)
    assert host.stdout is not None
    pid = int(await host.stdout.readline())
    assert alive(pid)
    host.send_signal(signal.SIGKILL)
    await host.wait()
    await until(lambda: not alive(pid))


def test_what_no_process_could_make_is_refused_before_anything_runs():
    """A class that it cannot find, or that asks for what is not there."""

    class Local(ShakyModel):
        pass

    with pytest.raises(ServiceError, match=r"cannot import .*Local"):
        check_model(ModelType(cls=Local, contract=Shaky, version="1", runs_in="process"))
    with pytest.raises(ServiceError, match="asks for words"):
        check_model(ModelType(cls=Asking, contract=Shaky, version="1", runs_in="process"))


class Asking(ShakyModel):
    def __init__(self, words: Words) -> None:
        super().__init__()


@APP
async def test_a_model_that_crashes_and_hogs_hurts_nobody_else(topology_app: TopologyApp, tmp_path: Path):
    """Neither in one process with its callers nor in one of many: others answer while it dies and spins."""
    shaky, words, page = topology_app.stub(Shaky), topology_app.stub(Words), topology_app.stub(Page)
    loop = asyncio.get_running_loop()
    trouble = [
        loop.create_task(shaky.crash("segfault", 1, str(tmp_path / "crashes"))),
        loop.create_task(shaky.spin(1000.0)),
        loop.create_task(shaky.crash_once("kill")),
    ]
    for _ in range(30):
        assert await words.letters("ab") == {"a": 1, "b": 1}
        assert await page.many(()) == ()
    crashed, spun, died = await asyncio.gather(*trouble, return_exceptions=True)
    assert crashed == 1
    assert isinstance(spun, Exception)
    assert isinstance(died, Unavailable)
    assert await shaky.double(4) == 8
    with pytest.raises(NoSuchWord):
        await shaky.look_up("xyzzy")
    with pytest.raises(InternalError):
        await shaky.double(7)


async def test_files_are_found_in_the_process():
    """Their place is told; and a model that wants some where there are none says so."""
    model = ModelType(cls=Reading, contract=Reads, version="1", runs_in="process")
    engine = Engine(model, _nothing, artefacts=Artefacts(Path(__file__).parent, "sha256:1"))
    await engine.start()
    assert await engine.call("first_line", (Path(__file__).name,), NEVER) == str(__doc__).splitlines()[0]
    await engine.stop()
    with pytest.raises(ModelLoadError, match="wants its artefacts"):
        await Engine(model, _nothing).start()


class Reads(Contract):
    async def first_line(self, name: str) -> str: ...


class Reading:
    def load(self, artefacts: Artefacts) -> None:
        self.artefacts = artefacts

    def first_line(self, name: str) -> str:
        return self.artefacts.path(name).read_text().splitlines()[0].strip('"')


def test_a_module_says_how_many_processes():
    """As a number, or with all that can be said of them."""
    module = Module("shaky", provides=Shaky)
    module.model(Shaky, version="1", runs_in="process", workers=3)(ShakyModel)
    assert module.models[0].workers == Workers(count=3)
    assert module.models[0].slots == 3
