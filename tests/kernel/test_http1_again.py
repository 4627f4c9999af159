"""A head that comes again is not parsed, and nothing is understood otherwise by that."""

from __future__ import annotations

import asyncio
import re
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.test_http1_fuzz import Pipe

from seamline.kernel.clock import ManualClock
from seamline.kernel.lifetime import Runners
from seamline.kernel.wire import http1_connection
from seamline.kernel.wire.http1 import Exchange, HttpLimits, HttpServer
from seamline.kernel.wire.http1_again import KnownHead

LIMITS = HttpLimits(head_bytes_max=600, header_count_max=8, body_bytes_max=60, pipelined_max=4)
HEADS = [
    b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nX-One: 1\r\nx-one: 2\r\n\r\n",
    b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length:%d\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\r\nPOST / HTTP/1.1\r\nhost: x\r\ncontent-length: \t 00%d \r\n\r\n",
    b"POST / HTTP/1.1\nhost: x\ncontent-length: %d\n\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\ncontent-length: %d\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\nx-content-length: 7\r\ncontent-length: %d\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\nx: \r\n content-length: 3\r\ncontent-length: %d\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: %d\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n",
    b"POST / HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: %d\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n",
]
_BODY = st.sampled_from(
    [b"", b"a", b"abc", b"\r\n", b"\r\n\r\n", b"\r", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"7" * 50, b"7" * 70]
)


@st.composite
def pieces(draw: st.DrawFn) -> list[bytes]:
    """One head again and again, at first with true lengths; then also false ones, other heads, and messages that are
    glued together or cut."""
    usual = draw(st.sampled_from(HEADS))

    def message(head: bytes, *, off: int) -> bytes:
        body = draw(_BODY) if b"%d" in head else b""
        return re.sub(rb"%d", b"%d" % max(len(body) + off, 0), head) + body

    found = [message(usual, off=0) + draw(st.sampled_from([b"", b"", b"\r\n"])) for _ in range(draw(st.integers(2, 3)))]
    for _ in range(draw(st.integers(1, 3))):
        match draw(st.integers(0, 6)):
            case 0:
                found.append(message(draw(st.sampled_from(HEADS)), off=0))
            case 1:
                found.append(message(usual, off=draw(st.sampled_from([-2, -1, 1, 2]))))
            case 2:
                found.append(message(usual, off=0) + message(usual, off=0))
            case 3:
                whole = message(usual, off=0)
                cut = draw(st.integers(1, len(whole) - 1))
                found += [whole[:cut], whole[cut:]]
            case _:
                found.append(message(usual, off=0))
    return found


async def converse(sent: list[bytes]) -> tuple[bytes, list[object]]:
    """What the server writes, and what its handler sees."""
    seen: list[object] = []

    async def handle(exchange: Exchange) -> None:
        request = exchange.request
        body = await request.read_all()
        seen.append((request.method, request.target, request.path, request.headers, request.http_version, body))
        assert request.content_length in (None, len(body))
        exchange.respond(200, body=b"%d" % len(body))

    runners = Runners()
    server = HttpServer(handle, LIMITS, runners=runners, clock=ManualClock())
    connection = server.protocol()
    pipe = Pipe(connection)
    connection.connection_made(pipe)
    for piece in sent:
        if pipe.closed:
            break
        connection.data_received(piece)
        for _ in range(3):
            await asyncio.sleep(0)
    pipe.close()
    for _ in range(3):
        await asyncio.sleep(0)
    await runners.stop()
    return bytes(pipe.written), seen


async def understood_alike(sent: list[bytes]) -> None:
    with patch.object(http1_connection, "_HEADS_LEARNED", -2):
        parsed = await converse(sent)
    assert await converse(sent) == parsed


_ONE = HEADS[0] % 3 + b"abc"
_LINES = HEADS[0] % 2 + b"\r\n" + b"\r\n"  # the latter belongs to no request


@pytest.mark.parametrize(
    "sent",
    [
        [_LINES, _LINES, HEADS[0] % 2 + b"\r\n" + b"ab"],
        [_ONE, _ONE, _ONE.replace(b": 3", b": +3")],
        [_ONE, _ONE, _ONE.replace(b": 3", b": ")],
        [_ONE, _ONE, _ONE.replace(b": 3", b": 3, 3")],
        [_ONE, _ONE, _ONE.replace(b": 3", b": 000000003")],
        [_ONE, _ONE, _ONE.replace(b": 3", b": 3\r\ncontent-length: 3")],
        [_ONE, _ONE, _ONE.replace(b"x-one: 2", b"x-one: 3")],
        [_ONE, _ONE, _ONE[:-1], b"c"],
        [_ONE, _ONE, _ONE + _ONE],
        [_ONE, _ONE, _ONE[:30], _ONE],
        [_ONE, _ONE, HEADS[0] % 61 + b"a" * 61],
        [_ONE, _ONE, HEADS[10] % 3 + b"abc", _ONE],
        [HEADS[4] % 3 + b"abc"] * 3,
        [HEADS[5] % (3, 3) + b"abc"] * 3,
    ],
)  # fmt: skip
async def test_what_is_not_the_same_is_for_the_parser(sent: list[bytes]):
    """Attacks on what is taken for a length, for the end of a head, and for the end of a body."""
    await understood_alike(sent)


@settings(max_examples=120, deadline=None)
@given(pieces())
async def test_it_is_understood_as_if_it_had_been_parsed(sent: list[bytes]):
    """The same requests, headers and bodies, the same refusals: for heads of all kinds, true lengths and false ones."""
    await understood_alike(sent)


async def test_it_is_not_parsed(monkeypatch: pytest.MonkeyPatch):
    """From the third on; the one that differs is, and the next of the known ones is not."""
    read: list[bool] = []
    before = KnownHead.read

    def told(self: KnownHead, data: bytes) -> object:
        found = before(self, data)
        read.append(found is not None)
        return found

    monkeypatch.setattr(KnownHead, "read", told)
    head = HEADS[0]
    bodies = [b"a" * length for length in (3, 1, 12, 0, 60)]
    _, seen = await converse([head % len(body) + body for body in bodies])
    assert read == [True, True, True]
    assert [each[-1] for each in seen] == bodies  # type: ignore[index]
    assert [dict(each[3])[b"content-length"] for each in seen] == [b"3", b"1", b"12", b"0", b"60"]  # type: ignore[index]
    other = b"GET /other HTTP/1.1\r\nhost: x\r\n\r\n"
    read.clear()
    await converse([HEADS[2], HEADS[2], HEADS[2], other, other])
    assert read == [True, False, True]


async def test_a_request_may_be_changed_by_its_handler():
    """The next one with the same head has headers of its own."""
    seen: list[int] = []

    async def handle(exchange: Exchange) -> None:
        seen.append(len(exchange.request.headers))
        exchange.request.headers.clear()
        exchange.respond(200)

    runners = Runners()
    connection = HttpServer(handle, LIMITS, runners=runners, clock=ManualClock()).protocol()
    pipe = Pipe(connection)
    connection.connection_made(pipe)
    for _ in range(5):
        connection.data_received(HEADS[2])
        await asyncio.sleep(0)
    pipe.close()
    await asyncio.sleep(0)
    await runners.stop()
    assert seen == [1] * 5
