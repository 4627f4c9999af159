"""Wrong passwords and keys: the more, the longer the wait."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping

from seamline.gateway.limits.addresses import host_of
from seamline.gateway.limits.gcra import Meter
from seamline.gateway.limits.sharing import Sharing
from seamline.kernel.clock import Clock

_KEYS_MAX = 20_000
_FORGET_S = 900.0
_KNOWN_S = 30 * 86_400.0
_SHARED_TIMES_MAX = 4
"""However many gateways count: nobody waits longer than so many of the longest waits of one gateway."""


class Throttle:
    """Counts failures by name; after ``free`` of them each next attempt waits twice as long, up to ``most_s``.

    An account is counted together with the address first, so that nobody locks others out from afar. The account alone
    stops a guesser with many addresses, and an address alone one with many accounts; both have more attempts free.
    Whoever attacks an account from everywhere makes strangers wait for it, but not its owner: an address from which it
    was opened within 30 days is not held to the account's own count, and for everybody else that wait is short. An
    address is a /64 where it is IPv6. What is counted is bounded; the oldest is forgotten.

    With ``sharing``, all gateways together let through what one lets through until its waits are longest, and then one
    attempt for each of these: a gateway hears of the others' failures with its own first one.
    """

    FREE: Mapping[str, int] = {"pair": 5, "account": 50, "address": 30}
    MOST_S: Mapping[str, float] = {"pair": 300.0, "account": 15.0, "address": 300.0}

    def __init__(self, clock: Clock, sharing: Sharing | None = None) -> None:
        self._clock = clock
        self._sharing = sharing
        self._meters = {
            kind: Meter(1, most_s, self.FREE[kind] + math.ceil(math.log2(most_s)), _KEYS_MAX)
            for kind, most_s in self.MOST_S.items()
        }
        if sharing is not None:
            sharing.know({_prefix(kind): meter for kind, meter in self._meters.items()})
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()
        """When an account was last opened from an address."""

    def wait_s(self, account: str, address: str) -> float:
        """Seconds until the next attempt is looked at; 0 is now."""
        now = self._clock.monotonic()
        pair, by_account, by_address = _names(account, address)
        waits = [self._wait(pair, now), self._wait(by_address, now)]
        if now - self._known.get(pair, -_KNOWN_S) >= _KNOWN_S:
            waits.append(self._wait(by_account, now))
        return max(waits)

    def failed(self, account: str, address: str) -> None:
        """The wrong one was given."""
        self.begin(account, address)
        self.tell(account, address)

    def tell(self, account: str, address: str) -> None:
        """What was counted here when it began has failed: the other gateways count it, too."""
        if self._sharing is not None:
            for name in _names(account, address):
                self._sharing.add(_prefix(name[0]), _digest(name), self._meters[name[0]].interval_s)

    def begin(self, account: str, address: str) -> None:
        """Count an attempt that is about to be looked at, as failed until :meth:`succeeded`."""
        now = self._clock.monotonic()
        for name in _names(account, address):
            count, last = self._failures.pop(name, (0, now))
            self._failures[name] = (1 if now - last > _FORGET_S else count + 1, now)
        while len(self._failures) > _KEYS_MAX:
            self._failures.popitem(last=False)

    def succeeded(self, account: str, address: str, *, counted: bool = False) -> None:
        """The right one was given from there; other addresses' failures stay counted.

        ``counted`` says that the attempt was counted as failed before it was looked at.
        """
        pair, *others = _names(account, address)
        self._failures.pop(pair, None)
        self._known[pair] = self._clock.monotonic()
        self._known.move_to_end(pair)
        if len(self._known) > _KEYS_MAX:
            self._known.popitem(last=False)
        if counted:
            for name in others:
                count, last = self._failures.get(name, (1, 0.0))
                self._failures[name] = (count - 1, last)

    def _wait(self, name: tuple[str, str], now: float) -> float:
        count, last = self._failures.get(name, (0, 0.0))
        if count == 0 or now - last > _FORGET_S:
            return 0.0
        most_s = self.MOST_S[name[0]]
        over = count - self.FREE[name[0]]
        until = last + min(2.0 ** min(over, 16), most_s) if over >= 0 else now
        if self._sharing is not None:
            left_s = self._meters[name[0]].left_s(_digest(name), now)
            until = max(until, min(now - left_s, last + _SHARED_TIMES_MAX * most_s))
        return max(0.0, until - now)


def _names(account: str, address: str) -> tuple[tuple[str, str], tuple[str, str], tuple[str, str]]:
    host = host_of(address)
    return ("pair", f"{account}\0{host}"), ("account", account), ("address", host)


def _prefix(kind: str) -> str:
    return f"wrong:{kind} "  # no rule of [limits] can be called so


def _digest(name: tuple[str, str]) -> str:
    """What a store gets to see: it may be a password in the wrong field."""
    return hashlib.sha256(name[1].encode("utf-8", "surrogatepass")).hexdigest()
