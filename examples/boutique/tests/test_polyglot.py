"""Currency's twin in JavaScript, behind its sidecar, answers what the inside in Python answers, to the last digit."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from decimal import Decimal

import pytest
from boutique.currency import Currency, CurrencyUnknown
from boutique.currency.module import convert
from boutique.currency.rates import SUPPORTED
from boutique.money import Money

from seamline import PermissionDenied
from seamline.testing.app import TopologyApp

pytestmark = [
    pytest.mark.seamline(topologies=["polyglot"]),
    pytest.mark.needs_server,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("envoy") is None, reason="Envoy is not installed"),
]
# Halves that go either way, sums of many digits, less than the smallest unit, and nothing.
AMOUNTS = [Decimal(text) for text in ("0", "0.00", "0.005", "0.015", "1E+3", "-12.345", "999999999.99", "12.34")]


async def test_the_twin_knows_the_same_currencies(topology_app: TopologyApp):
    """In the same order."""
    assert await topology_app.stub(Currency, caller="frontend").supported() == SUPPORTED


@pytest.mark.parametrize("amount", AMOUNTS, ids=str)
async def test_the_twin_converts_alike(topology_app: TopologyApp, amount: Decimal):
    """From and into every currency."""
    currency = topology_app.stub(Currency, caller="checkout")
    pairs = [(source, SUPPORTED[(at * 7 + 3) % len(SUPPORTED)]) for at, source in enumerate(SUPPORTED)]
    found = await asyncio.gather(*(currency.convert(Money(source, amount), to) for source, to in pairs))
    expected = [convert(Money(source, amount), to) for source, to in pairs]
    assert [(each.currency, str(each.amount)) for each in found] == [(e.currency, str(e.amount)) for e in expected]


async def test_the_twin_tells_of_an_unknown_currency(topology_app: TopologyApp):
    """By the declared fault, with the code that is not in the table."""
    with pytest.raises(CurrencyUnknown) as caught:
        await topology_app.stub(Currency, caller="frontend").convert(Money("XXX", Decimal(1)), "EUR")
    assert caught.value.currency == "XXX"


async def test_whom_policy_does_not_name_the_twin_does_not_hear(topology_app: TopologyApp):
    """Refused by the sidecar's check."""
    with pytest.raises(PermissionDenied):
        await topology_app.stub(Currency, caller="ads").supported()
