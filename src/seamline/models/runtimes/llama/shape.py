"""The sizes of a model of the Llama architecture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from seamline.models.formats.errors import ArchitectureError, WeightsError

Floats = npt.NDArray[np.float32]

ARCHITECTURES = ("llama", "mistral", "qwen2")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """Llama 3's stretched positions: long waves are stretched by ``factor``, short ones are not."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    width: int
    inner: int
    """Of the feed-forward layers."""
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    rope_theta: float = 10000.0
    epsilon: float = 1e-5
    rope_scaling: RopeScaling | None = None
    rope_divisors: tuple[float, ...] = ()
    """Of the frequencies, one for each; where a file has worked the scaling out."""
    ends: tuple[int, ...] = ()
    """Tokens that end an answer."""

    def cache_bytes(self, tokens: int) -> int:
        """What the keys and values of so many tokens take, as float32."""
        return tokens * self.layers * self.kv_heads * self.head_size * 2 * 4


def shape_of_config(config: Mapping[str, Any], place: str) -> Shape:
    """From Hugging Face's ``config.json``. Raises ArchitectureError, WeightsError."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ArchitectureError(
            f"the architecture {kind!r} is not known", f"Known are {', '.join(ARCHITECTURES)}.", place=place
        )
    if kind == "mistral" and config.get("sliding_window"):
        raise ArchitectureError("a sliding window is not supported", "Take a model without one.", place=place)
    if config.get("hidden_act", "silu") != "silu":
        raise ArchitectureError(f"the activation {config['hidden_act']!r} is not supported", "", place=place)
    try:
        heads = int(config["num_attention_heads"])
        width = int(config["hidden_size"])
        ends = config.get("eos_token_id")
        # Since transformers 5 the positions stand in a table of their own.
        rope: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
        shape = Shape(
            width=width,
            inner=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or width // heads),
            vocabulary=int(config["vocab_size"]),
            context=int(config.get("max_position_embeddings", 2048)),
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta", 10000.0)),
            epsilon=float(config.get("rms_norm_eps", 1e-6)),
            rope_scaling=_scaling(rope, place),
            ends=tuple(ends) if isinstance(ends, list) else () if ends is None else (int(ends),),  # pyright: ignore[reportUnknownArgumentType]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"the configuration lacks or mistakes {error}", "", place=place) from error
    return checked(shape, place)


def _scaling(rope: Mapping[str, Any], place: str) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise ArchitectureError(f"positions of type {kind!r} are not supported", "Known is llama3.", place=place)
    return RopeScaling(
        factor=float(rope["factor"]),
        low_freq_factor=float(rope["low_freq_factor"]),
        high_freq_factor=float(rope["high_freq_factor"]),
        original_context=int(rope["original_max_position_embeddings"]),
    )


def checked(shape: Shape, place: str) -> Shape:
    """The shape, if it can be built. Raises ArchitectureError, WeightsError."""
    sizes = (shape.width, shape.inner, shape.layers, shape.heads, shape.kv_heads, shape.head_size, shape.vocabulary)
    if min(*sizes, shape.context) < 1 or max(*sizes, shape.context) > 10_000_000:
        raise WeightsError(f"sizes of {shape!r} are out of range", "The file is damaged.", place=place)
    if shape.heads % shape.kv_heads or shape.head_size % 8:
        raise ArchitectureError(
            f"{shape.heads} heads of {shape.head_size} with {shape.kv_heads} of keys cannot be run",
            "Heads are a multiple of those of keys, and of a size that 8 divides.",
            place=place,
        )
    return shape


def rotary(shape: Shape, context: int) -> tuple[Floats, Floats]:
    """Cosines and sines of each position, ``[context, head_size / 2]``. RoFormer, Su et al. 2021."""
    half = np.arange(0, shape.head_size, 2, dtype=np.float64)
    frequencies = shape.rope_theta ** (-half / shape.head_size)
    scaling = shape.rope_scaling
    if scaling is not None:
        waves = 2 * math.pi / frequencies
        turns = scaling.original_context / waves
        smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        smooth = np.clip(smooth, 0.0, 1.0)
        frequencies = (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
    if shape.rope_divisors:
        frequencies = frequencies / np.array(shape.rope_divisors)
    angles = np.outer(np.arange(context), frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
