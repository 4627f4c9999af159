"""Who may refund how much: the user and the arguments decide, whichever way the call goes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pytest
from tests.mesh.rig import APP, Rig

from seamline.kernel.audit import AuditLog
from seamline.kernel.settings import MeshRules, MeshSettings
from seamline.mesh.balance import Endpoint
from seamline.mesh.errors import PolicyTypeError, UnknownPolicyNameError
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy, Vocabulary, arguments_of
from seamline.module import (
    Attribute,
    CallContext,
    Contract,
    InvalidArgument,
    PermissionDenied,
    Subject,
    Unauthenticated,
    User,
    compile_contract,
)
from seamline.module.context import CURRENT
from seamline.module.errors import ContractError


class Why(StrEnum):
    BROKEN = "broken"
    LATE = "late"


@dataclass
class Money:
    amount: Decimal
    currency: str = "EUR"

    @property
    def cents(self) -> int:
        return int(self.amount * 100)


@dataclass(frozen=True)
class Line:
    sku: str
    count: int


class Payments(Contract):
    async def refund(
        self,
        order: str,
        amount: Annotated[Money, Attribute("cents", "amount", "currency")],
        why: Annotated[Why, Attribute] = Why.LATE,
        lines: Annotated[tuple[Line, ...], Attribute] = (),
        coupon: Annotated[str | None, Attribute] = None,
        at: Annotated[datetime | None, Attribute] = None,
    ) -> str: ...

    def history(self, upto: Annotated[int, Attribute]) -> AsyncIterator[int]: ...

    async def sum(self, start: Annotated[int, Attribute], items: AsyncIterator[int]) -> int: ...

    async def rates(self) -> str: ...


class Service(Payments):
    def __init__(self) -> None:
        self.done: list[str] = []

    async def refund(
        self,
        order: str,
        amount: Money,
        why: Why = Why.LATE,
        lines: tuple[Line, ...] = (),
        coupon: str | None = None,
        at: datetime | None = None,
    ) -> str:
        self.done.append(order)
        return f"{amount.cents} for {order}"

    async def history(self, upto: int) -> AsyncIterator[int]:
        for number in range(upto):
            yield number

    async def sum(self, start: int, items: AsyncIterator[int]) -> int:
        async for item in items:
            start += item
        return start

    async def rates(self) -> str:
        return "fair"


ROLES = Vocabulary(roles=("support", "supervisor"), user_attributes={"floor": "number"})
PERMIT = 'permit (principal == Module::"desk", action in Action::"Payments", resource == Module::"payments");\n'
AT_MOST_50 = """
@id("who refunds how much")
forbid (principal, action == Action::"Payments.refund", resource)
unless {
  context.user in Role::"supervisor" ||
  (context.user in Role::"support" && context.args.amount.cents <= 5000)
};
"""
ANN = User("ann", roles=frozenset({"support"}), attributes={"floor": 3})
BOB = User("bob", roles=frozenset({"supervisor", "support"}))
EVE = User("eve", roles=frozenset({"admin"}))


def policy(text: str) -> Policy:
    spec = compile_contract(Payments)
    return Policy.from_text(
        text,
        modules={"desk": {}, "payments": {}},
        contracts={"Payments": ("payments", list(spec.methods))},
        arguments=arguments_of(spec),
        vocabulary=ROLES,
    )


WAYS = ("local", "copy", "frames", "http")


class Stand:
    """The payments, and the desk that calls them, in one way to each other."""

    def __init__(self, caller: Mesh, callee: Mesh, service: Service) -> None:
        self.caller = caller
        self.callee = callee
        self.service = service
        self.payments = caller.stub(Payments, "desk")

    @contextlib.contextmanager
    def acting_for(self, user: User | None) -> Generator[None]:
        """As a handler of the desk that serves a request of the user."""
        subject = self.caller.introduce(user) if user is not None else None
        token = CURRENT.set(CallContext("desk", "gateway", "http", subject=subject))
        try:
            yield
        finally:
            CURRENT.reset(token)

    def audited(self) -> str:
        return "".join(
            mesh.audit.path.read_text()
            for mesh in {self.caller, self.callee}
            if mesh.audit is not None and mesh.audit.path.exists()
        )


@contextlib.asynccontextmanager
async def standing(folder: Path, way: str, text: str, callees: str = "") -> AsyncGenerator[Stand]:
    """``callees`` is the policy of the process that hosts the payments, if it is another."""
    made, service = Rig(folder), Service()
    remote = way in ("frames", "http")

    def mesh(name: str, rules: str, *modules: str) -> Mesh:
        one = Mesh(
            APP,
            policy(rules),
            MeshSettings(default=MeshRules(retries=0), wire="http" if way == "http" else "frames"),
            identity=made.identity(*modules) if remote else None,
            audit=AuditLog(folder / f"audit-{name}.jsonl"),
            copies=way == "copy",
        )
        one.know(Payments, "payments")
        made.meshes.append(one)
        return one

    caller = callee = mesh("desk", text, "desk", "gateway")
    if remote:
        callee = mesh("payments", callees or text, "payments")
        assert caller.identity is not None
        assert callee.identity is not None
        callee.identity.keys.add(caller.identity.keys.known)
        listener = socket.create_server(("127.0.0.1", 0))
        callee.provide("payments", Payments, service)
        await callee.port.listen(listener)
        caller.set_endpoints({"payments": [Endpoint("127.0.0.1", listener.getsockname()[1])]})
    else:
        caller.provide("payments", Payments, service)
    try:
        yield Stand(caller, callee, service)
    finally:
        await made.stop()


def euros(amount: str) -> Money:
    return Money(Decimal(amount))


@pytest.mark.parametrize("way", WAYS)
async def test_support_refunds_at_most_50_and_a_supervisor_any(tmp_path: Path, way: str):
    async with standing(tmp_path, way, PERMIT + AT_MOST_50) as stand:
        with stand.acting_for(ANN):
            assert await stand.payments.refund("o1", euros("50.00")) == "5000 for o1"
            with pytest.raises(PermissionDenied, match="for user 'ann'"):
                await stand.payments.refund("o2", euros("50.01"))
        with stand.acting_for(BOB):
            assert await stand.payments.refund("o3", euros("5000")) == "500000 for o3"
        with stand.acting_for(EVE), pytest.raises(PermissionDenied):
            await stand.payments.refund("o4", euros("0.01"))
        assert stand.service.done == ["o1", "o3"]
        assert '"user": "eve"' in stand.audited()


@pytest.mark.parametrize("way", WAYS)
async def test_nobody_is_told_to_sign_in_where_that_might_help(tmp_path: Path, way: str):
    """A call without a user is Unauthenticated where a user decides, and PermissionDenied where none could."""
    text = PERMIT + AT_MOST_50 + 'forbid (principal, action == Action::"Payments.rates", resource);'
    async with standing(tmp_path, way, text) as stand:
        for user in (None, User("", roles=frozenset())):
            expected = Unauthenticated if user is None else PermissionDenied
            with stand.acting_for(user), pytest.raises(expected):
                await stand.payments.refund("o1", euros("1"))
        with pytest.raises(Unauthenticated):  # nor by itself, outside of any request
            await stand.payments.refund("o1", euros("1"))
        with stand.acting_for(None), pytest.raises(PermissionDenied):
            await stand.payments.rates()
        assert stand.service.done == []


@pytest.mark.parametrize("way", ["frames", "http"])
async def test_the_callee_judges_for_itself(tmp_path: Path, way: str):
    """A caller whose own policy permits everything is stopped by the callee's, which sees the decoded arguments."""
    async with standing(tmp_path, way, PERMIT, callees=PERMIT + AT_MOST_50) as stand:
        with stand.acting_for(ANN):
            assert await stand.payments.refund("o1", euros("1")) == "100 for o1"
            with pytest.raises(PermissionDenied):
                await stand.payments.refund("o2", euros("50.01"))
        with stand.acting_for(None), pytest.raises(Unauthenticated):
            await stand.payments.refund("o3", euros("1"))
        assert stand.service.done == ["o1"]


