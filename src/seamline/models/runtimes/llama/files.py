"""A model of the Llama architecture as it lies on disk: sizes, weights, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from seamline.models.formats.errors import WeightsError
from seamline.models.formats.safetensors import open_safetensors
from seamline.models.runtimes.llama.packed import Packed
from seamline.models.runtimes.llama.shape import Floats, Shape, shape_of_config
from seamline.models.runtimes.llama.tokenizer import LlamaTokenizer, tokenizer_of_folder

WeightsAs = Literal["stored", "float32", "int8", "int4"]
"""How products are computed: as the file has them (which is float32 for float16 and bfloat16), or rounded to 8 or 4
bits in blocks of 32, which is smaller and faster, and a little less exact."""

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
_TEXT_BYTES_MAX = 64_000_000


class Llama:
    """What a model consists of.

    Args:
        shape: its sizes.
        tensors: by Hugging Face's names; arrays ``[out, in]``, or :class:`Packed`.
        tokenizer: its own.
        name: for people.
        weights: see :data:`WeightsAs`.
    """

    def __init__(
        self,
        shape: Shape,
        tensors: Mapping[str, Any],
        tokenizer: LlamaTokenizer,
        *,
        name: str,
        weights: WeightsAs = "stored",
    ) -> None:
        self.shape = shape
        self.tokenizer = tokenizer
        self.name = name
        self.tied = HEAD not in tensors
        """Whether what reads tokens also writes them."""
        self._tensors = tensors
        self._weights: WeightsAs = weights
        self._sizes = _sizes(shape)

    def find(self, name: str) -> Floats | None:
        """A bias, if there is one."""
        return self.floats(name) if name in self._tensors else None

    def floats(self, name: str) -> Floats:
        stored = self._stored(name)
        found = stored.floats() if isinstance(stored, Packed) else stored
        return np.ascontiguousarray(found, dtype=np.float32)

    def weight(self, name: str) -> Floats | Packed:
        """For a product, as it is to be computed. Raises WeightsError."""
        stored = self._stored(name)
        if self._weights == "stored" and isinstance(stored, Packed):
            return stored
        floats = self.floats(name)
        if self._weights in {"stored", "float32"} or floats.shape[1] % Packed.BLOCK:
            return floats
        return Packed.of(floats, 8 if self._weights == "int8" else 4)

    def head(self) -> Floats | Packed:
        """What makes the logits. It is not rounded to 4 bits: that costs more than it saves."""
        stored = self._stored(EMBEDDING if self.tied else HEAD)
        if self._weights == "stored" and isinstance(stored, Packed):
            return stored
        floats = self.floats(EMBEDDING if self.tied else HEAD)
        rounded = self._weights in {"int8", "int4"} and not floats.shape[1] % Packed.BLOCK
        return Packed.of(floats, 8) if rounded else floats

    def _stored(self, name: str) -> Any:
        try:
            stored = self._tensors[name]
        except KeyError:
            raise WeightsError(f"{self.name} has no tensor {name!r}", "Is it a whole model of this kind?") from None
        size = (stored.rows, stored.columns) if isinstance(stored, Packed) else tuple(stored.shape)
        due = self._sizes[name.removeprefix("model.layers.").partition(".")[2] if ".layers." in name else name]
        if size != due:
            raise WeightsError(
                f"{name!r} of {self.name} has the shape {size}, and not {due}",
                "Its configuration belongs to another model.",
            )
        return stored


def _sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Of each tensor; of those in a layer, by the name within it."""
    out, kept, width = shape.heads * shape.head_size, shape.kv_heads * shape.head_size, shape.width
    return {
        EMBEDDING: (shape.vocabulary, width),
        HEAD: (shape.vocabulary, width),
        "model.norm.weight": (width,),
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
        "self_attn.q_proj.weight": (out, width),
        "self_attn.k_proj.weight": (kept, width),
        "self_attn.v_proj.weight": (kept, width),
        "self_attn.o_proj.weight": (width, out),
        "self_attn.q_proj.bias": (out,),
        "self_attn.k_proj.bias": (kept,),
        "self_attn.v_proj.bias": (kept,),
        "self_attn.o_proj.bias": (width,),
        "mlp.gate_proj.weight": (shape.inner, width),
        "mlp.up_proj.weight": (shape.inner, width),
        "mlp.down_proj.weight": (width, shape.inner),
        "mlp.gate_proj.bias": (shape.inner,),
        "mlp.up_proj.bias": (shape.inner,),
        "mlp.down_proj.bias": (width,),
    }


def open_folder(folder: Path | str, *, weights: WeightsAs = "stored") -> Llama:
    """A model as Hugging Face lays it out: ``config.json``, ``tokenizer.json``, ``*.safetensors``.

    Raises:
        WeightsError: a file is missing, damaged, or does not fit the others.
        ArchitectureError: the model is of another kind.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    shape = shape_of_config(config, str(folder / "config.json"))
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"{folder.name} has no file of weights", "It needs one or more .safetensors.")
    opened = [open_safetensors(path) for path in files]
    tensors = _Together({name: part for part in opened for name in part})
    return Llama(shape, tensors, tokenizer_of_folder(folder, read_json), name=folder.name, weights=weights)


class _Together(Mapping[str, Any]):
    """The tensors of several files."""

    def __init__(self, homes: dict[str, Mapping[str, Any]]) -> None:
        self._homes = homes

    def __getitem__(self, key: str) -> Any:
        return self._homes[key][key]

    def __iter__(self):  # noqa: ANN204
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def read_json(path: Path) -> dict[str, Any]:
    """Raises WeightsError."""
    try:
        if path.stat().st_size > _TEXT_BYTES_MAX:
            raise WeightsError(f"{path.name} is larger than {_TEXT_BYTES_MAX} bytes", "", place=str(path))
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path.name} cannot be read: {error}", "", place=str(path)) from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path.name} is no JSON object", "", place=str(path))
    return cast("dict[str, Any]", found)
