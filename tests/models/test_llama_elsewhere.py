"""Libraries that run language models: what is asked of each, by stand-ins that have its names and nothing else.

The libraries themselves are heavy, and not installed where these tests run; that the names are right was seen with
onnxruntime-genai 0.18, CTranslate2 4.8 and transformers 5.23.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

pytest.importorskip("tokenizers", reason="the extra `models` is not installed")

from tests.models import llama_oracle as oracle

from seamline.models.errors import EngineRefused, EngineUnreachable, ExtraMissingError
from seamline.models.runtimes.blocking import BlockingEngine
from seamline.models.runtimes.ctranslate2 import CTranslate2
from seamline.models.runtimes.genai import GenAi
from seamline.models.runtimes.llamacpp import LlamaCpp
from seamline.models.runtimes.tokens import Sampling, Token
from seamline.models.runtimes.transformers import Transformers

WORDS = oracle.tokenizer().encode("the quick brown fox").ids
END = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = oracle.write_folder(tmp_path_factory.mktemp("model"), oracle.config(), oracle.weights(oracle.config()))
    told = {"model": {"context_length": 96, "eos_token_id": [END]}}
    (made / "genai_config.json").write_text(json.dumps(told))
    (made / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    return made


class Library:
    """Says the words of the fox and the end; notes what it was asked, and whether it was let go."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.let_go = 0

    def steps(self, **asked: Any) -> Iterator[int]:
        self.asked.append(asked)
        try:
            yield from [*WORDS, END, END]
        finally:
            self.let_go += 1


def genai(library: Library, folder: Path, patch: pytest.MonkeyPatch) -> BlockingEngine:
    class Parameters:
        def __init__(self, model: object) -> None:
            self.asked: dict[str, Any] = {}

        def set_search_options(self, **options: Any) -> None:
            self.asked.update(options)

    class Generator:
        def __init__(self, model: object, parameters: Parameters) -> None:
            self._parameters = parameters

        def append_tokens(self, tokens: list[int]) -> None:
            self._steps = library.steps(prompt=tokens, **self._parameters.asked)

        def is_done(self) -> bool:
            return False

        def generate_next_token(self) -> None:
            self._next = next(self._steps)

        def get_next_tokens(self) -> list[int]:
            return [self._next]

    model = SimpleNamespace(Model=str, GeneratorParams=Parameters, Generator=Generator)
    patch.setitem(sys.modules, "onnxruntime_genai", model)  # type: ignore[arg-type]
    return GenAi(folder)


def ctranslate2(library: Library, folder: Path, patch: pytest.MonkeyPatch) -> BlockingEngine:
    class Generator:
        def __init__(self, folder: str, **_: Any) -> None: ...

        def generate_tokens(self, prompt: list[str], **asked: Any) -> Iterator[Any]:
            assert all(isinstance(each, str) for each in prompt)
            for step in library.steps(prompt=prompt, **asked):
                yield SimpleNamespace(token_id=step)

    patch.setitem(sys.modules, "ctranslate2", SimpleNamespace(Generator=Generator))  # type: ignore[arg-type]
    return CTranslate2(folder, context=96)


def llamacpp(library: Library, folder: Path, patch: pytest.MonkeyPatch) -> BlockingEngine:
    tokenizer = oracle.tokenizer()

    class Llama:
        metadata: ClassVar = {"tokenizer.chat_template": "{{ messages[0].content }}"}

        def __init__(self, **_: Any) -> None: ...

        def token_eos(self) -> int:
            return END

        def set_seed(self, seed: int) -> None:
            library.asked.append({"seed": seed})

        def tokenize(self, text: bytes, *, add_bos: bool, special: bool) -> list[int]:
            return tokenizer.encode(text.decode()).ids

        def detokenize(self, tokens: list[int]) -> bytes:
            return tokenizer.decode(tokens).encode()

        def generate(self, tokens: list[int], **asked: Any) -> Iterator[int]:
            return library.steps(prompt=tokens, **asked)

    patch.setitem(sys.modules, "llama_cpp", SimpleNamespace(Llama=Llama))  # type: ignore[arg-type]
    return LlamaCpp(folder / "model.gguf", context=96)


