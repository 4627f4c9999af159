"""Many answers at once by one model: sequences join and leave between steps (continuous batching).

After Orca (Yu et al., OSDI 2022): each step appends one token to every sequence that is under way. A prompt is read in
pieces between steps, so that those under way go on meanwhile (as in Sarathi, Agrawal et al. 2023). A slot keeps what it
held when its answer has ended; a prompt that begins alike begins with a copy of that instead of reading it again.

Memory is bounded: ``slots`` sequences of ``context`` tokens; who comes when all slots are taken waits, and beyond
``waiting_max`` is told when to come again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator
from collections.abc import Sequence as Items
from contextlib import aclosing
from typing import Any, Final

import numpy as np

from seamline.models.errors import EngineError, EngineRefused, EngineUnreachable
from seamline.models.runtimes.llama.files import Llama
from seamline.models.runtimes.llama.runner import Runner
from seamline.models.runtimes.llama.sequence import Sequence
from seamline.models.runtimes.tokens import Sampling, Token
from seamline.module.errors import Overloaded

_log = logging.getLogger("seamline.models")

_MEMORY: Final = 0.9
"""What an older measure counts when a new one comes."""


class LlamaEngine:
    """See :class:`~seamline.models.runtimes.tokens.TokenEngine`.

    Args:
        llama: what :func:`open_folder` or :func:`open_gguf_model` opened.
        slots: answers that are made at once.
        context: tokens of a prompt and its answer; the model's own limit if zero, or if that is less.
        waiting_max: prompts that wait for a slot.
        read_max: tokens of prompts that are read between two steps.
        threads: that a step computes with.
    """

    def __init__(
        self,
        llama: Llama,
        *,
        slots: int = 8,
        context: int = 0,
        waiting_max: int = 256,
        read_max: int = 128,
        threads: int = 1,
    ) -> None:
        self.tokenizer = llama.tokenizer
        self.context = min(context or llama.shape.context, llama.shape.context)
        self.cache_bytes = slots * llama.shape.cache_bytes(self.context)
        """The most that keys and values take."""
        self._name = llama.name
        self._runner = Runner(llama, slots=slots, context=self.context, threads=threads)
        self._ends = frozenset(llama.shape.ends)
        self._kept: list[list[int]] = [[] for _ in range(slots)]
        """The tokens of which each slot holds keys and values."""
        self._live: dict[int, Sequence] = {}
        self._waiting: deque[Sequence] = deque()
        self._waiting_max = waiting_max
        self._read_max = read_max
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._answer_s = 0.0
        self._counts = dict.fromkeys(
            ("answers", "left", "refused", "steps", "tokens_out", "tokens_in", "tokens_cached"), 0
        )

    async def generate(self, prompt: Items[int], sampling: Sampling) -> AsyncGenerator[Token]:
        sequence = Sequence([*prompt], sampling, self.tokenizer, self._ends)
        self._enter(sequence)
        try:
            async with aclosing(sequence.tokens()) as tokens:
                async for token in tokens:
                    yield token
        finally:
            sequence.gone = True

    def stats(self) -> dict[str, Any]:
        return {
            "waiting": len(self._waiting),
            "under_way": len(self._live),
            "slots": len(self._kept),
            "context": self.context,
            "cache_bytes_max": self.cache_bytes,
            **self._counts,
        }

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    # Who comes in.

    def _enter(self, sequence: Sequence) -> None:
        size = len(sequence.prompt)
        if not 0 < size < self.context:
            refusal = EngineRefused(
                f"the prompt has {size} tokens, and {self._name} has room for {self.context - 1}",
                "Send less of the conversation.",
            )
            refusal.status, refusal.kind = 400, "context_length_exceeded"
            raise refusal
        with self._changed:
            if self._closed:
                raise EngineUnreachable(f"{self._name} is closed", "")
            if len(self._waiting) >= self._waiting_max:
                self._counts["refused"] += 1
                many = Overloaded(f"{len(self._waiting)} prompts wait for {self._name}", "")
                many.retry_after_s = max(self._answer_s * len(self._waiting) / len(self._kept), 0.05)
                raise many
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"model {self._name}", daemon=True)
                self._thread.start()
            self._waiting.append(sequence)
            self._changed.notify()

    # The thread.

    def _run(self) -> None:
        error: EngineError = EngineUnreachable(f"{self._name} was closed", "")
        try:
            while self._admit():
                self._turn()
        except Exception as caught:
            _log.exception("%s has stopped", self._name)
            error = EngineUnreachable(f"{self._name} has stopped: {type(caught).__name__}: {caught}", "See the log.")
        with self._changed:
            self._closed = True
            left = [*self._live.values(), *self._waiting]
            self._live.clear()
            self._waiting.clear()
        self._tell([(sequence, error) for sequence in left])

    def _admit(self) -> bool:
        """Wait until there is work, free the slots of those who left, fill free slots. False when closed."""
        with self._changed:
            while True:
                if self._closed:
                    return False
                for slot in [slot for slot, sequence in self._live.items() if sequence.gone]:
                    del self._live[slot]
                    self._counts["left"] += 1
                while self._waiting and len(self._live) < len(self._kept):
                    sequence = self._waiting.popleft()
                    if sequence.gone:
                        self._counts["left"] += 1
                        continue
                    # The lowest, so that a step has as few rows as can be.
                    sequence.slot = next(slot for slot in range(len(self._kept)) if slot not in self._live)
                    sequence.began = time.monotonic()
                    self._live[sequence.slot] = sequence
                if self._live:
                    return True
                self._changed.wait()

    def _turn(self) -> None:
        # First words do not wait for everybody's next one.
        self._tell(self._read_prompts())
        self._tell(self._step())

    def _read_prompts(self) -> list[tuple[Sequence, Token]]:
        """Pieces of prompts, up to the bound; the first tokens of those that are read to their end."""
        told: list[tuple[Sequence, Token]] = []
        left = self._read_max
        for sequence in [each for each in self._live.values() if each.read < len(each.prompt)]:
            if left <= 0:
                break
            if not sequence.read:
                self._reuse(sequence)
            piece = sequence.prompt[sequence.read : sequence.read + left]
            logits = self._runner.read(sequence.slot, np.array(piece, np.int64), sequence.read)
            sequence.read += len(piece)
            left -= len(piece)
            self._kept[sequence.slot] = sequence.prompt[: sequence.read]
            self._counts["tokens_in"] += len(piece)
            if sequence.read == len(sequence.prompt):
                told.append((sequence, self._take(sequence, logits)))
        return told

    def _reuse(self, sequence: Sequence) -> None:
        """Begin with what some slot holds of the same prompt; the last token is always read, for its logits."""
        most, source = max((_alike(kept, sequence.prompt), slot) for slot, kept in enumerate(self._kept))
        most = min(most, len(sequence.prompt) - 1)
        if most and source != sequence.slot:
            self._runner.copy(source, sequence.slot, most)
        sequence.read = sequence.cached = most
        self._kept[sequence.slot] = sequence.prompt[:most]
        self._counts["tokens_cached"] += most

    def _step(self) -> list[tuple[Sequence, Token]]:
        """One token for each sequence whose prompt is read."""
        ready = {slot: each for slot, each in self._live.items() if each.made and not each.gone}
        if not ready:
            return []
        rows = max(ready) + 1
        ids = np.zeros(rows, np.int64)
        # A row between that has nothing to say writes behind what its slot keeps, where nobody looks.
        lengths = np.array([min(len(kept), self.context - 1) for kept in self._kept[:rows]], np.int32)
        for slot, sequence in ready.items():
            ids[slot] = sequence.made[-1]
        logits = self._runner.step(ids, lengths)
        self._counts["steps"] += 1
        told: list[tuple[Sequence, Token]] = []
        for slot, sequence in ready.items():
            self._kept[slot].append(sequence.made[-1])
            told.append((sequence, self._take(sequence, logits[slot])))
        return told

    def _take(self, sequence: Sequence, logits: Any) -> Token:
        token = sequence.take(logits, len(self._kept[sequence.slot]) + 1 < self.context)
        self._counts["tokens_out"] += token.id >= 0
        if sequence.finished:
            del self._live[sequence.slot]
            self._counts["answers"] += 1
            took = time.monotonic() - sequence.began
            self._answer_s = self._answer_s * _MEMORY + took * (1 - _MEMORY) if self._answer_s else took
        return token

    def _tell(self, told: Items[tuple[Sequence, Token | EngineError]]) -> None:
        """Hand over what was made, with one wake-up for each event loop."""
        by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[Sequence, Token | EngineError]]] = defaultdict(list)
        for sequence, item in told:
            by_loop[sequence.loop].append((sequence, item))
        for loop, items in by_loop.items():
            try:
                loop.call_soon_threadsafe(_hear, items)
            except RuntimeError:  # the loop is closed, and with it whoever listened
                for sequence, _ in items:
                    sequence.gone = True


def _hear(items: Items[tuple[Sequence, Token | EngineError]]) -> None:
    for sequence, item in items:
        sequence.hear(item)


def _alike(one: Items[int], other: Items[int]) -> int:
    """How many tokens both begin with."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
