"""Calls that policy permits and that are written all the same: of methods named in ``[audit] sensitive``, and those
that a policy marked ``@audit`` permits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from seamline.kernel.audit import AuditLog
from seamline.mesh.policy import HTTP
from seamline.module.context import CURRENT, CallContext

if TYPE_CHECKING:
    from seamline.kernel.signal.trace import TraceContext
    from seamline.mesh.mesh import Mesh
    from seamline.mesh.service import Entry
    from seamline.module.principal import Subject

Handler = Callable[..., Any]


class Sensitive:
    """Puts a line of audit before the handlers of ``methods`` (``Contract.method``), and before what policy marks."""

    def __init__(self, methods: tuple[str, ...], audit: AuditLog, mesh: Mesh) -> None:
        self._methods = frozenset(methods)
        self._audit = audit
        self._mesh = mesh

    def around(self, entry: Entry) -> Handler:
        """The handler of an entry, with the line before it if there may be one; as the policy is now."""
        name, handler, permission = entry.name, entry.provided, entry.spec.permission
        always = name in self._methods
        if not always and not self._mesh.policy.may_audit(entry.module, *permission):
            return handler
        names = tuple(parameter.name for parameter in entry.spec.parameters)

        def audited(*arguments: Any, **named: Any) -> Any:
            context = CURRENT.get(None)
            if always or (context is not None and self._marked(context, permission, arguments, named, names)):
                self._write_call(name, context)
            return handler(*arguments, **named)

        return audited

    def request(
        self, caller: str, module: str, subject: Subject | None, trace: TraceContext | None, more: Mapping[str, Any]
    ) -> None:
        """Note a public request that policy has permitted, if it is to be."""
        if self._mesh.policy.audits(caller, module, "", HTTP, subject, None, more):
            self._write(caller, HTTP, module, subject, trace, **more)

    def _marked(
        self,
        context: CallContext,
        permission: tuple[str, str],
        arguments: tuple[Any, ...],
        named: Mapping[str, Any],
        names: tuple[str, ...],
    ) -> bool:
        given = arguments if not named else (*arguments, *(named[name] for name in names[len(arguments) :]))
        return self._mesh.policy.audits(context.caller, context.module, *permission, context.subject, given)

    def _write_call(self, name: str, context: CallContext | None) -> None:
        if context is None:
            self._write("", name, "", None, None)
        else:
            self._write(context.caller, name, context.module, context.subject, context.trace)

    def _write(
        self,
        principal: str,
        action: str,
        resource: str,
        subject: Subject | None,
        trace: TraceContext | None,
        **more: Any,
    ) -> None:
        if subject is not None and subject.user is not None:
            more |= {"user": subject.user.id, "issuer": subject.user.issuer}
        if subject is not None and subject.agent:
            more["agent"] = subject.agent
        if trace is not None:
            more["trace"] = f"{trace.trace_id:032x}"
        self._audit.write("call", "allow", principal=principal, action=action, resource=resource, always=True, **more)
