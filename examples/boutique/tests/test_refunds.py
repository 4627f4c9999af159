"""Who gives money back: the policy names them, and how much, in one process and in many."""

from __future__ import annotations

from decimal import Decimal

import pytest
from boutique.cart import Cart
from boutique.checkout import Checkout, NotRefundable, Order, OrderStatus, Purchase, Refunds
from boutique.money import Money
from boutique.payments import Card
from boutique.people import Address

from seamline import PermissionDenied, Unauthenticated, User
from seamline.testing.app import TopologyApp

CARD = Card("5555 5555 5555 4444", 12, 2034, "321")
BO = User("bo", roles=frozenset({"support"}))
HOME = Address("Ada Example", "Lindenlaan 12", "9000", "Ghent", "BE")


async def placed(app: TopologyApp, shopper: str, product: str, quantity: int) -> Order:
    cart = await app.stub(Cart).add(shopper, product, quantity)
    purchase = Purchase(shopper, cart.version, "EUR", "ada@example.com", HOME, CARD)
    order = await app.stub(Checkout).place(shopper, purchase)
    assert order.status is OrderStatus.PLACED
    return order


async def asked_back(app: TopologyApp, order: Order) -> tuple[int, str]:
    answer = await app.http.post("/desk/refund", form={"order": order.id})
    return answer.status, answer.header("location") or ""


async def test_support_gives_back_a_little_and_a_supervisor_all(topology_app: TopologyApp):
    """The same order is refused to one and refunded for the other; a small one both may refund."""
    small = await placed(topology_app, "small-refund", "stoneware-mug", 1)
    large = await placed(topology_app, "large-refund", "wool-throw", 3)
    assert small.total.amount <= 50 < large.total.amount
    http = topology_app.http
    await http.sign_in("bo", "needle")
    assert await asked_back(topology_app, small) == (303, "/desk/?notice=refunded")
    assert await asked_back(topology_app, large) == (303, "/desk/?notice=denied")
    checkout = topology_app.stub(Checkout)
    assert (await checkout.order(small.id)).status is OrderStatus.REFUNDED
    assert (await checkout.order(large.id)).status is OrderStatus.PLACED
    await http.sign_out()
    await http.sign_in("cleo", "thimble")
    assert await asked_back(topology_app, large) == (303, "/desk/?notice=refunded")
    assert (await checkout.order(large.id)).status is OrderStatus.REFUNDED


async def test_nobody_refunds_by_another_way(topology_app: TopologyApp):
    """Not signed in, signed in as a shopper, or from another module: refused, and the order stays as it was."""
    order = await placed(topology_app, "stubborn", "stoneware-mug", 1)
    assert (await topology_app.http.post("/desk/refund", form={"order": order.id})).status == 401
    await topology_app.http.sign_in("ada", "lovelace")
    assert (await topology_app.http.post("/desk/refund", form={"order": order.id})).status == 403
    with pytest.raises(PermissionDenied):
        await topology_app.stub(Refunds, caller="frontend", user=BO).refund(order.id, order.total)
    with pytest.raises(Unauthenticated):  # by the desk itself, on nobody's behalf
        await topology_app.stub(Refunds, caller="desk").refund(order.id, order.total)
    assert (await topology_app.stub(Checkout).order(order.id)).status is OrderStatus.PLACED


async def test_a_sum_that_is_not_the_order_s_is_refused(topology_app: TopologyApp):
    """Policy judges the sum that is said, so checkout takes only the true one."""
    order = await placed(topology_app, "liar", "wool-throw", 3)
    small = Money("EUR", Decimal(1))
    assert order.total != small
    supervisor = User("cleo", roles=frozenset({"supervisor"}))
    with pytest.raises(NotRefundable):
        await topology_app.stub(Refunds, caller="desk", user=supervisor).refund(order.id, small)
    assert (await topology_app.stub(Checkout).order(order.id)) == order
