"""What is revoked is refused at once, what is under way ends, and what is good costs a comparison."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from seamline.kernel.clock import ManualClock, now_ms
from seamline.mesh.identity.revocation import SIGNED_OUT, Kind, Revocation, Revocations
from seamline.module.errors import Unauthenticated
from seamline.module.principal import Subject, User

SIGNED_IN = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())


def ann() -> User:
    return User(
        "ann", issuer="https://id.example", session="s1", client="phone-app", authenticated_at=SIGNED_IN,
        attributes={"device": "d1"},
    )  # fmt: skip


def known(clock: ManualClock | None = None) -> Revocations:
    return Revocations(clock or ManualClock())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("user", "ann"),
        ("user", "https://id.example|ann"),
        ("session", "s1"),
        ("client", "phone-app"),
        ("device", "d1"),
        ("module", "frontend"),
    ],
)
def test_each_kind_refuses_what_it_names_and_nothing_else(kind: Kind, name: str):
    revocations = known()
    subject = Subject(ann()).acting("frontend")
    other = Subject(User("bob", session="s2", authenticated_at=SIGNED_IN)).acting("orders")
    revocations.apply([Revocation(kind, name, reason="stolen")])
    assert "stolen" in (revocations.refuses(subject) or "")
    assert revocations.refuses(other) is None


def test_a_sign_in_after_the_revocation_is_good():
    """``before`` voids what was issued earlier; whoever signs in again afterwards is let in."""
    revocations = known()
    revocations.apply([Revocation("user", "ann", before=SIGNED_IN * 1000 + 1)])
    assert revocations.refuses(Subject(ann()))
    again = User("ann", authenticated_at=SIGNED_IN + 1)
    assert revocations.refuses(Subject(again)) is None


def test_nothing_is_looked_up_again_until_something_changes():
    """A subject found good bears the epoch; only a change makes it be looked at once more."""
    revocations = known()
    subject = Subject(ann())
    assert revocations.refuses(subject) is None
    assert subject.checked == revocations.epoch
    revocations.apply([Revocation("user", "bob")])
    assert subject.checked != revocations.epoch
    assert revocations.refuses(subject) is None
    assert subject.checked == revocations.epoch


def test_an_entry_is_forgotten_when_its_time_is_over():
    clock = ManualClock()
    revocations = known(clock)
    revocations.apply([Revocation("module", "payments", until=now_ms(clock) + 1000)])
    assert revocations.refuses_module("payments")
    clock.advance(2)
    assert revocations.refuses_module("payments") is None
    revocations.apply([])
    assert revocations.entries == ()


def test_a_milder_entry_does_not_take_a_stricter_one_back():
    """Who repeats an old revocation with an earlier moment, or a shorter life, changes nothing."""
    clock = ManualClock()
    revocations = known(clock)
    revocations.apply([Revocation("user", "ann")])
    revocations.apply([Revocation("user", "ann", before=1, until=now_ms(clock) + 1)])
    clock.advance(5)
    assert revocations.refuses(Subject(ann()))


def test_a_quarantine_is_lifted():
    revocations = known()
    subject = Subject(ann()).acting("frontend")
    revocations.apply([Revocation("module", "frontend")])
    assert revocations.refuses(subject)
    revocations.apply([Revocation("module", "frontend", lifted=True)])
    assert revocations.refuses(subject) is None
    assert revocations.refuses_module("frontend") is None
    assert revocations.entries == ()


def test_what_a_user_set_going_outlives_the_sign_out_and_nothing_else():
    """An order on its way goes on when its customer signs out, and stops when the session was stolen."""
    waiting = Subject(ann(), via="saga:1")
    left = known()
    left.apply([Revocation("session", "s1", reason=SIGNED_OUT)])
    assert left.refuses(waiting) is None
    assert left.refuses(Subject(ann()))
    stolen = known()
    stolen.apply([Revocation("session", "s1", reason="stolen")])
    assert stolen.refuses(waiting)


async def test_work_under_way_ends_with_unauthenticated():
    """A handler that waits is cut off, and whoever waits for it learns why."""
    revocations = known()
    waiting = asyncio.Event()

    async def work() -> None:
        with revocations.bound(Subject(ann())):
            waiting.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(_error_of(work()))
        await waiting.wait()
        revocations.apply([Revocation("session", "s1", reason="stolen")])
    error = task.result()
    assert isinstance(error, Unauthenticated)
    assert error.started


async def test_a_cancellation_of_ones_own_stays_one():
    """Cutting a subject off does not swallow the cancellation that somebody else asked for."""
    revocations = known()
    waiting = asyncio.Event()

    async def work() -> None:
        with revocations.bound(Subject(ann())):
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(work())
    await waiting.wait()
    revocations.apply([Revocation("session", "s1", reason="stolen")])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_ended_is_not_held():
    """Nothing is left behind by work that is over, good or not."""
    revocations = known()
    with revocations.bound(Subject(ann())):
        pass
    with pytest.raises(ZeroDivisionError), revocations.bound(Subject(ann())):
        _ = 1 // 0
    cut: list[str] = []
    each = revocations.watch(Subject(ann()), cut.append)
    revocations.ended(each)
    revocations.apply([Revocation("user", "ann")])
    assert cut == []


async def _error_of(work: Coroutine[Any, Any, None]) -> Exception | None:
    try:
        await work
    except Exception as error:
        return error
    return None


async def test_it_is_said_to_be_kept_when_the_supervisor_has_it():
    """In force at once; whoever must not lose it waits until it comes back from where it is written down."""
    revocations = known()
    sent: list[list[Revocation]] = []
    revocations.spread = sent.append
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(revocations.revoke_and_wait([Revocation("session", "s1")]))
        await asyncio.sleep(0)
        assert revocations.refuses(Subject(ann()))
        assert not waiting.done()
        revocations.kept(sent[0])
    revocations.spread = lambda _: None
    with pytest.raises(TimeoutError):
        await revocations.revoke_and_wait([Revocation("session", "s2")], timeout_s=0.0)


def test_a_sign_out_does_not_disturb_who_looks_after_modules():
    """Every edge is looked at again when a module is set apart, and not when somebody signs out."""
    revocations = known()
    looked: list[int] = []
    revocations.on_quarantine.append(lambda: looked.append(1))
    revocations.apply([Revocation("session", "s1")])
    assert looked == []
    revocations.apply([Revocation("module", "orders")])
    revocations.apply([Revocation("session", "s2")])
    assert looked == [1]