@pytest.mark.parametrize("way", WAYS)
async def test_streams_are_judged_by_their_parameters(tmp_path: Path, way: str):
    text = """
    permit (principal == Module::"desk", action in [Action::"Payments.history"], resource)
    when { context.args.upto <= 3 };
    permit (principal == Module::"desk", action == Action::"Payments.sum", resource)
    when { context.args.start == 1 && context.user has floor && context.user.floor == 3 };
    """

    async def items() -> AsyncIterator[int]:
        yield 1

    async with standing(tmp_path, way, text) as stand:
        with stand.acting_for(ANN):
            assert [item async for item in stand.payments.history(3)] == [0, 1, 2]
            with pytest.raises(PermissionDenied):
                _ = [item async for item in stand.payments.history(4)]
            assert await stand.payments.sum(1, items()) == 2
            with pytest.raises(PermissionDenied):
                await stand.payments.sum(2, items())
        with stand.acting_for(BOB), pytest.raises(PermissionDenied):
            await stand.payments.sum(1, items())


@pytest.mark.parametrize("way", WAYS)
async def test_every_declared_kind_of_argument_can_decide(tmp_path: Path, way: str):
    text = """
    permit (principal == Module::"desk", action == Action::"Payments.refund", resource)
    when {
      context.args.amount.amount.lessThan(decimal("10.5")) && context.args.amount.currency == "EUR" &&
      context.args.why == "broken" && context.args.lines.contains({"sku": "mug", "count": 2}) &&
      context.args has coupon && context.args.coupon like "SAVE*"
    };
    """
    async with standing(tmp_path, way, text) as stand:
        lines = (Line("mug", 2), Line("tea", 1))
        assert await stand.payments.refund("o1", euros("10.4999"), Why.BROKEN, lines, "SAVE5") == "1049 for o1"
        for wrong in (
            (euros("10.5"), Why.BROKEN, lines, "SAVE5"),
            (Money(Decimal(1), "USD"), Why.BROKEN, lines, "SAVE5"),
            (euros("1"), Why.LATE, lines, "SAVE5"),
            (euros("1"), Why.BROKEN, lines[1:], "SAVE5"),
            (euros("1"), Why.BROKEN, lines, None),
            (euros("1"), Why.BROKEN, lines, "LOSE5"),
            (euros("1.00001"), Why.BROKEN, lines, "SAVE5"),  # Cedar's decimals end after four digits
        ):
            with pytest.raises(PermissionDenied):
                await stand.payments.refund("o2", *wrong)
        assert stand.service.done == ["o1"]


