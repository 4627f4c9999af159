"""Spans and logs as they are kept: packed, bounded, and the words they are found by."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar, cast

import msgspec

from seamline.observe.records import OK, Attribute, Log, Span, SpanEvent, SpanLink, is_failure

TEXT_MAX: Final = 16 * 1024
"""The longest text of an attribute, message or exception that is kept."""
ATTRIBUTES_MAX: Final = 144
"""More than any way in lets through, with what it adds itself."""
ITEMS_MAX: Final = 1024
"""Of one list."""
EVENTS_MAX: Final = 128
DEPTH_MAX: Final = 16
CUT: Final = "seamline.cut"
"""The attribute that says how many values were shortened or left out."""

_COMPRESS_FROM: Final = 256
_LARGE: Final = 8 * 1024
"""A record of more bytes than this is looked through for what has to be cut."""
_INDEXED_TEXT: Final = 256
_TEXTS_MAX: Final = 400
_MARK: Final = "\u01c2"
"""A letter that begins no word that people write: a term cannot be taken for a word of the text."""
_ZLIB: Final = 0x78
_MEMO_MAX: Final = 10_000
_INT64: Final = 1 << 63

_ENCODER: Final = msgspec.msgpack.Encoder()
_SPANS: Final = msgspec.msgpack.Decoder(list[Span])
_LOG: Final = msgspec.msgpack.Decoder(Log)
_WORD: Final = re.compile(r"[^\W_]+")

T = TypeVar("T", Span, Log)


def pack_spans(spans: list[Span]) -> tuple[bytes, list[Span]]:
    """The body of a piece, and the spans that are in it: cut to what may be kept, without those that cannot be."""
    try:
        body = _ENCODER.encode(spans)
    except (ValueError, OverflowError, RecursionError, TypeError):
        body = None
    if body is None or len(body) > _LARGE * len(spans):
        spans = _only_encodable([_bounded_span(span) for span in spans])
        body = _ENCODER.encode(spans)
    # Level 1 costs about 4 microseconds a span and leaves less than half.
    return (zlib.compress(body, 1) if len(body) > _COMPRESS_FROM else body), spans


def unpack_spans(body: bytes) -> list[Span]:
    return _SPANS.decode(_plain(body))


def pack_log(line: Log) -> tuple[bytes, Log] | None:
    """A log's body, and the log as it is kept; None for one that cannot be."""
    try:
        body = _ENCODER.encode(line)
    except (ValueError, OverflowError, RecursionError, TypeError):
        body = None
    if body is None or len(body) > _LARGE:
        line = _bounded_log(line)
        kept = _only_encodable([line])
        if not kept:
            return None
        body = _ENCODER.encode(line)
    return (zlib.compress(body, 1) if len(body) > 4 * _COMPRESS_FROM else body), line


def unpack_log(body: bytes) -> Log:
    return _LOG.decode(_plain(body))


def _plain(body: bytes) -> bytes:
    # An array of msgpack never begins with the byte that zlib begins with.
    return zlib.decompress(body) if body[0] == _ZLIB else body


def _only_encodable(records: list[T]) -> list[T]:
    kept: list[T] = []
    for record in records:
        try:
            _ENCODER.encode(record)
        except (ValueError, OverflowError, RecursionError, TypeError):
            continue
        kept.append(record)
    return kept


class _Knife:
    """Shortens what is too long, and counts."""

    def __init__(self) -> None:
        self.cuts = 0

    def text(self, value: str) -> str:
        if len(value) > TEXT_MAX:
            self.cuts += 1
            value = f"{value[:TEXT_MAX]}… ({len(value)} characters)"
        return value.encode("utf-8", "replace").decode()  # half of a surrogate pair is no text

    def attributes(self, given: Mapping[str, Attribute], depth: int = 0) -> dict[str, Attribute]:
        kept: dict[str, Attribute] = {}
        for key, value in given.items():
            if len(kept) >= ATTRIBUTES_MAX:
                self.cuts += len(given) - len(kept)
                break
            kept[self.text(key[:_INDEXED_TEXT])] = self.value(value, depth)
        return kept

    def value(self, value: Attribute, depth: int) -> Attribute:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes) and len(value) > TEXT_MAX:
            self.cuts += 1
            return value[:TEXT_MAX]
        if isinstance(value, int) and not -_INT64 <= value < 2 * _INT64:
            self.cuts += 1
            return f"{value:#x}"[:TEXT_MAX]
        if isinstance(value, (list, dict)):
            if depth >= DEPTH_MAX:
                self.cuts += 1
                return "…"
            if isinstance(value, dict):
                return self.attributes(value, depth + 1)
            if len(value) > ITEMS_MAX:
                self.cuts += 1
            return [self.value(each, depth + 1) for each in value[:ITEMS_MAX]]
        return value

    def said(self, attributes: dict[str, Attribute]) -> dict[str, Attribute]:
        return {**attributes, CUT: self.cuts} if self.cuts else attributes


