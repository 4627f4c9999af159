"""Records as CloudEvents 1.0 and back: binary in HTTP and Kafka headers, structured and batched in JSON.

An event of an application ``shop`` and its module ``orders`` has the source ``/shop/orders``, the type
``shop.orders.OrderPlaced`` and the dataschema ``urn:seamline:shop:orders:OrderPlaced:2``, whose end is its version. Its
key is the ``partitionkey``, its trace ``traceparent``, its end ``expirytime``, all three extensions that CloudEvents
documents; ``duetime`` is ours. An event from elsewhere keeps its source and type as they are, and whatever a Record has
no place for is kept in its headers.

https://github.com/cloudevents/spec: cloudevents/spec.md, formats/json-format.md, bindings/{http,kafka,nats}.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import msgspec

from seamline.events.errors import CloudEventError
from seamline.events.record import Record

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
_JSON = "application/json"

_OWN_SOURCE = re.compile(r"/([a-z][a-z0-9_-]*)/([a-z][a-z0-9_]*)")
_MODULE = re.compile(r"[a-z][a-z0-9_]*")
_UNSAFE = re.compile(r"[^!#$&-~]")  # the HTTP binding, 3.1.3.2: all but printable ASCII, and space, " and %
_NAME = re.compile(r"[a-z0-9]+")
_VERSION = re.compile(r"[1-9]\d{0,8}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:)(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII
)
_JSON_TYPE = re.compile(r"[^/;]+/(?:[^/;]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_OWN_ATTRIBUTES = frozenset(
    ("specversion", "id", "source", "type", "time", "partitionkey", "traceparent", "expirytime", "duetime")
)
_DATA = frozenset(("data", "data_base64"))
_REMEDY = "Send a CloudEvent 1.0, as https://cloudevents.io describes it."


def attributes(record: Record, app: str) -> dict[str, str]:
    """The record's CloudEvents attributes as text, without its data.

    Raises:
        CloudEventError: a header's name cannot be an attribute's, or the record has no id or type.
    """
    source, type_, schema = _names(app, record.source, record.type, record.version)
    if not record.id or not source or not type_:
        raise CloudEventError(f"a record has no id, source or type: {record.id!r}, {source!r}, {type_!r}", _REMEDY)
    found = {"specversion": "1.0", "id": record.id, "source": source, "type": type_}
    if record.time_ms:
        found["time"] = time_text(record.time_ms)
    if schema:
        found["dataschema"] = schema
    if record.key:
        found["partitionkey"] = record.key
    if record.trace:
        found["traceparent"] = record.trace
    if record.expires_ms:
        found["expirytime"] = time_text(record.expires_ms)
    if record.due_ms:
        found["duetime"] = time_text(record.due_ms)
    if record.headers:
        check_headers(record.headers)
        found.update(record.headers)
    found.setdefault("datacontenttype", _JSON)
    return found


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise CloudEventError unless all of ``headers`` can be CloudEvents attributes beside those a Record has."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or name in _OWN_ATTRIBUTES or name in _DATA:
            raise CloudEventError(
                f"an event cannot carry a header {name!r}",
                "A header's name has lower-case letters and digits only, and is not one that events have anyway.",
            )
        if _CONTROL.search(value) or not value:
            raise CloudEventError(
                f"the header {name!r} of an event is {value!r}", "A header is text, and has no control characters."
            )


def check_text(record: Record) -> None:
    """Raise CloudEventError if an attribute of a record from outside holds what no CloudEvent may, or no store takes:
    control characters and half surrogates."""
    for name in ("id", "source", "type", "key", "trace"):
        if _CONTROL.search(value := getattr(record, name)):
            raise CloudEventError(f"the {name} {value!r} holds control characters", _REMEDY)
    for name, value in record.headers.items():
        if _CONTROL.search(value):
            raise CloudEventError(f"the attribute {name!r} is {value!r}, with control characters", _REMEDY)


def to_headers(record: Record, app: str) -> dict[str, str]:
    """Binary mode in HTTP (and NATS) headers: ``ce-id`` and so on, percent-encoded; ``record.data`` is the body."""
    found = attributes(record, app)
    headers = {"content-type": found.pop("datacontenttype")}
    headers.update((f"ce-{name}", _escaped(value)) for name, value in found.items())
    return headers


def from_headers(headers: Mapping[str, str], data: bytes) -> Record:
    """The record in a message of binary mode. Raises CloudEventError."""
    found = dict[str, str]()
    for header, value in headers.items():
        name = header.lower()
        if name.startswith("ce-"):
            found[name[3:]] = _unescaped(value)
        elif name == "content-type":
            found["datacontenttype"] = value
    return _record(found, data)


def to_kafka(record: Record, app: str) -> list[tuple[str, bytes]]:
    """Binary mode in Kafka headers: ``ce_id`` and so on in UTF-8; ``record.data`` is the value, ``record.key`` the
    message's key."""
    found = attributes(record, app)
    headers = [("content-type", found.pop("datacontenttype").encode())]
    headers += [(f"ce_{name}", value.encode()) for name, value in found.items()]
    return headers


