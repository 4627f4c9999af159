"""Weights in blocks of 32 that share a scale: 4 or 8 bits each, as ONNX Runtime's MatMulNBits takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from seamline.models.runtimes.llama.shape import Floats

Bytes = np.ndarray[Any, np.dtype[Any]]
"""Of uint8."""


@dataclasses.dataclass(frozen=True, slots=True)
class Packed:
    """A matrix ``[rows, columns]``; a weight is ``(number - zero) * scale``, with zero in the middle of the range."""

    BLOCK: ClassVar[int] = 32

    bits: Literal[4, 8]
    blocks: Bytes
    """``[rows, columns / 32, 16 or 32]``; of two in a byte the first is the lower."""
    scales: Floats
    """``[rows, columns / 32]``"""

    @property
    def rows(self) -> int:
        return self.blocks.shape[0]

    @property
    def columns(self) -> int:
        return self.blocks.shape[1] * self.BLOCK

    @classmethod
    def of(cls, weights: Floats, bits: Literal[4, 8]) -> Packed:
        """Rounded to the nearest. The columns are a multiple of 32."""
        middle = 1 << (bits - 1)
        blocks = weights.reshape(weights.shape[0], -1, cls.BLOCK)
        # The number of the largest weight is the end of the range that is one longer.
        largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[..., None], axis=2)[..., 0]
        scales = largest / -middle if bits == 4 else np.abs(largest) / (middle - 1)
        safe = np.where(scales == 0, 1, scales)[..., None]
        numbers = np.clip(np.rint(blocks / safe) + middle, 0, 2 * middle - 1).astype(np.uint8)
        if bits == 4:
            numbers = numbers[..., 0::2] | (numbers[..., 1::2] << 4)
        return cls(bits, np.ascontiguousarray(numbers), np.ascontiguousarray(scales, dtype=np.float32))

    def floats(self) -> Floats:
        numbers = self.blocks
        if self.bits == 4:
            numbers = np.stack((numbers & 15, numbers >> 4), axis=-1).reshape(*numbers.shape[:2], self.BLOCK)
        middle = 1 << (self.bits - 1)
        values = (numbers.astype(np.float32) - middle) * self.scales[..., None]
        return values.reshape(self.rows, self.columns)

    def picked(self, rows: np.ndarray[Any, np.dtype[np.intp]]) -> Packed:
        """The same rows in another order."""
        return Packed(self.bits, self.blocks[rows], self.scales[rows])

    @staticmethod
    def side_by_side(parts: Sequence[Packed]) -> Packed:
        if len(parts) == 1:
            return parts[0]
        blocks = np.concatenate([part.blocks for part in parts])
        return Packed(parts[0].bits, blocks, np.concatenate([part.scales for part in parts]))
