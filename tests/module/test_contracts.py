"""Contracts are read once, and what is wrong with one is said with its place and the remedy."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from seamline import Contract, Event, Fault, idempotent, readonly, timeout
from seamline.kernel.errors import SeamlineError
from seamline.module import compile_contract
from seamline.module.errors import ContractError, UnserialisableParameterError, UntypedParameterError


@dataclass(frozen=True)
class Money:
    amount: Decimal
    currency: str


class Declined(Fault):
    """The issuer refused."""

    reason: str
    retry_after_s: int = 0


class Captured(Event):
    order: str


class Payments(Contract):
    """Takes money."""

    @timeout(5)
    async def charge(self, order: str, amount: Money, tags: list[str] | None = None) -> Money: ...

    @idempotent
    async def refund(self, charge: str) -> None: ...

    @readonly
    def watch(self, order: str) -> AsyncIterator[Money]: ...

    async def upload(self, name: str, chunks: AsyncIterator[bytes]) -> int: ...

    def echo(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]: ...


def test_a_contract_is_read_whole():
    """Kinds, marks, timeouts, faults and events are found."""
    spec = compile_contract(Payments)
    kinds = {name: method.kind for name, method in spec.methods.items()}
    assert kinds == {
        "charge": "unary", "refund": "unary", "watch": "server_stream", "upload": "client_stream", "echo": "bidi",
    }  # fmt: skip
    assert {n for n, m in spec.methods.items() if m.idempotent} == {"refund", "watch"}
    assert {n for n, m in spec.methods.items() if m.readonly} == {"watch"}
    assert spec.methods["charge"].timeout_s == 5
    assert set(spec.faults) == {"Declined"}
    assert set(spec.events) == {"Captured"}
    assert compile_contract(Payments) is spec


def test_a_request_is_an_object_of_its_parameters_and_tolerates_time():
    """Missing parameters take their defaults, unknown ones are ignored: callers and callees may differ by a version."""
    charge = compile_contract(Payments).methods["charge"]
    body = charge.encode_request(("o-1", Money(Decimal("1.10"), "EUR"), None))
    assert body == b'{"order":"o-1","amount":{"amount":"1.10","currency":"EUR"},"tags":null}'
    old = b'{"order":"o-1","amount":{"amount":"1.10","currency":"EUR"},"colour":"blue"}'
    assert charge.decode_request(old) == ("o-1", Money(Decimal("1.10"), "EUR"), None)


def test_a_fault_is_a_typed_exception():
    """Fields, defaults, equality, text and the way over the wire."""
    fault = Declined(reason="expired")
    assert str(fault) == "The issuer refused. (reason='expired', retry_after_s=0)"
    assert Declined.decode(fault.encode()) == fault == Declined(reason="expired", retry_after_s=0)
    assert Declined.decode(b'{"reason":"x","later":1}') == Declined(reason="x")
    assert fault != Declined(reason="stolen")
    with pytest.raises(TypeError):
        Declined()  # pyright: ignore[reportCallIssue]
    with pytest.raises(AttributeError):
        Captured(order="o").order = "p"  # pyright: ignore[reportAttributeAccessIssue]


class Untyped(Contract):
    async def method(self, a) -> None: ...  # noqa: ANN001  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]


class NoResult(Contract):
    async def method(self, a: int): ...


class Vague(Contract):
    async def method(self, a: Any) -> None: ...


class VagueResult(Contract):
    async def method(self) -> object: ...


class Unsendable(Contract):
    async def method(self, a: complex) -> None: ...


class UnsendableInside(Contract):
    async def method(self) -> dict[str, list[complex]]: ...


class NotAsync(Contract):
    def method(self, a: int) -> int: ...  # pyright: ignore[reportReturnType]


class AsyncStream(Contract):
    async def method(self) -> AsyncIterator[int]: ...


class TwoStreams(Contract):
    async def method(self, a: AsyncIterator[int], b: AsyncIterator[int]) -> None: ...


class StreamFirst(Contract):
    async def method(self, a: AsyncIterator[int], b: int) -> None: ...


class Variadic(Contract):
    async def method(self, *a: int) -> None: ...


class Empty(Contract):
    """Nothing."""


@pytest.mark.parametrize(
    ("contract", "error", "code", "words"),
    [
        (Untyped, UntypedParameterError, "SL2102", "parameter 'a' of Untyped.method has no type"),
        (NoResult, UntypedParameterError, "SL2102", "NoResult.method does not say what it returns"),
        (Vague, UntypedParameterError, "SL2102", "'a' of Vague.method is Any"),
        (VagueResult, UntypedParameterError, "SL2102", "result of VagueResult.method is object"),
        (Unsendable, UnserialisableParameterError, "SL2103", "complex"),
        (UnsendableInside, UnserialisableParameterError, "SL2103", "complex"),
        (NotAsync, ContractError, "SL2101", "NotAsync.method is not async"),
        (AsyncStream, ContractError, "SL2101", "returns a stream but is `async def`"),
        (TwoStreams, ContractError, "SL2101", "takes two streams"),
        (StreamFirst, ContractError, "SL2101", "not the last parameter"),
        (Variadic, ContractError, "SL2101", r"takes \*a"),
        (Empty, ContractError, "SL2101", "has no methods"),
    ],
)
def test_each_mistake_has_its_code_place_and_remedy(
    contract: type[Contract], error: type[SeamlineError], code: str, words: str
):
    """A contract that cannot work is refused before anything starts."""
    with pytest.raises(error, match=words) as caught:
        compile_contract(contract)
    assert str(caught.value).startswith(f"{code}: ")
    assert caught.value.remedy
    assert caught.value.place is not None
    assert caught.value.place.startswith(inspect.getsourcefile(contract) or "?")


def test_a_timeout_must_be_positive():
    """timeout(0) would fail every call."""
    with pytest.raises(ContractError, match=r"timeout\(0\)"):
        timeout(0)
