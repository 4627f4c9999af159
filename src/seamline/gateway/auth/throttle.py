"""Wrong passwords and keys: the more, the longer the wait."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from seamline.kernel.clock import Clock

_KEYS_MAX = 20_000
_FORGET_S = 900.0
_WAIT_S_MAX = 300.0


class Throttle:
    """Counts failures by name; after ``free`` of them each next attempt waits twice as long.

    An account is counted together with the address first, so that nobody locks others out from afar; the account
    alone, and the address alone, have more attempts free. What is counted is bounded; the oldest is forgotten.
    """

    FREE: Mapping[str, int] = {"pair": 5, "account": 50, "address": 30}

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def wait_s(self, account: str, address: str) -> float:
        """Seconds until the next attempt is looked at; 0 is now."""
        now = self._clock.monotonic()
        return max(self._wait(name, now) for name in _names(account, address))

    def failed(self, account: str, address: str) -> None:
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
        if counted:
            for name in others:
                count, last = self._failures.get(name, (1, 0.0))
                self._failures[name] = (count - 1, last)

    def _wait(self, name: tuple[str, str], now: float) -> float:
        count, last = self._failures.get(name, (0, 0.0))
        over = count - self.FREE[name[0]]
        if over < 0 or now - last > _FORGET_S:
            return 0.0
        return max(0.0, last + min(2.0 ** min(over, 16), _WAIT_S_MAX) - now)


def _names(account: str, address: str) -> tuple[tuple[str, str], ...]:
    return ("pair", f"{account}\0{address}"), ("account", account), ("address", address)
