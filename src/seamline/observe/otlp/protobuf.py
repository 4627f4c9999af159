"""The binary form of :mod:`.messages`, read and written in Python.

No generated classes: a table made from the annotations says what each field is. Attributes repeat from span to span,
so the bytes of a small one are looked up before they are read; that makes this as fast as the C library, whose objects
have to be walked from Python (docs/opentelemetry.md has the figures).
"""

from __future__ import annotations

import struct
import types
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar, cast, get_args, get_type_hints

from seamline.observe.otlp import messages
from seamline.observe.otlp.bounds import (
    ATTRIBUTES_MAX,
    DEPTH_MAX,
    ITEMS_MAX,
    KEY_CHARACTERS_MAX,
    OBJECTS_MAX,
    MalformedError,
    TooMuchError,
)
from seamline.observe.otlp.messages import Bag, Field, Form, Message, Value
from seamline.observe.otlp.values import cut, cut_bytes, put
from seamline.observe.records import Attribute

T = TypeVar("T", bound=Message)

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
# Members of an Enum are slow to look up, and this is asked for each field.
_PAIRS, _TEXT, _BYTES, _MESSAGE, _MESSAGES = Form.PAIRS, Form.TEXT, Form.BYTES, Form.MESSAGE, Form.MESSAGES
_FIXED64, _VALUE = Form.FIXED64, Form.VALUE
_WIRE_TYPE: Final = {
    Form.INTEGER: _VARINT, Form.SIGNED: _VARINT, Form.TRUTH: _VARINT, Form.INTEGERS: _VARINT,
    Form.FIXED32: _I32,
    Form.FIXED64: _I64, Form.SFIXED64: _I64, Form.DOUBLE: _I64, Form.FIXED64S: _I64, Form.DOUBLES: _I64,
}  # fmt: skip
_LISTS: Final = frozenset({Form.INTEGERS, Form.FIXED64S, Form.DOUBLES})
_SCALARS: Final = frozenset(_WIRE_TYPE) - _LISTS
_fixed32 = struct.Struct("<I")
_fixed64 = struct.Struct("<Q")
_sfixed64 = struct.Struct("<q")
_double = struct.Struct("<d")
_unpack_fixed64 = _fixed64.unpack_from
_TOO_MANY = f"the request holds more than {OBJECTS_MAX} objects"
_CACHED_BYTES_MAX = 96
_CACHED_MAX = 8192
_INT64_SIGN = 1 << 63
_MASK64 = (1 << 64) - 1


