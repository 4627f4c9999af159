"""From a process to the observer: whole, in order, bounded, and nobody waits for anybody."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import msgspec
import pytest

from seamline.kernel.lifetime import TaskOwner
from seamline.observe.intake import MESSAGE_BYTES_MAX, Encoder, Intake
from seamline.observe.records import Batch, Log, Mark, Point, Profile, Source, Span, SpanEvent, SpanLink, Traffic
from seamline.run.sockets import listen_unix
from seamline.run.telling import Teller

ONE = Batch(
    Source("shop", 2, 41, "monolith", {"cart": "1.2"}),
    1_700_000_000_123_456_789,
    1_000_000_000,
    [
        Span(
            b"t" * 16, b"s" * 8, b"p" * 8, "Cart.add", "server", "cart", "frontend", 1, 2, "internal", "broke",
            {"text": "é", "raw": b"\x00\xff", "whole": 2**63 - 1, "part": 0.1, "yes": True, "none": None,
             "list": ["a", 1, [b""]], "table": {"deep": {"er": 1}}},
            [SpanEvent(3, "exception", {"exception.type": "ValueError"})],
            [SpanLink(b"l" * 16, b"m" * 8, {"a": 1}, "x=y")],
            "shop", 2, {"service.name": "cart"}, "scope", "vendor=1",
        )
    ],
    [Log(5, 9, "cart", "hello\n\x00", "logger", "shop", 2, b"t" * 16, b"s" * 8, "Traceback", {"a": [1]})],
    [Traffic("frontend", "cart", "Cart.add", "client", 7, 1, 2, 3, 4, {12: 7}, {"internal": 1})],
    [Point("process.cpu.time", 0.5, "", "counter", "s", {"cpu": "0"}, 3, {"1": 2, "inf": 1})],
    [Profile("cart", "a;b", 10, 20)],
    [Mark(9, "release", "cart 1.3", ["cart"], {"version": "1.3"})],
    {"spans": 4},
)  # fmt: skip


class Rig:
    """An intake on a socket that can be closed and opened again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "observe.sock"
        self.taken: list[Batch] = []
        self.intake = Intake(self.taken.append)

    def open(self) -> None:
        self.owner = TaskOwner("rig")
        self.listener = listen_unix(self.path)
        self.owner.spawn(self.intake.serve(self.listener), name="intake")

    async def close(self) -> None:
        await self.owner.stop()
        self.listener.close()

    async def until(self, count: int) -> list[Batch]:
        async with asyncio.timeout(10):
            while len(self.taken) < count:  # noqa: ASYNC110  # another task takes them
                await asyncio.sleep(0.005)
        return self.taken


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    found = Rig(tmp_path)
    yield found
    await found.close()


async def test_a_batch_arrives_as_it_was_told(rig: Rig):
    """Every field of every kind, also bytes, nested lists and the largest whole number."""
    rig.open()
    _, writer = await asyncio.open_unix_connection(rig.path)
    writer.write(Encoder().encode(ONE) * 2)
    assert await rig.until(2) == [ONE, ONE]
    writer.close()


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack(">I", MESSAGE_BYTES_MAX + 1),
        struct.pack(">I", 3) + b"\xc1\xc1\xc1",
        struct.pack(">I", 9) + b"not msgpk",
        struct.pack(">I", len(body := msgspec.msgpack.encode([1, "x"]))) + body,
        struct.pack(">I", 0),
    ],
    ids=["too long", "no msgpack", "text", "another shape", "nothing"],
)
async def test_who_sends_garbage_is_cut_off_and_nobody_else(rig: Rig, garbage: bytes, caplog: pytest.LogCaptureFixture):
    """The other connection goes on, and the cut is counted and said."""
    rig.open()
    good_reader, good = await asyncio.open_unix_connection(rig.path)
    bad_reader, bad = await asyncio.open_unix_connection(rig.path)
    bad.write(garbage)
    assert await bad_reader.read() == b""
    good.write(Encoder().encode(ONE))
    assert await rig.until(1) == [ONE]
    assert rig.intake.refused == 1
    assert "cannot be read" in caplog.text
    assert not good_reader.at_eof()
    for writer in (good, bad):
        writer.close()


async def test_half_a_message_is_no_message(rig: Rig):
    """A process that dies in the middle leaves nothing behind."""
    rig.open()
    _, writer = await asyncio.open_unix_connection(rig.path)
    writer.write(Encoder().encode(ONE)[:-1])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    _, other = await asyncio.open_unix_connection(rig.path)
    other.write(Encoder().encode(ONE))
    assert await rig.until(1) == [ONE]
    assert rig.intake.refused == 0
    other.close()


async def test_while_nobody_listens_nothing_is_collected(rig: Rig):
    """Counts stay where they are made, and are told whole when the observer is there; so after it was away."""
    calls = 0

    def collect() -> Iterable[Batch]:
        nonlocal calls
        calls += 1
        yield msgspec.structs.replace(ONE, at_ns=calls)

    teller = Teller(rig.path, collect)
    telling = TaskOwner("telling")
    telling.spawn(teller.run(), name="telling")
    await asyncio.sleep(0.7)
    assert calls == 0
    rig.open()
    taken = await rig.until(2)
    assert [each.at_ns for each in taken[:2]] == [1, 2]
    await rig.close()
    before = calls
    await asyncio.sleep(0.6)
    rig.open()
    taken = await rig.until(len(taken) + 2)
    assert calls <= before + 4
    await telling.stop()
    await teller.finish()


async def test_an_observer_that_does_not_read_costs_memory_only_to_a_bound(tmp_path: Path):
    """What has no room is dropped and counted by kind; the count is told when there is room again."""
    path = tmp_path / "observe.sock"
    listener = listen_unix(path)
    spans = [msgspec.structs.replace(ONE.spans[0], message="x" * 100_000)] * 10

    def collect() -> Iterable[Batch]:
        yield Batch(ONE.source, time.time_ns(), spans=spans)

    teller = Teller(path, collect)
    assert await teller._connected()  # pyright: ignore[reportPrivateUsage]
    for _ in range(40):
        teller._tell()  # pyright: ignore[reportPrivateUsage]
    assert teller._writer is not None  # pyright: ignore[reportPrivateUsage]
    assert teller._writer.transport.get_write_buffer_size() < 12_000_000  # pyright: ignore[reportPrivateUsage]
    taken: list[Batch] = []
    owner = TaskOwner("intake")
    owner.spawn(Intake(taken.append).serve(listener), name="intake")
    async with asyncio.timeout(10):
        while not any(each.dropped for each in taken):
            teller._tell()  # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0.01)
    told = sum(len(each.spans) for each in taken)
    dropped = sum(each.dropped.get("spans", 0) for each in taken)
    assert dropped >= 200
    assert (told + dropped) % 10 == 0
    await teller.finish()
    await owner.stop()
    listener.close()


async def test_what_cannot_be_collected_ends_nothing(rig: Rig, caplog: pytest.LogCaptureFixture):
    """It is logged, and the next time is tried."""
    turns = 0

    def collect() -> Iterable[Batch]:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise RuntimeError("no")
        yield ONE

    rig.open()
    teller = Teller(rig.path, collect)
    telling = TaskOwner("telling")
    telling.spawn(teller.run(), name="telling")
    assert await rig.until(1)
    assert "could not be collected" in caplog.text
    await telling.stop()
    await teller.finish()
