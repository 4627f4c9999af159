"""Models in the form of CTranslate2 (``ct2-transformers-converter``), with ``tokenizer.json`` beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from seamline.models.extras import required
from seamline.models.runtimes.blocking import BlockingEngine
from seamline.models.runtimes.chat_model import ChatModel
from seamline.models.runtimes.tokens import Sampling
from seamline.module.models import Artefacts


class CTranslate2(BlockingEngine):
    """Each answer is computed by itself; several at once by as many of its workers.

    Args:
        folder: with ``model.bin``, ``config.json`` and ``tokenizer.json``.
        context: tokens of a prompt and its answer; CTranslate2 does not say.
        at_once: answers at the same time.
        threads: that each computes with.
        compute_type: such as ``int8``; as it was converted if it is ``default``.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        context: int = 2048,
        at_once: int = 1,
        threads: int = 1,
        compute_type: str = "default",
    ) -> None:
        folder = Path(folder)
        package: Any = required("ctranslate2", "models-ctranslate2")
        tokenizers: Any = required("tokenizers")
        from seamline.models.runtimes.llama.files import read_json
        from seamline.models.runtimes.llama.tokenizer import tokenizer_of_folder

        told = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._token: Any = told.id_to_token
        tokenizer = tokenizer_of_folder(folder, read_json)
        marks = {*tokenizer.specials.values(), read_json(folder / "config.json").get("eos_token", "")}
        ends = [found for mark in marks if (found := told.token_to_id(mark)) is not None]
        super().__init__(folder.name, tokenizer, context=context, ends=ends, at_once=at_once)
        self._generator = package.Generator(
            str(folder), device="cpu", inter_threads=at_once, intra_threads=threads, compute_type=compute_type
        )

    def ids(self, prompt: Sequence[int], sampling: Sampling, tokens_max: int) -> Iterator[int]:
        greedy = sampling.temperature <= 0
        steps = self._generator.generate_tokens(
            [self._token(each) for each in prompt],
            max_length=tokens_max,
            sampling_topk=1 if greedy else sampling.top_k,
            sampling_topp=1.0 if greedy else sampling.top_p,
            sampling_temperature=1.0 if greedy else sampling.temperature,
            repetition_penalty=sampling.repetition_penalty,
        )
        try:
            for step in steps:
                yield int(step.token_id)
        finally:
            # Closing it ends the computation.
            steps.close()


class CTranslate2Chat(ChatModel):
    """A model that CTranslate2 runs."""

    folder: ClassVar[Path | str] = ""
    context: ClassVar[int] = 2048
    at_once: ClassVar[int] = 1

    def open(self, artefacts: Artefacts | None) -> CTranslate2:
        folder = artefacts.folder if artefacts is not None else self.folder
        return CTranslate2(folder, context=self.context, at_once=self.at_once)
