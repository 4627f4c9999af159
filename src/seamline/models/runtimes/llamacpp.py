"""GGUF models run by llama.cpp, for what :class:`~seamline.models.runtimes.chat_model.LlamaChat` does not know: other
architectures, and other hardware than the processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from seamline.models.extras import required
from seamline.models.runtimes.blocking import BlockingEngine
from seamline.models.runtimes.chat_model import ChatModel
from seamline.models.runtimes.tokens import Sampling
from seamline.module.models import Artefacts


class LlamaCpp(BlockingEngine):
    """One answer at a time: llama-cpp-python has one context, and no batches of several streams.

    Args:
        file: a ``.gguf``.
        context: tokens of a prompt and its answer; memory for so many is taken.
        threads: that it computes with.
        gpu_layers: how many layers run on a GPU, if it was built for one; -1 is all.
    """

    def __init__(self, file: Path | str, *, context: int = 2048, threads: int = 1, gpu_layers: int = 0) -> None:
        package: Any = required("llama_cpp", "models-llamacpp")
        self._llama: Any = package.Llama(
            model_path=str(file), n_ctx=context, n_threads=threads, n_gpu_layers=gpu_layers, verbose=False
        )
        tokenizer = _Tokenizer(self._llama)
        super().__init__(Path(file).name, tokenizer, context=context, ends=[int(self._llama.token_eos())])

    def ids(self, prompt: Sequence[int], sampling: Sampling, tokens_max: int) -> Iterator[int]:
        if sampling.seed is not None:
            self._llama.set_seed(sampling.seed)
        steps = self._llama.generate(
            [*prompt],
            temp=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            repeat_penalty=sampling.repetition_penalty,
        )
        for count, token in enumerate(steps, 1):
            yield int(token)
            if count == tokens_max:
                return


class _Tokenizer:
    """llama.cpp's own, of the file."""

    def __init__(self, llama: Any) -> None:
        self._llama = llama

    @property
    def template(self) -> str:
        return str(self._llama.metadata.get("tokenizer.chat_template", ""))

    @property
    def specials(self) -> Mapping[str, str]:
        return {}

    def encode(self, text: str) -> list[int]:
        return [int(each) for each in self._llama.tokenize(text.encode(), add_bos=False, special=True)]

    def stream(self) -> Callable[[int], str]:
        held = b""

        def text(token: int) -> str:
            nonlocal held
            held += self._llama.detokenize([token])
            try:
                shown = held.decode()
            except UnicodeDecodeError as error:
                # Half of a character waits for the rest; what can be none is shown as such.
                whole = error.start if error.end == len(held) and len(held) - error.start < 4 else len(held)
                shown = held[:whole].decode("utf-8", "replace")
                held = held[whole:]
                return shown
            held = b""
            return shown

        return text


class LlamaCppChat(ChatModel):
    """A model that llama.cpp runs."""

    file: ClassVar[Path | str] = ""
    context: ClassVar[int] = 2048
    threads: ClassVar[int] = 1
    gpu_layers: ClassVar[int] = 0

    def open(self, artefacts: Artefacts | None) -> LlamaCpp:
        file = next(iter(sorted(artefacts.folder.glob("*.gguf"))), self.file) if artefacts is not None else self.file
        return LlamaCpp(file, context=self.context, threads=self.threads, gpu_layers=self.gpu_layers)
