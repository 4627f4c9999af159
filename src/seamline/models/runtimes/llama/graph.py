"""The ONNX graph of a model of the Llama architecture, with a cache of keys and values that is written in place.

Inputs: ``ids [rows, tokens]``, ``lengths [rows]`` (tokens in the cache with the new ones, less one), ``total`` (the
longest with the new ones), and for each layer ``key.N`` and ``value.N [rows, kv_heads, context, head_size]``.
Outputs: ``logits [rows, vocabulary]`` of each row's last token, and ``new_key.N``, ``new_value.N``, to be bound to the
inputs' memory.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from seamline.models.runtimes.llama.files import Llama
from seamline.models.runtimes.llama.packed import Packed
from seamline.models.runtimes.llama.shape import Floats, rotary

_CONTRIB: Final = "com.microsoft"
_INT8_PRODUCTS: Final = 4
"""How MatMulNBits computes: with activations as 8-bit integers, too."""

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


class LlamaGraph:
    """``model`` is the graph as ONNX's bytes; ``arrays`` are its weights, given to the session beside it."""

    def __init__(self, llama: Llama, context: int) -> None:
        self._llama = llama
        self._nodes: list[onnx.NodeProto] = []
        self.arrays: Arrays = {}
        self.model = self._build(context).SerializeToString()

    def _build(self, context: int) -> onnx.ModelProto:
        shape = self._llama.shape
        self.arrays["cosines"], self.arrays["sines"] = rotary(shape, context)
        self.arrays["embedding"] = self._llama.floats("model.embed_tokens.weight")
        hidden = self._node("Gather", ["embedding", "ids"], "embedded")
        branch = ""
        for layer in range(shape.layers):
            hidden, branch = self._layer(layer, hidden, branch)
        hidden, _ = self._normed("model.norm.weight", hidden, branch)
        self._logits(hidden)
        cache: list[int | str] = ["rows", shape.kv_heads, context, shape.head_size]
        names = [f"{kind}.{layer}" for layer in range(shape.layers) for kind in ("key", "value")]
        value = helper.make_tensor_value_info
        inputs = [
            value("ids", TensorProto.INT64, ["rows", "tokens"]),
            value("lengths", TensorProto.INT32, ["rows"]),
            value("total", TensorProto.INT32, []),
            *(value(name, TensorProto.FLOAT, cache) for name in names),
        ]
        outputs = [
            value("logits", TensorProto.FLOAT, ["rows", shape.vocabulary]),
            *(value(f"new_{name}", TensorProto.FLOAT, cache) for name in names),
        ]
        weights = [_outside(name, array) for name, array in self.arrays.items()]
        graph = helper.make_graph(self._nodes, "llama", inputs, outputs, initializer=weights)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(_CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _layer(self, layer: int, hidden: str, branch: str) -> tuple[str, str]:
        """``branch`` is what is still to be added to ``hidden``; adding and norming are one operation."""
        shape, at = self._llama.shape, f"model.layers.{layer}"
        normed, hidden = self._normed(f"{at}.input_layernorm.weight", hidden, branch)
        packed = self._product(f"qkv.{layer}", [f"{at}.self_attn.{each}_proj" for each in "qkv"], normed)
        attended = self._node(
            "GroupQueryAttention",
            [packed, "", "", f"key.{layer}", f"value.{layer}", "lengths", "total", "cosines", "sines"],
            f"attended.{layer}",
            f"new_key.{layer}",
            f"new_value.{layer}",
            domain=_CONTRIB,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=1,
        )
        branch = self._product(f"out.{layer}", [f"{at}.self_attn.o_proj"], attended)
        normed, hidden = self._normed(f"{at}.post_attention_layernorm.weight", hidden, branch)
        gate = self._product(f"gate.{layer}", [f"{at}.mlp.gate_proj"], normed)
        up = self._product(f"up.{layer}", [f"{at}.mlp.up_proj"], normed)
        # With an alpha of one it is SiLU.
        gate = self._node("QuickGelu", [gate], f"silu.{layer}", domain=_CONTRIB, alpha=1.0)
        inner = self._node("Mul", [gate, up], f"inner.{layer}")
        return hidden, self._product(f"down.{layer}", [f"{at}.mlp.down_proj"], inner)

    def _normed(self, weight: str, hidden: str, branch: str) -> tuple[str, str]:
        """The normed sum, and the sum."""
        self.arrays[weight] = self._llama.floats(weight)
        epsilon = self._llama.shape.epsilon
        if not branch:
            # It stands in ONNX's own domain, though only ONNX Runtime knows it.
            normed = self._node(
                "SimplifiedLayerNormalization", [hidden, weight], f"{weight}.normed", epsilon=epsilon, axis=-1
            )
            return normed, hidden
        self._node(
            "SkipSimplifiedLayerNormalization",
            [hidden, branch, weight],
            f"{weight}.normed",
            "",
            "",
            f"{weight}.sum",
            domain=_CONTRIB,
            epsilon=epsilon,
        )
        return f"{weight}.normed", f"{weight}.sum"

    def _product(self, name: str, sources: list[str], given: str) -> str:
        """``given`` times the weights of ``sources``, side by side, and their biases if they have some."""
        weights = [self._llama.weight(f"{source}.weight") for source in sources]
        made = self._matmul(name, weights, given)
        biases = [self._llama.find(f"{source}.bias") for source in sources]
        found = [bias for bias in biases if bias is not None]
        if len(found) != len(biases) or not found:
            return made
        self.arrays[f"{name}.bias"] = np.concatenate(found)
        return self._node("Add", [made, f"{name}.bias"], f"{name}.biased")

    def _matmul(self, name: str, weights: list[Floats | Packed], given: str) -> str:
        kinds = {weight.bits if isinstance(weight, Packed) else 32 for weight in weights}
        if len(kinds) == 1 and isinstance(weights[0], Packed):
            packed = Packed.side_by_side([weight for weight in weights if isinstance(weight, Packed)])
            self.arrays[f"{name}.blocks"] = packed.blocks
            self.arrays[f"{name}.scales"] = packed.scales
            return self._node(
                "MatMulNBits",
                [given, f"{name}.blocks", f"{name}.scales"],
                f"{name}.product",
                domain=_CONTRIB,
                K=packed.columns,
                N=packed.rows,
                bits=packed.bits,
                block_size=Packed.BLOCK,
                accuracy_level=_INT8_PRODUCTS,
            )
        rows = [weight.floats() if isinstance(weight, Packed) else weight for weight in weights]
        self.arrays[name] = np.ascontiguousarray(np.concatenate(rows).T)
        return self._node("MatMul", [given, name], f"{name}.product")

    def _logits(self, hidden: str) -> None:
        self.arrays["last"] = np.array(-1, dtype=np.int64)
        last = self._node("Gather", [hidden, "last"], "hidden.last", axis=1)
        head = self._llama.head()
        if isinstance(head, Packed):
            made = self._matmul("head", [head], last)
            self._node("Identity", [made], "logits")
        elif self._llama.tied:
            self._node("Gemm", [last, "embedding"], "logits", transB=1)
        else:
            self.arrays["head"] = head
            self._node("Gemm", [last, "head"], "logits", transB=1)

    def _node(self, kind: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, list(outputs), domain=domain, **attributes))
        return outputs[0]


def _outside(name: str, array: np.ndarray[Any, np.dtype[Any]]) -> onnx.TensorProto:
    """A weight whose content is given beside the graph: so no message grows too large, and nothing is copied."""
    tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="beside")
    return tensor
