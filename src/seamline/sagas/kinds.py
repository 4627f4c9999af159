"""A type of saga, compiled: what its input and its result are, and what is wired into it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from seamline.kernel.codec import Codec, UnsupportedTypeError, codec
from seamline.module.contract import Parameter
from seamline.module.errors import SagaError
from seamline.module.module import SagaType
from seamline.module.wiring import Wiring, place_of
from seamline.sagas.calls import Values
from seamline.sagas.cron import Cron


class Kind:
    """One ``@module.saga``. Raises ModuleError where it is not declared as it must be."""

    def __init__(self, saga: SagaType, inputs: Mapping[str, Any]) -> None:
        function = saga.function
        place = place_of(function)
        self.name = saga.name
        self.label = f"saga {saga.name}"
        self.function = function
        self.version = saga.version
        self.timeout_ms = int(saga.timeout_s * 1000)
        self.parallel = saga.compensate == "parallel"
        self.cron = Cron(saga.cron) if saga.cron else None
        signature = inspect.signature(function)
        parameters = [
            Parameter(name, wanted, None if default is inspect.Parameter.empty else default,
                      default is inspect.Parameter.empty)
            for name, wanted in inputs.items()
            for default in (signature.parameters[name].default,)
        ]  # fmt: skip
        if self.cron is not None and any(parameter.required for parameter in parameters):
            raise SagaError(
                f"the saga {self.name!r} starts by the clock but wants input",
                "Give its parameters defaults.",
                place=place,
            )
        self.parameters = parameters
        self.input = Values(self.name, parameters, place)
        self.result = _result(function, self.name, place)
        self.wired: dict[str, Any] = {}

    def arguments(self, given: tuple[Any, ...], keywords: Mapping[str, Any]) -> tuple[Any, ...]:
        """All of the input in the parameters' order. Raises TypeError as a call does."""
        names = [parameter.name for parameter in self.parameters]
        if len(given) > len(names) or set(keywords) - set(names[len(given) :]):
            message = f"saga {self.name!r} takes {', '.join(names) or 'no input'}"
            raise TypeError(message)
        values = list(given)
        for parameter in self.parameters[len(given) :]:
            if parameter.name in keywords:
                values.append(keywords[parameter.name])
            elif parameter.required:
                message = f"saga {self.name!r} wants its input {parameter.name!r}"
                raise TypeError(message)
            else:
                values.append(parameter.default)
        return tuple(values)


def compile_sagas(sagas: list[SagaType], wiring: Wiring) -> dict[Callable[..., Any], Kind]:
    """By function. Raises ModuleError."""
    return {saga.function: Kind(saga, wiring.inputs(saga.function)) for saga in sagas}


def check_sagas(sagas: list[SagaType], wiring: Wiring) -> None:
    """Find what is wrong with the sagas' declarations, without running them. Raises ModuleError."""
    compile_sagas(sagas, wiring)


def _result(function: Callable[..., Any], name: str, place: str) -> Codec[Any]:
    hints = typing.get_type_hints(function, include_extras=True)
    if "return" not in hints or hints["return"] is Any:
        raise SagaError(f"the saga {name!r} does not say what it returns", "Add `-> None` or the type.", place=place)
    try:
        return codec(hints["return"])
    except UnsupportedTypeError as error:
        raise SagaError(
            f"the result of the saga {name!r} cannot be written down: {error.fact}", error.remedy, place=place
        ) from None
