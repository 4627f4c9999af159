"""Who calls whom among services that are not ours, read from their spans.

A client's span often knows only an address, a server's only the id of its parent. Laid side by side they name each
other: the parent's service is the caller, and the address at which it called bears the server's name from then on.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from seamline.kernel.signal.metrics import bucket_of
from seamline.observe.otlp.names import Names, Places
from seamline.observe.records import OK, Attribute, Kind, Side, Span, Traffic

_SPANS_MAX: Final = 20_000
_ADDRESSES_MAX: Final = 4096
_METHODS_MAX: Final = 2048
_METHOD_CHARACTERS_MAX: Final = 128
_LATE_NS: Final = 300 * 10**9
"""What ended longer ago is kept, and is no news of now."""
_OTHER_METHOD: Final = "other"


class End(NamedTuple):
    """A span that called: its service, and the address that it called at."""

    service: str
    address: str


class _Count(msgspec.Struct, gc=False):
    histogram: dict[int, int]
    codes: dict[str, int]
    sum_ns: int = 0


class Edges:
    """Remembers which spans called and where, within bounds."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._callers: OrderedDict[tuple[bytes, bytes], End] = OrderedDict()
        self._called: OrderedDict[End, str] = OrderedDict()
        self._methods: Places[tuple[str, str, str]] = Places(_METHODS_MAX)

    def calling(self, trace_id: bytes, span_id: bytes, service: str, attributes: Mapping[str, Attribute]) -> None:
        """A client's or producer's span; told of before the spans that may have it as parent."""
        self._callers[trace_id, span_id] = End(service, address_of(attributes))
        if len(self._callers) > _SPANS_MAX:
            self._callers.popitem(last=False)

    def serving(self, trace_id: bytes, parent_id: bytes, service: str) -> str:
        """The caller of a server's or consumer's span; ``""`` where that is not known."""
        end = self._callers.get((trace_id, parent_id))
        if end is None:
            return ""
        if end.address:
            self._called[end] = service
            self._called.move_to_end(end)
            if len(self._called) > _ADDRESSES_MAX:
                self._called.popitem(last=False)
        return end.service

    def note(self, spans: Iterable[Span]) -> None:
        """Our own spans, so that foreign services beside them find their other end."""
        spans = list(spans)
        for span in spans:
            if span.kind in ("client", "producer"):
                self.calling(span.trace_id, span.span_id, span.module, span.attributes)
        for span in spans:
            if span.kind in ("server", "consumer") and span.parent_id:
                self.serving(span.trace_id, span.parent_id, span.module)

    def peer(
        self, kind: Kind, service: str, span: tuple[bytes, bytes], attributes: Mapping[str, Attribute], now_ns: int
    ) -> str:
        """The other end of a span; ``span`` is its trace's id and its parent's."""
        told = text(attributes, "peer.service", "service.peer.name")
        if kind in ("client", "producer"):
            if told:
                return self._names.peer(told, now_ns)
            address = address_of(attributes)
            known = self._called.get(End(service, address), "") if address else ""
            return known or self._names.peer(_thing(attributes) or address, now_ns)
        if kind in ("server", "consumer"):
            caller = self.serving(*span, service) if span[1] else ""
            # A caller that is only claimed is no module of ours: its own word would count as our module's.
            return caller or (self._names.service(told, now_ns) if told else "")
        return ""

    def traffic(self, spans: Iterable[Span], now_ns: int) -> list[Traffic]:
        """What these spans count as. Traces are sampled where they are made, and so are these counts."""
        found: dict[tuple[str, str, str, Side], _Count] = {}
        for span in spans:
            side = _side(span)
            if side is None or (span.kind == "client" and not span.peer):
                continue
            if now_ns - span.start_ns - span.duration_ns > _LATE_NS:
                continue
            outgoing = span.kind == "client"
            caller, callee = (span.module, span.peer) if outgoing else (span.peer, span.module)
            edge = (caller, callee, self._method(span, caller, callee, now_ns), side)
            count = found.get(edge)
            if count is None:
                count = found[edge] = _Count({}, {})
            bucket = bucket_of(span.duration_ns // 1000)
            count.histogram[bucket] = count.histogram.get(bucket, 0) + 1
            count.sum_ns += span.duration_ns
            if span.status != OK:
                count.codes[span.status] = count.codes.get(span.status, 0) + 1
        return [
            Traffic(
                *edge,
                sum(count.histogram.values()),
                sum(count.codes.values()),
                sum_ns=min(count.sum_ns, 2**63 - 1),
                histogram=count.histogram,
                codes=count.codes,
            )
            for edge, count in found.items()
        ]

    def _method(self, span: Span, caller: str, callee: str, now_ns: int) -> str:
        attributes = span.attributes
        method = text(attributes, "rpc.method") or text(attributes, "messaging.destination.name") or span.name
        service = text(attributes, "rpc.service")
        if service and "/" not in method:
            method = f"{service}/{method}"
        method = method[:_METHOD_CHARACTERS_MAX]
        return method if self._methods.admit((caller, callee, method), now_ns) else _OTHER_METHOD


def text(attributes: Mapping[str, Attribute], *keys: str) -> str:
    """The first of these that is there and a text."""
    for key in keys:
        found = attributes.get(key)
        if isinstance(found, str) and found:
            return found
    return ""


def address_of(attributes: Mapping[str, Attribute]) -> str:
    """Where a client called; with the port where the host alone does not tell who it is."""
    host = text(attributes, "server.address", "net.peer.name", "network.peer.address")
    port = attributes.get("server.port", attributes.get("net.peer.port"))
    if not isinstance(port, int) or not (host == "localhost" or _is_ip(host)):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _thing(attributes: Mapping[str, Attribute]) -> str:
    """A database or a model is called by what it is, not by where."""
    return (
        text(attributes, "db.system.name", "db.system")
        or text(attributes, "gen_ai.request.model", "gen_ai.provider.name", "gen_ai.system")
        or text(attributes, "messaging.system")
    )


def _side(span: Span) -> Side | None:
    attributes = span.attributes
    match span.kind:
        case "client":
            if "db.system.name" in attributes or "db.system" in attributes:
                return "sql"
            if "gen_ai.request.model" in attributes:
                return "model"
            return "client"
        case "server":
            # Nobody's child, and of the web: somebody from outside.
            return "http" if not span.parent_id and _is_http(attributes) else "server"
        case "consumer":
            return "event"
        case _:
            return None


def _is_http(attributes: Mapping[str, Attribute]) -> bool:
    return "http.request.method" in attributes or "http.method" in attributes
