"""The shop is killed at every commit of an order, in every topology and on both stores, and always balances again.

A first run lists the commits of each module: journal, outbox, inbox and business rows alike. Then one run for each
of them, before it and after it: the process that is about to make it dies by SIGKILL, the supervisor starts another,
the shopper sends the form again, and when all is quiet money and stock must balance, and every order be complete or
undone. ``make test`` takes some of the points, ``make torture`` all of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from examples.boutique.tests.shop import Shop
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from tests.conftest import PostgresqlServer

Scenario = Callable[[Shop, str, Callable[[], None]], None]


def bought(shop: Shop, shopper: str, light: Callable[[], None]) -> None:
    """An order goes through."""
    form = shop.form(shop.fill(shopper))
    light()
    placed = shop.until(303, "POST", "/checkout", form, shopper)
    assert placed.location.startswith("/order/"), placed.location
    shop.shows("HS-", placed.location, shopper)
    letter = shop.until(200, "GET", f"{placed.location}/letter", shopper=shopper)
    assert "We charged your card ending in 1111" in letter.text


def declined(shop: Shop, shopper: str, light: Callable[[], None]) -> None:
    """The card is refused after the stock was reserved, so that all is undone."""
    form = shop.form(shop.fill(shopper), card_number="4000 0000 0000 0002")
    light()
    refused = shop.until(422, "POST", "/checkout", form, shopper)
    assert "does not let us charge" in refused.text


def _in_review(shop: Shop, shopper: str) -> str:
    form = shop.form(shop.fill(shopper, quantity=20))
    shop.sign_in()
    placed = shop.until(303, "POST", "/checkout", form, shopper)
    shop.shows("We look at your order", placed.location, shopper)
    return placed.location.removeprefix("/order/")


def _decided(shop: Shop, order: str, decision: str, mark: str) -> None:
    shop.until(303, "POST", f"/desk/{order}", {"decision": decision, "comment": ""}, staff=True)
    shop.shows(mark, f"/order/{order}")


def approved(shop: Shop, shopper: str, light: Callable[[], None]) -> None:
    """A human lets an order pass."""
    order = _in_review(shop, shopper)
    light()
    _decided(shop, order, "approve", "HS-")


def refused(shop: Shop, shopper: str, light: Callable[[], None]) -> None:
    """A human does not."""
    order = _in_review(shop, shopper)
    light()
    _decided(shop, order, "refuse", "This order is not to be")


TILL = ("cart", "checkout", "decisions", "emails", "inventory", "payments", "shipping")
SCENARIOS = {each.__name__: each for each in (bought, declined, approved, refused)}


@pytest.fixture
def database(postgres_server: PostgresqlServer) -> str:
    """A PostgreSQL database of the test's own."""
    name = f"sweep_{os.getpid()}_{time.monotonic_ns()}"

    async def create() -> None:
        server = create_async_engine(postgres_server.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        async with server.connect() as connection:
            await connection.execute(text(f'CREATE DATABASE "{name}"'))

    asyncio.run(create())
    return postgres_server.url(name)


def points_of(shop: Shop, scenario: Scenario) -> list[tuple[str, int, str]]:
    """Every commit that the scenario makes, before it and after it."""
    scenario(shop, "lister-of-commits", lambda: shop.arm("", 0, "never"))
    assert shop.unbalanced() == []
    return [
        (module, number, when)
        for module, commits in sorted(shop.commits().items())
        if module in TILL
        for number in range(1, commits + 1)
        for when in ("before", "after")
    ]


def sweep(shop: Shop, scenario: Scenario, stride: int) -> int:
    """Kill at every ``stride``-th point; how many were reached."""
    reached = 0
    for number, (module, commit, when) in enumerate(points_of(shop, scenario)[::stride]):
        point = f"{scenario.__name__}, {when} commit {commit} of {module}"

        def light(module: str = module, commit: int = commit, when: str = when) -> None:
            shop.arm(module, commit, when)

        try:
            scenario(shop, f"shopper-{number:04}", light)
        except AssertionError as error:
            error.add_note(point)
            raise
        assert shop.unbalanced() == [], f"{point}\n{shop.log()}"
        reached += shop.disarm()
    return reached


SOME = [
    ("monolith", "sqlite", "bought", 6),
    ("services", "sqlite", "declined", 6),
    ("duo", "postgresql", "approved", 7),
]
ALL = [
    (topology, store, scenario, 1)
    for topology in ("monolith", "duo", "services")
    for store in ("sqlite", "postgresql")
    for scenario in SCENARIOS
]


@pytest.fixture
def shop(request: pytest.FixtureRequest, tmp_path: Path, topology: str, store: str) -> Iterator[Shop]:
    """Running in the test's topology, on the test's store."""
    url = request.getfixturevalue("database") if store == "postgresql" else ""
    with Shop(tmp_path, topology, url) as running:
        yield running


@pytest.mark.needs_server
@pytest.mark.parametrize(("topology", "store", "scenario", "stride"), SOME)
def test_killed_at_some_commits_the_shop_balances(shop: Shop, scenario: str, stride: int):
    """Some of the points, in each topology and on both stores."""
    assert sweep(shop, SCENARIOS[scenario], stride) >= 3


@pytest.mark.torture
@pytest.mark.needs_server
@pytest.mark.parametrize(("topology", "store", "scenario", "stride"), ALL)
def test_killed_at_every_commit_the_shop_balances(shop: Shop, scenario: str, stride: int):
    """All of them."""
    assert sweep(shop, SCENARIOS[scenario], stride) >= 10
