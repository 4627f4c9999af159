"""An event's fields as JSON and back, whatever version of the event the bytes were written by.

An event's ``version`` is raised when old events no longer fit its fields, and an upcaster says how they are brought
to them. Bytes of an older version go through the upcasters, one version at a time. Bytes of a newer version than this
code knows are read as they are: fields that this code does not know are passed over, as everywhere, so that a consumer
may be older than its producer when the producer only added fields. What no longer fits is an error that names the field
and waits with the dead letters for newer code. A field must therefore never change its meaning under its old name and
type: no reader could see it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast, get_type_hints

import msgspec

from seamline.events.errors import EventDecodeError, EventEncodeError
from seamline.events.record import Record
from seamline.kernel.codec import CodecError, codec
from seamline.module.values import Event

E = TypeVar("E", bound=Event)


class _Functions(NamedTuple):
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    check: Callable[[bytes], object]
    """Fails where ``decode`` does, in its own words."""
    version: int


_ENCODER = msgspec.json.Encoder(decimal_format="string")
_FUNCTIONS: dict[type[Event], _Functions] = {}


def _functions(cls: type[Event]) -> _Functions:
    found = _FUNCTIONS.get(cls)
    if found is None:
        made = codec(cls)
        check = _quick_check(cls) if made.shape.native else None
        found = _FUNCTIONS[cls] = _Functions(made.encode, made.decode, check or made.decode, cls.event_version)
    return found


def _quick_check(cls: type[Event]) -> Callable[[bytes], object] | None:
    """A decoder of the same fields into a struct, which is made at half the price of a dataclass. None where making the
    event does more than that."""
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]  # every event is a dataclass
    if hasattr(cls, "__post_init__") or not all(field.init for field in fields):
        return None
    hints = get_type_hints(cls, include_extras=True)
    struct = msgspec.defstruct(cls.__name__, [(field.name, hints[field.name]) for field in fields], gc=False)
    return msgspec.json.Decoder(struct).decode


def encode_event(event: Event) -> bytes:
    """The event's fields as JSON, read back once so that no consumer is sent what it could not read.

    Raises:
        EventEncodeError: a field holds a value that is not of its type.
    """
    functions = _functions(type(event))
    try:
        data = functions.encode(event)
        try:
            functions.check(data)
        except Exception:
            functions.decode(data)  # says where
    except CodecError as error:
        path, detail = error.path, error.detail
    except Exception as error:  # whatever the library underneath says of a value
        path, detail = "$", " ".join(str(error).split())[:300]
    else:
        return data
    cls = type(event)
    raise EventEncodeError(
        f"the event {cls.__name__} holds a value that its consumers could not read, at {path}: {detail}",
        "Nothing was published. Give the field a value of the type that the contract declares.",
        place=cls.__module__,
    )


def decode_event(cls: type[E], record: Record) -> E:
    """The event in a record, brought to the version that ``cls`` has here.

    Raises:
        EventDecodeError: the data does not fit, or an upcaster is missing or fails.
    """
    functions = _functions(cls)
    if record.version < functions.version:
        return _decode_older(cls, record, functions)
    try:
        return cast("E", functions.decode(record.data))
    except CodecError as error:
        raise _misfit(record, error, functions.version) from None


def _decode_older(cls: type[E], record: Record, functions: _Functions) -> E:
    fields: Any
    try:
        fields = msgspec.json.decode(record.data)
    except msgspec.DecodeError as error:
        fields = error
    if not isinstance(fields, dict):
        raise EventDecodeError(
            f"the data is not a JSON object: {str(fields)[:100]!r}",
            "It was damaged or written by another program; the dead letter keeps its bytes.",
            place=_place(record),
        )
    for version in range(record.version, functions.version):
        upcaster = cls.event_upcasters.get(version)
        if upcaster is None:
            raise EventDecodeError(
                f"it was written as version {record.version}, {cls.__name__} is version {functions.version} here "
                f"and nothing brings version {version} to {version + 1}",
                f"Declare `@{cls.__name__}.upcast({version})` beside the event, then replay the dead letter.",
                place=_place(record),
            )
        try:
            fields = upcaster(cast("dict[str, Any]", fields))
        except Exception as error:  # an upcaster is a user's code
            raise EventDecodeError(
                f"the upcaster {cls.__name__}.upcast({version}) failed: {type(error).__name__}: {error}",
                "Correct it, then replay the dead letter.",
                place=_place(record),
            ) from error
    try:
        return cast("E", functions.decode(_ENCODER.encode(fields)))
    except CodecError as error:
        raise _misfit(record, error, functions.version) from None
    except TypeError as error:
        raise EventDecodeError(
            f"the upcasters of {cls.__name__} made what is not JSON: {error}",
            "An upcaster returns fields as JSON has them: text, numbers, true or false, lists and maps.",
            place=_place(record),
        ) from None


def _misfit(record: Record, error: CodecError, known: int) -> EventDecodeError:
    if record.version > known:
        fact = f"it was written as version {record.version}, this code knows version {known}, and at {error.path}"
        remedy = "Bring the newer contract to this consumer, then replay the dead letter."
    elif record.version < known:
        fact = f"brought from version {record.version} to {known} it does not fit at {error.path}"
        remedy = f"Correct the upcasters from version {record.version} on, then replay the dead letter."
    else:
        fact = f"it does not fit at {error.path}"
        remedy = (
            "Its producer's contract differs under the same version: raise `version=` and add an upcaster, or take the "
            "change back (`seamline contracts diff` names it), then replay the dead letter."
        )
    return EventDecodeError(f"{fact}: {error.detail}", remedy, place=_place(record))


def _place(record: Record) -> str:
    return f"event {record.source}.{record.type} {record.id!r}"
