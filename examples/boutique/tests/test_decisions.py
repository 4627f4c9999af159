"""Decisions on orders: what is let through, what waits and why, who said what, and what would be decided today."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from boutique.cart import Cart
from boutique.checkout import BLIND_REVIEW_ABOVE, Checkout, Order, OrderRefused, OrderStatus, Purchase
from boutique.decisions import Decision, DecisionDesk, Decisions, Inputs, ModelUnknown, Question, Verdict
from boutique.money import Money
from boutique.payments import Card
from boutique.people import Address

from seamline import PermissionDenied
from seamline.run.admin import AdminClient, RefusedError
from seamline.testing.app import TopologyApp

T = TypeVar("T")
CARD = Card("5555 5555 5555 4444", 12, 2034, "321")
HOME = Address("Ada Example", "Lindenlaan 12", "9000", "Ghent", "BE")


async def eventually(ask: Callable[[], Awaitable[T]], good: Callable[[T], bool]) -> T:
    """The first good answer; what follows from an event comes a moment after it."""
    async with asyncio.timeout(60):
        while not good(answer := await ask()):  # noqa: ASYNC110  # what is asked is in another process
            await asyncio.sleep(0.02)
    return answer


async def bought(app: TopologyApp, shopper: str, product: str, quantity: int, card: Card = CARD) -> Order:
    cart = await app.stub(Cart).add(shopper, product, quantity)
    purchase = Purchase(shopper, cart.version, "EUR", "ada@example.com", HOME, card)
    return await app.stub(Checkout).place(f"{shopper}/{cart.version}", purchase)


def question(shopper: str, number: int, *, card: str = "one", worth: int = 20, country: str = "BE") -> Question:
    return Question(f"{shopper}-{number}", shopper, Money("EUR", Decimal(worth)), 1, country, card)


async def test_an_ordinary_order_is_taken_and_the_book_says_why(topology_app: TopologyApp):
    """Placed at once; what was known, which model and which rules decided, and what each input did to it."""
    order = await bought(topology_app, "ordinary", "stoneware-mug", 2)
    assert order.status is OrderStatus.PLACED
    (decision,) = await topology_app.stub(DecisionDesk).explain((order.id,))
    assert (decision.shopper, decision.verdict, decision.rule) == (
        "ordinary", Verdict.ACCEPT, "ordinary orders are accepted",
    )  # fmt: skip
    assert decision.model == "logistic-1"
    assert len(decision.rules) == 12
    assert decision.score < 0.1
    assert decision.reasons
    assert {each.name for each in decision.reasons} <= Inputs.__dataclass_fields__.keys()
    assert decision.worth.amount == order.total.amount


async def test_asked_again_of_an_order_the_first_decision_stands(topology_app: TopologyApp):
    """Also where the question is another: an attempt that is repeated is not tried until it is let through."""
    decisions = topology_app.stub(Decisions)
    first = await decisions.decide(question("again", 1, worth=2500))
    assert first.verdict is Verdict.REVIEW
    assert await decisions.decide(question("again", 1, worth=5)) == first


async def test_who_tries_cards_out_is_looked_at_and_then_refused(topology_app: TopologyApp):
    """The first card is nobody's business; with the fourth of a day a human looks; in the end no order is begun, the
    till says so, and neither money nor stock has moved."""
    decisions = topology_app.stub(Decisions)

    async def with_card(number: int) -> Decision:
        return await decisions.decide(question("tester", number, card=f"card {number}"))

    verdicts: list[Verdict] = []
    async with asyncio.timeout(60):
        for number in range(400):
            verdicts.append((await with_card(number)).verdict)
            if verdicts[-1] is Verdict.REFUSE:
                break
            await asyncio.sleep(0.05)  # a person, too, needs a moment for the next
    assert verdicts[0] is Verdict.ACCEPT
    assert Verdict.REVIEW in verdicts
    assert verdicts[-1] is Verdict.REFUSE
    with pytest.raises(OrderRefused):
        await bought(topology_app, "tester", "stoneware-mug", 1)
    left = await topology_app.stub(Cart).contents("tester")
    assert left.pieces == 1, "the bag is as it was"


async def test_a_human_s_word_is_written_beside_the_decision(topology_app: TopologyApp):
    """The desk sees why an order waits; what Bo says of it stands in the book with his name, and is the label."""
    http = topology_app.http
    order = await bought(topology_app, "waits", "wool-throw", 20)
    assert order.status is OrderStatus.IN_REVIEW
    await http.sign_in("bo", "needle")
    page = (await http.get("/desk/")).text
    assert "above 2000 euros a human looks" in page
    assert "says logistic-1" in page
    await http.post(f"/desk/{order.id}", form={"decision": "refuse", "comment": "never heard of them"})
    desk = topology_app.stub(DecisionDesk)
    (decision,) = await eventually(lambda: desk.explain((order.id,)), lambda found: found[0].approved is not None)
    assert (decision.approved, decision.by, decision.comment) == (False, "Bo Weaver", "never heard of them")
    assert "no, Bo Weaver: never heard of them" in (await http.get("/desk/decisions")).text


@pytest.mark.parametrize("trouble", [{"error": "unavailable"}, {"error": "internal"}, {"drop": True}], ids=str)
async def test_without_decisions_the_shop_sells_what_is_small(topology_app: TopologyApp, trouble: dict[str, Any]):
    """What is worth little is placed, what is worth much waits for a human, and nobody at the till waits for long."""
    with topology_app.inject(Decisions.decide, **trouble):
        async with asyncio.timeout(60):
            small = await bought(topology_app, f"small {trouble}", "stoneware-mug", 1)
            large = await bought(topology_app, f"large {trouble}", "wool-throw", 6)
    assert small.status is OrderStatus.PLACED
    assert BLIND_REVIEW_ABOVE.amount < large.total.amount < 2000
    assert large.status is OrderStatus.IN_REVIEW


async def test_decided_again_with_the_same_model_everything_is_as_it_was(topology_app: TopologyApp):
    """Each decision is made from the features that were known then, though many more events have come since: the same
    model and rules change none, and another version changes some and says which."""
    decisions, desk = topology_app.stub(Decisions), topology_app.stub(DecisionDesk)
    for number in range(25):
        await decisions.decide(
            question("replayed", number, card=f"card {number // 2}", country="US" if number % 5 else "BE")
        )
        await asyncio.sleep(0.02)
    same = await desk.replay(24)
    assert same.model == "logistic-1"
    assert same.same >= 25
    assert (same.changed, same.unknown) == ((), 0)
    other = await desk.replay(24, "stumps-1")
    assert other.same + len(other.changed) == same.same
    assert all(each.verdict is not each.before.verdict for each in other.changed)
    assert all(each.rules_alone is each.before.verdict for each in other.changed), "the rules are the same"
    with pytest.raises(ModelUnknown):
        await desk.replay(24, "../checkout/secret")


@pytest.mark.seamline(topologies=["processes"])  # in which there is a supervisor to ask
async def test_whoever_runs_the_shop_decides_again_from_a_terminal(topology_app: TopologyApp):
    """What the desk's page says of a version `seamline models replay` says, too; of rules that are only tried it says
    what they would have changed, and that it is them."""
    decisions, desk = topology_app.stub(Decisions), topology_app.stub(DecisionDesk)
    for number in range(5):
        await decisions.decide(question("terminal", number, worth=100 + number))
    asked: dict[str, Any] = {"contract": "Fraud", "since_s": 86_400.0}
    admin = AdminClient(topology_app.data)
    today = await admin.ask("model_replay", **asked)
    assert (today["version"], today["changes"], today["unknown"]) == ("logistic-1", {}, 0)
    assert today["decided"] == today["same"] >= 5
    other, page = await admin.ask("model_replay", **asked, version="stumps-1"), await desk.replay(24, "stumps-1")
    assert (other["same"], len(other["cases"])) == (page.same, len(page.changed))
    nobody = {"rules.cedar": '@id("nobody buys") forbid (principal, action, resource);'}
    none = await admin.ask("model_replay", **asked, policy=nobody)
    accepted = none["changes"]["accept"]["refuse"]
    assert accepted >= 5
    assert {(each["changed_by"], each["why"]) for each in none["cases"]} == {("rules", "nobody buys")}
    with pytest.raises(RefusedError, match="SL7754"):
        await admin.ask("model_replay", **asked, policy={"rules.cedar": "permit"})


async def test_a_replay_is_a_page_for_the_staff(topology_app: TopologyApp):
    """With a table of what would be another; nonsense in its address is no error."""
    http = topology_app.http
    assert (await http.get("/desk/decisions")).status == 401
    await http.sign_in("bo", "needle")
    await bought(topology_app, "paged", "stoneware-mug", 1)
    assert "as before, 0 changed" in (await http.get("/desk/decisions?hours=24")).text
    assert "no such version" in (await http.get("/desk/decisions?hours=24&version=9")).text
    for odd in ("hours=-1", "hours=x", "hours=99999999999", "hours=%00", "version=a"):
        assert (await http.get(f"/desk/decisions?{odd}")).status == 200


async def test_who_may_ask(topology_app: TopologyApp):
    """The window does not try out what would be let through, and neither it nor checkout reads the book."""
    with pytest.raises(PermissionDenied):
        await topology_app.stub(Decisions, caller="frontend").decide(question("x", 1))
    for caller in ("checkout", "frontend"):
        with pytest.raises(PermissionDenied):
            await topology_app.stub(DecisionDesk, caller=caller).latest()
