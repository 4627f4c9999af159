"""Contracts: a module's typed public interface, compiled into what the mesh needs to know of it."""

from __future__ import annotations

import dataclasses
import inspect
import operator
import sys
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import Any, ClassVar, TypeVar, cast

import msgspec

from seamline.kernel.codec import Codec, UnsupportedTypeError, codec, inspect_type, type_name
from seamline.module.errors import ContractError, UnserialisableParameterError, UntypedParameterError
from seamline.module.values import Attribute, Event, Fault

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound="Contract")

UNARY, SERVER_STREAM, CLIENT_STREAM, BIDI = "unary", "server_stream", "client_stream", "bidi"
_STREAMS = (AsyncIterator, AsyncIterable, AsyncGenerator)


class Contract:
    """Base of a module's public interface: ``async`` methods with types, and no bodies.

    A method that returns a stream is a plain ``def`` returning ``AsyncIterator[T]``; a parameter of type
    ``AsyncIterator[T]`` makes the caller stream. Everything a method takes and gives is a value.
    """

    action: ClassVar[str] = ""
    """Of the platform's own contracts: what policy is asked instead of their methods."""


def idempotent(method: F) -> F:
    """Mark a method that may be run twice with the effect of once, so that it may be retried."""
    _marks(method)["idempotent"] = True
    return method


def readonly(method: F) -> F:
    """Mark a method without effect: retried and hedged freely."""
    _marks(method)["readonly"] = True
    return method


def timeout(seconds: float) -> Callable[[F], F]:
    """The longest a call of the method may take, in seconds; ``seamline.toml`` may say less or more."""
    if not seconds > 0:
        raise ContractError(f"timeout({seconds!r}) is not a positive number of seconds", "Give it seconds above 0.")

    def mark(method: F) -> F:
        _marks(method)["timeout_s"] = float(seconds)
        return method

    return mark


def _marks(method: Callable[..., Any]) -> dict[str, Any]:
    marks = getattr(method, "__seamline__", None)
    if marks is None:
        marks = method.__seamline__ = {}  # pyright: ignore[reportFunctionMemberAccess]
    return cast("dict[str, Any]", marks)


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method; ``required`` is False where it has a default."""

    name: str
    annotation: Any
    default: Any
    required: bool
    attributes: tuple[str, ...] | None = None
    """What policy may read of it (see ``Attribute``): paths into it; none of them is the whole, None is nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class MethodSpec:
    """A compiled method: its form on the wire and what may be done with it."""

    contract: str
    name: str
    kind: str
    parameters: tuple[Parameter, ...]
    stream_parameter: str | None
    signature: inspect.Signature
    result: Codec[Any]
    """Encodes the result, or one item of the result stream."""
    item: Codec[Any] | None
    """Encodes one item of the caller's stream."""
    request: Codec[Any]
    make_request: Callable[..., Any]
    """Builds what ``request`` encodes from the positional arguments, without the stream."""
    read_request: Callable[[Any], tuple[Any, ...]]
    idempotent: bool
    readonly: bool
    timeout_s: float | None
    action: str = ""
    """What policy is asked instead of the method: an action that every module has, such as ``events``."""

    @property
    def permission(self) -> tuple[str, str]:
        """The contract and the method that policy is asked for."""
        return ("", self.action) if self.action else (self.contract, self.name)

    @property
    def full_name(self) -> str:
        """``Payments.charge``: its name in policy, settings, statistics and on the wire."""
        return f"{self.contract}.{self.name}"

    def encode_request(self, arguments: tuple[Any, ...]) -> bytes:
        return self.request.encode(self.make_request(*arguments))

    def decode_request(self, data: bytes) -> tuple[Any, ...]:
        return self.read_request(self.request.decode(data))


@dataclasses.dataclass(frozen=True)
class ContractSpec:
    """A compiled contract."""

    name: str
    cls: type[Contract]
    methods: dict[str, MethodSpec]
    faults: dict[str, type[Fault]]
    events: dict[str, type[Event]]
    doc: str