def transformers(library: Library, folder: Path, patch: pytest.MonkeyPatch) -> BlockingEngine:
    class Manager:
        def start(self) -> None: ...

        def stop(self, *, block: bool) -> None: ...

        def add_request(self, tokens: list[int], **asked: Any) -> str:
            self._steps = library.steps(prompt=tokens, **asked)
            return "1"

        def request_id_iter(self, request: str) -> Iterator[Any]:
            made: list[int] = []
            for step in self._steps:
                made.append(step)
                yield SimpleNamespace(generated_tokens=[*made], error=None)

        def cancel_request(self, request: str) -> None:
            self._steps.close()  # type: ignore[attr-defined]

    class Model:
        config = SimpleNamespace(max_position_embeddings=96, eos_token_id=END)
        generation_config = SimpleNamespace(eos_token_id=None)

        @classmethod
        def from_pretrained(cls, folder: str, **how: Any) -> Model:
            assert how["use_safetensors"]
            assert how["local_files_only"]
            assert not how["trust_remote_code"]
            return cls()

        def eval(self) -> Model:
            return self

        def init_continuous_batching(self, **_: Any) -> Manager:
            return Manager()

    names = SimpleNamespace(
        AutoModelForCausalLM=Model, ContinuousBatchingConfig=SimpleNamespace, GenerationConfig=SimpleNamespace
    )
    patch.setitem(sys.modules, "torch", SimpleNamespace())  # type: ignore[arg-type]
    patch.setitem(sys.modules, "transformers", names)  # type: ignore[arg-type]
    return Transformers(folder)


Make = Callable[[Library, Path, pytest.MonkeyPatch], BlockingEngine]
EVERY = pytest.mark.parametrize("make", [genai, ctranslate2, llamacpp, transformers])


async def said(engine: BlockingEngine, **how: Any) -> list[Token]:
    prompt = engine.tokenizer.encode("while the harbour")
    return [token async for token in engine.generate(prompt, Sampling(**how))]


@EVERY
async def test_an_answer_ends_where_the_model_says(make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The same text of each; the token that ends it is no part of it, and nothing is computed after it."""
    library = Library()
    engine = make(library, folder, monkeypatch)
    tokens = await said(engine)
    assert "".join(token.text for token in tokens) == "the quick brown fox"
    assert tokens[-1].finish == "stop"
    assert library.asked[-1]["prompt"]
    engine.close()
    with pytest.raises(EngineUnreachable):
        await said(engine)


@EVERY
async def test_bounds_hold(make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Tokens and stop strings end an answer; a prompt that is too long, and a schema, are refused before it begins."""
    library = Library()
    engine = make(library, folder, monkeypatch)
    short = await said(engine, tokens_max=2)
    assert (len([token for token in short if token.id >= 0]), short[-1].finish) == (2, "length")
    stopped = await said(engine, stop=("brown",), temperature=0.5, top_p=0.9, seed=3)
    assert "".join(token.text for token in stopped) == "the quick "
    with pytest.raises(EngineRefused):
        async with aclosing(engine.generate([5] * 96, Sampling())) as tokens:
            await anext(tokens)
    with pytest.raises(EngineRefused):
        await said(engine, accepts=str.isdigit)
    engine.close()
    assert library.let_go == len([each for each in library.asked if "prompt" in each])


@EVERY
async def test_who_leaves_ends_the_computation(make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The library is let go, and the next one is answered."""
    library = Library()
    engine = make(library, folder, monkeypatch)
    async with aclosing(engine.generate(engine.tokenizer.encode("the"), Sampling())) as tokens:
        await anext(tokens)
    async with asyncio.timeout(10):
        assert len(await said(engine)) > 3
    assert engine.stats()["under_way"] == 0
    engine.close()


@pytest.mark.parametrize(
    ("make", "package", "extra"),
    [
        (GenAi, "onnxruntime_genai", "models-genai"),
        (CTranslate2, "ctranslate2", "models-ctranslate2"),
        (LlamaCpp, "llama_cpp", "models-llamacpp"),
        (Transformers, "torch", "models-torch"),
    ],
)
def test_what_is_missing_is_named(
    make: Callable[[Path], Any], package: str, extra: str, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """With what brings it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExtraMissingError) as missing:
        make(folder)
    assert extra in missing.value.remedy