@pytest.mark.parametrize("way", ["local", "copy"])
async def test_what_is_judged_is_what_the_handler_gets(tmp_path: Path, way: str):
    """An argument that the caller changes while the call waits is judged as the handler would find it."""
    async with standing(tmp_path, way, PERMIT + AT_MOST_50) as stand:
        stand.caller.override({"Payments.refund": {"inject_delay_ms": 20.0, "inject_delay_percent": 100.0}})
        amount = euros("1")
        with stand.acting_for(ANN):
            call = asyncio.get_running_loop().create_task(stand.payments.refund("o1", amount))
            await asyncio.sleep(0)
            amount.amount = Decimal(5000)
            with pytest.raises(PermissionDenied):
                await call
        assert stand.service.done == []


async def test_an_argument_of_a_wrong_type_is_refused_before_it_is_judged(tmp_path: Path):
    async with standing(tmp_path, "frames", PERMIT, callees=PERMIT + AT_MOST_50) as stand:
        with stand.acting_for(ANN), pytest.raises(InvalidArgument):
            await stand.payments.refund("o1", "5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("way", ["local", "frames"])
async def test_a_policy_that_comes_while_running_is_asked_at_once(tmp_path: Path, way: str):
    """An unconditional call becomes conditional, and back; stubs that were made before notice."""
    async with standing(tmp_path, way, PERMIT) as stand:
        with stand.acting_for(EVE):
            await stand.payments.refund("o1", euros("1"))
            for mesh in {stand.caller, stand.callee}:
                mesh.policy = policy(PERMIT + AT_MOST_50)
                mesh.refresh()
            with pytest.raises(PermissionDenied):
                await stand.payments.refund("o2", euros("1"))
            for mesh in {stand.caller, stand.callee}:
                mesh.policy = policy(PERMIT)
                mesh.refresh()
            await stand.payments.refund("o3", euros("1"))


def decide(
    text: str, user: User | None = None, amount: str = "1", agent: str = "", chain: tuple[str, ...] = ()
) -> bool:
    subject = Subject(user, agent, chain)
    arguments = ("o", euros(amount), Why.LATE, (), None, None)
    return policy(PERMIT + text).allows("desk", "payments", "Payments", "refund", subject, arguments)


def test_agents_and_chains_can_be_judged():
    no_agent = "forbid (principal, action, resource) when { context has agent };"
    assert decide(no_agent, ANN)
    assert not decide(no_agent, ANN, agent="helper")
    through = 'forbid (principal, action, resource) unless { context.chain.contains(Module::"desk") };'
    assert decide(through, ANN, chain=("desk",))
    assert not decide(through, ANN)


def test_a_permit_that_cannot_be_judged_does_not_shut_another_out():
    """Nobody is signed in: the permit for people says nothing, and the permit for the module holds."""
    assert decide('permit (principal, action, resource) when { context.user in Role::"support" };')
    assert not decide('forbid (principal, action, resource) when { context.user in Role::"support" };')


def test_what_is_not_compiled_is_left_to_cedar():
    """IP ranges and the arithmetic of time are Cedar's own business, and its answers are taken."""
    text = """
    forbid (principal, action == Action::"Payments.refund", resource)
    when { context.args has at && context.args.at.toDate() == datetime("2026-01-02") && context.user.name == "x" };
    """

    def at(day: int, user: User | None) -> bool:
        moment = datetime(2026, 1, day, 9, tzinfo=UTC)
        arguments = ("o", euros("1"), Why.LATE, (), None, moment)
        return policy(PERMIT + text).allows("desk", "payments", "Payments", "refund", Subject(user), arguments)

    assert not at(2, User("x", name="x"))
    assert at(3, User("x", name="x"))
    assert at(2, User("x", name="y"))
    assert at(3, None)
    assert not at(2, None)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        (
            'forbid (principal, action, resource)\nunless { context.user in Role::"suport" };',
            UnknownPolicyNameError,
            "policy.cedar:2: there is no role 'suport'. Did you mean 'support'?",
        ),
        (
            'forbid (principal, action, resource) when { context.agent == Agent::"helper" };',
            UnknownPolicyNameError,
            "there is no agent 'helper'. Declare it in [policy]: agents = [\"helper\"].",
        ),
        (
            (
                'forbid (principal, action == Action::"Payments.refund", resource)\nwhen {\n'
                "context.args.amount.cent > 1 };"
            ),
            PolicyTypeError,
            "policy.cedar:3: attribute `args.amount.cent` in context",
        ),
        (
            'forbid (principal, action in Action::"Payments", resource)\nwhen { context.args.order == "x" };',
            PolicyTypeError,
            "Policy reads the arguments that the contract lets it read",
        ),
        (
            'forbid (principal, action == Action::"Payments.refund", resource) when { context.args.coupon == "x" };',
            PolicyTypeError,
            "Ask first: `context.args has coupon && ...`.",
        ),
        (
            "forbid (principal, action, resource) when { context.user.floor == 1 };",
            PolicyTypeError,
            "Ask first: `context.user has floor && ...`.",
        ),
        (
            'forbid (principal, action, resource) when { context.user.room == "a" };',
            PolicyTypeError,
            "attribute `room` on entity type `User` not found",
        ),
        (
            'forbid (principal, action == Action::"http", resource) when { context.args.x == 1 };',
            PolicyTypeError,
            "attribute `args` in context",
        ),
    ],
)
def test_a_mistake_about_people_and_arguments_is_found(text: str, kind: type[Exception], expected: str):
    with pytest.raises(kind) as caught:
        policy(text)
    assert expected in str(caught.value)


