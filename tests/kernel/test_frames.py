"""The frame parser: any cut of any bytes gives the same frames, and nothing is stored beyond the limit."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamline.kernel.wire import frames
from seamline.kernel.wire.frames import CallHead, FrameError, FrameReader

Seen = list[tuple[int, int, bytes]]

FRAMES = st.lists(st.tuples(st.integers(1, 10), st.integers(0, 2**32 - 1), st.binary(max_size=300)), max_size=12)


def read(data: bytes, cuts: list[int], limit: int = 200) -> tuple[Seen, list[tuple[int, int, int]], FrameReader]:
    seen: Seen = []
    oversize: list[tuple[int, int, int]] = []
    reader = FrameReader(
        lambda kind, stream, payload: seen.append((kind, stream, payload)),
        lambda kind, stream, length: oversize.append((kind, stream, length)),
        limit,
    )
    position = 0
    for cut in sorted({min(c, len(data)) for c in cuts} | {len(data)}):
        reader.feed(data[position:cut])
        position = cut
    return seen, oversize, reader


@given(FRAMES, st.lists(st.integers(0, 4000), max_size=40))
def test_frames_come_out_as_they_went_in_however_they_are_cut(sent: Seen, cuts: list[int]):
    """Order, type, stream and payload survive; a payload beyond the limit is reported and skipped."""
    data = b"".join(frames.frame(*item) for item in sent)
    seen, oversize, reader = read(data, cuts)
    assert seen == [item for item in sent if len(item[2]) <= 200]
    assert oversize == [(k, s, len(p)) for k, s, p in sent if len(p) > 200]
    assert not reader.partial


@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=30))
def test_garbage_is_an_error_or_waits_and_is_never_stored_without_bound(data: bytes, cuts: list[int]):
    """Random bytes raise FrameError, or parse, or leave at most one frame's worth behind."""
    try:
        _, _, reader = read(data, cuts)
    except FrameError:
        return
    assert len(reader._rest) <= 200 + frames.HEADER_BYTES  # pyright: ignore[reportPrivateUsage]


@given(st.binary(max_size=200))
def test_a_malformed_call_head_is_a_frame_error(data: bytes):
    """Whatever a CALL's payload holds, it reads as a call or raises FrameError."""
    try:
        head, _ = frames.read_call(data)
    except FrameError:
        return
    assert isinstance(head, CallHead)


@given(st.binary(max_size=300))
def test_a_malformed_error_reads_as_internal(data: bytes):
    """A peer cannot make the reader of errors fail."""
    assert isinstance(frames.read_error(data).code, str)


def collecting(seen: Seen, limit: int) -> FrameReader:
    def on_frame(kind: int, stream: int, payload: bytes) -> None:
        seen.append((kind, stream, payload))

    def on_oversize(kind: int, stream: int, length: int) -> None: ...

    return FrameReader(on_frame, on_oversize, limit)


def test_an_endless_frame_is_not_stored():
    """A frame that claims four gigabytes is skipped as it comes; what follows is read."""
    seen: Seen = []
    reader = collecting(seen, 100)
    reader.feed(frames.HEADER.pack(10_000_000, frames.CALL, 1))
    for _ in range(1000):
        reader.feed(b"x" * 10_000)
        assert not reader._rest  # pyright: ignore[reportPrivateUsage]
    reader.feed(frames.frame(frames.PING, 0, b"still there"))
    assert seen == [(frames.PING, 0, b"still there")]


def test_a_large_frame_in_small_pieces_is_joined_once():
    """A megabyte in 100-byte pieces arrives whole."""
    seen: Seen = []
    reader = collecting(seen, 2_000_000)
    data = frames.frame(frames.RESULT, 7, b"y" * 1_000_000)
    for start in range(0, len(data), 100):
        reader.feed(data[start : start + 100])
    assert seen == [(frames.RESULT, 7, b"y" * 1_000_000)]


def test_credit_must_be_four_bytes():
    """A CREDIT of another size is not a frame of ours."""
    with pytest.raises(FrameError):
        frames.read_credit(b"12345")


def test_a_busy_connection_is_not_one_slow_frame():
    """``feed`` tells apart pieces that end within a frame after others were whole, and one frame that never ends."""
    reader = collecting([], 1000)
    frame = frames.frame(frames.PING, 0, b"x" * 100)
    assert reader.feed(frame + frame[:50])
    assert reader.feed(frame[50:] + frame[:50])
    assert reader.partial
    assert not reader.feed(frame[50:80])
    assert reader.feed(frame[80:])
    assert not reader.partial
    assert reader.feed(frames.HEADER.pack(5000, frames.PING, 0))
    assert not reader.feed(b"x" * 100)


def test_a_frame_in_single_bytes_costs_its_own_length():
    """A megabyte that comes byte by byte is kept as a megabyte."""
    reader = collecting([], 100_000)
    reader.feed(frames.HEADER.pack(100_000, frames.PING, 0))
    for _ in range(50_000):
        reader.feed(b"x")
    assert sys.getsizeof(reader._rest) < 100_000  # pyright: ignore[reportPrivateUsage]
