"""Faults and events: typed values with a name, declared beside a contract; and what policy may read of arguments."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, ClassVar, dataclass_transform

from seamline.kernel.codec import Codec, codec
from seamline.module.errors import EventError


class Attribute:
    """Lets policy read an argument, or what it names of it::

        async def refund(self, order_id: str, amount: Annotated[Money, Attribute("cents", "currency")]) -> None: ...

    In a policy these are ``context.args.amount.cents`` and ``context.args.amount.currency``. A path may go through
    fields and properties that say their type (``Attribute("address.country")``). ``Attribute`` alone is the argument
    as a whole. What may be read is text, whole numbers, true and false, enums, ``Decimal``, ``datetime``, records of
    these and collections of them; Cedar knows no ``float``.
    """

    __slots__ = ("paths",)

    def __init__(self, *paths: str) -> None:
        self.paths = paths


@dataclass_transform(kw_only_default=True)
class Fault(Exception):  # a fault is the contract's word for it
    """A typed error that a contract declares and that crosses seams as itself.

    Fields are declared as on a dataclass and given by keyword; the docstring's first line is the message::

        class OutOfStock(Fault):
            \"\"\"Not enough of it left.\"\"\"
            sku: str
            left: int = 0

        raise OutOfStock(sku="mug", left=2)
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        init = cls.__dict__.get("__init__")
        dataclasses.dataclass(init=init is None, repr=False, eq=False, kw_only=True)(cls)
        cls._fields = tuple(f.name for f in dataclasses.fields(cls))  # pyright: ignore[reportArgumentType]

    @property
    def message(self) -> str:
        """The first line of the fault's docstring."""
        return (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._fields)

    def __str__(self) -> str:
        shown = ", ".join(f"{n}={getattr(self, n)!r}" for n in self._fields)
        return f"{self.message} ({shown})" if shown else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in self._fields)})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._values() == self._values()

    def __hash__(self) -> int:
        return hash((type(self), self._fields))

    @classmethod
    def codec(cls) -> Codec[Any]:
        """Encodes the fault's fields."""
        hints = typing.get_type_hints(cls, include_extras=True)
        fields = [(f.name, hints[f.name], _default_of(f)) for f in dataclasses.fields(cls)]  # pyright: ignore[reportArgumentType]
        shape = dataclasses.make_dataclass(cls.__name__, fields, kw_only=True)
        return codec(shape)

    def encode(self) -> bytes:
        """The fields as JSON."""
        fault_codec = _codec_of(type(self))
        return fault_codec.encode(fault_codec.annotation(**dict(zip(self._fields, self._values(), strict=True))))

    @classmethod
    def decode(cls, data: bytes) -> Fault:
        """A fault from its fields as JSON. Raises :class:`~seamline.kernel.codec.CodecError`."""
        fields = _codec_of(cls).decode(data)
        return cls(**{name: getattr(fields, name) for name in cls._fields})


_FAULT_CODECS: dict[type[Fault], Codec[Any]] = {}


def _codec_of(cls: type[Fault]) -> Codec[Any]:
    found = _FAULT_CODECS.get(cls)
    if found is None:
        found = _FAULT_CODECS[cls] = cls.codec()
    return found


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return dataclasses.field(default=field.default)


Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes the fields of the next version from those of the version before."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Event:
    """Something that happened, declared in a contract. Fields as on a frozen dataclass, given by keyword::

        class StockMoved(Event, key="sku", version=2):
            sku: str
            pieces: int
            reason: str

        @StockMoved.upcast(1)
        def with_reason(fields: dict[str, Any]) -> dict[str, Any]:
            return fields | {"reason": "unknown"}

    ``key`` names the field (a string, or what ``str`` makes of it) within whose values events keep their order;
    without one they have no order among each other. ``version`` counts changes that old readers or old events do
    not fit; an upcaster brings an event of an old version to the next. ``compacted`` says that an event tells the
    whole state of its key, so that the log may drop those that a newer one of their key has made superfluous.
    """

    event_key: ClassVar[str] = ""
    event_version: ClassVar[int] = 1
    event_compacted: ClassVar[bool] = False
    event_upcasters: ClassVar[dict[int, Upcaster]] = {}

    def __init_subclass__(cls, *, key: str = "", version: int = 1, compacted: bool = False) -> None:
        super().__init_subclass__()
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        if key and key not in {field.name for field in dataclasses.fields(cls)}:  # pyright: ignore[reportArgumentType]
            raise EventError(
                f"the event {cls.__name__!r} has the key {key!r}, which is none of its fields",
                "Name a field whose value says what the event is about.",
                place=cls.__module__,
            )
        if compacted and not key:
            raise EventError(
                f"the event {cls.__name__!r} is compacted and has no key",
                "Name the field whose newest event is to be kept: `key=`.",
                place=cls.__module__,
            )
        cls.event_key, cls.event_version, cls.event_compacted, cls.event_upcasters = key, version, compacted, {}

    @classmethod
    def upcast(cls, version: int) -> Callable[[Upcaster], Upcaster]:
        """Declare how the fields of ``version``, as JSON has them, become those of the version after it."""

        def register(upcaster: Upcaster) -> Upcaster:
            if not 1 <= version < cls.event_version:
                raise EventError(
                    f"{cls.__name__}.upcast({version}) is for a version that is not older than {cls.event_version}",
                    "Raise `version=` on the event first; an upcaster starts at the version that was.",
                    place=cls.__module__,
                )
            cls.event_upcasters[version] = upcaster
            return upcaster

        return register