def test_public_requests_are_judged_by_role_method_and_path():
    text = """
    permit (principal == Module::"gateway", action == Action::"http", resource == Module::"desk")
    when { context.user in Role::"support" };
    permit (principal == Module::"gateway", action == Action::"http", resource == Module::"desk")
    when { context.method == "GET" && context.path like "/desk/public/*" };
    """
    made = policy(text)

    def asks(user: User | None, method: str, path: str) -> bool:
        subject = Subject(user) if user is not None else None
        return made.allows("gateway", "desk", "", "http", subject, None, {"method": method, "path": path})

    assert asks(ANN, "POST", "/desk/")
    assert asks(None, "GET", "/desk/public/x")
    assert not asks(None, "POST", "/desk/public/x")
    assert not asks(EVE, "GET", "/desk/")
    assert made.wants_user("gateway", "desk", "", "http", None, None, {"method": "GET", "path": "/"})
    assert not made.wants_user("gateway", "desk", "", "http", Subject(EVE), None, {"method": "GET", "path": "/"})


def _contract(annotation: object) -> type[Contract]:
    async def method(self: Contract, thing: object) -> None: ...

    method.__annotations__ = {"thing": annotation, "return": None}
    return type("Things", (Contract,), {"method": method, "__module__": __name__})


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Annotated[float, Attribute], "is 'float', which Cedar cannot express"),
        (Annotated[Money, Attribute("cent")], "has no field or typed property 'cent'. Known: amount, currency, cents."),
        (Annotated[dict[str, int], Attribute], "which Cedar cannot express"),
        (Annotated[list[str | None], Attribute], "may hold None"),
        (Annotated[str | int, Attribute], "which Cedar cannot express"),
        (Annotated[AsyncIterator[int], Attribute], "is a stream"),
    ],
)
def test_what_policy_cannot_read_cannot_be_declared(annotation: object, expected: str):
    with pytest.raises(ContractError) as caught:
        arguments_of(compile_contract(_contract(annotation)))
    assert expected in str(caught.value)
