"""Models in the form of onnxruntime-genai: ``genai_config.json`` beside an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from seamline.models.extras import required
from seamline.models.runtimes.blocking import BlockingEngine
from seamline.models.runtimes.chat_model import ChatModel
from seamline.models.runtimes.tokens import Sampling
from seamline.module.models import Artefacts


class GenAi(BlockingEngine):
    """Each answer is computed by itself; several at once by as many threads.

    Args:
        folder: with ``genai_config.json``, the graph and ``tokenizer.json``.
        at_once: answers at the same time.
    """

    def __init__(self, folder: Path | str, *, at_once: int = 1) -> None:
        folder = Path(folder)
        self._genai: Any = required("onnxruntime_genai", "models-genai")
        required("tokenizers")
        from seamline.models.runtimes.llama.files import read_json
        from seamline.models.runtimes.llama.tokenizer import tokenizer_of_folder

        told = read_json(folder / "genai_config.json").get("model", {})
        ends = told.get("eos_token_id", [])
        super().__init__(
            folder.name,
            tokenizer_of_folder(folder, read_json),
            context=int(told.get("context_length", 2048)),
            ends=ends if isinstance(ends, list) else [ends],  # pyright: ignore[reportUnknownArgumentType]
            at_once=at_once,
        )
        self._model = self._genai.Model(str(folder))

    def ids(self, prompt: Sequence[int], sampling: Sampling, tokens_max: int) -> Iterator[int]:
        options: dict[str, Any] = {"max_length": len(prompt) + tokens_max, "do_sample": sampling.temperature > 0}
        if sampling.temperature > 0:
            options.update(temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k or 0)
        if sampling.seed is not None:
            options["random_seed"] = sampling.seed
        if sampling.repetition_penalty != 1.0:
            options["repetition_penalty"] = sampling.repetition_penalty
        parameters = self._genai.GeneratorParams(self._model)
        parameters.set_search_options(**options)
        generator = self._genai.Generator(self._model, parameters)
        generator.append_tokens([*prompt])
        while not generator.is_done():
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0])


class GenAiChat(ChatModel):
    """A model that onnxruntime-genai runs."""

    folder: ClassVar[Path | str] = ""
    at_once: ClassVar[int] = 1

    def open(self, artefacts: Artefacts | None) -> GenAi:
        return GenAi(artefacts.folder if artefacts is not None else self.folder, at_once=self.at_once)
