"""What people ask of the modules hosted here: what they offer, and a call made by hand.

A call is made by the principal ``portal`` and goes the way of any other: policy, deadline, limit, trace, which is
always recorded. Nothing is permitted to ``portal`` that policy does not permit.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec

from seamline.kernel.codec import CodecError
from seamline.kernel.signal.trace import TraceContext
from seamline.mesh.copies import unfit
from seamline.mesh.outcome import error_body, overloaded
from seamline.mesh.policy import PORTAL
from seamline.module.context import CallContext
from seamline.module.contract import compile_contract
from seamline.module.description import describe
from seamline.module.errors import CallError, InvalidArgument
from seamline.module.values import Fault
from seamline.run.errors import NotAllowedError, UnknownTargetError

if TYPE_CHECKING:
    from seamline.mesh.mesh import Mesh
    from seamline.mesh.service import Entry
    from seamline.run.application import Application

_CALL_S_MAX: Final = 30.0
_ITEMS_MAX: Final = 20
"""Of a stream; more are not waited for."""
_TEXT_MAX: Final = 256 * 1024


class Trying:
    """Describes and calls the modules of one process."""

    def __init__(self, application: Application, mesh: Mesh) -> None:
        self._application = application
        self._mesh = mesh

    async def ask(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """``describe`` the ``module``, or ``call`` its ``method`` with ``arguments``."""
        if operation == "describe":
            return await asyncio.to_thread(self.describe, str(arguments["module"]))
        return await self.call(str(arguments["module"]), str(arguments["method"]), arguments.get("arguments", {}))

    def describe(self, name: str) -> dict[str, Any]:
        """Contracts, faults and events of a module, whom it calls and hears, and who answers for it."""
        application = self._application
        contracts = {each: module for each, module in application.contracts.items() if module == name}
        events = {each: module for each, module in application.events.items() if module == name}
        offered = describe(contracts, events)
        texts = {each.__name__: each.__doc__ or "" for each in contracts}
        for contract in contracts:
            methods = compile_contract(contract).methods
            texts |= {f"{contract.__name__}.{method}": getattr(contract, method).__doc__ or "" for method in methods}
        module = application.modules[name]
        return {
            **offered["modules"].get(name, {"contracts": {}, "faults": {}, "events": {}}),
            "types": offered["types"],
            "texts": texts,
            "owner": module.owner,
            "version": module.version,
            "routes": [{"at": each.at, "host": each.host or ""} for each in module.mounts],
            "calls": [[contract, callee] for _, contract, callee, _ in application.asked_by(module)],
            "hears": [[event, publisher] for hearer, event, publisher in application.heard() if hearer == name],
            "sagas": sorted(each.name for each in module.sagas),
            "views": list(module.views),
        }

    async def call(self, module: str, method: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """What a call ended in: ``result`` as JSON text, or ``error``; how long it took, and in which trace.

        Raises UnknownTargetError for what is no method of the module, and NotAllowedError where a module of the
        application is itself called ``portal``.
        """
        entry = self._entry(module, method)
        context, trace = self._context(entry)
        told: dict[str, Any] = {}
        started = monotonic()
        try:
            async with self._admitted(entry, given, context) as arguments:
                text = await self._run(entry, arguments, context)
            told = {"result": text[:_TEXT_MAX], "left_out": max(len(text) - _TEXT_MAX, 0)}
        except (Fault, CallError) as error:
            told = {"error": _told(error)}
        return {**told, "duration_ms": (monotonic() - started) * 1000, "trace_id": trace}

    async def stream(
        self, module: str, method: str, given: Mapping[str, Any], say: Callable[[bytes], Awaitable[None]]
    ) -> dict[str, Any]:
        """The same of a method that streams: ``say`` gets each item as JSON when it comes, and the result is none."""
        entry = self._entry(module, method)
        if entry.spec.kind != "server_stream":
            raise UnknownTargetError(f"{method!r} does not stream", "Try it on its module's page.")
        context, trace = self._context(entry)
        told: dict[str, Any] = {}
        started = monotonic()
        try:
            async with (
                self._admitted(entry, given, context) as arguments,
                aclosing(self._mesh.serve_stream(entry, arguments, context)) as stream,
            ):
                async for item in stream:
                    await say(entry.encode(item))
        except (Fault, CallError) as error:
            told = {"error": _told(error)}
        return {**told, "duration_ms": (monotonic() - started) * 1000, "trace_id": trace}

    def _entry(self, module: str, method: str) -> Entry:
        if PORTAL in self._application.settings.modules:
            fact = f"the application has a module {PORTAL!r}, so that nothing can be tried as {PORTAL!r}"
            raise NotAllowedError(fact, "Rename the module.")
        entry = self._mesh.services.entries.get(method)
        if entry is None or entry.module != module:
            known = sorted(name for name, each in self._mesh.services.entries.items() if each.module == module)
            raise UnknownTargetError(f"module {module!r} has no method {method!r}", f"Known: {', '.join(known)}.")
        return entry

    def _context(self, entry: Entry) -> tuple[CallContext, str]:
        """Of a call by hand, and the id of its trace."""
        trace = TraceContext(random.getrandbits(128) or 1, 0, sampled=True)
        deadline = monotonic() + min(entry.rules.timeout_s, _CALL_S_MAX)
        return CallContext(entry.module, PORTAL, entry.name, deadline, trace, entry.priority), f"{trace.trace_id:032x}"

    @asynccontextmanager
    async def _admitted(
        self, entry: Entry, given: Mapping[str, Any], context: CallContext
    ) -> AsyncGenerator[tuple[Any, ...]]:
        """The arguments of a call that policy permits and there is room for."""
        spec, mesh = entry.spec, self._mesh
        if spec.item is not None:
            raise InvalidArgument(f"{entry.name} takes a stream, which cannot be given by hand")
        if mesh.decision(PORTAL, entry.module, spec) is False:
            raise mesh.denied(PORTAL, entry.module, spec.permission)
        try:
            arguments = entry.decode(msgspec.json.encode(given))
        except CodecError as error:
            raise unfit(f"the arguments of {entry.name} do", error) from None
        decision = mesh.decision(PORTAL, entry.module, spec)
        if decision is not True and (decision is False or not decision(None, arguments)):
            raise mesh.denied(PORTAL, entry.module, spec.permission, None, arguments)
        limit = entry.limit
        if limit is not None and not limit.admit(context.priority):
            raise overloaded(entry.name, f"{limit.inflight} calls are under way")
        started = monotonic()
        try:
            yield arguments
        finally:
            if limit is not None:
                limit.release(monotonic() - started)

    async def _run(self, entry: Entry, arguments: tuple[Any, ...], context: CallContext) -> str:
        mesh = self._mesh
        if entry.spec.kind != "server_stream":
            return entry.encode(await mesh.serve(entry, arguments, context)).decode()
        items: list[bytes] = []
        async with aclosing(mesh.serve_stream(entry, arguments, context)) as stream:
            async for item in stream:
                items.append(entry.encode(item))
                if len(items) == _ITEMS_MAX:
                    break
        return f"[{b','.join(items).decode()}]"


def _told(error: Fault | CallError) -> dict[str, str]:
    """``code`` as in the Connect protocol; ``error`` is the fault's name, or the error's code."""
    body = error_body(error)
    detail = bytes(body.detail).decode()
    return {"code": body.code, "error": body.error, "message": body.message, "remedy": body.remedy, "detail": detail}
