"""Recommendations: what is suggested, what is learned, and what becomes of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from boutique.cart import Cart
from boutique.catalog import Catalog, Product
from boutique.catalog.module import CatalogService
from boutique.catalog.shelf import SHELF
from boutique.checkout import Checkout, OrderLine, OrderPlaced, Purchase
from boutique.frontend import ProductViewed
from boutique.money import Money
from boutique.payments import Card
from boutique.people import Address
from boutique.recommendations import (
    Meaning,
    Recommendations,
    Similar,
    Uptake,
    Uptakes,
    Why,
    alike,
    known,
    learner,
    ranking,
)
from boutique.recommendations.evaluation import by_lot, compare, made_up
from boutique.recommendations.known import Known
from boutique.recommendations.learner import FIRST_AFTER, Learner
from boutique.recommendations.learning import learn
from boutique.recommendations.module import VERSIONS, Hybrid, module
from boutique.recommendations.tables import metadata
from hypothesis import given
from hypothesis import strategies as st

from seamline import Database, Unavailable
from seamline.kernel.clock import ManualClock
from seamline.kernel.store import sqlite_url
from seamline.models.watch.watcher import Watcher
from seamline.testing.app import TopologyApp

IDS = [product.id for product in SHELF]
SCORERS = {
    "popular": ranking.popular, "content": ranking.content, "together": ranking.together, "hybrid": ranking.hybrid,
}  # fmt: skip
START = datetime(2026, 5, 4, 9, tzinfo=UTC)
CARD = Card("5555 5555 5555 4444", 12, 2034, "321")
HOME = Address("Ada Example", "Lindenlaan 12", "9000", "Ghent", "BE")
T = TypeVar("T")

pytest.importorskip("numpy", reason="the extra models is not installed")


def knowledge(orders: int = 0) -> ranking.Knowledge:
    past = [(basket.shopper, basket.products) for basket in made_up(IDS)[:orders]]
    found = learn(past)
    return ranking.Knowledge(IDS, alike.stored().alike, found.together, found.liked, found.orders)


KNOWN = {orders: knowledge(orders) for orders in (0, 300)}


@given(
    taken=st.sets(st.sampled_from([*IDS, "gone"])),
    limit=st.integers(-2, 20),
    scorer=st.sampled_from(sorted(SCORERS)),
    orders=st.sampled_from(sorted(KNOWN)),
)
def test_recommendations_never_repeat_the_bag(taken: set[str], limit: int, scorer: str, orders: int):
    """They are other products, without doubles, as many as there are, and the same however the bag is ordered."""
    found = ranking.best(SCORERS[scorer], KNOWN[orders], taken, limit)
    ids = {each.product_id for each in found}
    assert not taken & ids
    assert len(ids) == len(found) == min(max(limit, 0), len(IDS) - len(taken - {"gone"}))
    assert found == ranking.best(SCORERS[scorer], KNOWN[orders], sorted(taken, reverse=True), limit)


def test_the_stored_neighbours_are_those_that_the_encoder_finds(request: pytest.FixtureRequest):
    """Of the shelf as it stands; `pytest --update-golden` writes them anew."""
    for package in ("onnx", "onnxruntime", "tokenizers", alike.MODEL):
        pytest.importorskip(package, reason="the encoder, or its weights, is not installed")
    computed = alike.compute(SHELF)
    if request.config.getoption("--update-golden"):
        alike.FILE.write_bytes(msgspec.json.format(msgspec.json.encode(computed), indent=1) + b"\n")
    found = alike.stored()
    assert found.digest == computed.digest
    for product, near in computed.alike.items():
        assert near == pytest.approx(found.alike[product], abs=2e-4)
    assert max(found.alike["enamel-kettle"], key=found.alike["enamel-kettle"].__getitem__) == "watering-can"


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_what_was_learned_beats_what_everybody_likes_and_that_beats_lots(seed: int):
    """Of shoppers whose habits are no categories, on what they bought afterwards."""
    found = compare({**SCORERS, "random": by_lot}, IDS, alike.stored().alike, seed=seed)
    assert found["popular"].recall > found["random"].recall + 0.03
    assert found["content"].recall > found["random"].recall + 0.03
    for learned in ("together", "hybrid"):
        assert found[learned].recall > found["popular"].recall + 0.1
        assert found[learned].ndcg > found["popular"].ndcg + 0.1


def test_each_version_tells_how_good_it_is():
    """Beside the two baselines, for `seamline models eval`."""
    told = Hybrid(None).evaluate()  # type: ignore[arg-type]  # evaluation looks at nothing that is known now
    assert set(told) == {
        f"{measure}_at_4{of}" for measure in ("recall", "ndcg") for of in ("", "_of_popular", "_of_random")
    }
    assert told["recall_at_4"] > told["recall_at_4_of_popular"] > told["recall_at_4_of_random"]


def test_what_nobody_bought_yet_is_suggested_for_what_it_is():
    """Without orders a hybrid is content; with many, what was learned comes first, and says so."""
    cold, warm = KNOWN[0], knowledge(1500)
    assert ranking.best(ranking.hybrid, cold, ["enamel-kettle"], 4) == ranking.best(
        ranking.content, cold, ["enamel-kettle"], 4
    )
    assert ranking.best(ranking.hybrid, cold, ["enamel-kettle"], 1)[0].why == Why.ALIKE
    assert {each.why for each in ranking.best(ranking.hybrid, warm, ["bicycle-bell"], 2)} == {Why.TOGETHER}
    assert ranking.best(ranking.popular, cold, [], 1)[0].why == Why.CHANCE


def test_what_the_page_on_models_says_is_so():
    """Versions, numbers and figures."""
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    text = page.partition("\n## Recommendations\n")[2].partition("\n## ")[0]
    first, second = re.findall(r"\n\| version \|.*?\n\n", text, re.DOTALL)
    versions = [model.version for model in module.models if model.contract is Recommendations]
    assert re.findall(r"^\| `([\w-]+)` \|", first, re.MULTILINE) == versions
    assert f"after {FIRST_AFTER} orders" in text
    assert f"({learner.AGAIN_AFTER} at least)" in text
    assert f"At most {learner.ORDERS_MAX:,} orders" in text
    assert f"From {learner.SCORED_FROM}\nclicks on" in text
    assert (learner.CREDIT.days, known.LOOK_EVERY_S) == (7, 10)
    found = compare({**SCORERS, "lots drawn": by_lot}, IDS, alike.stored().alike)
    shown = re.findall(r"^\| `?([\w -]+?)`? \| ([\d.]+) \| ([\d.]+) \|", second, re.MULTILINE)
    assert {name.removesuffix("-1") for name, _, _ in shown} == set(found)
    for name, recall, ndcg in shown:
        assert found[name.removesuffix("-1")].recall == pytest.approx(float(recall), abs=0.02)
        assert found[name.removesuffix("-1")].ndcg == pytest.approx(float(ndcg), abs=0.02)


class Texts(Similar):
    """An encoder that counts what it is asked, or is not there."""

    def __init__(self) -> None:
        self.asked = 0
        self.gone = self.hangs = False

    async def embed(self, text: str) -> tuple[float, ...]:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.gone:
            raise Unavailable("no encoder")
        return (1.0, float(len(text) % 7), float(len(text) % 3))


class Shelf(CatalogService):
    products: tuple[Product, ...] = SHELF

    async def list_products(self) -> tuple[Product, ...]:
        return self.products


class Desk:
    """What the module knows and learns, on a database of its own."""

    def __init__(self, db: Database) -> None:
        self.db, self.clock, self.texts, self.catalog = db, ManualClock(START), Texts(), Shelf()
        self.learner = Learner(db, self.clock)
        self.known = self.process()

    def process(self) -> Known:
        """Another one that hosts the module."""
        return Known(self.db, self.catalog, self.texts, self.clock)

    async def ordered(self, number: int, *products: str, shopper: str = "") -> None:
        at = START + timedelta(minutes=number)
        price = Money("EUR", Decimal(1))
        lines = tuple(OrderLine(product, product, 1, price) for product in products)
        order = OrderPlaced(
            order_id=f"o{number}",
            shopper=shopper or f"s{number}",
            currency="EUR",
            total=price,
            lines=lines,
            placed_at=at,
        )
        await self.learner.ordered([order])


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Database(sqlite_url(tmp_path, "recommendations"), "recommendations", metadata) as db:
        await db.run_sync(metadata.create_all)
        yield Desk(db)


async def test_orders_are_learned_from_once_there_are_enough(desk: Desk):
    """Every process that hosts the module follows within seconds; an order that is told again counts once."""
    for number in range(FIRST_AFTER - 1):
        await desk.ordered(number, *(("bicycle-bell", "walnut-board") if number % 2 else ("brass-pen",)))
        await desk.ordered(number, "brass-pen")
    assert (await desk.known.now()).orders == 0
    await desk.ordered(FIRST_AFTER, "bicycle-bell", "walnut-board")
    assert (await desk.known.now()).orders == 0, "it looks every ten seconds"
    desk.clock.advance(10)
    for process in (desk.known, desk.process()):
        known = await process.now()
        assert known.orders == FIRST_AFTER
        assert known.liked["brass-pen"] == 1.0
        assert max(known.together["bicycle-bell"], key=known.together["bicycle-bell"].__getitem__) == "walnut-board"
        assert "bicycle-bell" not in known.together["brass-pen"]
    for number in range(200, 225):
        await desk.ordered(number, "brass-pen")
    desk.clock.advance(10)
    assert (await desk.known.now()).orders == FIRST_AFTER + 25, "and again, when there are more"


async def test_a_shelf_that_has_changed_is_looked_at_by_the_encoder_once(desk: Desk):
    """By one process, for all; the shelf that everybody knows is not asked for at all."""
    await desk.known.now()
    assert desk.texts.asked == 0
    desk.catalog.products = (*SHELF[1:], replace(SHELF[0], description="A lamp."))
    known = await desk.known.now()
    assert desk.texts.asked == len(SHELF)
    assert set(known.alike["harbour-lamp"]) == set(IDS) - {"harbour-lamp"}
    assert (await desk.process().now()).alike == known.alike
    assert desk.texts.asked == len(SHELF)


async def test_an_answer_is_given_again_until_more_is_known(desk: Desk):
    """The same for the same bag in any order; another when the shelf or what was learned changes."""
    model = Hybrid(desk.known)
    first = await model.suggest(("enamel-kettle", "brass-pen"))
    assert await model.suggest(("brass-pen", "enamel-kettle")) is first
    assert len((await model.suggest(("brass-pen", "enamel-kettle"), 2)).items) == 2
    for number in range(FIRST_AFTER):
        await desk.ordered(number, "enamel-kettle", "bicycle-bell", *(["wool-throw"] if number % 2 else []))
    desk.clock.advance(10)
    learned = await model.suggest(("enamel-kettle",), 1)
    assert (learned.items[0].product_id, learned.items[0].why) == ("bicycle-bell", Why.TOGETHER)
    desk.catalog.products = tuple(product for product in SHELF if product.id != "bicycle-bell")
    assert "bicycle-bell" not in await model.others(("enamel-kettle",), 16)


async def test_who_stops_waiting_for_the_encoder_does_not_stop_it_for_good(desk: Desk):
    """A minute later somebody else asks it."""
    desk.catalog.products = SHELF[1:]
    desk.texts.hangs = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await desk.known.now()
    desk.texts.hangs = False
    assert (await desk.known.now()).alike["stoneware-mug"]["walnut-board"] == 1.0, "by categories, until then"
    desk.clock.advance(60)
    assert (await desk.known.now()).alike["stoneware-mug"]["walnut-board"] != 1.0


async def test_without_an_encoder_products_are_alike_by_their_categories(desk: Desk, caplog: pytest.LogCaptureFixture):
    """It says so, goes on, and asks again after a minute."""
    desk.texts.gone = True
    desk.catalog.products = SHELF[1:]
    known = await desk.known.now()
    assert known.alike["stoneware-mug"]["walnut-board"] == 1.0
    assert "by their categories only" in caplog.text
    asked = desk.texts.asked
    await desk.known.now()
    assert desk.texts.asked == asked
    desk.texts.gone = False
    desk.clock.advance(60)
    assert (await desk.known.now()).alike["stoneware-mug"]["walnut-board"] != 1.0


async def test_what_was_followed_and_then_bought_is_credited_to_its_version(desk: Desk):
    """Once a shopper and product, within a week, and not what was bought before."""

    async def clicked(shopper: str, product: str, via: str, minute: int) -> None:
        at = START + timedelta(minutes=minute)
        await desk.learner.clicked([ProductViewed(session=shopper, product_id=product, at=at, via=via)])

    await clicked("ada", "brass-pen", "hybrid-1", 1)
    await clicked("ada", "brass-pen", "popular-1", 2)
    await clicked("ada", "wool-throw", "hybrid-1", 3)
    await clicked("bo", "wool-throw", "popular-1", 9)
    await clicked("cleo", "wool-throw", "popular-1", 9)
    await desk.ordered(5, "brass-pen", "bicycle-bell", shopper="ada")
    await desk.ordered(6, "wool-throw", shopper="bo")
    await desk.ordered(9 + 8 * 24 * 60, "wool-throw", shopper="cleo")
    assert await desk.learner.uptake() == (Uptake("hybrid-1", 2, 1), Uptake("popular-1", 2, 0))
    desk.clock.advance(40 * 24 * 3600)
    await clicked("dan", "brass-pen", "hybrid-1", 40 * 24 * 60)
    assert await desk.learner.uptake() == (Uptake("hybrid-1", 1, 0),), "a month is remembered"


async def test_the_share_that_is_bought_is_a_score_that_is_watched(desk: Desk):
    """From fifty clicks on; a gauge by version, which detection looks at."""
    watcher = Watcher("recommendations", "Recommendations", "hybrid-1", None, desk.clock)
    views = [
        ProductViewed(session=f"s{number}", product_id="brass-pen", at=START, via="hybrid-1") for number in range(60)
    ]
    await desk.learner.clicked(views)
    for number in range(15):
        await desk.ordered(number, "brass-pen")
    (told,) = watcher.take()
    assert told.name == "seamline.model.Recommendations.hybrid-1.bought_share"
    assert (told.module, told.kind) == ("recommendations", "gauge")
    assert 0 < told.value <= 15 / 60


async def eventually(ask: Callable[[], Awaitable[T]], good: Callable[[T], bool]) -> T:
    async with asyncio.timeout(30):
        while not good(answer := await ask()):  # noqa: ASYNC110  # what is asked is in another process
            await asyncio.sleep(0.02)
    return answer


def _of(uptakes: Sequence[Uptake], version: str) -> Uptake:
    return next((each for each in uptakes if each.version == version), Uptake(version, 0, 0))


async def test_a_suggestion_that_is_followed_and_bought_is_counted(topology_app: TopologyApp):
    """From the page's link through the events of two modules; a version that does not exist is nobody's."""
    app, shopper = topology_app, {"cookie": "shopper=follows-advice"}
    before = _of(await app.stub(Uptakes).uptake(), "hybrid-1")
    page = await app.http.get("/product/enamel-kettle", headers=shopper)
    assert 'href="/product/watering-can?via=hybrid-1"' in page.text
    assert "Much like it" in page.text
    await app.http.get("/product/canvas-tote?via=made-up", headers=shopper)
    await app.http.get("/product/watering-can?via=hybrid-1", headers=shopper)

    async def looked() -> tuple[Uptake, ...]:
        await app.http.get("/product/wool-throw", headers=shopper)  # looks wait for company
        return await app.stub(Uptakes).uptake()

    await eventually(looked, lambda found: _of(found, "hybrid-1").clicked > before.clicked)
    contents = await app.stub(Cart).add("follows-advice", "watering-can", 1)
    purchase = Purchase("follows-advice", contents.version, "EUR", "ada@example.com", HOME, CARD)
    await app.stub(Checkout).place("follows-advice", purchase)
    found = await eventually(app.stub(Uptakes).uptake, lambda found: _of(found, "hybrid-1").bought > before.bought)
    assert {each.version for each in found} <= VERSIONS


async def test_the_suggestions_are_those_of_the_first_version(topology_app: TopologyApp):
    """Without reasons they are the same; and the catalog has each of them."""
    service = topology_app.stub(Recommendations)
    found = await service.suggest(("enamel-kettle",), 3)
    assert found.version == "hybrid-1"
    assert await service.others(("enamel-kettle",), 3) == tuple(item.product_id for item in found.items)
    for item in found.items:
        assert (await topology_app.stub(Catalog).product(item.product_id)).id == item.product_id


async def test_products_are_found_by_what_words_mean(topology_app: TopologyApp):
    """Which are not on the shelf; what has nothing to do with them is not shown."""
    for package in ("onnx", "onnxruntime", "tokenizers", alike.MODEL):
        pytest.importorskip(package, reason="the encoder, or its weights, is not installed")
    await topology_app.stub(Similar).embed("the encoder is loaded")
    find = topology_app.stub(Meaning).find
    assert (await find("something for my espresso"))[0] == "pour-over-stand"
    assert await find("gift for a cyclist", 1) == ("bicycle-bell",)
    assert await find("quarterly tax declaration of a limited company") == ()
    plain = await topology_app.http.get("/search?q=blanket")
    assert "Nothing for" in plain.text
    assert 'href="/search?by=meaning&amp;q=blanket"' in plain.text
    page = await topology_app.http.get("/search?by=meaning&q=blanket")
    assert "Near in meaning to" in page.text
    assert page.text.index("Wool Throw") > 0


async def test_texts_are_placed_by_the_model_that_the_module_hosts(topology_app: TopologyApp):
    """Called through its contract, many at once, what means alike is near."""
    for package in ("onnx", "onnxruntime", "tokenizers", alike.MODEL):
        pytest.importorskip(package, reason="the encoder, or its weights, is not installed")
    similar = topology_app.stub(Similar)
    lamp, light, soup = await asyncio.gather(
        *(similar.embed(text) for text in ("a lamp to read by", "a light for books", "a bowl of soup"))
    )
    assert sum(a * b for a, b in zip(lamp, light, strict=True)) > 0.5
    assert sum(a * b for a, b in zip(lamp, soup, strict=True)) < 0.3
