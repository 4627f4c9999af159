"""A bad network: nothing is lost or out of order, it only comes later."""

from __future__ import annotations

import asyncio
import random
from typing import cast

from seamline.run.shaping import Shaper


class Transport(asyncio.Transport):
    """Remembers which protocol it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return False


class Inner(asyncio.Protocol):
    """Keeps what it is given, and when."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport = Transport()
        self.got: list[bytes] = []
        self.times: list[float] = []
        self.lost: Exception | str | None = "no"

    def data_received(self, data: bytes) -> None:
        self.got.append(data)
        self.times.append(asyncio.get_running_loop().time())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc


def protocol_of(inner: Inner) -> asyncio.BaseProtocol | None:
    return cast("Transport", inner.transport).protocol


async def until(inner: Inner, count: int) -> None:
    while len(inner.got) < count:  # noqa: ASYNC110  # it has nobody to tell
        await asyncio.sleep(0.002)


async def test_what_is_held_back_comes_later_and_in_order() -> None:
    """Every piece waits, none overtakes another."""
    inner = Inner()
    shaper = Shaper(inner, 0.02, 1.0, random.Random(1))
    shaper.begin()
    began = asyncio.get_running_loop().time()
    sent = [bytes([number]) for number in range(20)]
    for each in sent:
        shaper.data_received(each)
    assert not inner.got
    await until(inner, 20)
    assert inner.got == sent
    assert inner.times[0] - began >= 0.019


async def test_what_follows_a_lost_piece_waits_behind_it() -> None:
    """As in TCP, what comes after a piece that is sent again is not given on before it."""
    inner = Inner()
    shaper = Shaper(inner, 0.02, 0.3, random.Random(2))
    shaper.begin()
    sent = [bytes([number]) for number in range(60)]
    for each in sent:
        shaper.data_received(each)
    at_once = len(inner.got)
    assert 0 < at_once < 60
    await until(inner, 60)
    assert inner.got == sent


async def test_its_end_gives_on_what_is_held_and_stands_aside() -> None:
    """Nothing is lost when the drill ends in the middle, and the transport has its own protocol again."""
    inner = Inner()
    shaper = Shaper(inner, 60.0, 1.0, random.Random(1))
    shaper.begin()
    assert protocol_of(inner) is shaper
    shaper.data_received(b"a")
    shaper.data_received(b"b")
    shaper.end()
    assert inner.got == [b"a", b"b"]
    assert protocol_of(inner) is inner


async def test_a_lost_connection_is_told_after_what_it_brought() -> None:
    """What is held comes before the end of the connection."""
    inner = Inner()
    shaper = Shaper(inner, 60.0, 1.0, random.Random(1))
    shaper.begin()
    shaper.data_received(b"a")
    shaper.connection_lost(None)
    assert inner.got == [b"a"]
    assert inner.lost is None
