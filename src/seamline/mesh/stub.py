"""Stubs: what a module holds in place of another module's contract, bound to the holder's identity.

A stub's methods are written out as source, one per method of the contract, because the short way (same process,
policy open, nothing injected) is the hottest code of the platform: a policy flag, a deadline, a context, a
histogram and perhaps two spans, and the handler is awaited in the caller's own task.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from time import monotonic
from typing import Any, cast

from seamline.mesh.edge import Edge
from seamline.mesh.local import bounded
from seamline.mesh.outcome import deadline_exceeded
from seamline.module.context import CURRENT, CallContext
from seamline.module.contract import CLIENT_STREAM, UNARY, ContractSpec, MethodSpec

_UNARY = """
async def {name}(self, {declared}):
    _edge = self._edges[{index}]
    _handler = _edge.fast
    if _handler is None:
        return await _edge.call(({passed}))
    _now = _monotonic()
    _deadline = _now + _edge.timeout_s
    _parent = _current(None)
    _subject = None
    if _parent is None:
        _trace = _edge.root()
        _priority = _edge.priority
    elif _parent.key_for_calls is not None:
        return await _edge.call(({passed}))
    else:
        _trace = _parent.origin
        _priority = _parent.priority if _edge.own_priority is None else _edge.own_priority
        if _parent.deadline < _deadline:
            _deadline = _parent.deadline
            if _deadline <= _now:
                raise _deadline_exceeded({full!r})
        _subject = _parent.subject
        if _subject is not None:
            _subject = _subject.acting(_edge.caller)
            if _subject.checked != _edge.revocations.epoch:
                return await _edge.call(({passed}))
    _context = _CallContext({callee!r}, _edge.caller, {full!r}, _deadline, _trace, _priority, None, None, _subject, 0)
    _token = _enter(_context)
    try:
        _result = await _bounded(_handler({given}), _deadline, {full!r})
    except BaseException as _error:
        raise _edge.failed_fast(_error, _context, _parent, _now) from None
    finally:
        _leave(_token)
    _seconds = _monotonic() - _now
    _stats = _edge.stats
    try:
        _stats.recent[_edge.quick[int(_seconds * 1e6)]] += 1
        _stats.sum_s += _seconds
    except IndexError:
        _edge.slow(_context, _parent, _now, _seconds)
    else:
        if _trace is not None and _trace.sampled:
            _edge.spans(_context, _parent, _now, _seconds)
    return _result
"""

_STREAM = """
def {name}(self, {declared}):
    return self._edges[{index}].stream(({passed}))
"""


def stub_class(contract: ContractSpec, callee: str) -> Callable[[list[Edge]], Any]:
    """A subclass of the contract whose methods make calls; instances take the edges in the methods' order."""
    namespace: dict[str, Any] = {
        "_monotonic": monotonic,
        "_current": CURRENT.get,
        "_enter": CURRENT.set,
        "_leave": CURRENT.reset,
        "_CallContext": CallContext,
        "_bounded": bounded,
        "_deadline_exceeded": deadline_exceeded,
    }
    for index, method in enumerate(contract.methods.values()):
        source = _source(method, index, callee, namespace)
        exec(compile(source, f"<stub of {method.full_name}>", "exec"), namespace)  # noqa: S102  # from checked identifiers
    members = {name: namespace[f"call_{name}"] for name in contract.methods}

    def __init__(self: Any, edges: list[Edge]) -> None:  # noqa: N807
        self._edges = edges

    def __repr__(self: Any) -> str:  # noqa: N807
        edges: list[Edge] = self._edges
        return f"<stub of {contract.name} for module {edges[0].caller!r}>"

    made = type(f"{contract.name}Stub", (contract.cls,), {**members, "__init__": __init__, "__repr__": __repr__})
    return cast("Callable[[list[Edge]], Any]", made)


def _source(method: MethodSpec, index: int, callee: str, namespace: dict[str, Any]) -> str:
    declared: list[str] = []
    keyword_only = False
    for name, parameter in list(method.signature.parameters.items())[1:]:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            declared.append("*")
        if parameter.default is inspect.Parameter.empty:
            declared.append(name)
        else:
            default = f"default_{index}_{name}"
            namespace[default] = parameter.default
            declared.append(f"{name}={default}")
    names = [p.name for p in method.parameters]
    template = _UNARY if method.kind in (UNARY, CLIENT_STREAM) else _STREAM
    return template.format(
        name=f"call_{method.name}",
        declared=", ".join(declared),
        passed="".join(f"{n}, " for n in names),
        given=", ".join(f"{n}={n}" if keyword_only else n for n in names),
        index=index,
        full=method.full_name,
        callee=callee,
    )