_SPECS: dict[type[Contract], ContractSpec] = {}


def compile_contract(cls: type[Contract]) -> ContractSpec:
    """Read a contract's methods and types, once.

    Raises:
        ContractError: a method is not written as a contract's method must be.
        UntypedParameterError: a parameter or result has no type.
        UnserialisableParameterError: a type's values cannot cross a seam.
    """
    spec = _SPECS.get(cls)
    if spec is None:
        namespace = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
        methods = {name: _compile_method(cls, name, member) for name, member in _public_methods(cls)}
        if not methods:
            raise ContractError(
                f"the contract {cls.__qualname__!r} has no methods", "Declare one.", place=place_of(cls)
            )
        spec = _SPECS[cls] = ContractSpec(
            name=cls.__name__,
            cls=cls,
            methods=methods,
            faults=_declared(namespace, Fault),
            events=_declared(namespace, Event),
            doc=inspect.cleandoc(cls.__doc__ or ""),
        )
    return spec


V = TypeVar("V")


def _declared(namespace: dict[str, Any], base: type[V]) -> dict[str, type[V]]:
    return {
        value.__name__: value
        for value in namespace.values()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    }


def _public_methods(cls: type[Contract]) -> list[tuple[str, Callable[..., Any]]]:
    found: dict[str, Callable[..., Any]] = {}
    for klass in reversed(cls.__mro__):
        if klass in (object, Contract):
            continue
        found.update((n, m) for n, m in vars(klass).items() if not n.startswith("_") and inspect.isfunction(m))
    return list(found.items())


def _compile_method(cls: type[Contract], name: str, method: Callable[..., Any]) -> MethodSpec:
    place = place_of(method)
    label = f"{cls.__name__}.{name}"
    try:
        hints = typing.get_type_hints(method, include_extras=True)
    except NameError as error:
        raise UntypedParameterError(
            f"{label}: {error}", "Import the name at run time, not only for type checking.", place=place
        ) from None
    signature = inspect.signature(method)
    parameters, stream = _parameters(label, signature, hints, place)
    if "return" not in hints:
        raise UntypedParameterError(f"{label} does not say what it returns", "Add `-> None` or the type.", place=place)
    returns = hints["return"]
    result_stream = _stream_item(returns)
    if result_stream is None and not inspect.iscoroutinefunction(method):
        raise ContractError(
            f"{label} is not async",
            "Write `async def`; only a method that returns AsyncIterator is a plain `def`.",
            place=place,
        )
    if result_stream is not None and inspect.iscoroutinefunction(method):
        raise ContractError(
            f"{label} returns a stream but is `async def`",
            f"Write `def {name}(...) -> AsyncIterator[...]` in the contract, and an async generator in the service.",
            place=place,
        )
    marks = dict(getattr(method, "__seamline__", {}))
    request, make, read = arguments_codec(label, [p for p in parameters if p.name != (stream and stream[0])], place)
    kind = (
        (SERVER_STREAM if stream is None else BIDI)
        if result_stream is not None
        else (UNARY if stream is None else CLIENT_STREAM)
    )
    return MethodSpec(
        contract=cls.__name__,
        name=name,
        kind=kind,
        parameters=parameters,
        stream_parameter=stream[0] if stream else None,
        signature=signature,
        result=_codec(returns if result_stream is None else result_stream[0], f"the result of {label}", place),
        item=_codec(stream[1], f"the stream {stream[0]!r} of {label}", place) if stream else None,
        request=request,
        make_request=make,
        read_request=read,
        idempotent=bool(marks.get("idempotent") or marks.get("readonly")),
        readonly=bool(marks.get("readonly")),
        timeout_s=marks.get("timeout_s"),
        action=cls.action,
    )


