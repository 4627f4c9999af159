"""Guessing passwords: from one place, from everywhere, for one account and for all; and its owner gets in."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Mapping

from seamline.gateway.auth.throttle import Throttle
from seamline.gateway.limits.gcra import Arrivals
from seamline.gateway.limits.sharing import Sharing
from seamline.kernel.clock import ManualClock


def guesses(throttle: Throttle, clock: ManualClock, seconds: float, attempts: list[tuple[str, str]]) -> int:
    """How many attempts are looked at, of somebody who tries all of them again each second."""
    looked_at = 0
    for _ in range(int(seconds)):
        for account, address in attempts:
            if throttle.wait_s(account, address) <= 0:
                throttle.failed(account, address)
                looked_at += 1
        clock.advance(1)
    return looked_at


def test_one_guesser_is_slowed_to_a_few_an_hour():
    """From one address, for one account: a handful, then ever longer pauses."""
    clock = ManualClock()
    assert guesses(Throttle(clock), clock, 3600, [("ada", "6.6.6.6")]) < 30


def test_an_ipv6_customer_is_one_guesser():
    """Another address of the same /64 for each attempt does not help."""
    clock = ManualClock()
    throttle = Throttle(clock)
    looked_at = 0
    for number in range(3600):
        address = f"2001:db8::{number:x}"
        if throttle.wait_s("ada", address) <= 0:
            throttle.failed("ada", address)
            looked_at += 1
        clock.advance(1)
    assert looked_at < 30


def test_stuffing_lists_from_one_address_is_slowed():
    """A stolen list is one attempt for each of many accounts; the address is what they have in common."""
    clock = ManualClock()
    assert guesses(Throttle(clock), clock, 600, [(f"user {n}", "6.6.6.6") for n in range(1000)]) < 60


def test_a_botnet_on_one_account_is_slowed_and_its_owner_is_not_locked_out():
    """Two thousand addresses get a few attempts a minute between them; where the owner has been before, all is well."""
    clock = ManualClock()
    throttle = Throttle(clock)
    throttle.succeeded("ada", "1.2.3.4")
    clock.advance(86_400)
    bots = [("ada", f"10.{n >> 8}.{n & 255}.1") for n in range(2000)]
    looked_at = guesses(throttle, clock, 60, bots)
    assert looked_at < 50 + 15
    assert throttle.wait_s("ada", "1.2.3.4") == 0.0
    throttle.failed(*bots[0])
    assert 0 < throttle.wait_s("ada", "9.9.9.9") <= Throttle.MOST_S["account"], (
        "from a new place: seconds, not for ever"
    )
    throttle.failed("ada", "1.2.3.4")
    assert throttle.wait_s("ada", "1.2.3.4") == 0.0, "also after a slip of the finger"


def test_whoever_shares_the_owners_address_does_not_guess_freely():
    """The exemption is from the account's count only; the pair's own failures still make it wait."""
    clock = ManualClock()
    throttle = Throttle(clock)
    throttle.succeeded("ada", "1.2.3.4")
    assert guesses(throttle, clock, 3600, [("ada", "1.2.3.4")]) < 30


def test_memory_is_bounded():
    """However many names are made up."""
    throttle = Throttle(ManualClock())
    for number in range(30_000):
        throttle.failed(f"user {number}", "6.6.6.6")
        throttle.succeeded(f"other {number}", "6.6.6.6")
    assert len(throttle._failures) <= 20_000
    assert len(throttle._known) <= 20_000


class Sum:
    """What adds up for all gateways, by the clock that the test moves."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._arrivals = Arrivals()
        self.names: set[str] = set()

    async def spend(self, costs_s: Mapping[str, float]) -> Mapping[str, float]:
        self.names |= costs_s.keys()
        return self._arrivals.spend(costs_s, self._clock.monotonic())

    async def close(self) -> None:
        pass


async def test_four_gateways_are_no_four_chances():
    """A guesser who goes round the gateways gets about what one gateway gives, not four times that."""
    clock = ManualClock()
    total = Sum(clock)
    shared = [Sharing(total, clock) for _ in range(4)]
    gateways = [Throttle(clock, each) for each in shared]
    looked_at = 0
    for _ in range(3600):
        for throttle, each in zip(gateways, shared, strict=True):
            if throttle.wait_s("ada", "6.6.6.6") <= 0:
                throttle.failed("ada", "6.6.6.6")
                await each.tell()
                looked_at += 1
        clock.advance(1)
    alone = guesses(Throttle(clock), clock, 3600, [("ada", "6.6.6.6")])
    assert looked_at <= alone + 8, "what the gateways did not know of each other yet"
    assert not any("ada" in name or "6.6.6.6" in name for name in total.names), "the store learns nobody's name"


async def test_a_gateway_alone_is_as_strict_shared_or_not():
    """Adding up with nobody changes nothing for who mistypes."""
    clock = ManualClock()
    sharing = Sharing(Sum(clock), clock)
    throttle, plain = Throttle(clock, sharing), Throttle(clock)
    for _ in range(14):
        while plain.wait_s("ada", "1.2.3.4") > 0:
            assert throttle.wait_s("ada", "1.2.3.4") == plain.wait_s("ada", "1.2.3.4")
            clock.advance(1)
        throttle.failed("ada", "1.2.3.4")
        plain.failed("ada", "1.2.3.4")
        await sharing.tell()