def from_kafka(headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> Record:
    """The record in a Kafka message, of binary or structured mode. Raises CloudEventError."""
    found = dict[str, str]()
    for header, raw in headers:
        name = header.lower()
        if name.startswith("ce_"):
            found[name[3:]] = _utf8(raw or b"", name)
        elif name == "content-type":
            found["datacontenttype"] = _utf8(raw or b"", name)
    if _media_type(found.get("datacontenttype", "")) == STRUCTURED:
        return from_structured(value or b"")
    return _record(found, value or b"")


def to_structured(record: Record, app: str) -> bytes:
    """The whole event as one JSON object, of the media type ``STRUCTURED``."""
    found: dict[str, Any] = dict(attributes(record, app))
    if record.data:
        if _is_json(found["datacontenttype"]) and _parses(record.data):
            found["data"] = msgspec.Raw(record.data)
        else:
            found["data_base64"] = base64.b64encode(record.data).decode()
    return msgspec.json.encode(found)


def from_structured(data: bytes) -> Record:
    """The record in a JSON object. Raises CloudEventError."""
    return _from_members(_decoded(_OBJECT.decode, data, "a JSON object"))


def to_batch(records: Sequence[Record], app: str) -> bytes:
    """Several events as one JSON array, of the media type ``BATCH``."""
    return b"[" + b",".join(to_structured(record, app) for record in records) + b"]"


def from_batch(data: bytes) -> list[Record]:
    """The records in a JSON array; all of them or none. Raises CloudEventError that names the place in the array."""
    records = list[Record]()
    for place, members in enumerate(_decoded(_ARRAY.decode, data, "a JSON array of objects")):
        try:
            records.append(_from_members(members))
        except CloudEventError as error:
            error.fact = f"event {place} of the batch: {error.fact}"
            raise
    return records


def from_http(headers: Mapping[str, str], body: bytes) -> list[Record]:
    """The records in an HTTP message of any mode, which its content type tells. Raises CloudEventError."""
    lowered = {name.lower(): value for name, value in headers.items()}
    media_type = _media_type(lowered.get("content-type", ""))
    if media_type == STRUCTURED:
        return [from_structured(body)]
    if media_type == BATCH:
        return from_batch(body)
    if media_type.startswith("application/cloudevents"):
        raise CloudEventError(f"the content type is {media_type!r}", f"Send {STRUCTURED}, {BATCH} or binary mode.")
    return [from_headers(lowered, body)]


def time_text(time_ms: int) -> str:
    """Milliseconds since the epoch in RFC 3339, in UTC."""
    try:
        moment = _EPOCH + time_ms * _MILLISECOND
    except OverflowError:
        raise CloudEventError(
            f"{time_ms} ms is not in the years 1 to 9999", "Correct the clock that said it."
        ) from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_of(text: str) -> int:
    """RFC 3339 as milliseconds since the epoch. Raises CloudEventError."""
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)  # noqa: TRY301  # both ways of being wrong end below
        date, minutes, seconds, fraction, sign, offset_h, offset_m = match.groups()
        moment = datetime.fromisoformat(f"{date}T{minutes}{'59' if seconds == '60' else seconds}+00:00")
        offset = timedelta(hours=int(offset_h), minutes=int(offset_m)) if sign else timedelta()
        moment = moment + offset if sign == "-" else moment - offset
    except (ValueError, OverflowError):
        raise CloudEventError(
            f"{text!r} is not a time", "Write it as RFC 3339 does: 2026-03-01T12:00:00.000Z."
        ) from None
    return (moment - _EPOCH) // _MILLISECOND + int(f"{fraction or '0':0<3}"[:3])


