"""What people ask of the models hosted in one process: how they do, and an answer that comes while they read.

A conversation by hand is a call like any other by hand (``trying``). Its pieces wait here for who asks for more of
them; nobody asking any more ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import TaskOwner
from seamline.module.contract import Contract, compile_contract
from seamline.run.errors import RunError, UnknownTargetError
from seamline.run.trying import Trying

if TYPE_CHECKING:
    from seamline.models.gateway.pipeline import LanguageModels

_log = logging.getLogger("seamline.models")
STREAMS: Final = "stream"
"""The method of a contract that chats: see :class:`~seamline.models.chat.Chat`."""
_AHEAD_MAX: Final = 256
"""Pieces that may wait; the model waits when there are more."""
_TALKS_MAX: Final = 16
_TALK_S: Final = 60.0
_WAIT_S: Final = 5.0
_PATIENCE_S: Final = 20.0
"""Then whoever began it has gone."""

Say = Callable[[bytes], Awaitable[None]]
Answer = Callable[[Say], Awaitable[dict[str, Any]]]
"""Says its pieces, and gives what it ended in."""
Work = Callable[[str, Mapping[str, Any], Callable[[str], Awaitable[None]]], Awaitable[dict[str, Any]]]


class ModelRoom:
    """Of one process.

    Args:
        contracts: of the application, with the module of each.
        stats: of the models and the AI gateways here.
        gateway: the AI gateway that is served here, as whoever asks by hand meets it; None where none is.
        work: what takes long: evaluations and replays.
    """

    def __init__(
        self,
        contracts: Mapping[type[Contract], str],
        stats: Callable[[], Mapping[str, Any]],
        trying: Trying,
        gateway: Callable[[], LanguageModels | None],
        work: Work,
    ) -> None:
        self._contracts = contracts
        self._stats = stats
        self._trying = trying
        self._gateway = gateway
        self._work = work
        self._talks: dict[str, _Talk] = {}
        self._owner = TaskOwner("conversations by hand")

    async def ask(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """``show``; ``begin`` a conversation, ask for ``more`` of it, ``stop`` it."""
        match operation:
            case "show":
                return self._show()
            case "begin":
                return self._begin(self._answer(arguments))
            case "more":
                return await self._talk(str(arguments["id"])).more()
            case "stop":
                if (talk := self._talks.pop(str(arguments["id"]), None)) is not None:
                    talk.stop()
                return None
            case _:
                raise UnknownTargetError(
                    f"{operation!r} is nothing to do with models", "Known: show, begin, more, stop."
                )

    async def close(self) -> None:
        """End every conversation."""
        for talk in list(self._talks.values()):
            talk.stop()
        await self._owner.stop()

    def _show(self) -> dict[str, Any]:
        stats = self._stats()
        versions: dict[str, dict[str, Any]] = {}
        for name, found in stats.get("models", {}).items():
            contract, _, version = name.partition("@")
            versions.setdefault(contract, {})[version] = found
        return {
            "contracts": {
                contract.__name__: {
                    "module": module,
                    "chats": STREAMS in compile_contract(contract).methods and _is_chat(contract),
                    "versions": versions[contract.__name__],
                }
                for contract, module in self._contracts.items()
                if contract.__name__ in versions
            },
            "ai_gateway": stats.get("ai_gateway", {}),
        }

    def _begin(self, answer: Answer) -> dict[str, str]:
        for id_, talk in list(self._talks.items()):
            if talk.forgotten:
                del self._talks[id_]
                talk.stop()
        if len(self._talks) >= _TALKS_MAX:
            raise UnknownTargetError(f"{_TALKS_MAX} conversations by hand are under way", "End one of them.")
        id_ = secrets.token_hex(8)
        self._talks[id_] = _Talk(self._owner, answer)
        return {"id": id_}

    def _answer(self, arguments: Mapping[str, Any]) -> Answer:
        """Of ``alias`` at the AI gateway, or of a ``contract`` of a ``module``; or what a ``job`` says and ends in."""
        if job := str(arguments.get("job") or ""):
            return partial(_worked, self._work, job, arguments)
        request = arguments["request"]
        if alias := str(arguments.get("alias") or ""):
            models = self._gateway()
            if models is None:
                raise UnknownTargetError("no AI gateway is served here", "Set listen under [ai_gateway].")
            return partial(_through_gateway, models, alias, request)
        module, method = str(arguments["module"]), f"{arguments['contract']}.{STREAMS}"
        return partial(self._trying.stream, module, method, {"request": request})

    def _talk(self, id_: str) -> _Talk:
        talk = self._talks.get(id_)
        if talk is None:
            raise UnknownTargetError("there is no such conversation", "Begin another one.")
        return talk


class _Talk:
    """An answer under way."""

    def __init__(self, owner: TaskOwner, answer: Answer) -> None:
        self._pieces: asyncio.Queue[str] = asyncio.Queue(_AHEAD_MAX)
        self._ended: dict[str, Any] | None = None
        self._error: SeamlineError | None = None
        self._news = asyncio.Event()
        self._asked_at = asyncio.get_running_loop().time()
        self._task = owner.spawn(self._run(answer), name="conversation by hand")

    @property
    def forgotten(self) -> bool:
        return asyncio.get_running_loop().time() - self._asked_at > _PATIENCE_S

    async def more(self) -> dict[str, Any]:
        """What has come since, or comes within a few seconds; ``done`` once it is over. Raises what went wrong."""
        self._asked_at = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_S):
                await self._news.wait()
        pieces: list[str] = []
        while not self._pieces.empty():
            pieces.append(self._pieces.get_nowait())
        over = self._task.done() and self._pieces.empty()
        if not over:
            self._news.clear()
        if over and self._error is not None:
            raise self._error
        return {"pieces": pieces, "done": self._ended if over else None}

    def stop(self) -> None:
        self._task.cancel()

    async def _run(self, answer: Answer) -> None:
        self._task.add_done_callback(lambda _: self._news.set())
        try:
            self._ended = await answer(self._say)
        except SeamlineError as error:
            self._error = error

    async def _say(self, item: bytes) -> None:
        await self._pieces.put(item.decode())
        self._news.set()


async def _worked(work: Work, job: str, arguments: Mapping[str, Any], say: Say) -> dict[str, Any]:
    async def said(text: str) -> None:
        await say(text.encode())

    try:
        return await work(job, arguments, said)
    except SeamlineError:
        raise
    except Exception as error:  # of the application's code, or of a request that is none
        _log.exception("a %s of %s broke off", job, arguments.get("contract"))
        raise RunError(f"it broke off: {type(error).__name__}: {error}", "The log has the traceback.") from error


async def _through_gateway(models: LanguageModels, alias: str, request: Any, say: Say) -> dict[str, Any]:
    """As :meth:`Trying.stream`, of a model of the AI gateway. Its accounts have it under the module ``portal``."""
    from seamline.models.chat import ChatRequest  # only where models are asked

    told: dict[str, Any] = {}
    started = monotonic()
    try:
        asked = msgspec.convert({**request, "model": alias}, ChatRequest)
        async with asyncio.timeout(_TALK_S), aclosing(models.stream(asked)) as chunks:
            async for chunk in chunks:
                await say(msgspec.json.encode(chunk))
    except (TypeError, msgspec.ValidationError) as error:
        told = {
            "error": {"code": "invalid_argument", "message": f"that is no question to a model: {error}", "remedy": ""}
        }
    except TimeoutError:
        told = {"error": {"code": "deadline_exceeded", "message": f"it did not end within {_TALK_S:g} s", "remedy": ""}}
    except SeamlineError as error:
        told = {"error": {"code": error.code, "message": error.fact, "remedy": error.remedy}}
    return {**told, "duration_ms": (monotonic() - started) * 1000, "trace_id": ""}


def _is_chat(contract: type[Contract]) -> bool:
    from seamline.models.chat import Chat  # only where models are hosted

    return issubclass(contract, Chat)
