"""An event is acted on for who published it, and for nobody else: its proof is attacked where it waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.events.shop import Process, Sold, running, shop, until

from seamline import EventContext, Principal, User
from seamline.events.errors import EventEncodeError
from seamline.events.record import SUBJECT, Record
from seamline.mesh.identity.revocation import SIGNED_OUT, Revocation
from seamline.module import Module
from seamline.module.context import CURRENT, CallContext

ANN = User("ann", session="s1")


class Heard:
    """What a consumer saw."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self.chains: list[tuple[str, ...]] = []
        self.headers: list[dict[str, str]] = []

    def note(self) -> None:
        who = Principal()
        self.users.append(who.user.id if who.user is not None else "")
        self.chains.append(who.chain)


def books(heard: Heard, *, batch: int = 0) -> Module:
    module = Module("books")
    if batch:

        @module.on(Sold, batch=batch, batch_wait_s=0.01)
        async def enter_all(events: list[Sold]) -> None:
            del events
            heard.note()
    else:

        @module.on(Sold, attempts=3, backoff_s=0.001)
        async def enter(event: Sold, context: EventContext) -> None:
            del event
            heard.note()
            heard.headers.append(dict(context.headers))

    return module


async def publish(process: Process, number: int, user: User | None = ANN, **options: Any) -> None:
    subject = process.mesh.introduce(user).acting("front") if user is not None else None
    token = CURRENT.set(CallContext("shop", "front", subject=subject))
    try:
        await process.events.publish(Sold(sku="mug", number=number), **options)
    finally:
        CURRENT.reset(token)


async def dead(process: Process) -> list[dict[str, Any]]:
    return await process.runtime.admin("dead list", {})


async def test_it_is_acted_on_for_who_published_it(tmp_path: Path):
    """Each for its own, nobody's for nobody; and the proof is not among what a handler is told."""
    heard = Heard()
    async with running(tmp_path, shop(), books(heard)) as process:
        await publish(process, 1)
        await publish(process, 2, None)
        await publish(process, 3, User("bob"), headers={"colour": "red"})
        await until(lambda: len(heard.users) == 3)
    assert heard.users == ["ann", "", "bob"]
    assert heard.chains[0] == ("front", "shop")
    assert heard.headers == [{}, {}, {"colour": "red"}]


async def test_a_batch_is_nobodys(tmp_path: Path):
    heard = Heard()
    async with running(tmp_path, shop(), books(heard, batch=2)) as process:
        await publish(process, 1)
        await publish(process, 2, User("bob"))
        await until(lambda: bool(heard.users))
    assert set(heard.users) == {""}


async def test_it_waits_through_a_restart(tmp_path: Path):
    """Nobody listens yet; the process that does is another one."""
    heard = Heard()
    async with running(tmp_path, shop()) as process:
        await publish(process, 1)
    async with running(tmp_path, shop(), books(heard)):
        await until(lambda: bool(heard.users))
    assert heard.users == ["ann"]


async def test_a_proof_under_another_event_is_refused(tmp_path: Path):
    """Whoever can write the log gives an event of their own the proof of somebody else's: it is put aside."""
    heard = Heard()
    async with running(tmp_path, shop(), books(heard)) as process:
        log = process.runtime.logs["shop"]
        made: list[Record] = []
        submit = log.submit
        log.submit = lambda record: made.append(record) or submit(record)
        await publish(process, 1)
        await until(lambda: bool(heard.users))
        stolen = msgspec.structs.replace(made[0], id="0" * 32, data=b'{"sku":"gold","number":9}')
        await log.append([stolen], None)
        await until(lambda: _count(process, 1))
    assert heard.users == ["ann"]


async def test_a_proof_that_was_damaged_is_refused(tmp_path: Path):
    heard = Heard()
    async with running(tmp_path, shop(), books(heard)) as process:
        record = Record(
            id="1" * 32, source="shop", type="Sold", data=b'{"sku":"gold","number":9}', time_ms=1, key="gold",
            headers={SUBJECT: "a.b.c"},
        )  # fmt: skip
        await process.runtime.logs["shop"].append([record], None)
        await until(lambda: _count(process, 1))
        (letter,) = await dead(process)
        shown = await process.runtime.admin("dead show", {"module": "books", "number": letter["number"]})
        assert "SL7213" in str(shown)
        assert SUBJECT not in str(shown)
    assert heard.users == []


async def test_nobody_writes_a_proof_by_hand(tmp_path: Path):
    async with running(tmp_path, shop()) as process:
        with pytest.raises(EventEncodeError):
            await publish(process, 1, headers={SUBJECT: "a.b.c"})


@pytest.mark.parametrize(("reason", "goes_on"), [("stolen", False), (SIGNED_OUT, True)])
async def test_what_was_revoked_meanwhile(tmp_path: Path, reason: str, goes_on: bool):
    """The dead letters take what a thief set going; what a customer did before signing out is done. And after the
    revocation is lifted, a dead letter can be tried again."""
    heard = Heard()
    async with running(tmp_path, shop()) as process:
        await publish(process, 1)
    process = Process(tmp_path, (shop(), books(heard)))
    process.mesh.revocations.apply([Revocation("session", "s1", reason=reason)])
    try:
        await process.start()
        if goes_on:
            await until(lambda: heard.users == ["ann"])
            return
        await until(lambda: _count(process, 1))
        assert heard.users == []
        process.mesh.revocations.apply([Revocation("session", "s1", lifted=True)])
        await process.runtime.admin("dead retry", {"module": "books"})
        await until(lambda: heard.users == ["ann"])
    finally:
        await process.stop()


async def _count(process: Process, number: int) -> bool:
    return len(await dead(process)) == number
