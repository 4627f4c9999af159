"""The way of an order: undone as a whole where a step fails, looked at above a sum, and the cart that was left alone.

Every test ends with balanced books: stock, money, parcels, letters and events say the same of every order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import pytest
from boutique.cart import REMINDER_AFTER_S, Cart, CartContents, CartLine
from boutique.checkout import (
    REVIEW_WITHIN_S,
    CardDeclined,
    Checkout,
    NotInReview,
    Order,
    OrderNotFound,
    OrderReview,
    OrderStatus,
    OrderUnfinished,
    OutOfStock,
    Purchase,
)
from boutique.checkout.orders import order_id
from boutique.emails import Emails, Letter, LetterNotFound
from boutique.inventory import Inventory, StockLevel
from boutique.payments import Card
from boutique.people import Address
from examples.boutique.tests import balance

from seamline import PermissionDenied
from seamline.testing.app import TopologyApp

T = TypeVar("T")
CARD = Card("5555 5555 5555 4444", 12, 2034, "321")
REFUSED_CARD = replace(CARD, number="4000 0000 0000 0002")
HOME = Address("Ada Example", "Lindenlaan 12", "9000", "Ghent", "BE")


@pytest.fixture(autouse=True)
def books(topology_app: TopologyApp) -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Whatever a test did, money and stock balance."""
    yield
    assert asyncio.run(balance.settled(topology_app.data)) == []


async def eventually(ask: Callable[[], Awaitable[T]], good: Callable[[T], bool]) -> T:
    """The first good answer; what follows from an event, or from an approval, comes a moment after it."""
    async with asyncio.timeout(60):
        while not good(answer := await ask()):  # noqa: ASYNC110  # what is asked is in another process
            await asyncio.sleep(0.01)
    return answer


async def filled(app: TopologyApp, shopper: str, product: str = "wool-throw", quantity: int = 2) -> Purchase:
    contents = await app.stub(Cart).add(shopper, product, quantity)
    return Purchase(shopper, contents.version, "USD", "ada@example.com", HOME, CARD)


async def ended(app: TopologyApp, order_id: str) -> Order:
    """The order once nothing is left to be done for it."""
    checkout = app.stub(Checkout)
    over = (OrderStatus.PLACED, OrderStatus.UNDONE)
    return await eventually(lambda: checkout.order(order_id), lambda order: order.status in over)


async def letter(app: TopologyApp, order_id: str) -> Letter:
    async def ask() -> Letter | None:
        try:
            return await app.stub(Emails).letter(order_id)
        except LetterNotFound:
            return None

    found = await eventually(ask, lambda letter: letter is not None)
    assert found is not None
    return found


async def stock(app: TopologyApp, product: str = "wool-throw") -> StockLevel:
    return (await app.stub(Inventory).levels((product,)))[0]


async def test_a_declined_order_leaves_nothing_behind(topology_app: TopologyApp):
    """The bank refuses when the pieces are put aside already: they are free again, and the corrected form is taken."""
    checkout, before = topology_app.stub(Checkout), await stock(topology_app)
    purchase = await filled(topology_app, "declined-shopper")
    with pytest.raises(CardDeclined):
        await checkout.place("declined", replace(purchase, card=REFUSED_CARD))
    assert await stock(topology_app) == before
    assert (await topology_app.stub(Cart).contents("declined-shopper")).pieces == 2
    placed = await checkout.place("declined", purchase)
    assert placed.status is OrderStatus.PLACED
    assert await checkout.place("declined", purchase) == placed
    sold = await eventually(lambda: stock(topology_app), lambda level: level.sold == before.sold + 2)
    assert (sold.free, sold.reserved) == (before.free - 2, before.reserved)