def _parameters(
    label: str, signature: inspect.Signature, hints: dict[str, Any], place: str
) -> tuple[tuple[Parameter, ...], tuple[str, Any] | None]:
    parameters: list[Parameter] = []
    stream: tuple[str, Any] | None = None
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ContractError(f"{label} takes {parameter}", "Name every parameter.", place=place)
        if parameter.name not in hints:
            raise UntypedParameterError(
                f"the parameter {parameter.name!r} of {label} has no type", "Give it one.", place=place
            )
        annotation, attributes = _without_attributes(hints[parameter.name])
        item = _stream_item(annotation)
        if item is not None:
            if stream is not None:
                raise ContractError(f"{label} takes two streams", "A call carries one stream each way.", place=place)
            stream = (parameter.name, item[0])
        required = parameter.default is parameter.empty
        default = None if required else parameter.default
        parameters.append(Parameter(parameter.name, annotation, default, required, attributes))
    if stream is not None and parameters[-1].name != stream[0]:
        raise ContractError(
            f"the stream {stream[0]!r} of {label} is not the last parameter", "Put it last.", place=place
        )
    return tuple(parameters), stream


def _without_attributes(annotation: Any) -> tuple[Any, tuple[str, ...] | None]:
    """The annotation as codecs know it, and the paths that policy may read."""
    if typing.get_origin(annotation) is not typing.Annotated:
        return annotation, None
    paths: tuple[str, ...] | None = None
    others: list[Any] = []
    for each in annotation.__metadata__:
        if each is Attribute or isinstance(each, Attribute):
            paths = (*(paths or ()), *(each.paths if isinstance(each, Attribute) else ()))
        else:
            others.append(each)
    inner = typing.get_args(annotation)[0]
    return (typing.Annotated[(inner, *others)] if others else inner), paths  # pyright: ignore[reportInvalidTypeForm]


def _stream_item(annotation: Any) -> tuple[Any] | None:
    if typing.get_origin(annotation) in _STREAMS:
        return (typing.get_args(annotation)[0],)
    return None


def _codec(annotation: Any, what: str, place: str) -> Codec[Any]:
    if annotation is Any or annotation is object:
        raise UntypedParameterError(
            f"{what} is {type_name(annotation)}, which says nothing", "Name the type.", place=place
        )
    try:
        return codec(annotation)
    except UnsupportedTypeError as error:
        raise UnserialisableParameterError(
            f"{what} cannot cross a seam: {error.fact}", error.remedy, place=place
        ) from None


def arguments_codec(label: str, parameters: list[Parameter], place: str) -> tuple[Codec[Any], Any, Any]:
    """Arguments as one value: its codec, how to make it from positional arguments, and how to read them back."""
    native = True
    for parameter in parameters:
        _codec(parameter.annotation, f"the parameter {parameter.name!r} of {label}", place)
        native &= inspect_type(parameter.annotation).native
    name = label.replace(".", "_")
    shape: Any
    if native:
        fields: list[Any] = [
            (p.name, p.annotation)
            if p.required
            else (p.name, p.annotation, msgspec.field(default_factory=_constant(p.default)))
            for p in parameters
        ]
        shape = msgspec.defstruct(name, fields, kw_only=False)
    else:
        shape = dataclasses.make_dataclass(
            name,
            [
                (p.name, p.annotation)
                if p.required
                else (p.name, p.annotation, dataclasses.field(default_factory=_constant(p.default)))
                for p in parameters
            ],
        )
    names = [p.name for p in parameters]
    return codec(shape), shape, _reader(names)


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _reader(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if not names:
        return lambda _: ()
    if len(names) == 1:
        get = operator.attrgetter(names[0])
        return lambda request: (get(request),)
    return operator.attrgetter(*names)


def place_of(thing: Any) -> str:
    """``file:line`` of a class or function."""
    code = getattr(inspect.unwrap(thing), "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    try:
        file = inspect.getsourcefile(thing) or "?"
        line = inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return getattr(thing, "__module__", "?")
    return f"{file}:{line}"
