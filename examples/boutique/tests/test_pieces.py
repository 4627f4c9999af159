"""What the modules compute without a database: search, ads, parcels, prices on a page."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest
from boutique.ads.module import AdService
from boutique.catalog import Product, ProductNotFound
from boutique.catalog.module import CatalogService
from boutique.catalog.shelf import SHELF
from boutique.frontend.forms import EXAMPLE, CheckoutForm
from boutique.frontend.render import money, static_files
from boutique.frontend.shopping import KINDS
from boutique.frontend.together import each
from boutique.frontend.visit import here
from boutique.load import CURRENCIES, PRODUCTS
from boutique.money import Money
from boutique.people import Address
from boutique.shipping import CountryNotServed, ParcelCancelled, Shipping
from boutique.shipping.module import tracking_id
from hypothesis import given
from hypothesis import strategies as st

IDS = [product.id for product in SHELF]


def test_every_product_has_a_picture_and_a_kind_that_the_home_page_shows():
    """Nothing on the shelf leads nowhere."""
    pictures = Path(__file__).parents[1] / "boutique/frontend/static/pictures"
    for product in SHELF:
        assert (pictures / product.picture).is_file()
        assert set(product.categories) & set(KINDS)
    assert len(set(IDS)) == len(IDS)


def test_the_load_generator_knows_the_shelf():
    """Its products are the shop's, and so are its currencies."""
    from boutique.currency.rates import SUPPORTED

    assert list(PRODUCTS) == IDS
    assert set(CURRENCIES) <= set(SUPPORTED)


@pytest.mark.parametrize(
    ("query", "first"), [("kettle", "enamel-kettle"), ("WOOL", "wool-throw"), ("brass bell", "bicycle-bell")]
)
async def test_search_finds_names_first(query: str, first: str):
    """A word in the name weighs more than one in the text, and case does not matter."""
    assert (await CatalogService().search(query))[0].id == first


@pytest.mark.parametrize("query", ["", "   ", "%", "zeppelin", "kettle zeppelin", "'; DROP TABLE"])
async def test_search_that_fits_nothing_finds_nothing(query: str):
    """Every word must fit."""
    assert await CatalogService().search(query) == ()


@given(query=st.text(max_size=200))
async def test_search_takes_any_text(query: str):
    """Whatever is typed, the answer is products of the shelf, each once."""
    found = await CatalogService().search(query)
    assert len({product.id for product in found}) == len(found)


async def test_an_unknown_product_is_a_fault():
    with pytest.raises(ProductNotFound) as caught:
        await CatalogService().product("zeppelin")
    assert caught.value.product_id == "zeppelin"


@given(categories=st.lists(st.sampled_from([*KINDS, "boats"]), max_size=4))
async def test_ads_lead_to_products_of_the_shop(categories: list[str]):
    """Whatever the categories, there is an ad, and it leads to something on the shelf."""
    assert (await AdService().choose(tuple(categories))).product_id in IDS


async def test_sending_more_costs_more_and_farther_costs_more(shipping: Shipping):
    """Prices of parcels are ordered as people expect."""
    near, more, far = [(await shipping.quote(*case)).cost.amount for case in ((1, "BE"), (3, "BE"), (1, "NZ"))]
    assert near < more < far


async def test_a_country_not_served_is_a_fault_everywhere(shipping: Shipping):
    """Quote, ship and route refuse the same countries."""
    nowhere = Address("A", "B", "C", "D", "AQ")
    with pytest.raises(CountryNotServed):
        await shipping.quote(1, "AQ")
    with pytest.raises(CountryNotServed):
        await shipping.ship("order", nowhere, 1)
    with pytest.raises(CountryNotServed):
        _ = [stop async for stop in shipping.route("AQ")]


async def test_a_parcel_is_booked_once_and_called_off_for_good(shipping: Shipping):
    """However often; and what is called off before it is booked cannot be booked by a message that comes late."""
    home = Address("A", "B", "C", "D", "BE")
    assert await shipping.ship("one", home, 1) == await shipping.ship("one", home, 1)
    for order in ("one", "two"):
        await shipping.cancel(order)
        await shipping.cancel(order)
        with pytest.raises(ParcelCancelled):
            await shipping.ship(order, home, 1)


