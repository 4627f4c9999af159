"""A call that carries an idempotency key runs once in effect: its answer is kept in the callee's own transaction.

All that the handler writes, and the answer (a result or a declared fault), commit together; a repeat of the call finds
the answer and gets it without running anything. What fails otherwise leaves nothing, and may be tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, String, Table, delete, insert, select
from sqlalchemy.exc import IntegrityError

from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.store import Database
from seamline.module.context import CURRENT, CallContext
from seamline.module.contract import UNARY, MethodSpec
from seamline.module.errors import InternalError, InvalidArgument
from seamline.module.values import Fault

metadata = MetaData()

answers = Table(
    "seamline_once",
    metadata,
    Column("key", String(300), primary_key=True),  # the caller and its key: nobody gets another's answer
    Column("method", String(200), nullable=False),
    Column("digest", LargeBinary, nullable=False),  # of the arguments
    Column("fault", String(200), nullable=False),  # its name, or empty
    Column("body", LargeBinary, nullable=False),  # the result, or the fault's fields, as JSON
    Column("at_ms", BigInteger, nullable=False),
    Index("seamline_once_at", "at_ms"),
)

PRUNE_EVERY: Final = 1_000
"""Calls with a key between two times that old answers are forgotten."""

Handler = Callable[..., Coroutine[Any, Any, Any]]


class Once:
    """Keeps the answers of one module.

    Args:
        keep_s: for how long an answer is kept, in seconds.
    """

    def __init__(self, database: Database, clock: Clock, *, keep_s: float) -> None:
        self._database = database
        self._clock = clock
        self._keep_s = keep_s
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._calls = 0

    async def start(self) -> None:
        await self._database.ensure(metadata)

    def wrap(self, spec: MethodSpec, handler: Handler, faults: Mapping[str, type[Fault]]) -> Handler:
        """The handler, for calls with a key once; a call without one passes straight through."""
        if spec.kind != UNARY or spec.readonly:
            return handler

        def once(*arguments: Any, **named: Any) -> Coroutine[Any, Any, Any]:
            context = CURRENT.get(None)
            if context is None or context.idempotency_key is None:
                return handler(*arguments, **named)
            values = (*arguments, *named.values())
            return self._run(spec, lambda: handler(*arguments, **named), faults, context, values)

        return once

    async def _run(
        self,
        spec: MethodSpec,
        handler: Callable[[], Coroutine[Any, Any, Any]],
        faults: Mapping[str, type[Fault]],
        context: CallContext,
        arguments: tuple[Any, ...],
    ) -> Any:
        key = f"{context.caller}:{context.idempotency_key}"
        if len(key) > 300:
            key = hashlib.sha256(key.encode()).hexdigest()
        digest = hashlib.sha256(spec.encode_request(arguments)).digest()
        # The same call twice at once in this process: the second waits for the first one's answer.
        while (first := self._under_way.get(key)) is not None:
            await asyncio.wait([first])
        ended = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            known = await self._find(key)
            if known is None:
                try:
                    return await self._answer(spec, handler, faults, key, digest)
                except _AnsweredElsewhereError:
                    known = await self._find(key)
            return _repeated(spec, faults, digest, known, context)
        finally:
            del self._under_way[key]
            ended.set_result(None)

    async def _answer(
        self,
        spec: MethodSpec,
        handler: Callable[[], Coroutine[Any, Any, Any]],
        faults: Mapping[str, type[Fault]],
        key: str,
        digest: bytes,
    ) -> Any:
        fault: Fault | None = None
        result: Any = None
        async with self._database.unit() as unit:
            try:
                result = await handler()
            except Fault as error:
                if faults.get(type(error).__name__) is not type(error):
                    raise
                fault = error
            row = {
                "key": key,
                "method": spec.full_name,
                "digest": digest,
                "fault": type(fault).__name__ if fault is not None else "",
                "body": fault.encode() if fault is not None else spec.result.encode(result),
                "at_ms": now_ms(self._clock),
            }
            connection = await unit.connection()
            try:
                await connection.execute(insert(answers).values(row))
            except IntegrityError:
                raise _AnsweredElsewhereError from None
        await self._prune_perhaps()
        if fault is not None:
            raise fault
        return result

    async def _find(self, key: str) -> Any:
        async with self._database.read() as r:
            return (await r.execute(select(answers).where(answers.c.key == key))).first()

    async def _prune_perhaps(self) -> None:
        self._calls += 1
        if self._calls % PRUNE_EVERY == 1 and self._keep_s > 0:
            oldest = now_ms(self._clock) - int(timedelta(seconds=self._keep_s) / timedelta(milliseconds=1))
            async with self._database.transaction() as tx:
                await tx.execute(delete(answers).where(answers.c.at_ms < oldest))


class _AnsweredElsewhereError(Exception):
    """Another process answered the same call while this one worked; what this one wrote is rolled back."""


def _repeated(
    spec: MethodSpec, faults: Mapping[str, type[Fault]], digest: bytes, row: Any, context: CallContext
) -> Any:
    if row is None:
        raise InternalError(
            f"the answer of {spec.full_name} to the key {context.idempotency_key!r} went while it was looked for",
            "Ask again.",
        )
    if row.method != spec.full_name or bytes(row.digest) != digest:
        raise InvalidArgument(
            f"the idempotency key {context.idempotency_key!r} was used for another call of {row.method}",
            "A key names one call with its arguments: draw a new one for another call.",
        )
    if row.fault:
        raise faults[row.fault].decode(bytes(row.body))
    return spec.result.decode(bytes(row.body))
