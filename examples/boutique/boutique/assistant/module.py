"""The inside of the assistant: two versions of a model, and what they are told of the shelf."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import cast

from boutique.assistant import QUESTION_MAX, Assistant, Piece, QuestionRefused, ShopTalk, Turn
from boutique.assistant.evaluation import evaluated
from boutique.assistant.page import app
from boutique.assistant.shelf import things_for, told
from boutique.catalog import Catalog
from seamline import Module, Watch
from seamline.models.chat import ChatChunk, ChatRequest, Message
from seamline.models.runtimes.chat_model import LlamaChat

_WEIGHTS = Path(__file__).parent / "weights"
_TURNS_MAX = 5
_TOKENS_MAX = 120

module = Module("assistant", provides=(ShopTalk, Assistant))
module.mount(app, at="/talk")


class ShopModel(LlamaChat):
    """What both versions share."""

    weights = "int8"
    """Nearly the same answers as in full, of a quarter of the memory."""

    async def evaluate(self) -> dict[str, float]:
        """On shelves that were made up."""
        return await evaluated(self.complete)


@module.model(ShopTalk, version="tiny-1", runs_in="loop", loads="first_call", watch=Watch())
class Tiny(ShopModel):
    """Four million parameters. ``tools/tiny_llm`` trains it."""

    name = "tiny-1"
    folder = _WEIGHTS / name


@module.model(ShopTalk, version="tiny-2", runs_in="loop", watch=Watch())
class Tinier(ShopModel):
    """One million, and half the training: as quick to speak, and wrong about prices. A canary that should not live."""

    name = "tiny-2"
    folder = _WEIGHTS / name


@module.service
class AssistantService(Assistant):
    def __init__(self, talk: ShopTalk, catalog: Catalog) -> None:
        self._talk = talk
        self._catalog = catalog

    async def answer(self, turns: tuple[Turn, ...]) -> AsyncGenerator[Piece]:
        asked = [turn.text for turn in turns if turn.who == "shopper"]
        question = turns[-1].text.strip() if turns and turns[-1].who == "shopper" else ""
        if not 0 < len(question) <= QUESTION_MAX:
            raise QuestionRefused(length=len(question))
        products = await self._catalog.list_products()
        things = things_for(question, asked[-2] if len(asked) > 1 else "", products)
        # The model's memory is short, and a question does not get better by what was said long before.
        said = [
            Message(role="user" if turn.who == "shopper" else "assistant", content=turn.text[:QUESTION_MAX])
            for turn in turns[-_TURNS_MAX:]
        ]
        request = ChatRequest(messages=(Message(role="system", content=told(things)), *said), tokens_max=_TOKENS_MAX)
        # Who leaves ends the model's work at once, and not when what is left is swept up.
        stream = cast("AsyncGenerator[ChatChunk]", self._talk.stream(request))
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                if chunk.text or chunk.refusal:
                    yield Piece(text=chunk.text or chunk.refusal)
                if chunk.finish:
                    yield Piece(model=chunk.model, tokens=chunk.usage.output_tokens if chunk.usage else 0)
