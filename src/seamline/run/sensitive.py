"""Calls that policy permits and that are written all the same: of methods named in ``[audit] sensitive``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from seamline.kernel.audit import AuditLog
from seamline.module.context import CURRENT
from seamline.module.contract import MethodSpec
from seamline.module.values import Fault

Handler = Callable[..., Any]
Wrap = Callable[[MethodSpec, Handler, Mapping[str, type[Fault]]], Handler]


class Sensitive:
    """Puts a line of audit before the handlers of ``methods`` (``Contract.method``)."""

    def __init__(self, methods: tuple[str, ...], audit: AuditLog) -> None:
        self._methods = frozenset(methods)
        self._audit = audit

    def wrap(self, spec: MethodSpec, handler: Handler, faults: Mapping[str, type[Fault]]) -> Handler:  # noqa: ARG002
        name = f"{spec.contract}.{spec.name}"
        if name not in self._methods:
            return handler

        def audited(*arguments: Any, **named: Any) -> Any:
            self._write(name)
            return handler(*arguments, **named)

        return audited

    def _write(self, name: str) -> None:
        context = CURRENT.get(None)
        subject = context.subject if context is not None else None
        more: dict[str, Any] = {}
        if subject is not None and subject.user is not None:
            more |= {"user": subject.user.id, "issuer": subject.user.issuer}
        if subject is not None and subject.agent:
            more["agent"] = subject.agent
        if context is not None and context.trace is not None:
            more["trace"] = f"{context.trace.trace_id:032x}"
        self._audit.write(
            "call",
            "allow",
            principal=context.caller if context is not None else "",
            action=name,
            resource=context.module if context is not None else "",
            always=True,
            **more,
        )


def both(*wraps: Wrap) -> Wrap:
    """One after the other around the handler, the last outermost."""

    def wrap(spec: MethodSpec, handler: Handler, faults: Mapping[str, type[Fault]]) -> Handler:
        for each in wraps:
            handler = each(spec, handler, faults)
        return handler

    return wrap
