"""What is published: with the transaction or not at all, and only by who declares it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.events.shop import OWNERS, Process, Returned, Sold, running, shop, until, write

from seamline import Event
from seamline.events.context import EventContext
from seamline.events.errors import EventEncodeError, UndeclaredEventError
from seamline.kernel.clock import ManualClock
from seamline.kernel.signal.trace import TraceContext
from seamline.kernel.store import Database
from seamline.module import Module
from seamline.module.context import CURRENT, CallContext, current


class Unowned(Event):
    """No module declares it."""

    sku: str


async def stored(process: Process) -> list[str]:
    """The data of everything in the log of ``shop``."""
    return [each.record.data.decode() for each in await process.runtime.logs["shop"].read(0)]


async def test_what_is_published_in_a_transaction_that_rolls_back_is_never_seen(tmp_path: Path):
    """Nor does it leave a gap that holds up readers."""
    async with running(tmp_path, shop()) as process:
        db = process.databases["shop"]
        with pytest.raises(ZeroDivisionError):
            async with db.transaction():
                await process.events.publish(Sold(sku="never", number=1))
                raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            async with db.unit():
                await process.events.publish(Sold(sku="never", number=2))
                raise ZeroDivisionError
        async with db.unit():
            with pytest.raises(ZeroDivisionError):
                async with db.transaction():
                    await process.events.publish(Sold(sku="never", number=3))
                    raise ZeroDivisionError
            await process.events.publish(Sold(sku="unit", number=4))
        await process.events.publish(Sold(sku="outside", number=5))
        assert await stored(process) == ['{"sku":"unit","number":4}', '{"sku":"outside","number":5}']


async def test_others_hear_of_it_after_the_commit_and_not_before(tmp_path: Path):
    """Who is woken too early would read nothing and sleep again."""
    async with running(tmp_path, shop()) as process:
        async with process.databases["shop"].transaction():
            await process.events.publish(Sold(sku="mug", number=1))
            await asyncio.sleep(0)
            assert process.announced == []
        await asyncio.sleep(0)
        assert process.announced == ["shop"]
        await asyncio.gather(*(process.events.publish(Sold(sku="mug", number=n)) for n in range(20)))
        await asyncio.sleep(0)
        assert len(process.announced) < 10  # many at once are announced together


async def test_several_are_published_all_or_none(tmp_path: Path):
    """One that cannot be published takes the others along."""
    async with running(tmp_path, shop()) as process:
        with pytest.raises(UndeclaredEventError):
            await process.events.publish_all([Sold(sku="mug", number=1), Unowned(sku="mug")])
        ids = await process.events.publish_all([Sold(sku="mug", number=1), Returned(sku="mug")])
        page = await process.runtime.logs["shop"].read(0)
        assert [each.record.id for each in page] == ids
        assert [each.record.type for each in page] == ["Sold", "Returned"]
        assert len({each.partition for each in page}) == 1  # one key, one order, over all types
        assert await process.events.publish_all([]) == []


async def test_only_the_declaring_module_publishes(tmp_path: Path):
    """The error names the module that may."""
    books = Module("books")
    async with running(tmp_path, shop(), books, owners=OWNERS) as process:
        with pytest.raises(UndeclaredEventError, match="an event of module 'shop'"):
            await process.runtime.events_of("books").publish(Sold(sku="mug", number=1))
        with pytest.raises(UndeclaredEventError, match="which no module's contract declares"):
            await process.events.publish(Unowned(sku="mug"))


async def test_what_consumers_could_not_read_is_not_published(tmp_path: Path):
    """A wrong value, a header that cannot travel, and an event that no reader could take in."""
    async with running(tmp_path, shop()) as process:
        for wrong in (
            process.events.publish(Sold(sku="mug", number="many")),  # pyright: ignore[reportArgumentType]
            process.events.publish(Returned(sku="mug"), headers={"Not-Allowed": "x"}),
            process.events.publish(Returned(sku="x" * 2_000_000)),
        ):
            with pytest.raises(EventEncodeError):
                await wrong
        assert await stored(process) == []


async def test_a_cancelled_publisher_leaves_all_or_nothing_and_nobody_else_is_hurt(tmp_path: Path):
    """Whatever the moment."""
    async with running(tmp_path, shop()) as process:
        for turns in range(12):
            async with asyncio.TaskGroup() as group:
                cancelled = group.create_task(process.events.publish(Sold(sku="maybe", number=turns)))
                kept = group.create_task(process.events.publish(Sold(sku="kept", number=turns)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                cancelled.cancel()
            assert kept.done()

        async def inside(turns: int) -> None:
            async with process.databases["shop"].transaction():
                await process.events.publish(Sold(sku="never", number=turns))
                await asyncio.Event().wait()

        for turns in range(3):
            async with asyncio.TaskGroup() as group:
                cancelled = group.create_task(inside(turns))
                await asyncio.sleep(0.01)
                cancelled.cancel()
        found = await stored(process)
        assert [each for each in found if "kept" in each] == [f'{{"sku":"kept","number":{n}}}' for n in range(12)]
        assert not any("never" in each for each in found)
        assert len({each for each in found if "maybe" in each}) == len([each for each in found if "maybe" in each])


async def test_a_delayed_event_comes_when_it_is_due_and_an_expired_one_never(tmp_path: Path):
    """By the application's clock."""
    books = Module("books")

    @books.on(Sold)
    async def enter(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)

    clock = ManualClock()
    async with running(tmp_path, shop(), clock=clock) as process:
        await process.events.publish(Sold(sku="expired", number=0), ttl_s=60)
    clock.advance(61)
    async with running(tmp_path, shop(), books, clock=clock) as process:
        await process.events.publish(Sold(sku="later", number=1), delay_s=3600)
        await process.events.publish(Sold(sku="now", number=2))
        await until(process.count)
        assert await process.rows() == [("now", 2)]
        clock.advance(3601)
        await until(lambda: process.rows_are([("now", 2), ("later", 1)]))


