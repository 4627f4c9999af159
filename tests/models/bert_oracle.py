"""BERT's forward pass in NumPy, text by text, as slow and plain as can be."""

from __future__ import annotations

import json
import string
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.ascii_lowercase]


class TinyBert:
    """Of random weights."""

    def __init__(self, layers: int = 2, width: int = 32, heads: int = 4) -> None:
        random = np.random.default_rng(7)
        self.layers, self.width, self.heads = layers, width, heads
        self.weights: dict[str, Any] = {}

        def add(name: str, *shape: int) -> None:
            self.weights[name] = random.normal(0, 0.4, shape).astype("float32")

        for name, rows in (("word", len(WORDS)), ("position", 40), ("token_type", 2)):
            add(f"embeddings.{name}_embeddings.weight", rows, width)
        norms, linears = ["embeddings.LayerNorm"], dict[str, tuple[int, int]]()
        for layer in range(layers):
            at = f"encoder.layer.{layer}."
            norms += [f"{at}attention.output.LayerNorm", f"{at}output.LayerNorm"]
            linears |= {f"{at}attention.self.{part}": (width, width) for part in ("query", "key", "value")}
            linears[f"{at}attention.output.dense"] = width, width
            linears[f"{at}intermediate.dense"] = 3 * width, width
            linears[f"{at}output.dense"] = width, 3 * width
        for name in norms:
            add(f"{name}.weight", width)
            add(f"{name}.bias", width)
        for name, (rows, columns) in linears.items():
            add(f"{name}.weight", rows, columns)
            add(f"{name}.bias", rows)

    def save(
        self,
        folder: Path,
        *,
        prefix: str = "",
        dtype: str = "float32",
        pooling: str = "mean_tokens",
        normalise: bool = True,
        **config: Any,
    ) -> Path:
        """As sentence-transformers would."""
        save_file(
            {prefix + name: value.astype(dtype) for name, value in self.weights.items()}, folder / "model.safetensors"
        )
        said = {
            "model_type": "bert",
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "max_position_embeddings": 40,
            "layer_norm_eps": 1e-12,
            "hidden_act": "gelu",
        }
        (folder / "config.json").write_text(json.dumps(said | config))
        (folder / "vocab.txt").write_text("\n".join(WORDS))
        stages = ["Transformer", "Pooling", *(["Normalize"] if normalise else [])]
        modules = [{"type": f"sentence_transformers.models.{stage}"} for stage in stages]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
        return folder

    def vector(self, text: str, *, pooling: str = "mean_tokens", normalise: bool = True, tokens_max: int = 40) -> Any:
        ids = [2, *[WORDS.index(word) for word in text.split()][: tokens_max - 2], 3]
        hidden = self._embedded(ids)
        for layer in range(self.layers):
            hidden = self._layer(f"encoder.layer.{layer}.", hidden)
        vector = hidden[0] if pooling == "cls_token" else hidden.mean(axis=0)
        return vector / np.linalg.norm(vector) if normalise else vector

    def _embedded(self, ids: list[int]) -> Any:
        words, places, kinds = (
            self.weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        )
        return self._normal("embeddings.LayerNorm", words[ids] + places[: len(ids)] + kinds[0])

    def _layer(self, at: str, hidden: Any) -> Any:
        size = self.width // self.heads
        query, key, value = (
            self._linear(f"{at}attention.self.{part}", hidden).reshape(-1, self.heads, size).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(size)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        heeded = (shares @ value).transpose(1, 0, 2).reshape(-1, self.width)
        heeded = self._linear(f"{at}attention.output.dense", heeded)
        hidden = self._normal(f"{at}attention.output.LayerNorm", heeded + hidden)
        wide = self._linear(f"{at}intermediate.dense", hidden)
        wide = wide * (1 + np.vectorize(erf)(wide / np.sqrt(2))) / 2
        return self._normal(f"{at}output.LayerNorm", self._linear(f"{at}output.dense", wide) + hidden)

    def _linear(self, name: str, rows: Any) -> Any:
        return rows @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _normal(self, name: str, rows: Any) -> Any:
        centred = rows - rows.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return centred / deviation * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
