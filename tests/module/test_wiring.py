"""Wiring goes by type, and is checked before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seamline import Clock, Contract, Event, Module, use
from seamline.kernel.clock import ManualClock
from seamline.kernel.errors import SeamlineError
from seamline.module.errors import (
    ModuleError,
    ServiceError,
    UnknownContractError,
    WiringCycleError,
    WiringError,
)
from seamline.module.wiring import Platform, Wiring


class Greeter(Contract):
    async def greet(self, name: str) -> str: ...


class Other(Contract):
    async def other(self) -> str: ...


class Happened(Event):
    name: str


class Printer:
    def __init__(self, ink: str) -> None:
        self.ink = ink


class Cartridge: ...


def platform(stubs: Callable[[type[Contract]], Any] = lambda contract: f"stub of {contract.__name__}") -> Platform:
    clock = ManualClock()
    return {Contract: lambda _: stubs, Clock: lambda _: clock}


def greeter() -> Module:
    module = Module("greeter", provides=Greeter)

    @module.service
    class Service(Greeter):
        def __init__(self, other: Other, printer: Printer, clock: Clock, loud: bool = False) -> None:
            self.parts = (other, printer, clock, loud)

        async def greet(self, name: str) -> str:
            return name

    @module.provide
    async def printer(other: Other) -> Printer:
        return Printer(f"ink for {other}")

    assert Service
    assert printer
    return module


async def test_a_constructor_gets_what_it_asks_for():
    """Stubs, the module's own factories (async too), the platform's things; defaults stay defaults."""
    module = greeter()
    wiring = Wiring(module, {Greeter: "greeter", Other: "other"}, platform())
    assert wiring.check() == {Other}
    made: Any = await wiring.build(module.services[0])
    other, printer, clock, loud = made.parts
    assert other == "stub of Other"
    assert printer.ink == "ink for stub of Other"
    assert isinstance(clock, ManualClock)
    assert loud is False
    again: Any = await wiring.build(module.services[0])
    assert again.parts[1] is printer, "a factory's product is made once for the module"


def refused(module: Module, error: type[SeamlineError], words: str, **providers: str) -> None:
    table: dict[type[Contract], str] = {c: providers[c.__name__] for c in (Greeter, Other) if c.__name__ in providers}
    with pytest.raises(error, match=words) as caught:
        Wiring(module, table, platform()).check()
    assert caught.value.remedy
    assert caught.value.place


def test_an_unknown_contract_is_named():
    """A contract that no module provides."""
    refused(greeter(), UnknownContractError, "asks for other: Other, but no module provides", Greeter="greeter")


def test_a_type_that_nothing_provides_is_named():
    """The remedy is a factory."""
    module = Module("m")

    @module.startup
    async def start(cartridge: Cartridge) -> None: ...

    assert start
    refused(module, WiringError, "asks for cartridge: Cartridge, which nothing provides")


def test_a_circle_is_shown_as_one():
    """Factories that need each other."""
    module = Module("m")

    @module.provide
    def printer(cartridge: Cartridge) -> Printer:
        raise NotImplementedError(cartridge)

    @module.provide
    def cartridge(printer: Printer) -> Cartridge:
        raise NotImplementedError(printer)

    refused(module, WiringCycleError, "printer -> .*cartridge -> .*printer")


def test_an_untyped_parameter_cannot_be_wired():
    """Wiring goes by type."""
    module = Module("m")

    @module.startup
    async def start(thing) -> None: ...  # noqa: ANN001  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]

    refused(module, WiringError, "parameter 'thing' .* has no type")


def test_a_type_that_only_a_function_knows_is_named():
    """Annotations are read from the top of the file: one that stands for what a function imported means nothing."""
    module = Module("m")

    class Hidden: ...

    @module.on(Happened)
    async def hear(event: Happened, hidden: Hidden) -> None: ...

    refused(module, WiringError, "hear asks for the type 'Hidden', which is no name at the top of its file")
    other = Module("m")

    @other.provide
    def hidden() -> Hidden:
        raise NotImplementedError

    with pytest.raises(WiringError, match="hidden asks for the type 'Hidden'"):
        Wiring(other, {}, platform())


def test_event_handlers_are_wired_after_the_event():
    """What stands behind the event is checked as elsewhere."""
    module = Module("m")

    @module.on(Happened)
    async def hear(event: Happened, other: Other) -> None: ...

    assert Wiring(module, {Other: "other"}, platform()).check() == {Other}
    refused(module, UnknownContractError, "Other")
    assert hear


def test_a_service_must_be_whole():
    """A missing service, two of them, a missing method, other parameters than the contract's."""
    refused(Module("m", provides=Greeter), ServiceError, "with 0 services", Greeter="m")

    twice = Module("m", provides=Greeter)

    class Service(Greeter):
        async def greet(self, name: str) -> str:
            return name

    twice.service(Service)
    twice.service(type("Again", (Service,), {}))
    refused(twice, ServiceError, "with 2 services", Greeter="m")

    missing = Module("m", provides=Greeter)
    missing.service(type("Missing", (Greeter,), {}))
    refused(missing, ServiceError, "does not implement Greeter.greet", Greeter="m")

    odd = Module("m", provides=Greeter)

    @odd.service
    class Odd(Greeter):
        async def greet(self, who: str) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
            return who

    assert Odd
    refused(odd, ServiceError, r"takes \['who'\], the contract says \['name'\]", Greeter="m")


def test_a_service_of_another_contract_is_refused_at_once():
    """The decorator says so where the class stands."""
    module = Module("m", provides=Greeter)
    with pytest.raises(ServiceError, match="implements none of its contracts"):
        module.service(type("Stranger", (Other,), {}))


@pytest.mark.parametrize("name", ["Upper", "with-dash", "", "1st", "a b"])
def test_a_module_name_is_an_identity(name: str):
    """Lower-case identifier, because it stands in certificates, policy and paths."""
    with pytest.raises(ModuleError, match="is not a module name"):
        Module(name)


def test_a_mount_begins_with_a_slash():
    """at='shop' is a mistake with a remedy."""
    with pytest.raises(ModuleError, match=r"mount\(at='shop'\)"):
        Module("m").mount(object(), at="shop")


def test_a_mounted_app_asks_for_contracts_only():
    """Anything else is told when the route is declared, with the way to it."""
    with pytest.raises(WiringError, match="Clock is no contract") as caught:
        use(Clock)  # pyright: ignore[reportArgumentType]
    assert "in a service" in caught.value.remedy
