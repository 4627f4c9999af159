"""What a step calls, and how its arguments and result are written down.

A contract's method is known to its contract. Of a function of the module the annotations say it; a function without
any (a ``lambda``) may give nothing but None, text, a whole number or a truth value.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from seamline.kernel.codec import Codec, UnsupportedTypeError, codec, type_name
from seamline.kernel.errors import SeamlineError
from seamline.module.contract import Contract, Parameter, arguments_codec, compile_contract
from seamline.module.errors import ModuleError
from seamline.module.wiring import place_of
from seamline.sagas.errors import SagaMismatchError, UntypedStepError
from seamline.sagas.journal.records import NULL

REMOTE, LOCAL, THREAD, DIRECT = "remote", "local", "thread", "direct"
_PLAIN: Final = (str, int, bool)


class Values:
    """Arguments as one value, by the parameters of a function or of a saga."""

    def __init__(self, label: str, parameters: list[Parameter], place: str) -> None:
        self.names = [parameter.name for parameter in parameters]
        self._codec, self._make, self._read = arguments_codec(label, parameters, place)

    def encode(self, arguments: tuple[Any, ...]) -> bytes:
        return self._codec.encode(self._make(*arguments))

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """Raises CodecError."""
        return self._read(self._codec.decode(data))

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether the same was said, a default that was added since apart."""
        if one == other:
            return True
        try:
            return self._codec.encode(self._codec.decode(one)) == self._codec.encode(self._codec.decode(other))
        except SeamlineError:
            return False


class Callee:
    """What is known of a function that steps call. Made once for each function."""

    __slots__ = ("arguments", "how", "name", "result")

    def __init__(self, name: str, how: str, arguments: Values | None, result: Codec[Any] | None) -> None:
        self.name = name
        self.how = how
        self.arguments = arguments
        self.result = result

    def encode_arguments(self, arguments: tuple[Any, ...]) -> msgspec.Raw:
        """Raises UntypedStepError where they do not fit."""
        if self.arguments is None:
            return NULL
        try:
            return msgspec.Raw(self.arguments.encode(arguments))
        except Exception as error:  # whatever the codec's library raises
            raise UntypedStepError(
                f"the arguments of the step {self.name!r} cannot be written to the journal: {error}",
                "Give it what its parameters' types say",
            ) from error

    def encode_result(self, value: Any) -> msgspec.Raw:
        """Raises UntypedStepError."""
        if self.result is None:
            if value is None:
                return NULL
            if not isinstance(value, _PLAIN):
                raise UntypedStepError(
                    f"the step {self.name!r} gave a {type(value).__name__}, and its function does not say its type",
                    "Annotate what the function returns; use a named function in place of a lambda",
                )
            return msgspec.Raw(msgspec.json.encode(value))
        try:
            return msgspec.Raw(self.result.encode(value))
        except Exception as error:  # likewise
            raise UntypedStepError(
                f"the result of the step {self.name!r} is not the {type_name(self.result.annotation)} that its "
                f"function promises: {error}",
                "Return what the annotation says",
            ) from error

    def decode_result(self, data: msgspec.Raw) -> Any:
        if self.result is None:
            return msgspec.json.decode(data)
        try:
            return self.result.decode(bytes(data))
        except SeamlineError as error:
            raise SagaMismatchError(
                f"the result of the step {self.name!r} in the journal does not fit: {error.fact}",
                "Keep the type readable for what was written before, then `seamline sagas retry`",
            ) from error


_LAMBDA: Final = Callee("lambda", DIRECT, None, None)
_KNOWN: dict[tuple[Any, type[Any] | None, bool], Callee] = {}
"""By code, since a function inside of a saga is made anew with each run."""


def callee_of(call: Callable[..., Any]) -> Callee:
    """What is known of ``call``. Raises UntypedStepError where its result cannot be written down."""
    function: Any = getattr(call, "__func__", call)
    partial = isinstance(function, functools.partial)
    if partial:
        function = cast("functools.partial[Any]", function).func
    code = getattr(function, "__code__", None)
    if code is None:
        return _callee(function, bound=False, partial=partial)
    bound_to: Any = getattr(call, "__self__", None)
    owner = cast("type[Any]", type(bound_to))
    key = (code, owner, partial)
    found = _KNOWN.get(key)
    if found is None:
        if function.__name__ == "<lambda>":
            return _LAMBDA
        method = _method(owner, function.__name__) if issubclass(owner, Contract) else None
        found = _KNOWN[key] = method or _callee(function, bound=function is not call and not partial, partial=partial)
    return found


def _method(owner: type[Contract], name: str) -> Callee | None:
    """A contract's method: of a stub, or of a stand-in for one."""
    for base in owner.__mro__[1:]:
        if base is not Contract and issubclass(base, Contract):
            method = compile_contract(base).methods.get(name.removeprefix("call_"))
            if method is not None:
                return Callee(
                    method.full_name, REMOTE, Values(method.full_name, list(method.parameters), ""), method.result
                )
    return None


def _callee(function: Callable[..., Any], *, bound: bool, partial: bool) -> Callee:
    name = getattr(function, "__qualname__", type(function).__qualname__).rpartition("<locals>.")[2]
    target: Any = function if inspect.isroutine(function) else getattr(function, "__call__")  # noqa: B004, B009
    how = LOCAL if inspect.iscoroutinefunction(target) else THREAD
    hints = typing.get_type_hints(target, include_extras=True)
    result: Codec[Any] | None = None
    if "return" in hints and hints["return"] is not Any:
        result = _codec(hints["return"], name, function)
    return Callee(name, how, None if partial else _values(function, name, hints, bound=bound), result)


def _values(function: Callable[..., Any], name: str, hints: dict[str, Any], *, bound: bool) -> Values | None:
    """None where a parameter has no type: what a person may see of the arguments is then missing, nothing else."""
    parameters: list[Parameter] = []
    for parameter in list(inspect.signature(function).parameters.values())[1 if bound else 0 :]:
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            return None
        annotation = hints.get(parameter.name)
        if annotation is None or annotation is Any or annotation is object:
            return None
        required = parameter.default is parameter.empty
        parameters.append(Parameter(parameter.name, annotation, None if required else parameter.default, required))
    try:
        return Values(name.replace("<", "").replace(">", ""), parameters, place_of(function))
    except ModuleError:
        return None  # such as a database: handed on, and not written down


def _codec(annotation: Any, name: str, function: Callable[..., Any]) -> Codec[Any]:
    try:
        return codec(annotation)
    except UnsupportedTypeError as error:
        raise UntypedStepError(
            f"the result of the step {name!r} cannot be written to the journal: {error.fact}",
            error.remedy,
            place=place_of(function),
        ) from error


async def run_thread(call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Blocking code, off the event loop."""
    value = await asyncio.to_thread(call, *arguments)
    return await value if inspect.isawaitable(value) else value
