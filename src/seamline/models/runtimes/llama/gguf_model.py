"""A model of the Llama architecture in one GGUF file: its names, the order of its rows, its tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from seamline.models.formats.errors import ArchitectureError, WeightsError
from seamline.models.formats.ggml import halves, nibbles
from seamline.models.formats.gguf import Gguf, open_gguf
from seamline.models.runtimes.llama.files import EMBEDDING, HEAD, Llama, WeightsAs
from seamline.models.runtimes.llama.gguf_tokenizer import tokenizer_of_gguf
from seamline.models.runtimes.llama.packed import Packed
from seamline.models.runtimes.llama.shape import Shape, checked

_ARCHITECTURES: Final = ("llama", "qwen2")
_OUTSIDE: Final = {EMBEDDING: "token_embd.weight", HEAD: "output.weight", "model.norm.weight": "output_norm.weight"}
_INSIDE: Final = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def open_gguf_model(path: Path | str, *, weights: WeightsAs = "stored") -> Llama:
    """A model as llama.cpp keeps it. Tensors of form Q4_0 and Q8_0 are computed with as they are; others are widened.

    Raises:
        WeightsError: the file is damaged, or lacks something.
        ArchitectureError: the model is of another kind.
    """
    file = open_gguf(path)
    shape = _shape(file)
    tokenizer, ends = tokenizer_of_gguf(file)
    return Llama(
        dataclasses.replace(shape, ends=ends), _Tensors(file, shape), tokenizer, name=file.name, weights=weights
    )


def _shape(file: Gguf) -> Shape:
    told = file.metadata
    kind = told.get("general.architecture")
    if kind not in _ARCHITECTURES:
        raise ArchitectureError(
            f"{file.name} is of the architecture {kind!r}", f"Known are {', '.join(_ARCHITECTURES)}."
        )
    try:
        heads, width = int(told[f"{kind}.attention.head_count"]), int(told[f"{kind}.embedding_length"])
        shape = Shape(
            width=width,
            inner=int(told[f"{kind}.feed_forward_length"]),
            layers=int(told[f"{kind}.block_count"]),
            heads=heads,
            kv_heads=int(told.get(f"{kind}.attention.head_count_kv", heads)),
            head_size=int(told.get(f"{kind}.attention.key_length", width // heads)),
            vocabulary=len(told["tokenizer.ggml.tokens"]),
            context=int(told.get(f"{kind}.context_length", 2048)),
            rope_theta=float(told.get(f"{kind}.rope.freq_base", 10000.0)),
            epsilon=float(told.get(f"{kind}.attention.layer_norm_rms_epsilon", 1e-5)),
            rope_divisors=tuple(file["rope_freqs.weight"].tolist()) if "rope_freqs.weight" in file else (),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"{file.name} lacks or mistakes {error}", "", place=file.name) from error
    scaling = told.get(f"{kind}.rope.scaling.type", "none")
    if scaling not in {"none", "", "linear"} or (scaling == "linear" and told.get(f"{kind}.rope.scaling.factor") != 1):
        raise ArchitectureError(f"positions of type {scaling!r} are not supported", "", place=file.name)
    if len(shape.rope_divisors) not in {0, shape.head_size // 2}:
        raise WeightsError(f"{file.name} has {len(shape.rope_divisors)} divisors of frequencies", "", place=file.name)
    return checked(shape, file.name)


class _Tensors(Mapping[str, Any]):
    """The tensors of a file by Hugging Face's names, in its order of rows."""

    def __init__(self, file: Gguf, shape: Shape) -> None:
        self._file = file
        self._names = {name: there for name, there in self._all(shape) if there in file}
        # llama.cpp turns neighbours together, where Hugging Face turns halves; of qwen2 it does as that does.
        turned = file.metadata["general.architecture"] == "llama"
        self._heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads} if turned else {}

    @staticmethod
    def _all(shape: Shape) -> Iterator[tuple[str, str]]:
        yield from _OUTSIDE.items()
        for layer in range(shape.layers):
            for name, there in _INSIDE.items():
                for kind in ("weight", "bias"):
                    yield f"model.layers.{layer}.{name}.{kind}", f"blk.{layer}.{there}.{kind}"

    def __getitem__(self, key: str) -> Any:
        found = self._read(self._names[key])
        heads = self._heads.get(key.split(".")[-2], 0)
        if not heads:
            return found
        rows = found.rows if isinstance(found, Packed) else len(found)
        if rows % (2 * heads):
            raise WeightsError(f"{key!r} of {self._file.name} has {rows} rows for {heads} heads", "")
        order = np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
        return found.picked(order) if isinstance(found, Packed) else found[order]

    def _read(self, name: str) -> Any:
        tensor = self._file.tensors[name]
        if len(tensor.shape) != 2 or tensor.form.name not in {"Q4_0", "Q8_0"}:
            return self._file[name]
        raw, rows = self._file.raw(name), tensor.shape[0]
        scales = halves(raw, 0).reshape(rows, -1)
        if tensor.form.name == "Q8_0":
            # With the sign bit turned, a signed byte is an unsigned one whose zero is 128.
            return Packed(8, (raw[:, 2:] ^ 128).reshape(rows, -1, Packed.BLOCK), scales)
        numbers = nibbles(raw[:, 2:])
        return Packed(4, (numbers[:, 0::2] | numbers[:, 1::2] << 4).reshape(rows, -1, Packed.BLOCK // 2), scales)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
