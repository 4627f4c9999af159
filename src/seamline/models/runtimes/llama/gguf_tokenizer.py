"""The tokenizer in a GGUF file: byte-level BPE with its merges, or SentencePiece's BPE with its scores."""

from __future__ import annotations

from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from seamline.models.formats.errors import ArchitectureError, WeightsError
from seamline.models.formats.gguf import Gguf
from seamline.models.runtimes.llama.tokenizer import LlamaTokenizer

_CONTROL, _USER = 3, 4
_ENDS: Final = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "</s>", "<|end|>")
"""Tokens that end a turn wherever they are control tokens."""
_LLAMA_3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_2: Final = _LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
_SPLITS: Final = {"llama-bpe": _LLAMA_3, "llama3": _LLAMA_3, "qwen2": _QWEN_2}


def tokenizer_of_gguf(file: Gguf) -> tuple[LlamaTokenizer, tuple[int, ...]]:
    """The tokenizer, and the tokens that end an answer. Raises WeightsError, ArchitectureError."""
    told = file.metadata
    tokens = _strings(file, "tokenizer.ggml.tokens")
    kind = told.get("tokenizer.ggml.model")
    if kind == "gpt2":
        made = _byte_level(file, tokens)
    elif kind == "llama":
        made = _sentence_piece(file, tokens)
    else:
        raise ArchitectureError(f"{file.name} has a tokenizer of kind {kind!r}", "Known are gpt2 and llama.")
    types: Any = told.get("tokenizer.ggml.token_type") or []
    marks = {index for index, each in enumerate(types) if each in {_CONTROL, _USER}}
    controls = {index for index, each in enumerate(types) if each == _CONTROL}
    # As tokens of their own they are found in a text before anything else; only control tokens are not shown.
    added: Any = made  # its types are not whole
    added.add_special_tokens([tokens[index] for index in sorted(controls) if index < len(tokens)])
    plain = [AddedToken(tokens[index], normalized=False) for index in sorted(marks - controls) if index < len(tokens)]
    added.add_tokens(plain)
    specials = {
        f"{name}_token": tokens[index]
        for name in ("bos", "eos")
        if isinstance(index := told.get(f"tokenizer.ggml.{name}_token_id"), int) and index < len(tokens)
    }
    template = told.get("tokenizer.chat_template", "")
    ends = {index for index in controls if index < len(tokens) and tokens[index] in _ENDS}
    eos = told.get("tokenizer.ggml.eos_token_id")
    ends |= {eos} if isinstance(eos, int) else set()
    return LlamaTokenizer(made, template if isinstance(template, str) else "", specials), tuple(sorted(ends))


def _byte_level(file: Gguf, tokens: list[str]) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ", 1)) for merge in _strings(file, "tokenizer.ggml.merges")]
    made = Tokenizer(_model(file, vocabulary, merges, ignore_merges=True))
    split = _SPLITS.get(str(file.metadata.get("tokenizer.ggml.pre", "")))
    if split is not None:
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(split), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
        digits = file.metadata.get("tokenizer.ggml.pre") == "smollm"
        made.pre_tokenizer = (
            pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain]) if digits else plain
        )
    made.decoder = decoders.ByteLevel()
    return made


def _sentence_piece(file: Gguf, tokens: list[str]) -> Tokenizer:
    """SentencePiece merges what makes the token of the highest score; as merges in that order it is the same."""
    scores: Any = file.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):  # pyright: ignore[reportUnknownArgumentType]
        raise WeightsError(f"{file.name} has not one score for each token", "")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    found: list[tuple[float, int, tuple[str, str]]] = []
    for token, index in vocabulary.items():
        halves = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [pair for pair in halves if pair[0] in vocabulary and pair[1] in vocabulary]
        known.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        found += [(-scores[index], len(found) + at, pair) for at, pair in enumerate(known)]
    found.sort(key=lambda each: each[:2])
    made = Tokenizer(_model(file, vocabulary, [pair for *_, pair in found], byte_fallback=True, fuse_unk=True))
    spaces: list[Any] = [normalizers.Replace(" ", "▁")]
    if file.metadata.get("tokenizer.ggml.add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend("▁"))
    made.normalizer = normalizers.Sequence(spaces)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def _model(file: Gguf, vocabulary: dict[str, int], merges: Any, **options: bool) -> Any:
    try:
        return models.BPE(vocabulary, merges, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]
    except Exception as error:  # it raises nothing narrower
        raise WeightsError(f"{file.name} has a tokenizer that is none: {error}", "") from error


def _strings(file: Gguf, key: str) -> list[str]:
    found = file.metadata.get(key)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):  # pyright: ignore[reportUnknownVariableType]
        raise WeightsError(f"{file.name} has no list of texts {key!r}", "Is it a whole model?")
    return found  # pyright: ignore[reportUnknownVariableType]
