"""What could not be handled is kept whole, and can be tried again or dropped."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.events.shop import Process, Sold, running, shop, until, write

from seamline import Event
from seamline.events.errors import UnknownGroupError
from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database
from seamline.module import Module


def picky(broken: list[int]) -> Module:
    """Books whose handler fails on the numbers in ``broken``, after it has written."""
    books = Module("books")

    @books.on(Sold, attempts=2, backoff_s=0.001)
    async def enter(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)
        if event.number in broken:
            raise ValueError("cannot enter this")

    return books


async def dead(process: Process, operation: str, **arguments: Any) -> Any:
    return await process.runtime.admin(f"dead {operation}", {"module": "books", **arguments})


async def until_dead(process: Process, count: int) -> list[dict[str, Any]]:
    async def there() -> bool:
        return len(await dead(process, "list")) == count

    await until(there)
    return await dead(process, "list")


async def test_a_dead_letter_says_why_how_often_when_and_what(tmp_path: Path):
    """With the last line of the traceback that has a place, and the whole record."""
    clock = ManualClock()
    async with running(tmp_path, shop(), picky([1]), clock=clock) as process:
        published = await process.events.publish(Sold(sku="mug", number=1), headers={"tenant": "a"})
        async with asyncio.TaskGroup() as group:
            moving = group.create_task(_move(clock))
            (letter,) = await until_dead(process, 1)
            moving.cancel()
        shown = await dead(process, "show", number=letter["number"])
    assert letter | {"detail": "", "first_ms": 0, "last_ms": 0} == {
        "module": "books", "number": 1, "group": "books.enter", "topic": "shop", "event": published, "type": "Sold",
        "key": "mug", "partition": letter["partition"], "offset": "1", "reason": "ValueError: cannot enter this",
        "detail": "", "attempts": 2, "first_ms": 0, "last_ms": 0,
    }  # fmt: skip
    assert letter["detail"].endswith("in enter")
    assert Path(__file__).name in letter["detail"]
    assert letter["last_ms"] > letter["first_ms"] >= ManualClock().now().timestamp() * 1000
    assert shown["record"]["data"] == '{"sku":"mug","number":1}'
    assert shown["record"]["headers"] == {"tenant": "a"}


async def _move(clock: ManualClock) -> None:
    while True:
        await asyncio.sleep(0.01)
        clock.advance(0.1)


async def test_a_retry_takes_effect_once_and_ends_the_dead_letter(tmp_path: Path):
    """In one commit; one that fails again leaves no effect, and stays with the newer reason."""
    broken = [1, 2]
    async with running(tmp_path, shop(), picky(broken)) as process:
        await process.events.publish_all([Sold(sku="mug", number=n) for n in range(4)])
        letters = await until_dead(process, 2)
        broken.remove(1)
        assert await dead(process, "retry", group="enter") == [
            {"number": letters[0]["number"], "done": True, "reason": ""},
            {"number": letters[1]["number"], "done": False, "reason": "ValueError: cannot enter this"},
        ]
        (letter,) = await dead(process, "list")
        assert letter["attempts"] == 3
        assert sorted(await process.rows()) == [("mug", 0), ("mug", 1), ("mug", 3)]
        with pytest.raises(UnknownGroupError, match="has no dead letter 1"):
            await dead(process, "retry", number=1)


async def test_two_that_retry_one_dead_letter_at_once_have_one_effect(tmp_path: Path):
    """One of them is told that the other is at it."""
    broken = [1]
    async with running(tmp_path, shop(), picky(broken)) as process:
        await process.events.publish(Sold(sku="mug", number=1))
        (letter,) = await until_dead(process, 1)
        broken.clear()
        answers = await asyncio.gather(*(dead(process, "retry", number=letter["number"]) for _ in range(4)))
        assert sorted(answer[0]["done"] for answer in answers) == [False, False, False, True]
        assert await process.rows() == [("mug", 1)]


async def test_a_replay_that_fails_again_renews_its_dead_letter(tmp_path: Path):
    """One letter, with the attempts of both times; what comes after it in its key is handled."""
    async with running(tmp_path, shop(), picky([1])) as process:
        await process.events.publish_all([Sold(sku="mug", number=n) for n in range(3)])
        (first,) = await until_dead(process, 1)
        await until(lambda: process.count_is(2))
        await process.runtime.admin("replay", {"module": "books", "group": "enter", "start": "earliest"})
        await until(lambda: process.rows_are([("mug", 0), ("mug", 2)] * 2))
        (again,) = await dead(process, "list")
        assert again["attempts"] == first["attempts"] * 2
        assert again["number"] == first["number"]
        assert again["first_ms"] == first["first_ms"] <= again["last_ms"]


async def test_a_replay_that_handles_it_ends_its_dead_letter(tmp_path: Path):
    """So that a retry does not make the effect once more."""
    broken = [1]
    async with running(tmp_path, shop(), picky(broken)) as process:
        await process.events.publish_all([Sold(sku="mug", number=n) for n in range(3)])
        await until_dead(process, 1)
        await until(lambda: process.count_is(2))
        broken.clear()
        await process.runtime.admin("replay", {"module": "books", "group": "enter", "start": "earliest"})
        await until(lambda: process.count_is(5))
        assert await dead(process, "list") == []


async def test_a_dropped_one_is_gone_and_has_no_effect(tmp_path: Path):
    """Nor does it come back when the group starts anew."""
    for _ in range(2):
        async with running(tmp_path, shop(), picky([1])) as process:
            await process.events.publish(Sold(sku="mug", number=1))
            (letter,) = await until_dead(process, 1)
            assert await dead(process, "drop", number=letter["number"]) == [
                {"number": letter["number"], "done": True, "reason": ""}
            ]
            assert await dead(process, "list") == []
            assert await process.rows() == []


async def test_an_event_that_does_not_fit_goes_aside_at_once_with_the_path_of_the_field(tmp_path: Path):
    """Retrying could not help; what comes after it is handled."""

    class Sold(Event, key="sku"):
        """As another release of the shop has it, under the same version."""

        sku: str
        number: str

    newer = Process(tmp_path, [shop()], owners={Sold: "shop"})
    await newer.start()
    await newer.events.publish(Sold(sku="mug", number="many"))
    await newer.stop()
    async with running(tmp_path, shop(), picky([])) as process:
        await process.events.publish(_sold(2))
        (letter,) = await until_dead(process, 1)
        assert "$.number" in letter["reason"]
        assert letter["attempts"] == 1
        await until(lambda: process.rows_are([("mug", 2)]))
        (answer,) = await dead(process, "retry", number=letter["number"])
        assert not answer["done"]
        assert "$.number" in answer["reason"]


def _sold(number: int) -> Sold:
    return Sold(sku="mug", number=number)


async def test_what_is_not_there_is_said_to_be_not_there(tmp_path: Path):
    """A number, a module without handlers, an operation."""
    async with running(tmp_path, shop(), picky([])) as process:
        for operation, arguments, said in (
            ("dead show", {"module": "books", "number": 7}, "no dead letter 7"),
            ("dead list", {"module": "nobody"}, "has no handlers"),
            ("tail", {"module": "books"}, "declares no events"),
            ("replay", {"module": "books", "group": "other", "start": "earliest"}, "no consumer group 'books.other'"),
            ("dance", {}, "no operation 'dance'"),
        ):
            with pytest.raises(UnknownGroupError, match=said):
                await process.runtime.admin(operation, dict(arguments))
