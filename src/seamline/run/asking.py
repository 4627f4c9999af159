"""Questions of a worker on the control channel, and their answers: secrets, and what other gateways let through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final

from seamline.kernel.errors import SeamlineError
from seamline.module.errors import InvalidArgument, PermissionDenied
from seamline.run.control import AskSecrets, SecretsTold, Spend, Spent
from seamline.run.errors import AttestationError, ControlError
from seamline.secrets import errors

_ANSWER_S: Final = 30.0
_KNOWN: Final[Mapping[str, type[SeamlineError]]] = {
    kind.code: kind
    for kind in (PermissionDenied, InvalidArgument, AttestationError, ControlError, *vars(errors).values())
    if isinstance(kind, type) and issubclass(kind, SeamlineError)
}


class ControlSource:
    """Asks the supervisor.

    Args:
        send: puts a message on the control channel.
    """

    def __init__(self, send: Callable[[AskSecrets], None]) -> None:
        self._send = send
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, module: str, operation: str, arguments: Mapping[str, Any]) -> Any:
        """Raises what the keeper raised, or BackendDownError when no answer comes."""
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send(AskSecrets(number=number, module=module, operation=operation, arguments=dict(arguments)))
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await waiting
        except TimeoutError:
            raise errors.BackendDownError(
                f"the supervisor did not answer {operation!r} on secrets within {_ANSWER_S:g} s", "See its log."
            ) from None
        finally:
            del self._waiting[number]

    def hear(self, message: SecretsTold) -> None:
        waiting = self._waiting.get(message.number)
        if waiting is None or waiting.done():
            return
        if message.error is None:
            waiting.set_result(message.result)
            return
        told = message.error
        kind = _KNOWN.get(told.get("code") or "", errors.SecretsError)
        waiting.set_exception(kind(told.get("fact") or "", told.get("remedy") or "", place=told.get("place")))


class ControlStore:
    """The supervisor adds up what the gateways of this machine let through.

    Args:
        send: puts a message on the control channel.
    """

    def __init__(self, send: Callable[[Spend], None]) -> None:
        self._send = send
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Mapping[str, float]]] = {}

    async def spend(self, costs_s: Mapping[str, float], /) -> Mapping[str, float]:
        """As ``Store.spend``; the caller has the patience that it wants."""
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send(Spend(number=number, costs_s=dict(costs_s)))
        try:
            return await waiting
        finally:
            del self._waiting[number]

    def hear(self, message: Spent) -> None:
        waiting = self._waiting.get(message.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(message.ahead_s)

    async def close(self) -> None:
        """The channel is the worker's."""