async def test_what_is_not_there_is_not_sold(topology_app: TopologyApp):
    """One is left and two are wanted; the page says so, the order does, and then the last one is sold."""
    http, inventory = topology_app.http, topology_app.stub(Inventory)
    free = (await stock(topology_app, "brass-pen")).free
    await inventory.restock("stocktaking-1", "brass-pen", 1 - free)
    assert "1 left" in (await http.get("/product/brass-pen")).text
    purchase = await filled(topology_app, "late-shopper-1", "brass-pen", 2)
    with pytest.raises(OutOfStock) as caught:
        await topology_app.stub(Checkout).place("late", purchase)
    assert (caught.value.product_id, caught.value.left) == ("brass-pen", 1)
    http.cookies["shopper"] = "late-shopper-1"
    assert "1 left" in (await http.get("/cart")).text
    contents = await topology_app.stub(Cart).set_quantity("late-shopper-1", "brass-pen", 1)
    await topology_app.stub(Checkout).place("late", replace(purchase, cart_version=contents.version))
    page = await http.get("/product/brass-pen")
    assert "Sold out" in page.text
    assert 'class="primary" disabled' in page.text
    await inventory.restock("delivery-1", "brass-pen", free)
    assert "Sold out" not in (await http.get("/product/brass-pen")).text


async def test_shoppers_at_once_share_what_is_left(topology_app: TopologyApp):
    """Six want one of three watering cans, at once: three get one, three are told, and none is sold twice."""
    inventory = topology_app.stub(Inventory)
    free = (await stock(topology_app, "watering-can")).free
    await inventory.restock("stocktaking-2", "watering-can", 3 - free)
    purchases = [await filled(topology_app, f"can-shopper-{number}", "watering-can", 1) for number in range(6)]
    checkout = topology_app.stub(Checkout)
    outcomes = await asyncio.gather(
        *(checkout.place(purchase.shopper, purchase) for purchase in purchases), return_exceptions=True
    )
    assert sum(isinstance(outcome, Order) for outcome in outcomes) == 3
    assert sum(isinstance(outcome, OutOfStock) for outcome in outcomes) == 3
    assert (await stock(topology_app, "watering-can")).free == 0


@pytest.mark.parametrize("silent", ["Payments.charge", "Shipping.ship", "Cart.empty"])
async def test_an_order_that_cannot_be_finished_is_undone(topology_app: TopologyApp, silent: str):
    """A neighbour is silent for good: what was reserved, charged and sent before is taken back, in reverse, and the
    shopper who still waits is told."""
    shopper = f"patient-{silent.partition('.')[0].lower()}"
    before = await stock(topology_app)
    purchase = await filled(topology_app, shopper)
    checkout, clock = topology_app.stub(Checkout), topology_app.clock

    async def unfinished() -> str:
        with pytest.raises(OrderUnfinished) as caught:
            await checkout.place(shopper, purchase)
        return caught.value.order_id

    async def look() -> Order | None:
        clock.advance(40)
        try:
            return await checkout.order(order_id(shopper, 1))
        except OrderNotFound:
            return None

    async def balanced() -> list[str]:
        clock.advance(40)  # whether the silent one did what it was asked is found out when it speaks
        return await balance.check(topology_app.data)

    async with asyncio.TaskGroup() as tasks:
        with topology_app.inject(silent, error="unavailable"):
            told = tasks.create_task(unfinished())
            undone = await eventually(look, lambda order: order is not None and order.status is OrderStatus.UNDONE)
        await eventually(balanced, lambda found: not found)
    assert undone is not None
    assert undone.reason == "A part of the shop could not do its work."
    assert told.result() == undone.id
    assert await stock(topology_app) == before
    page = await topology_app.http.get(f"/order/{undone.id}")
    assert "This order is not to be" in page.text
    bag = await topology_app.stub(Cart).contents(shopper)
    assert bag.pieces == 2
    placed = await checkout.place(shopper, replace(purchase, cart_version=bag.version))
    assert (placed.status, placed.id != undone.id) == (OrderStatus.PLACED, True)


async def in_review(app: TopologyApp, shopper: str) -> Order:
    """An order above the sum, as its shopper sees it."""
    purchase = await filled(app, shopper, "wool-throw", 20)
    cart, checkout = app.stub(Cart), app.stub(Checkout)
    order = await checkout.place(shopper, purchase)
    assert order.status is OrderStatus.IN_REVIEW
    assert (await cart.contents(shopper)).pieces == 0
    assert await checkout.place(shopper, purchase) == order
    return order


