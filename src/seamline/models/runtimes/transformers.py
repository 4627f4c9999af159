"""Models that Hugging Face's transformers runs with torch, for architectures that nothing else here knows.

Answers are made together by its continuous batching. Left to itself, that takes most of the machine's memory for its
cache (9.1 GB for a model of 16 MB); here the cache is bounded by ``slots`` answers of ``context`` tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from seamline.models.errors import EngineUnreachable
from seamline.models.extras import required
from seamline.models.runtimes.blocking import BlockingEngine
from seamline.models.runtimes.chat_model import ChatModel
from seamline.models.runtimes.tokens import Sampling
from seamline.module.models import Artefacts

_PAGE: Final = 256
_ALL: Final = 1 << 30


class Transformers(BlockingEngine):
    """Only what is in the folder is loaded: safetensors, no code of the model's own.

    Args:
        folder: as ``save_pretrained`` writes it, with ``tokenizer.json``.
        slots: answers that are made at once.
        context: tokens of a prompt and its answer; the model's own limit if zero.
        threads: that torch computes with, in the whole process; as it is if zero.
    """

    def __init__(self, folder: Path | str, *, slots: int = 8, context: int = 0, threads: int = 0) -> None:
        folder = Path(folder)
        torch: Any = required("torch", "models-torch")
        package: Any = required("transformers", "models-torch")
        required("tokenizers")
        from seamline.models.runtimes.llama.files import read_json
        from seamline.models.runtimes.llama.tokenizer import tokenizer_of_folder

        if threads:
            torch.set_num_threads(threads)
        loaded: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
        model = package.AutoModelForCausalLM.from_pretrained(
            str(folder), attn_implementation="paged|sdpa", dtype="auto", **loaded
        ).eval()
        limit = int(getattr(model.config, "max_position_embeddings", 2048))
        ends = model.generation_config.eos_token_id
        ends = model.config.eos_token_id if ends is None else ends
        super().__init__(
            folder.name,
            tokenizer_of_folder(folder, read_json),
            context=min(context or limit, limit),
            ends=ends if isinstance(ends, list) else [] if ends is None else [ends],  # pyright: ignore[reportUnknownArgumentType]
            at_once=slots,
        )
        pages = slots * -(-self.context // _PAGE)
        bounds = package.ContinuousBatchingConfig(
            page_size=_PAGE, num_blocks=pages, max_batch_tokens=max(512, slots), per_request_processors=True
        )
        # What a request may set must not stand at the value that means nothing, or it is left out for good.
        how = package.GenerationConfig(do_sample=True, temperature=0.7, top_p=0.9, top_k=50, eos_token_id=ends)
        self._manager = model.init_continuous_batching(generation_config=how, continuous_batching_config=bounds)
        self._manager.start()

    def ids(self, prompt: Sequence[int], sampling: Sampling, tokens_max: int) -> Iterator[int]:
        # It always draws lots; with one to draw from, that is the likeliest.
        greedy = sampling.temperature <= 0
        request = self._manager.add_request(
            [*prompt],
            max_new_tokens=tokens_max,
            streaming=True,
            temperature=1.0 if greedy else sampling.temperature,
            top_p=1.0 if greedy else sampling.top_p,
            top_k=1 if greedy else sampling.top_k or _ALL,
        )
        told = 0
        try:
            for state in self._manager.request_id_iter(request):
                if state.error:
                    raise EngineUnreachable(f"transformers gave up on an answer: {state.error}", "")
                for token in state.generated_tokens[told:]:
                    told += 1
                    yield int(token)
        finally:
            self._manager.cancel_request(request)

    def close(self) -> None:
        self._manager.stop(block=True)
        super().close()


class TransformersChat(ChatModel):
    """A model that transformers runs."""

    folder: ClassVar[Path | str] = ""
    slots: ClassVar[int] = 8
    context: ClassVar[int] = 0
    threads: ClassVar[int] = 0

    def open(self, artefacts: Artefacts | None) -> Transformers:
        folder = artefacts.folder if artefacts is not None else self.folder
        return Transformers(folder, slots=self.slots, context=self.context, threads=self.threads)