async def test_the_trace_goes_through_the_log(tmp_path: Path):
    """The handler's call continues the trace of the call that published, and leaves a span in it."""
    books = Module("books")
    seen: list[CallContext | None] = []

    @books.on(Sold)
    async def enter(event: Sold) -> None:
        seen.append(current())

    async with running(tmp_path, shop(), books) as process:
        trace = TraceContext(0xABC, 0x123, True)
        token = CURRENT.set(CallContext("shop", "gateway", trace=trace))
        await process.events.publish(Sold(sku="mug", number=1))
        CURRENT.reset(token)
        await until(lambda: process.handled() == 1)
        (context,) = seen
        assert context is not None
        assert context.trace is not None
        assert (context.trace.trace_id, context.module, context.caller) == (0xABC, "books", "shop")
        spans = {each.kind: each for each in process.tracer.take() if each.kind in ("producer", "consumer")}
        published, handled = spans["producer"], spans["consumer"]
        assert (published.trace_id, published.parent_id) == (0xABC, 0x123)
        assert (handled.trace_id, handled.parent_id) == (0xABC, published.span_id)
        assert handled.span_id == context.trace.span_id
        assert handled.links == [(0xABC, published.span_id)]
        assert (handled.name, handled.module, handled.peer, handled.status) == ("shop.Sold", "books", "shop", "ok")


async def test_a_handler_can_know_what_it_handles(tmp_path: Path):
    """Id, key, time, headers and the idempotency key."""
    books = Module("books")
    seen: list[EventContext] = []

    @books.on(Sold, outside=True)
    async def tell(event: Sold, context: EventContext) -> None:
        seen.append(context)

    clock = ManualClock()
    async with running(tmp_path, shop(), books, clock=clock) as process:
        published = await process.events.publish(Sold(sku="mug", number=1), key="other", headers={"tenant": "a"})
        await until(lambda: process.handled() == 1)
    assert seen == [
        EventContext(
            id=published, source="shop", key="other", time=clock.now(), attempt=1, headers={"tenant": "a"},
            idempotency_key=f"books.tell:shop:{published}",
        )
    ]  # fmt: skip