def _varint_of(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


_SMALL = [_varint_of(value) for value in range(2048)]


def _number(value: int) -> bytes:
    return _SMALL[value] if value < 2048 else _varint_of(value)


class _Slot(NamedTuple):
    name: str
    form: Form
    inner: type[Message]


class _Table(NamedTuple):
    make: Callable[..., Message]
    slots: dict[int, _Slot]
    """By the field's tag, as it stands in the bytes."""
    written: list[tuple[str, Form, bytes, bool]]
    """Name, form, the tag's bytes, and whether absent and zero are different things."""


def _table(kind: type[Message]) -> _Table:
    slots: dict[int, _Slot] = {}
    written: list[tuple[str, Form, bytes, bool]] = []
    for name, hint in get_type_hints(kind, dict(vars(messages)), include_extras=True).items():
        bare, field = get_args(hint)
        assert isinstance(field, Field)
        inner = Message
        parts = get_args(bare) if isinstance(bare, types.UnionType) else (bare,)
        for part in parts:
            for candidate in (part, *get_args(part)):
                if isinstance(candidate, type) and issubclass(candidate, Message):
                    inner = candidate
        tag = field.number << 3 | _WIRE_TYPE.get(field.form, _LEN)
        slots[tag] = _Slot(name, field.form, inner)
        if field.form in _LISTS:
            tag = field.number << 3 | _LEN  # packed, which is how they are written
            slots[tag] = slots[field.number << 3 | _WIRE_TYPE[field.form]]
        written.append((name, field.form, _number(tag), type(None) in parts))
    return _Table(kind, slots, written)


_TABLES: Final[dict[type[Message], _Table]] = {
    kind: _table(kind)
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
}


class Reader:
    """Reads messages; keeps the attributes it has seen. One at a time: not for several threads at once."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[str, Attribute]] = {}
        self._room = 0

    def read(self, kind: type[T], data: bytes) -> T:
        """Raises MalformedError, TooMuchError."""
        self._room = OBJECTS_MAX
        try:
            return cast("T", self._message(_TABLES[kind], data, 0, len(data)))
        except (IndexError, struct.error, UnicodeDecodeError) as error:
            raise MalformedError("the bytes end too early, or are no protobuf message of this kind") from error

    def _message(self, table: _Table, data: bytes, at: int, end: int) -> Message:
        self._room -= 1
        if self._room < 0:
            raise TooMuchError(_TOO_MANY)
        found: dict[str, Any] = {}
        bag: Bag | None = None  # no message has two kinds of attributes
        seen = self._seen
        slots = table.slots
        while at < end:
            tag = data[at]
            at += 1
            if tag > 127:
                tag, at = _varint(data, at - 1)
            slot = slots.get(tag)
            if slot is None:
                at = _skip(data, at, tag)
                continue
            name, form, inner = slot
            if form is _FIXED64:
                (found[name],) = _unpack_fixed64(data, at)
                at += 8
            elif tag & 7 == _LEN:
                size = data[at]
                at += 1
                if size > 127:
                    size, at = _varint(data, at - 1)
                stop = at + size
                if stop > end:
                    raise MalformedError("a field is longer than what holds it")
                if form is _PAIRS:
                    if bag is None:
                        found[name] = bag = Bag()
                    self._room -= 1
                    if self._room < 0:
                        raise TooMuchError(_TOO_MANY)
                    key, value = seen.get(data[at:stop]) or self._new_pair(data, at, stop, bag)
                    if len(bag.values) < ATTRIBUTES_MAX and len(key) <= KEY_CHARACTERS_MAX:
                        bag.values[key] = value
                    else:
                        put(bag, key, value)
                elif form is _BYTES:
                    found[name] = data[at:stop]
                elif form is _TEXT:
                    found[name] = data[at:stop].decode()
                elif form is _MESSAGES:
                    one = self._message(_TABLES[inner], data, at, stop)
                    if name in found:
                        found[name].append(one)
                    else:
                        found[name] = [one]
                elif form is _MESSAGE:
                    found[name] = self._message(_TABLES[inner], data, at, stop)
                elif form is _VALUE:
                    inside = Bag()
                    found[name] = Value(self._value(data, at, stop, inside, 0), inside.dropped)
                else:
                    found.setdefault(name, []).extend(_packed(form, data, at, stop))
                at = stop
            else:
                at = _scalar(found, name, form, data, at)
        if at > end:
            raise MalformedError("a field is longer than what holds it")
        return table.make(**found)

    def _new_pair(self, data: bytes, at: int, stop: int, bag: Bag) -> tuple[str, Attribute]:
        """One KeyValue, kept for the next time unless it is large or could be changed by whoever gets it."""
        pair = self._pair(data, at, stop, bag, 0)
        if stop - at <= _CACHED_BYTES_MAX and not isinstance(pair[1], list | dict):
            if len(self._seen) >= _CACHED_MAX:
                self._seen.clear()
            self._seen[data[at:stop]] = pair
        return pair

    def _pair(self, data: bytes, at: int, end: int, bag: Bag, depth: int) -> tuple[str, Attribute]:
        key, value = "", None
        while at < end:
            tag = data[at]
            at += 1
            if tag in (0x0A, 0x12):
                size = data[at]
                at += 1
                if size > 127:
                    size, at = _varint(data, at - 1)
                stop = at + size
                if stop > end:
                    raise MalformedError("a field is longer than what holds it")
                if tag == 0x0A:
                    key = data[at:stop].decode()
                else:
                    value = self._value(data, at, stop, bag, depth)
                at = stop
            else:
                tag, at = _varint(data, at - 1)
                at = _skip(data, at, tag)
        if at > end:
            raise MalformedError("a field is longer than what holds it")
        return key, value

    def _value(self, data: bytes, at: int, end: int, bag: Bag, depth: int) -> Attribute:
        self._room -= 1
        if self._room < 0:
            raise TooMuchError(_TOO_MANY)
        value: Attribute = None
        if at < end and data[at] == 0x0A and at + 2 + data[at + 1] == end and data[at + 1] < 128:
            return data[at + 2 : end].decode()  # a short text and nothing else, as nearly all are
        while at < end:
            tag, at = _varint(data, at)
            if tag in (0x0A, 0x2A, 0x32, 0x3A):
                size, at = _varint(data, at)
                stop = at + size
                if stop > end:
                    raise MalformedError("a field is longer than what holds it")
                if tag == 0x0A:
                    value = cut(data[at:stop].decode())
                elif tag == 0x3A:
                    value = cut_bytes(data[at:stop], bag)
                elif depth >= DEPTH_MAX:
                    bag.dropped += 1
                    value = None
                else:
                    value = self._nested(tag, data, at, stop, bag, depth + 1)
                at = stop
            elif tag == 0x10:
                number, at = _varint(data, at)
                value = number != 0
            elif tag == 0x18:
                number, at = _varint(data, at)
                value = number - (1 << 64) if number & _INT64_SIGN else number
            elif tag == 0x21:
                (value,) = _double.unpack_from(data, at)
                at += 8
            else:
                at = _skip(data, at, tag)
        if at > end:
            raise MalformedError("a field is longer than what holds it")
        return value

    def _nested(self, kind: int, data: bytes, at: int, end: int, bag: Bag, depth: int) -> Attribute:
        """An ArrayValue (0x2a) or KeyValueList (0x32)."""
        items: list[Attribute] = []
        pairs: dict[str, Attribute] = {}
        while at < end:
            tag, at = _varint(data, at)
            if tag != 0x0A:
                at = _skip(data, at, tag)
                continue
            size, at = _varint(data, at)
            stop = at + size
            if stop > end:
                raise MalformedError("a field is longer than what holds it")
            if len(items) + len(pairs) >= ITEMS_MAX:
                bag.dropped += 1
            elif kind == 0x2A:
                items.append(self._value(data, at, stop, bag, depth))
            else:
                key, value = self._pair(data, at, stop, bag, depth)
                pairs[key] = value
            at = stop
        if at > end:
            raise MalformedError("a field is longer than what holds it")
        return items if kind == 0x2A else pairs


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 128:
        return byte, at + 1
    number, shift = byte & 127, 7
    while True:
        at += 1
        byte = data[at]
        number |= (byte & 127) << shift
        if byte < 128:
            return number & _MASK64, at + 1
        shift += 7
        if shift > 63:
            raise MalformedError("a number has more than ten bytes")


def _skip(data: bytes, at: int, tag: int) -> int:
    """Past a field that we do not know. What goes beyond its message is seen by the caller."""
    if tag >> 3 == 0:
        raise MalformedError("there is no field 0")
    match tag & 7:
        case 0:
            return _varint(data, at)[1]
        case 1:
            at += 8
        case 2:
            size, at = _varint(data, at)
            at += size
        case 5:
            at += 4
        case _:
            raise MalformedError("groups are not part of OTLP")
    if at > len(data):
        raise MalformedError("the bytes end too early")
    return at


def _scalar(found: dict[str, Any], name: str, form: Form, data: bytes, at: int) -> int:
    match form:
        case Form.DOUBLE:
            (found[name],) = _double.unpack_from(data, at)
            return at + 8
        case Form.SFIXED64:
            (found[name],) = _sfixed64.unpack_from(data, at)
            return at + 8
        case Form.FIXED32:
            (found[name],) = _fixed32.unpack_from(data, at)
            return at + 4
        case Form.FIXED64S | Form.DOUBLES:
            found.setdefault(name, []).extend(_packed(form, data, at, at + 8))
            return at + 8
        case _:
            number, at = _varint(data, at)
            if form is Form.INTEGERS:
                found.setdefault(name, []).append(number)
            elif form is Form.SIGNED:
                found[name] = number >> 1 ^ -(number & 1)
            elif form is Form.TRUTH:
                found[name] = number != 0
            else:
                found[name] = number
            return at


def _packed(form: Form, data: bytes, at: int, stop: int) -> list[Any]:
    if form is Form.INTEGERS:
        numbers: list[int] = []
        while at < stop:
            number, at = _varint(data, at)
            numbers.append(number)
        if at > stop:
            raise MalformedError("a field is longer than what holds it")
        return numbers
    count, rest = divmod(stop - at, 8)
    if rest:
        raise MalformedError("a list of numbers ends within one")
    return list(struct.unpack_from(f"<{count}{'Q' if form is Form.FIXED64S else 'd'}", data, at))


def write(message: Message) -> bytes:
    """The message in the binary form."""
    parts: list[bytes] = []
    for name, form, head, optional in _TABLES[type(message)].written:
        value = getattr(message, name)
        if not value and (value is None or not optional):
            continue
        if form is _PAIRS:
            for key, item in value.values.items():
                pair = _write_pair(key, item)
                parts += (head, _number(len(pair)), pair)
        elif form is _FIXED64:
            parts += (head, _fixed64.pack(value))
        elif form is _MESSAGES:
            for item in value:
                body = write(item)
                parts += (head, _number(len(body)), body)
        elif form in _SCALARS:
            parts += (head, _write_scalar(form, value))
        else:
            body = _write_long(form, value)
            parts += (head, _number(len(body)), body)
    return b"".join(parts)


def _write_long(form: Form, value: Any) -> bytes:
    match form:
        case Form.TEXT:
            return value.encode()
        case Form.BYTES:
            return value
        case Form.MESSAGE:
            return write(value)
        case Form.VALUE:
            return _write_value(value.value)
        case Form.INTEGERS:
            return b"".join(map(_number, value))
        case _:
            return struct.pack(f"<{len(value)}{'Q' if form is Form.FIXED64S else 'd'}", *value)


def _write_scalar(form: Form, value: Any) -> bytes:
    match form:
        case Form.FIXED64:
            return _fixed64.pack(value)
        case Form.DOUBLE:
            return _double.pack(value)
        case Form.SFIXED64:
            return _sfixed64.pack(value)
        case Form.FIXED32:
            return _fixed32.pack(value)
        case Form.SIGNED:
            return _number((value << 1 ^ value >> 63) & _MASK64)
        case _:
            return _number(int(value) & _MASK64)


def _framed(head: bytes, body: bytes) -> bytes:
    return b"%b%b%b" % (head, _number(len(body)), body)


def _write_pair(key: str, value: Attribute) -> bytes:
    if type(value) is str and len(value) + len(key) <= _CACHED_BYTES_MAX:
        return _write_text(key, value)
    return _framed(b"\x0a", key.encode()) + _framed(b"\x12", _write_value(value))


@lru_cache(_CACHED_MAX)
def _write_text(key: str, value: str) -> bytes:
    """A short text, as most attributes are; they repeat."""
    return _framed(b"\x0a", key.encode()) + _framed(b"\x12", _framed(b"\x0a", value.encode()))


def _write_value(value: Attribute) -> bytes:
    match value:
        case None:
            return b""
        case str():
            return _framed(b"\x0a", value.encode())
        case bool():
            return b"\x10\x01" if value else b"\x10\x00"
        case int():
            return b"\x18" + _number(value & _MASK64)
        case float():
            return b"\x21" + _double.pack(value)
        case bytes():
            return _framed(b"\x3a", value)
        case list():
            return _framed(b"\x2a", b"".join([_framed(b"\x0a", _write_value(item)) for item in value]))
        case dict():
            return _framed(b"\x32", b"".join([_framed(b"\x0a", _write_pair(k, v)) for k, v in value.items()]))