async def test_a_large_order_waits_for_a_human_and_is_placed(topology_app: TopologyApp):
    """The shopper is told at once; nothing is charged before somebody at the desk approved; then all goes its way."""
    http = topology_app.http
    order = await in_review(topology_app, "large-shopper")
    page = await http.get(f"/order/{order.id}")
    assert "We look at your order" in page.text
    assert (await http.get(f"/order/{order.id}/letter")).status == 404
    assert (await http.get("/desk/", headers={"accept": "application/json"})).status == 401
    await http.sign_in("bo", "needle")
    desk = await http.get("/desk/")
    assert order.id in desk.text
    assert "20 \N{MULTIPLICATION SIGN} Wool Throw" in desk.text
    undecided = await http.post(f"/desk/{order.id}", form={"decision": "perhaps", "comment": ""})
    assert undecided.status == 422
    approved = await http.post(f"/desk/{order.id}", form={"decision": "approve", "comment": "knows us"})
    assert (approved.status, approved.header("location")) == (303, "/desk/")
    placed = await ended(topology_app, order.id)
    assert placed.status is OrderStatus.PLACED
    assert placed.total == order.total
    assert "Thank you" in (await http.get(f"/order/{order.id}")).text
    assert placed.tracking_id in (await letter(topology_app, order.id)).text
    late = await http.post(f"/desk/{order.id}", form={"decision": "refuse", "comment": ""})
    assert late.header("location") == "/desk/?notice=late"


async def test_a_shopper_is_not_let_in_at_the_desk(topology_app: TopologyApp):
    """Nobody is sent to sign in; somebody without the role is told no; and neither decides anything."""
    http = topology_app.http
    browser = {"accept": "text/html", "sec-fetch-mode": "navigate"}
    nobody = await http.get("/desk/", headers=browser)
    assert (nobody.status, nobody.header("location")) == (303, "/.seamline/sign-in?return=%2Fdesk%2F")
    await http.sign_in("ada", "lovelace")
    assert "Ada Example" in (await http.get("/")).text
    order = await in_review(topology_app, "no-staff")
    assert (await http.get("/desk/", headers=browser)).status == 403
    assert (await http.post(f"/desk/{order.id}", form={"decision": "approve"})).status == 403
    await http.sign_out()
    assert (await http.post(f"/desk/{order.id}", form={"decision": "approve"})).status == 401
    assert (await topology_app.stub(Checkout).order(order.id)).status is OrderStatus.IN_REVIEW


async def test_a_refused_order_gives_everything_back(topology_app: TopologyApp):
    """The pieces are free, the bag is as it was, and a letter says so."""
    before = await stock(topology_app)
    order = await in_review(topology_app, "refused-shopper")
    await topology_app.stub(OrderReview).decide(order.id, False, "Bo", "six cards today")
    undone = await ended(topology_app, order.id)
    assert (undone.status, undone.reason) == (OrderStatus.UNDONE, "We cannot be sure that it is yours.")
    assert await stock(topology_app) == before
    bag = await topology_app.stub(Cart).contents("refused-shopper")
    assert bag.lines == (CartLine("wool-throw", 20),)
    assert "cannot take it" in (await letter(topology_app, order.id)).text
    with pytest.raises(NotInReview):
        await topology_app.stub(OrderReview).decide(order.id, True, "Bo", "")


async def test_an_order_that_nobody_looks_at_is_not_taken(topology_app: TopologyApp):
    """Approval expires; a shopper who has filled the bag anew meanwhile keeps what is in it."""
    cart = topology_app.stub(Cart)
    order = await in_review(topology_app, "forgotten-shopper")
    await cart.add("forgotten-shopper", "bicycle-bell", 1)

    async def later() -> Order:
        topology_app.clock.advance(REVIEW_WITHIN_S)
        return await topology_app.stub(Checkout).order(order.id)

    await eventually(later, lambda order: order.status is OrderStatus.UNDONE)
    bag = await cart.contents("forgotten-shopper")
    assert bag.lines == (CartLine("bicycle-bell", 1),)


async def test_a_card_that_expires_in_review_undoes_the_order(topology_app: TopologyApp):
    """Approved, and declined after all: there is no order, and the letter says why."""
    now = topology_app.clock.now()
    purchase = await filled(topology_app, "slow-shopper", "wool-throw", 20)
    purchase = replace(purchase, card=replace(CARD, number="4000 0000 0000 0002", year=now.year + 1))
    order = await topology_app.stub(Checkout).place("slow", purchase)
    await topology_app.stub(OrderReview).decide(order.id, True, "Bo", "")
    undone = await ended(topology_app, order.id)
    assert (undone.status, undone.reason) == (OrderStatus.UNDONE, "Your card was declined.")
    assert "Your card was declined." in (await letter(topology_app, order.id)).text