@given(first=st.uuids(), second=st.uuids())
def test_a_tracking_id_belongs_to_one_order(first: object, second: object):
    """The same order has the same id, another has another."""
    assert (tracking_id(str(first)) == tracking_id(str(second))) == (first == second)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (Money("EUR", Decimal("1234.5")), "€1,234.50"),
        (Money("JPY", Decimal(2096)), "¥2,096"),
        (Money("PLN", Decimal("24.00")), "PLN\N{NO-BREAK SPACE}24.00"),
        (Money("USD", Decimal("0.05")), "$0.05"),
    ],
)
def test_prices_read_well(amount: Money, shown: str):
    assert money(amount) == shown


@pytest.mark.parametrize(
    ("back", "goes"),
    [
        ("/cart", "/cart"),
        ("/search?q=a%20b", "/search?q=a%20b"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/a\r\nset-cookie: x=y", "/"),
        ("", "/"),
    ],
)
def test_a_redirect_stays_in_the_shop(back: str, goes: str):
    """Only a path of the shop is followed."""
    assert here(back) == goes


def test_the_example_at_the_till_is_complete():
    """What the form is filled in with can be ordered."""
    purchase = CheckoutForm({**EXAMPLE, "version": "3", "currency": "EUR", "country": "BE"}).purchase("shopper-1")
    assert purchase is not None
    assert purchase.cart_version == 3


@pytest.mark.parametrize("name", list(EXAMPLE))
def test_every_field_at_the_till_is_asked_for(name: str):
    """A field left empty is named, and nothing is ordered."""
    form = CheckoutForm({**EXAMPLE, "version": "3", name: "  "})
    assert form.purchase("shopper-1") is None
    assert form.error(name)
    assert form.problem


@given(typed=st.dictionaries(st.sampled_from([*EXAMPLE, "version", "currency", "country"]), st.text(max_size=300)))
def test_the_till_takes_any_form(typed: dict[str, str]):
    """Whatever is posted is either a purchase or a form with errors."""
    form = CheckoutForm(typed)
    purchase = form.purchase("shopper-1")
    assert (purchase is None) == bool(form.problem)


def test_a_changed_file_has_a_new_name(tmp_path: Path):
    """Files may be kept forever because their address changes with their content."""
    from boutique.frontend.files import StaticFiles

    (tmp_path / "a.css").write_text("a")
    before = StaticFiles(tmp_path, "/static").url("a.css")
    (tmp_path / "a.css").write_text("b")
    assert StaticFiles(tmp_path, "/static").url("a.css") != before
    assert static_files.url("shop.css").endswith("/shop.css")


def test_products_are_values():
    """Nobody can change the shelf that everybody shares."""
    with pytest.raises(AttributeError):
        SHELF[0].name = "Other"  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(SHELF[0], Product)


async def test_questions_answered_at_once_are_asked_in_turn_and_slow_ones_together():
    """Where nothing waits no task is made; where something waits all wait together; order is kept either way."""
    under_way, most = 0, 0

    async def quick(number: int) -> int:
        return number * 2

    async def slow(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(3):
            await asyncio.sleep(0)
        under_way -= 1
        return number * 2

    numbers = list(range(8))
    before = len(asyncio.all_tasks())
    assert await each(quick, numbers) == await each(slow, numbers) == [n * 2 for n in numbers]
    assert most == 7  # the first one goes alone, to see
    assert await each(slow, []) == []
    assert len(asyncio.all_tasks()) == before


async def test_the_first_error_is_raised_when_all_are_done():
    """Nothing is left running behind an error."""
    done: list[int] = []

    async def ask(number: int) -> int:
        await asyncio.sleep(0)
        if number == 2:
            raise ProductNotFound(product_id="two")
        await asyncio.sleep(0)
        done.append(number)
        return number

    with pytest.raises(ProductNotFound):
        await each(ask, range(5))
    assert done == [0, 1, 3, 4]