@lru_cache(maxsize=4096)
def _names(app: str, source: str, type_: str, version: int) -> tuple[str, str, str]:
    if not _MODULE.fullmatch(source):
        return source, type_, ""
    return f"/{app}/{source}", f"{app}.{source}.{type_}", f"urn:seamline:{app}:{source}:{quote(type_)}:{version}"


def _record(found: dict[str, str], data: bytes) -> Record:
    version = found.pop("specversion", "")
    if version != "1.0":
        fact = f"its specversion is {version!r}" if version else "it has no specversion, and so is no CloudEvent"
        raise CloudEventError(fact, _REMEDY)
    for name in ("id", "source", "type"):
        if not found.get(name):
            raise CloudEventError(f"it has no {name}", _REMEDY)
    for name in found:
        if not _NAME.fullmatch(name) or name == "data":
            raise CloudEventError(f"{name!r} cannot be the name of an attribute", _REMEDY)
    source, type_, event_version, schema = _own(found.pop("source"), found.pop("type"), found.pop("dataschema", ""))
    if schema:
        found["dataschema"] = schema
    if found.get("datacontenttype") in (_JSON, ""):
        del found["datacontenttype"]
    return Record(
        id=found.pop("id"),
        source=source,
        type=type_,
        data=data,
        time_ms=_taken_time(found, "time"),
        key=found.pop("partitionkey", ""),
        version=event_version,
        trace=found.pop("traceparent", ""),
        due_ms=_taken_time(found, "duetime"),
        expires_ms=_taken_time(found, "expirytime"),
        headers={name: value for name, value in found.items() if value},
    )


@lru_cache(maxsize=4096)
def _own(source: str, type_: str, schema: str) -> tuple[str, str, int, str]:
    """Source, type and version in our own words where the event is one of ours, and the schema where it is not."""
    match = _OWN_SOURCE.fullmatch(source)
    prefix = f"{match[1]}.{match[2]}." if match else ""
    if match is None or not type_.startswith(prefix) or type_ == prefix:
        # Equal as a reference, and never taken for the name of a module.
        return (f"./{source}" if _MODULE.fullmatch(source) else source), type_, 1, schema
    name = type_.removeprefix(prefix)
    stem, _, version = schema.rpartition(":")
    if stem == f"urn:seamline:{match[1]}:{match[2]}:{quote(name)}" and _VERSION.fullmatch(version):
        return match[2], name, int(version), ""
    return match[2], name, 1, schema


def _taken_time(found: dict[str, str], name: str) -> int:
    text = found.pop(name, "")
    return time_of(text) if text else 0


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def _decoded(decode: Callable[[bytes], Any], data: bytes, what: str) -> Any:
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CloudEventError(f"the body is not {what}: {error}", _REMEDY) from None


def _from_members(members: dict[str, msgspec.Raw]) -> Record:
    raw, encoded = members.pop("data", None), members.pop("data_base64", None)
    found = dict[str, str]()
    for name, member in members.items():
        value = _value(bytes(member), name)
        if value is not None:
            found[name] = value
    if encoded is not None and bytes(encoded) != b"null":
        if raw is not None:
            raise CloudEventError("it has both data and data_base64", _REMEDY)
        return _record(found, _from_base64(_value(bytes(encoded), "data_base64")))
    data = b"" if raw is None else bytes(raw)
    if data.startswith(b'"') and not _is_json(found.get("datacontenttype", _JSON)):
        data = (_value(data, "data") or "").encode()
    return _record(found, data)


def _value(member: bytes, name: str) -> str | None:
    """An attribute's value as the text it has in a header."""
    value = _decoded(msgspec.json.decode, member, f"JSON in {name!r}")
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and -(2**31) <= value < 2**31:
        return str(value)
    raise CloudEventError(f"the attribute {name!r} is {member[:80]!r}", "An attribute is text, a number or true/false.")


def _from_base64(text: str | None) -> bytes:
    try:
        return base64.b64decode((text or "").encode(), validate=True)
    except binascii.Error as error:
        raise CloudEventError(f"data_base64 is not base64: {error}", _REMEDY) from None


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(media_type: str) -> bool:
    return media_type == _JSON or _JSON_TYPE.fullmatch(media_type.strip()) is not None


def _parses(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _escaped(value: str) -> str:
    return _UNSAFE.sub(_percent, value) if _UNSAFE.search(value) else value


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _unescaped(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return _utf8(unquote_to_bytes(value), "a header") if "%" in value else value


def _utf8(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise CloudEventError(f"{name} is not UTF-8: {raw[:80]!r}", _REMEDY) from None
