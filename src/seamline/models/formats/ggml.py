"""The forms in which ggml keeps numbers: blocks of 32 or 256 that share scales.

After the structures of ggml-common.h (https://github.com/ggml-org/ggml, MIT licence). Blocks come as
``[blocks, bytes]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[Any]
"""Of uint8; of what shifts and masks make of them, NumPy's types know less."""
Floats = npt.NDArray[Any]
"""Of float32."""


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """``block`` numbers take ``block_bytes``."""

    name: str
    block: int
    block_bytes: int
    floats: Callable[[Bytes], Floats]
    """From blocks to numbers, in order, of any shape."""


def halves(blocks: Bytes, at: int) -> Floats:
    """The float16 at a byte of each block, ``[blocks, 1]``."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def nibbles(packed: Bytes) -> Bytes:
    """The lower halves of the bytes, then the upper ones."""
    return np.concatenate((packed & 15, packed >> 4), axis=-1)


def _f32(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view("<f4")


def _f16(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view("<f2").astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    return (np.ascontiguousarray(blocks).view("<u2").astype("<u4") << 16).view("<f4")


def _q4_0(blocks: Bytes) -> Floats:
    return halves(blocks, 0) * (nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Bytes) -> Floats:
    return halves(blocks, 0) * nibbles(blocks[:, 4:]) + halves(blocks, 2)


def _fifth_bits(blocks: Bytes) -> Bytes:
    """Of 32 numbers, from 4 bytes."""
    return np.unpackbits(np.ascontiguousarray(blocks), axis=1, bitorder="little") << 4


def _q5_0(blocks: Bytes) -> Floats:
    numbers = nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return halves(blocks, 0) * (numbers.astype(np.float32) - 16)


def _q5_1(blocks: Bytes) -> Floats:
    return halves(blocks, 0) * (nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])) + halves(blocks, 2)


def _q8_0(blocks: Bytes) -> Floats:
    return halves(blocks, 0) * np.ascontiguousarray(blocks[:, 2:]).view(np.int8)


def _scales_of_k(blocks: Bytes) -> tuple[Bytes, Bytes]:
    """Eight scales and eight minima of 6 bits each, from the 12 bytes behind the first 4."""
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate((first & 63, (third & 15) | (first >> 6 << 4)), axis=1)
    minima = np.concatenate((second & 63, (third >> 4) | (second >> 6 << 4)), axis=1)
    return scales, minima


def _of_k(blocks: Bytes, numbers: Bytes) -> Floats:
    """``numbers`` are ``[blocks, 8, 32]``."""
    scales, minima = _scales_of_k(blocks)
    return (halves(blocks, 0) * scales)[..., None] * numbers - (halves(blocks, 2) * minima)[..., None]


def _q4_k(blocks: Bytes) -> Floats:
    return _of_k(blocks, nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32))


def _q5_k(blocks: Bytes) -> Floats:
    places = np.arange(8, dtype=np.uint8)[:, None]
    fifth = (blocks[:, None, 16:48] >> places & 1) << 4
    return _of_k(blocks, nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32) | fifth)


def _q6_k(blocks: Bytes) -> Floats:
    lower = nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    places = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    upper = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> places & 3
    numbers = (lower | upper << 4).astype(np.float32) - 32
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return (halves(blocks, 208) * scales)[..., None] * numbers.reshape(-1, 16, 16)


FORMS: Final = {
    0: Form("F32", 1, 4, _f32),
    1: Form("F16", 1, 2, _f16),
    2: Form("Q4_0", 32, 18, _q4_0),
    3: Form("Q4_1", 32, 20, _q4_1),
    6: Form("Q5_0", 32, 22, _q5_0),
    7: Form("Q5_1", 32, 24, _q5_1),
    8: Form("Q8_0", 32, 34, _q8_0),
    12: Form("Q4_K", 256, 144, _q4_k),
    13: Form("Q5_K", 256, 176, _q5_k),
    14: Form("Q6_K", 256, 210, _q6_k),
    30: Form("BF16", 1, 2, _bf16),
}
"""By the number that files give them."""
