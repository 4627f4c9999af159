"""A small model of the Llama architecture with weights drawn by lot, written in each form, and computed plainly."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

Floats = npt.NDArray[Any]

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "max_position_embeddings": 96,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "eos_token_id": [2],
}
TEXT = (
    "the quick brown fox jumps over the lazy dog while the harbour lamp shines on a wooden table, "
    "and somebody asks how much is the kettle, the mug or the quiet clock on the wall"
)


def config(**changes: Any) -> dict[str, Any]:
    return {**CONFIG, **changes}


def weights(config: dict[str, Any], seed: int = 1) -> dict[str, Floats]:
    dice = np.random.default_rng(seed)
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    out, kept = head * config["num_attention_heads"], head * config["num_key_value_heads"]

    def drawn(*size: int) -> Floats:
        return (dice.standard_normal(size) * 0.15).astype(np.float32)

    made = {"model.embed_tokens.weight": drawn(config["vocab_size"], width) * 4, "model.norm.weight": drawn(width) + 1}
    if not config["tie_word_embeddings"]:
        made["lm_head.weight"] = drawn(config["vocab_size"], width)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        made[f"{at}.input_layernorm.weight"] = drawn(width) + 1
        made[f"{at}.post_attention_layernorm.weight"] = drawn(width) + 1
        sizes = {"q": (out, width), "k": (kept, width), "v": (kept, width), "o": (width, out)}
        for name, size in sizes.items():
            made[f"{at}.self_attn.{name}_proj.weight"] = drawn(*size)
            if config["model_type"] == "qwen2" and name != "o":
                made[f"{at}.self_attn.{name}_proj.bias"] = drawn(size[0])
        made[f"{at}.mlp.gate_proj.weight"] = drawn(inner, width)
        made[f"{at}.mlp.up_proj.weight"] = drawn(inner, width)
        made[f"{at}.mlp.down_proj.weight"] = drawn(width, inner)
    # What it says are words of the tokenizer's text, and never single bytes.
    made["model.embed_tokens.weight"][:259] *= 0.05
    # As they will be stored.
    return {name: tensor.astype(np.float16).astype(np.float32) for name, tensor in made.items()}


def logits(config: dict[str, Any], tensors: dict[str, Floats], ids: list[int]) -> Floats:
    """Of each position, ``[tokens, vocabulary]``: the whole text at once, in float64, nothing kept."""
    head, groups = config["head_dim"], config["num_attention_heads"] // config["num_key_value_heads"]
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    halves: Floats = np.arange(0, head, 2, dtype=np.float32)
    frequencies: Floats = float(config["rope_theta"]) ** (-halves.astype(np.float64) / head) / config.get(
        "divisors", 1.0
    )
    angles: Floats = np.tile(np.outer(np.arange(len(ids)), frequencies), 2)

    def normed(x: Any, name: str) -> Any:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * weights[name]

    def heads(x: Any, name: str) -> Any:
        made = x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)
        return made.reshape(len(ids), -1, head).swapaxes(0, 1)

    def turned(x: Any) -> Any:
        one, other = np.split(x, 2, axis=-1)
        return x * np.cos(angles) + np.concatenate((-other, one), axis=-1) * np.sin(angles)

    x = weights["model.embed_tokens.weight"][ids]
    mask = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        y = normed(x, f"{at}.input_layernorm.weight")
        query, key = turned(heads(y, f"{at}.self_attn.q_proj")), turned(heads(y, f"{at}.self_attn.k_proj"))
        key, value = key.repeat(groups, 0), heads(y, f"{at}.self_attn.v_proj").repeat(groups, 0)
        scores = query @ key.swapaxes(1, 2) / np.sqrt(head) + mask
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        joined = (shares @ value).swapaxes(0, 1).reshape(len(ids), -1)
        x = x + joined @ weights[f"{at}.self_attn.o_proj.weight"].T
        y = normed(x, f"{at}.post_attention_layernorm.weight")
        gate = y @ weights[f"{at}.mlp.gate_proj.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (y @ weights[f"{at}.mlp.up_proj.weight"].T)
        x = x + inner @ weights[f"{at}.mlp.down_proj.weight"].T
    last = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return (normed(x, "model.norm.weight") @ last.T).astype(np.float32)


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT], trainer)
    return made


def write_folder(folder: Path, config: dict[str, Any], tensors: dict[str, Floats]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.astype(np.float16) for name, tensor in tensors.items()}, str(folder / "model.safetensors"))
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


# GGUF, written as llama.cpp writes it.

_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "BF16": 30}
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
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


def quantised(values: Floats, form: str) -> tuple[bytes, Floats]:
    """The bytes in a form, and the numbers that they stand for."""
    if form == "F32":
        return values.astype("<f4").tobytes(), values
    if form == "F16":
        return values.astype("<f2").tobytes(), values.astype(np.float16).astype(np.float32)
    if form == "BF16":
        upper = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
        return upper.tobytes(), (upper.astype("<u4") << 16).view("<f4")
    blocks = values.reshape(-1, 32)
    largest = np.abs(blocks).max(1, keepdims=True)
    scale = (largest / (127 if form == "Q8_0" else 7)).astype(np.float16)
    safe = np.where(scale == 0, 1, scale).astype(np.float32)
    if form == "Q8_0":
        numbers = np.clip(np.rint(blocks / safe), -127, 127).astype(np.int8)
        raw = np.concatenate((scale.view(np.uint8), numbers.view(np.uint8)), axis=1)
    else:
        numbers = np.clip(np.rint(blocks / safe), -8, 7)
        shifted = (numbers + 8).astype(np.uint8)
        raw = np.concatenate((scale.view(np.uint8), shifted[:, :16] | shifted[:, 16:] << 4), axis=1)
    return raw.tobytes(), (numbers * scale.astype(np.float32)).astype(np.float32).reshape(values.shape)


def gguf_name(name: str) -> str:
    base, _, kind = name.rpartition(".")
    if base.startswith("model.layers."):
        _, _, layer, inside = base.split(".", 3)
        return f"blk.{layer}.{_NAMES[inside]}.{kind}"
    return f"{_NAMES[base]}.{kind}"


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(content: Any) -> bytes:
    """With its type before it."""
    if isinstance(content, bool):
        return struct.pack("<I?", 7, content)
    if isinstance(content, int):
        return struct.pack("<II", 4, content)
    if isinstance(content, float):
        return struct.pack("<If", 6, content)
    if isinstance(content, str):
        return struct.pack("<I", 8) + string(content)
    kind = {int: 5, float: 6, str: 8}[type(content[0])]
    each = [string(item) if kind == 8 else struct.pack("<i" if kind == 5 else "<f", item) for item in content]
    return struct.pack("<IIQ", 9, kind, len(content)) + b"".join(each)


def gguf_bytes(metadata: dict[str, Any], tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    head += b"".join(string(key) + value(content) for key, content in metadata.items())
    body = b""
    for name, (form, shape, raw) in tensors.items():
        head += string(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", each) for each in reversed(shape))
        head += struct.pack("<IQ", _TYPES[form], len(body))
        body += raw + b"\0" * (-len(raw) % 32)
    return head + b"\0" * (-len(head) % 32) + body


def write_gguf(
    path: Path, config: dict[str, Any], tensors: dict[str, Floats], form: str, made: Tokenizer | None = None
) -> dict[str, Floats]:
    """Writes the model; gives the weights that the file stands for, by Hugging Face's names."""
    kind, head = config["model_type"], config["head_dim"]
    meant: dict[str, Floats] = {}
    written: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for name, tensor in tensors.items():
        used = form if tensor.ndim == 2 else "F32"
        stored = tensor
        turned = kind == "llama" and ("q_proj" in name or "k_proj" in name)
        if turned:  # neighbours turn together there
            stored = tensor.reshape(-1, 2, head // 2, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        raw, numbers = quantised(np.ascontiguousarray(stored), used)
        numbers = numbers.reshape(tensor.shape)
        if turned:
            numbers = numbers.reshape(-1, head // 2, 2, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        meant[name] = numbers
        written[gguf_name(name)] = (used, tensor.shape, raw)
    told = json.loads((made or tokenizer()).to_str())["model"]
    vocabulary = sorted(told["vocab"], key=told["vocab"].get)
    if "divisors" in config:
        written["rope_freqs.weight"] = ("F32", (head // 2,), np.asarray(config["divisors"], "<f4").tobytes())
    metadata: dict[str, Any] = {
        "general.architecture": kind,
        f"{kind}.embedding_length": config["hidden_size"],
        f"{kind}.feed_forward_length": config["intermediate_size"],
        f"{kind}.block_count": config["num_hidden_layers"],
        f"{kind}.attention.head_count": config["num_attention_heads"],
        f"{kind}.attention.head_count_kv": config["num_key_value_heads"],
        f"{kind}.attention.key_length": head,
        f"{kind}.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        f"{kind}.context_length": config["max_position_embeddings"],
        f"{kind}.rope.freq_base": config["rope_theta"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.token_type": [3 if token.startswith("<|") else 1 for token in vocabulary],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in told["merges"]],
        "tokenizer.ggml.eos_token_id": 2,
    }
    if made is None:
        metadata["tokenizer.chat_template"] = "{% for message in messages %}{{ message.content }}{% endfor %}"
    path.write_bytes(gguf_bytes(metadata, written))
    return meant
