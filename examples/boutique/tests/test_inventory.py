"""Inventory: what is put aside is put aside once, and the columns always add up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from boutique.catalog.shelf import SHELF
from boutique.inventory import OutOfStock, Pieces, ReservationClosed, StockLevel, StockLow, TooFewToWriteOff
from boutique.inventory.module import InventoryService
from boutique.inventory.tables import metadata, stock
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from seamline import Database, Event, Events
from seamline.kernel.clock import ManualClock
from seamline.kernel.store import prepare, sqlite_url

MIGRATIONS = Path(__file__).parents[1] / "boutique/inventory/migrations"


class Told(Events):
    """What was published."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def publish(self, event: Event, **_: object) -> str:
        self.events.append(event)
        return ""


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(sqlite_url(tmp_path, "inventory"), "inventory", metadata) as db:
        await prepare(db, MIGRATIONS, development=True)
        yield db


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def inventory(db: Database, told: Told) -> InventoryService:
    service = InventoryService(db, told, ManualClock())
    await service.restock("first", "lamp", 5)
    await service.restock("second", "mug", 3)
    return service


async def lamp(inventory: InventoryService) -> StockLevel:
    return (await inventory.levels(("lamp",)))[0]


async def test_everything_on_the_shelf_is_in_stock(inventory: InventoryService):
    """The migration's list is the shelf's."""
    levels = await inventory.levels(tuple(product.id for product in SHELF))
    assert len(levels) == len(SHELF)
    assert all(level.free > 100_000 for level in levels)


async def test_an_order_is_put_aside_once(inventory: InventoryService):
    """Asked again, and eight times at once, it has the effect of once; let go, everything is as it was."""
    await asyncio.gather(*(inventory.reserve("order", (Pieces("lamp", 2), Pieces("mug", 1))) for _ in range(8)))
    assert await lamp(inventory) == StockLevel("lamp", 3, 2, 0)
    await asyncio.gather(*(inventory.release("order") for _ in range(8)))
    assert await lamp(inventory) == StockLevel("lamp", 5, 0, 0)


async def test_all_or_nothing(inventory: InventoryService):
    """Where one product is short nothing of the order is put aside, and the order may be tried again later."""
    with pytest.raises(OutOfStock) as caught:
        await inventory.reserve("order", (Pieces("lamp", 2), Pieces("mug", 2), Pieces("mug", 2)))
    assert (caught.value.product_id, caught.value.left) == ("mug", 3)
    assert await lamp(inventory) == StockLevel("lamp", 5, 0, 0)
    await inventory.restock("third", "mug", 1)
    await inventory.reserve("order", (Pieces("mug", 4),))


async def test_what_nobody_knows_is_out_of_stock(inventory: InventoryService):
    with pytest.raises(OutOfStock) as caught:
        await inventory.reserve("order", (Pieces("zeppelin", 1),))
    assert caught.value.left == 0
    assert await inventory.levels(("zeppelin",)) == ()


async def test_the_last_lamp_is_sold_once(inventory: InventoryService):
    """Ten orders at once for one lamp each, of which there are five: five have one, five are told."""
    orders = [inventory.reserve(f"order-{number}", (Pieces("lamp", 1),)) for number in range(10)]
    ended = await asyncio.gather(*orders, return_exceptions=True)
    assert sum(isinstance(end, OutOfStock) for end in ended) == 5
    assert await lamp(inventory) == StockLevel("lamp", 0, 5, 0)


async def test_a_reservation_that_comes_after_its_release_is_refused(inventory: InventoryService):
    """A message that was under way for long cannot put aside what nobody would ever let go."""
    await inventory.release("order")
    with pytest.raises(ReservationClosed):
        await inventory.reserve("order", (Pieces("lamp", 1),))
    assert await lamp(inventory) == StockLevel("lamp", 5, 0, 0)


async def test_low_stock_is_told_when_it_becomes_low(inventory: InventoryService, told: Told):
    """Once, by the order that brought it below the mark; not by those after it."""
    await inventory.restock("third", "lamp", 10)
    for number, quantity in enumerate((4, 2, 1)):
        await inventory.reserve(f"order-{number}", (Pieces("lamp", quantity),))
    assert [(type(event), event) for event in told.events] == [
        (StockLow, StockLow(product_id="lamp", left=9, at=ManualClock().now()))
    ]


async def test_a_delivery_is_booked_once_and_a_stocktaking_takes_only_what_is_free(inventory: InventoryService):
    await inventory.reserve("order", (Pieces("lamp", 3),))
    assert (await inventory.restock("first", "lamp", 5)).free == 2
    with pytest.raises(TooFewToWriteOff) as caught:
        await inventory.restock("stocktaking", "lamp", -3)
    assert caught.value.left == 2
    assert await inventory.restock("stocktaking", "lamp", -2) == StockLevel("lamp", 0, 3, 0)


async def test_the_database_refuses_a_row_that_does_not_balance(db: Database, inventory: InventoryService):
    """A lamp cannot vanish, whoever writes."""
    _ = inventory
    for column in (stock.c.free, stock.c.sold):
        with pytest.raises(IntegrityError):
            async with db.transaction() as connection:
                await connection.execute(update(stock).where(stock.c.product_id == "lamp").values({column: column + 1}))


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["reserve", "release"]), st.integers(1, 4), st.integers(1, 3)), max_size=12
    )
)
async def test_whatever_happens_it_adds_up(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]):
    """After any sequence, what is put aside is the sum of the orders that hold something."""
    async with Database(sqlite_url(tmp_path_factory.mktemp("stock"), "inventory"), "inventory", metadata) as db:
        await db.run_sync(metadata.create_all)
        inventory = InventoryService(db, Told(), ManualClock())
        await inventory.restock("first", "lamp", 6)
        held: dict[str, int] = {}
        closed: set[str] = set()
        for step, number, quantity in steps:
            order = f"order-{number}"
            if step == "release":
                await inventory.release(order)
                held.pop(order, None)
                closed.add(order)
                continue
            fits = order in held or quantity <= 6 - sum(held.values())
            try:
                await inventory.reserve(order, (Pieces("lamp", quantity),))
            except (OutOfStock, ReservationClosed) as fault:
                refused = type(fault)
            else:
                refused = None
                held.setdefault(order, quantity)
            assert refused == (ReservationClosed if order in closed else None if fits else OutOfStock)
        assert await lamp(inventory) == StockLevel("lamp", 6 - sum(held.values()), sum(held.values()), 0)