async def test_orders_reviews_and_carts_outlast_a_restart(topology_app: TopologyApp):
    """What was placed is still there, and so is what lies in a bag; and an order waits for a human as long as it must,
    whatever becomes of the processes."""
    checkout, cart = topology_app.stub(Checkout), topology_app.stub(Cart)
    reviewed = await in_review(topology_app, "lasting-reviewed")
    purchase = await filled(topology_app, "lasting-shopper")
    placed = await checkout.place("lasting", purchase)
    kept = await cart.add("lasting-shopper", "bicycle-bell", 1)
    topology_app.restart()
    checkout, cart = topology_app.stub(Checkout), topology_app.stub(Cart)
    assert await checkout.order(placed.id) == placed
    assert await checkout.place("lasting", purchase) == placed
    assert await cart.contents("lasting-shopper") == kept
    with pytest.raises(OrderNotFound):
        await checkout.order("zeppelin")
    await topology_app.stub(OrderReview).decide(reviewed.id, True, "Bo", "")
    assert (await ended(topology_app, reviewed.id)).status is OrderStatus.PLACED


@pytest.mark.parametrize("caller", ["frontend", "emails", "reviews"])
async def test_only_the_desk_decides(topology_app: TopologyApp, caller: str):
    """The window sells; it does not approve."""
    with pytest.raises(PermissionDenied):
        await topology_app.stub(OrderReview, caller=caller).decide("order", True, "Bo", "")


async def test_only_checkout_moves_stock(topology_app: TopologyApp):
    """The window sees what is left, and cannot take it."""
    window = topology_app.stub(Inventory, caller="frontend")
    assert await window.levels(("zeppelin",)) == ()
    with pytest.raises(PermissionDenied):
        await window.release("order")


async def test_a_cart_that_is_left_alone_is_remembered_once(topology_app: TopologyApp):
    """A letter lies in the bag after the hours, and no second one after more of them."""
    http = topology_app.http
    http.cookies["shopper"] = "dreaming-shopper"
    await http.post("/cart", form={"product_id": "quiet-clock", "quantity": "3"})
    assert "/cart/letter" not in (await http.get("/cart")).text
    assert (await http.get("/cart/letter")).status == 303
    topology_app.clock.advance(REMINDER_AFTER_S + 1)
    bag = await eventually(lambda: http.get("/cart"), lambda page: "/cart/letter" in page.text)
    assert bag.status == 200
    written = await http.get("/cart/letter")
    assert "you left 3 things in your bag" in written.text
    topology_app.clock.advance(10 * REMINDER_AFTER_S)
    assert (await http.get("/cart/letter")).text == written.text
    await http.post("/cart/change", form={"product_id": "quiet-clock", "quantity": "1"})
    assert "/cart/letter" not in (await http.get("/cart")).text


async def test_a_cart_that_was_ordered_changed_or_emptied_is_not_brought_up(topology_app: TopologyApp):
    """The timer finds another version, and lets it be; only what is left alone from then on counts."""
    cart, emails = topology_app.stub(Cart), topology_app.stub(Emails)
    purchase = await filled(topology_app, "busy-orderer")
    await topology_app.stub(Checkout).place("busy", purchase)
    await filled(topology_app, "busy-emptier")
    await cart.empty("busy-emptier")
    changed: CartContents = await cart.add("busy-changer", "brass-pen", 1)
    topology_app.clock.advance(REMINDER_AFTER_S - 60)
    last = await cart.add("busy-changer", "brass-pen", 1)
    topology_app.clock.advance(120)
    witness = await cart.add("busy-witness", "brass-pen", 1)
    topology_app.clock.advance(REMINDER_AFTER_S + 60)
    for shopper, contents in (("busy-witness", witness), ("busy-changer", last)):
        found = await eventually(
            lambda shopper=shopper, contents=contents: emails.reminder(shopper, contents.version),
            lambda letter: letter is not None,
        )
        assert found is not None
    assert await emails.reminder("busy-changer", changed.version) is None
    for version in range(1, 4):
        assert await emails.reminder("busy-orderer", version) is None
        assert await emails.reminder("busy-emptier", version) is None