def _bounded_span(span: Span) -> Span:
    knife = _Knife()
    if len(span.events) > EVENTS_MAX or len(span.links) > EVENTS_MAX:
        knife.cuts += 1
    events = [
        SpanEvent(_int64(event.at_ns), knife.text(event.name), knife.attributes(event.attributes))
        for event in span.events[:EVENTS_MAX]
    ]
    links = [
        SpanLink(link.trace_id[:16], link.span_id[:8], knife.attributes(link.attributes), knife.text(link.trace_state))
        for link in span.links[:EVENTS_MAX]
    ]
    attributes, resource = knife.attributes(span.attributes), knife.attributes(span.resource)
    texts = {
        name: knife.text(getattr(span, name))
        for name in ("name", "module", "peer", "status", "message", "workload", "scope", "trace_state")
    }
    return msgspec.structs.replace(
        span, **texts, span_id=span.span_id[:8], parent_id=span.parent_id[:8], start_ns=_int64(span.start_ns),
        duration_ns=_int64(span.duration_ns), replica=_int64(span.replica), events=events, links=links,
        attributes=knife.said(attributes), resource=resource,
    )  # fmt: skip


def _bounded_log(line: Log) -> Log:
    knife = _Knife()
    texts = {name: knife.text(getattr(line, name)) for name in ("module", "message", "logger", "workload", "exception")}
    attributes, resource = knife.attributes(line.attributes), knife.attributes(line.resource)
    return msgspec.structs.replace(
        line, **texts, at_ns=_int64(line.at_ns), severity=_int64(line.severity), replica=_int64(line.replica),
        trace_id=line.trace_id[:16], span_id=line.span_id[:8], attributes=knife.said(attributes), resource=resource,
    )  # fmt: skip


def _int64(value: int) -> int:
    return min(max(value, -_INT64), _INT64 - 1)


def is_trace_id(trace_id: bytes) -> bool:
    """Whether W3C Trace Context knows it as one: 16 bytes, not all of them zero."""
    return len(trace_id) == 16 and trace_id.count(0) != 16


class Terms:
    """What pieces and logs are found by, as the words of a document for SQLite's full-text search.

    A term is a hash; who searches looks again at what is found, so that a collision shows nothing wrong.
    """

    def __init__(self) -> None:
        self._memo: dict[tuple[str, object], str] = {}

    def term(self, key: str, value: object) -> str:
        pair = (key, value)
        known = self._memo.get(pair)
        if known is None:
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()
            known = self._memo[pair] = hashed(key, value)
        return known

    def of_spans(self, spans: Sequence[Span]) -> str:
        pairs: set[tuple[str, object]] = set()
        texts: set[str] = set()
        add = pairs.add
        for span in spans:
            add((":m", span.module))
            add((":n", span.name))
            add((":d", span.duration_ns.bit_length() if span.duration_ns > 0 else 0))
            if span.status != OK:
                add((":s", span.status))
                if is_failure(span.status):
                    add((":f", ""))
            if not any(span.parent_id):
                add((":r", ""))
            texts.add(span.name)
            if span.message:
                texts.add(span.message)
            if span.resource:
                _add_attributes(span.resource, pairs, texts)
            _add_attributes(span.attributes, pairs, texts)
            for event in span.events:
                texts.add(event.name)
                _add_attributes(event.attributes, set(), texts)
        return self._document(pairs, texts)

    def of_log(self, line: Log) -> str:
        pairs: set[tuple[str, object]] = {
            (":m", line.module), (":m", line.workload), (":l", max(line.severity - 1, 0) // 4),
        }  # fmt: skip
        texts = {line.message, line.exception}
        _add_attributes(line.attributes, set(), texts)
        return self._document(pairs, texts)

    def _document(self, pairs: set[tuple[str, object]], texts: set[str]) -> str:
        memo = self._memo
        terms = [memo.get(pair) or self.term(*pair) for pair in pairs]
        if len(texts) > _TEXTS_MAX:
            texts = set(sorted(texts)[:_TEXTS_MAX])
        return f"{' '.join(terms)} {' '.join(texts)}".replace("\0", " ")


def _add_attributes(attributes: Mapping[str, Attribute], pairs: set[tuple[str, object]], texts: set[str]) -> None:
    for key, value in attributes.items():
        kind = type(value)
        if kind is str:
            text = cast("str", value)
            if len(text) > _INDEXED_TEXT:
                texts.add(text[: 16 * _INDEXED_TEXT])
                text = text[:_INDEXED_TEXT]
            else:
                texts.add(text)
            pairs.add((key, text))
        elif kind is int:
            pairs.add((key, str(value)))
        else:
            pairs.update((key, each) for each in shown(value))


def hashed(key: str, value: object) -> str:
    return f"{_MARK}{zlib.crc32(f'{key}={value}'.encode('utf-8', 'replace')):x}"


def shown(value: Attribute) -> Iterable[str]:
    """How an attribute's value reads in a question; of a list each element, of bytes and tables nothing."""
    if isinstance(value, str):
        yield value[:_INDEXED_TEXT]
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, (int, float)):
        yield str(value)
    elif isinstance(value, list):
        for each in value:
            if not isinstance(each, (list, dict, bytes)):
                yield from shown(each)


def words_of(text: str) -> list[str]:
    """The words that are searched for, as SQLite cuts them."""
    return _WORD.findall(text.casefold())


def match(terms: Iterable[str], words: Sequence[str], any_of: Sequence[Sequence[str]] = ()) -> str:
    """A question in SQLite's full-text language: all of ``terms`` and ``words``, and one of each of ``any_of``."""
    parts = [f'"{term}"' for term in terms]
    parts += [f'"{word}"' for word in words[:-1]]
    if words:
        parts.append(f'"{words[-1]}" *')
    parts += ["(" + " OR ".join(f'"{term}"' for term in group) + ")" for group in any_of]
    return " AND ".join(parts)
