"""GGUF files: what they hold is read to the bit, and no file can make the reader do more than refuse."""

# ruff: noqa: E402  # what is imported needs the packages that are asked for first

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

np: Any = pytest.importorskip("numpy", reason="the extra `models` is not installed")
pytest.importorskip("tokenizers", reason="the extra `models` is not installed")

from tests.models import llama_oracle as oracle

from seamline.models.formats.errors import ArchitectureError, WeightsError
from seamline.models.formats.ggml import FORMS, Form
from seamline.models.formats.gguf import open_gguf
from seamline.models.runtimes.llama.gguf_model import open_gguf_model
from seamline.models.runtimes.llama.packed import Packed


@pytest.mark.parametrize("form", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
def test_tensors_are_the_numbers_that_were_written(tmp_path: Path, form: str):
    """Each form gives exactly the numbers that its bytes stand for, also where it is computed with as it is stored."""
    config = oracle.config()
    meant = oracle.write_gguf(tmp_path / "m.gguf", config, oracle.weights(config), form)
    llama = open_gguf_model(tmp_path / "m.gguf")
    for name, numbers in meant.items():
        found = llama.weight(name) if numbers.ndim == 2 else llama.floats(name)
        assert isinstance(found, Packed) == (form[0] == "Q" and numbers.ndim == 2)
        np.testing.assert_array_equal(found.floats() if isinstance(found, Packed) else found, numbers)


# Digests of the float32 that llama.cpp's own Python package `gguf` 0.19 gives for the blocks below.
_KNOWN = {
    "Q4_0": "b34ce0e28b0887cb",
    "Q4_1": "16a16d9856e05ba9",
    "Q5_0": "e6deb7502f636308",
    "Q5_1": "229b038bd2bb62bc",
    "Q8_0": "46373cbdf47cb038",
    "Q4_K": "fa7ef116b17cd75b",
    "Q5_K": "6fd012c8a6ecf7fe",
    "Q6_K": "46cf70c94736be3a",
}


@pytest.mark.parametrize("form", [form for form in FORMS.values() if form.name in _KNOWN], ids=lambda form: form.name)
def test_blocks_mean_what_they_mean_to_llama_cpp(form: Form):
    """Every bit of every block is where llama.cpp has it."""
    blocks = ((7 * np.arange(form.block_bytes)[None] + 13 * np.arange(8)[:, None]) % 251).astype(np.uint8)
    halves = np.array([0.5, -0.25, 1, 2, 0.125, -1, 0.75, 3], "<f2").view(np.uint8).reshape(-1, 2)
    for at in {"Q6_K": [208], "Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2]}.get(form.name, [0]):
        blocks[:, at : at + 2] = halves
    found = form.floats(blocks).astype("<f4").tobytes()
    assert hashlib.sha256(found).hexdigest()[:16] == _KNOWN[form.name]


def test_the_tokenizer_is_the_one_that_was_written(tmp_path: Path):
    """Texts become the same tokens as by the tokenizer from which the file was made; marks of turns are found."""
    config = oracle.config()
    oracle.write_gguf(tmp_path / "m.gguf", config, oracle.weights(config), "F16")
    llama, made = open_gguf_model(tmp_path / "m.gguf"), oracle.tokenizer()
    for text in (oracle.TEXT, "price: 89.00 €, naïve\n  <|im_start|>user\nhi<|im_end|>", "日本 🙂"):
        ids = llama.tokenizer.encode(text)
        assert ids == made.encode(text).ids
        plain = text.replace("<|im_start|>", "").replace("<|im_end|>", "")
        assert llama.tokenizer.decode(ids) == plain
        stream = llama.tokenizer.stream()
        assert "".join(map(stream, ids)) == plain
    assert llama.shape.ends == (0, 2)
    assert llama.tokenizer.template.startswith("{% for")
    assert llama.tokenizer.specials == {"eos_token": "<|im_end|>"}


def test_sentence_piece_merges_by_score(tmp_path: Path):
    """Of the llama kind: the token of the highest score is made first; what is unknown goes by bytes."""
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "a",
        "b",
        "ab",
        "▁a",
        "▁ab",
        "ba",
    ]
    scores = [0.0] * 259 + [-7.0, -6.0, -6.0, -2.0, -3.0, -1.0, -4.0]
    path = tmp_path / "m.gguf"
    config = oracle.config(vocab_size=len(tokens))
    oracle.write_gguf(path, config, oracle.weights(config), "F16")
    metadata = dict(open_gguf(path).metadata)
    metadata.update(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 7],
        }
    )
    del metadata["tokenizer.ggml.merges"]
    file = open_gguf(path)
    tensors = {
        name: ("F16" if len(t.shape) == 2 else "F32", t.shape, file.raw(name).tobytes())
        for name, t in file.tensors.items()
    }
    path.write_bytes(oracle.gguf_bytes(metadata, tensors))
    tokenizer = open_gguf_model(path).tokenizer
    assert [tokens[each] for each in tokenizer.encode("ab aba")] == ["▁ab", "▁ab", "a"]
    assert [tokens[each] for each in tokenizer.encode("é")] == ["▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode("ab é")) == "ab é"


def small() -> bytes:
    return oracle.gguf_bytes(
        {"general.architecture": "llama", "x.list": ["a", "b"], "x.numbers": [1, 2, 3], "x.flag": True},
        {"one": ("F32", (4, 8), bytes(128)), "two": ("Q8_0", (2, 32), bytes(68))},
    )


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read(tmp_path: Path, data: st.DataObject):
    """Bytes changed, cut off, or put in anywhere: WeightsError or a file, never anything else, never more memory
    than the file has bytes for."""
    raw = bytearray(small())
    kind = data.draw(st.sampled_from(["byte", "word", "cut", "more"]))
    at = data.draw(st.integers(0, len(raw) - 8))
    if kind == "byte":
        raw[at] = data.draw(st.integers(0, 255))
    elif kind == "word":
        raw[at : at + 8] = data.draw(
            st.sampled_from([b"\xff" * 8, bytes(8), struct.pack("<Q", 1 << 40), b"\xff" * 7 + b"\x7f"])
        )
    elif kind == "cut":
        raw = raw[:at]
    else:
        raw[at:at] = data.draw(st.binary(max_size=12))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(raw)
    try:
        file = open_gguf(path)
    except WeightsError:
        return
    for name, tensor in file.tensors.items():
        assert file[name].shape == tensor.shape


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"general.architecture": "mamba"}, "'mamba'"),
        ({"llama.block_count": 0}, "out of range"),
        ({"llama.attention.head_count": 5}, "cannot be run"),
        ({"tokenizer.ggml.model": "bert"}, "'bert'"),
        ({"tokenizer.ggml.merges": ["a", "b"]}, "tokenizer"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "tokenizer.ggml.tokens"),
        ({"llama.rope.scaling.type": "yarn"}, "'yarn'"),
    ],
)
def test_a_model_that_cannot_be_run_says_why(tmp_path: Path, change: dict[str, Any], fact: str):
    """The error names what is wrong."""
    config, path = oracle.config(), tmp_path / "m.gguf"
    oracle.write_gguf(path, config, oracle.weights(config), "F16")
    file = open_gguf(path)
    tensors = {
        name: ("F16" if len(t.shape) == 2 else "F32", t.shape, file.raw(name).tobytes())
        for name, t in file.tensors.items()
    }
    path.write_bytes(oracle.gguf_bytes({**file.metadata, **change}, tensors))
    with pytest.raises((WeightsError, ArchitectureError), match=fact):
        open_gguf_model(path)


def test_a_missing_tensor_is_named(tmp_path: Path):
    """Not found out in the middle of an answer."""
    config = oracle.config()
    tensors = oracle.weights(config)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    oracle.write_gguf(tmp_path / "m.gguf", config, tensors, "F16")
    llama = open_gguf_model(tmp_path / "m.gguf")
    with pytest.raises(WeightsError, match=r"layers\.1\.mlp\.up_proj"):
        llama.weight("model.layers.1.mlp.up_proj.weight")
