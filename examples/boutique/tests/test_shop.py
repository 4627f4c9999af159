"""The shop as its shoppers and its modules see it; every test here runs in every topology, byte for byte."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from boutique.ads import Ads
from boutique.cart import QUANTITY_MAX, Cart, QuantityRefused
from boutique.catalog import Catalog
from boutique.checkout import (
    CardDeclined,
    CartChanged,
    Checkout,
    Order,
    OrderReview,
    OrderStatus,
    OrderUnfinished,
    Purchase,
)
from boutique.currency import Currency
from boutique.emails import Emails, Letter, LetterNotFound
from boutique.frontend.forms import EXAMPLE
from boutique.frontend.render import static_files
from boutique.inventory import Inventory, Pieces
from boutique.load import Answer, scenario
from boutique.money import Money
from boutique.payments import Card, CardBrand, CardToken, DeclineReason, Payments
from boutique.people import Address
from boutique.recommendations import Recommendations
from boutique.shipping import Shipping

from seamline import PermissionDenied
from seamline.testing.app import TopologyApp
from seamline.testing.http import Response
from seamline.testing.transcript import Transcript

_PLACE = re.compile(r'<p class="place">.*?</p>')
CARD = Card("5555 5555 5555 4444", 12, 2034, "321")
TOKEN = CardToken(CardBrand.MASTERCARD, "4444", 12, 2034)
T = TypeVar("T")
HOME = Address("Ada Example", "Lindenlaan 12", "9000", "Ghent", "BE")


def page(response: Response) -> dict[str, Any]:
    """A page without the line that says who answered, which differs on purpose."""
    where = response.header("location")
    return {
        "status": response.status,
        "location": where,
        "type": response.header("content-type"),
        "body": _PLACE.sub("", response.text),
    }


async def bought(app: TopologyApp, shopper: str, currency: str = "EUR") -> Purchase:
    """A purchase of two throws and a pen, with the cart as it then stands."""
    cart = app.stub(Cart)
    await cart.add(shopper, "wool-throw", 2)
    contents = await cart.add(shopper, "brass-pen", 1)
    return Purchase(shopper, contents.version, currency, "ada@example.com", HOME, CARD)


async def eventually(ask: Callable[[], Awaitable[T]], good: Callable[[T], bool]) -> T:
    """The first good answer; what follows from an event comes a moment after it."""
    async with asyncio.timeout(20):
        while not good(answer := await ask()):  # noqa: ASYNC110  # what is asked is in another process
            await asyncio.sleep(0.01)
    return answer


async def letter_about(emails: Emails, order_id: str) -> Letter:
    async def ask() -> Letter | None:
        try:
            return await emails.letter(order_id)
        except LetterNotFound:
            return None

    found = await eventually(ask, lambda letter: letter is not None)
    assert found is not None
    return found


async def test_a_visit(topology_app: TopologyApp, transcript: Transcript):
    """From the home page to the letter, every page is the same wherever its modules run."""
    http = topology_app.http
    http.cookies["shopper"] = "visitor-of-the-shop"
    transcript.alias(static_files.version, "version")

    async def get(path: str) -> Response:
        response = await http.get(path)
        transcript.add(f"GET {path}", page(response))
        return response

    async def post(path: str, **form: str) -> Response:
        response = await http.post(path, form=form)
        transcript.add(f"POST {path} {form}", page(response))
        return response

    for path in ("/", "/search?q=brass", "/search?q=zeppelin", "/search", "/product/quiet-clock", "/cart"):
        await get(path)
    await post("/currency", currency="JPY", back="/product/quiet-clock")
    await post("/cart", product_id="quiet-clock", quantity="2")
    await post("/cart", product_id="stoneware-mug", quantity="3")
    await post("/cart", product_id="stoneware-mug", quantity="99")
    await post("/cart/change", product_id="stoneware-mug", quantity="1")
    await get("/cart?country=DE")
    till = await get("/checkout")
    version = till.text.partition('name="version" value="')[2].partition('"')[0]
    form = {**EXAMPLE, "version": version, "currency": "JPY", "country": "DE"}
    await post("/checkout", **{**form, "email": "nobody", "card_month": "x"})
    await post("/checkout", **{**form, "card_year": "2025"})
    placed = await post("/checkout", **form)
    again = await post("/checkout", **form)
    assert placed.header("location") == again.header("location") != "/cart"
    order = str(placed.header("location"))
    await get(order)
    await eventually(lambda: http.get(f"{order}/letter"), lambda page: page.status == 200)
    await get(f"{order}/letter")
    for path in ("/cart", "/checkout", "/nowhere", "/product/zeppelin", "/order/zeppelin", "/order/zeppelin/letter"):
        await get(path)
    await post("/", nothing="here")


async def test_every_contract(topology_app: TopologyApp, transcript: Transcript):
    """Results and faults of every method are the same, whether they were passed, copied or sent."""
    app, call = topology_app, transcript.call
    catalog, currency, cart = app.stub(Catalog), app.stub(Currency), app.stub(Cart)
    payments, shipping, emails = app.stub(Payments), app.stub(Shipping), app.stub(Emails)
    checkout, inventory = app.stub(Checkout), app.stub(Inventory)
    await call("list", catalog.list_products())
    await call("product", catalog.product("bicycle-bell"))
    await call("no product", catalog.product("zeppelin"))
    await call("search", catalog.search("kit"))
    await call("supported", currency.supported())
    await call("convert", currency.convert(Money("EUR", Decimal("89.00")), "USD"))
    await call("no currency", currency.convert(Money("EUR", Decimal(1)), "DOUBLOON"))
    await call("ad", app.stub(Ads).choose(("kitchen", "table")))
    await call("recommended", app.stub(Recommendations).others(("wool-throw",)))
    await call("destinations", shipping.destinations())
    await call("quote", shipping.quote(3, "FI"))
    await call("no quote", shipping.quote(3, "AQ"))
    await transcript.stream("route", shipping.route("FI"))
    await transcript.stream("no route", shipping.route("AQ"))
    await call("no cart", cart.contents("contract-shopper"))
    await call("too many", cart.add("contract-shopper", "wool-throw", QUANTITY_MAX + 1))
    purchase = await bought(app, "contract-shopper", "GBP")
    await call("set", cart.set_quantity("contract-shopper", "brass-pen", 4))
    await call("changed", checkout.place("contract-1", purchase))
    purchase = replace(purchase, cart_version=purchase.cart_version + 1)
    await call("not served", checkout.place("contract-1", replace(purchase, address=replace(HOME, country="AQ"))))
    await call("no such money", checkout.place("contract-1", replace(purchase, currency="DOUBLOON")))
    placed = await call("placed", checkout.place("contract-1", purchase))
    assert placed is not None
    await call("emptied", cart.contents("contract-shopper"))
    await call("order", checkout.order(placed.id))
    await letter_about(emails, placed.id)
    await call("letter", emails.letter(placed.id))
    await call("empty", checkout.place("contract-2", replace(purchase, cart_version=purchase.cart_version + 1)))
    await call("no order", checkout.order("zeppelin"))
    await call("no letter", emails.letter("zeppelin"))
    charge = await call("charged before", payments.charge(placed.id, Money("EUR", Decimal(1)), TOKEN))
    assert charge is not None
    await call("refunded", payments.refund(charge.id))
    await call("refunded again", payments.refund(charge.id))
    await call("no charge", payments.refund("zeppelin"))
    await call("not this card", payments.tokenise(replace(CARD, year=2020)))
    await call("stock", inventory.restock("delivery", "hat", 3))
    await call("stock again", inventory.restock("delivery", "hat", 3))
    await call("levels", inventory.levels(("hat", "zeppelin")))
    await call("reserved", inventory.reserve("hat-order", (Pieces("hat", 2),)))
    await call("not enough", inventory.reserve("other-order", (Pieces("hat", 2),)))
    await call("released", inventory.release("hat-order"))
    await call("too late", inventory.reserve("hat-order", (Pieces("hat", 2),)))
    await call("not there", inventory.restock("stocktaking", "hat", -4))
    await call("called off", shipping.cancel("hat-order"))
    await call("not sent", shipping.ship("hat-order", HOME, 2))
    await call("nobody waits", app.stub(OrderReview).waiting())
    await call("not in review", app.stub(OrderReview).decide(placed.id, True, "Bo", ""))
    await call("no reminder", emails.reminder("contract-shopper", 1))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (replace(CARD, number="4111 1111 1111 1112"), DeclineReason.NUMBER),
        (replace(CARD, number="3782 822463 10005"), DeclineReason.BRAND),
        (replace(CARD, year=2025), DeclineReason.EXPIRED),
        (replace(CARD, security_code="1"), DeclineReason.SECURITY_CODE),
    ],
    ids=["number", "brand", "expired", "security_code"],
)
async def test_a_declined_card_costs_nothing(topology_app: TopologyApp, wrong: Card, reason: DeclineReason):
    """The fault arrives with its reason through two seams, the cart stays, and a good card then pays."""
    checkout, shopper = topology_app.stub(Checkout), f"declined-{reason}"
    purchase = await bought(topology_app, shopper)
    with pytest.raises(CardDeclined) as caught:
        await checkout.place(shopper, replace(purchase, card=wrong))
    assert caught.value.reason is reason
    assert (await topology_app.stub(Cart).contents(shopper)).pieces == 3
    # The form was corrected as a whole: the address at the second try counts.
    elsewhere = replace(HOME, country="NZ")
    placed = await checkout.place(shopper, replace(purchase, address=elsewhere))
    assert placed.address == elsewhere
    assert placed.shipping.amount > 18


async def test_one_attempt_is_one_order_however_often_it_is_sent(topology_app: TopologyApp):
    """Eight at once with the same key: one order, one charge, and everyone is told the same."""
    checkout = topology_app.stub(Checkout)
    purchase = await bought(topology_app, "eager-shopper")
    orders: list[Order] = await asyncio.gather(*(checkout.place("eager", purchase) for _ in range(8)))
    assert len({order.id for order in orders}) == 1
    assert all(order == orders[0] for order in orders)
    assert await checkout.order(orders[0].id) == orders[0]
    with pytest.raises(CartChanged):
        await checkout.place("another key", purchase)


async def test_pieces_added_at_once_all_arrive(topology_app: TopologyApp):
    """No update is lost: each of twenty adds counts, and the one too many is refused."""
    cart = topology_app.stub(Cart)
    await asyncio.gather(*(cart.add("busy-shopper", "field-notebook", 1) for _ in range(QUANTITY_MAX)))
    contents = await cart.contents("busy-shopper")
    assert (contents.pieces, contents.version) == (QUANTITY_MAX, QUANTITY_MAX)
    with pytest.raises(QuantityRefused):
        await cart.add("busy-shopper", "field-notebook", 1)
    assert await cart.contents("busy-shopper") == contents


async def test_an_order_interrupted_after_payment_goes_on_by_itself(topology_app: TopologyApp):
    """Shipping does not answer after the card was charged; when it does again the order is finished as agreed."""
    checkout = topology_app.stub(Checkout)
    purchase = await bought(topology_app, "unlucky-shopper")
    with topology_app.inject(Shipping.ship, error="unavailable"), pytest.raises(OrderUnfinished) as caught:
        await checkout.place("unlucky", purchase)
    # Meanwhile the shopper goes on; what was agreed and paid for is not touched by it.
    await topology_app.stub(Cart).add("unlucky-shopper", "bicycle-bell", 1)

    async def again() -> Order | None:
        topology_app.clock.advance(60)
        try:
            return await checkout.place("unlucky", purchase)
        except OrderUnfinished:
            return None

    placed = await eventually(again, lambda order: order is not None)
    assert placed is not None
    assert placed.id == caught.value.order_id
    assert placed.status is OrderStatus.PLACED
    assert [(line.product_id, line.quantity) for line in placed.lines] == [("wool-throw", 2), ("brass-pen", 1)]
    charge = await topology_app.stub(Payments).charge(placed.id, Money("EUR", Decimal(1)), TOKEN)
    assert charge.amount == placed.total
    assert (await topology_app.stub(Cart).contents("unlucky-shopper")).pieces == 4


async def test_a_letter_that_cannot_be_written_does_not_stop_an_order(topology_app: TopologyApp):
    """A paid order stands without its confirmation, which is written as soon as that is possible."""
    purchase = await bought(topology_app, "quiet-shopper")
    checkout, emails = topology_app.stub(Checkout), topology_app.stub(Emails)
    with topology_app.inject(Checkout.order, error="unavailable"):
        placed = await checkout.place("quiet", purchase)
        with pytest.raises(LetterNotFound):
            await emails.letter(placed.id)
    assert await checkout.order(placed.id) == placed
    topology_app.clock.advance(60)
    assert placed.tracking_id in (await letter_about(emails, placed.id)).text


async def test_pages_do_without_what_they_can_do_without(topology_app: TopologyApp):
    """With ads and recommendations gone the product page is there, without them."""
    http = topology_app.http
    with (
        topology_app.inject(Ads, error="unavailable"),
        topology_app.inject(Recommendations, error="unavailable"),
    ):
        without = await http.get("/product/wool-throw")
    whole = await http.get("/product/wool-throw")
    assert (without.status, whole.status) == (200, 200)
    assert "Put in the bag" in without.text
    assert "Goes well with it" not in without.text
    assert "Goes well with it" in whole.text


async def test_what_a_page_needs_is_missed_politely(topology_app: TopologyApp):
    """Without the catalog the home page is a 503 that may be asked again; without checkout the form is kept."""
    http = topology_app.http
    with topology_app.inject(Catalog, error="unavailable"):
        home = await http.get("/")
    assert (home.status, home.header("retry-after")) == (503, "2")
    assert "One moment, please" in home.text
    http.cookies["shopper"] = "patient-shopper"
    await bought(topology_app, "patient-shopper")
    form = {**EXAMPLE, "version": "2", "currency": "EUR", "country": "BE", "city": "Antwerp"}
    with topology_app.inject(Checkout.place, error="unavailable"):
        till = await http.post("/checkout", form=form)
    assert till.status == 503
    assert "never charged twice" in till.text
    assert 'value="Antwerp"' in till.text
    assert (await http.post("/checkout", form=form, follow=True)).status == 200


async def test_a_card_expires_while_the_shop_is_open(topology_app: TopologyApp):
    """The month is read from the clock at the moment of the charge."""
    now = topology_app.clock.now()
    card = replace(CARD, month=now.month, year=now.year)
    purchase = replace(await bought(topology_app, "late-shopper"), card=card)
    topology_app.clock.advance(32 * 24 * 3600)
    with pytest.raises(CardDeclined) as caught:
        await topology_app.stub(Checkout).place("late", purchase)
    assert caught.value.reason is DeclineReason.EXPIRED


@pytest.mark.parametrize("caller", ["frontend", "recommendations", "ads", "reviews", "emails"])
async def test_only_checkout_reaches_money(topology_app: TopologyApp, caller: str):
    """Policy is the same in one process and in many: whoever is not permitted is refused."""
    with pytest.raises(PermissionDenied):
        await topology_app.stub(Payments, caller=caller).charge("order", Money("EUR", Decimal(1)), TOKEN)


async def test_the_reviews_app_is_part_of_the_shop(topology_app: TopologyApp, transcript: Transcript):
    """An app that knows nothing of this reads, writes, redirects and refuses as it did alone."""
    http, thing = topology_app.http, f"thing-of-{topology_app.topology}"
    transcript.alias(thing, "thing")
    good = {"author": "Ada", "stars": 4, "text": "It does what it says."}
    bad = {**good, "text": "Cheap crypto at http://example.com"}

    async def record(label: str, response: Response) -> None:
        transcript.add(label, page(response))

    await record("list", await http.get("/reviews/products/harbour-lamp/reviews"))
    await record("rating", await http.get("/reviews/products/harbour-lamp/rating"))
    await record("post", await http.post(f"/reviews/products/{thing}/reviews", json=good))
    await record("held", await http.post(f"/reviews/products/{thing}/reviews", json=bad))
    await record("refused", await http.post(f"/reviews/products/{thing}/reviews", json={**good, "stars": 9}))
    await record("printed", await http.get(f"/reviews/products/{thing}/reviews"))
    form = {"author": "<b>Bo</b>", "stars": "5", "text": "Small & good."}
    sent = await http.post(f"/reviews/embed/{thing}", form=form)
    await record("form", sent)
    await record("embedded", await http.get(f"/reviews/embed/{thing}"))
    await record("missing", await http.get("/reviews/zeppelin"))


class _Shopper:
    """Walks the load generator's steps through the kit's client."""

    def __init__(self, app: TopologyApp) -> None:
        self.random = random.Random(7)  # repeatable choices, not secrets
        self._http = app.http

    async def get(self, path: str) -> Answer:
        return await self._http.get(path, follow=True)

    async def post(self, path: str, form: dict[str, Any]) -> Answer:
        fields = {name: str(value) for name, value in form.items()}
        return await self._http.post(path, form=fields, follow=True)


async def test_the_load_generators_steps_succeed(topology_app: TopologyApp):
    """Each step of the public mix, thrice, by one shopper with cookies."""
    shopper = _Shopper(topology_app)
    for _ in range(3):
        for _, _, step in scenario:
            await step(shopper)


@pytest.mark.seamline(topologies=["processes"])
async def test_a_killed_module_loses_nothing_and_charges_once(topology_app: TopologyApp):
    """`kill -9` of shipping in the middle of an order, then of all that wrote: sent again, it is one order."""
    checkout = topology_app.stub(Checkout)
    purchase = await bought(topology_app, "robust-shopper")
    with topology_app.inject(Shipping.ship, crash=True), pytest.raises(OrderUnfinished):
        await checkout.place("robust", purchase)
    topology_app.wait_ready()
    topology_app.clock.advance(60)
    placed = await checkout.place("robust", purchase)
    for module in ("checkout", "payments", "cart"):
        topology_app.kill(module)
    topology_app.wait_ready()
    assert await checkout.place("robust", purchase) == placed
    charge = await topology_app.stub(Payments).charge(placed.id, Money("EUR", Decimal(1)), TOKEN)
    assert charge.amount == placed.total
