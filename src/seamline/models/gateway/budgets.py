"""Budgets and quotas: what a call may cost is reserved before an engine is asked, and settled when it is over.

Nothing here waits for a disk while the slices that the ledger lent last; :meth:`Budgets.reserve` waits for the ledger
when they do not, together with all who wait at that moment. So a limit is exact over all processes of a machine:
a call passes only if what is spent and all that is reserved leave room for it. A limit can be passed only by as much
as a call costs more than was reserved for it.

A reservation ends with its process. What the call owed by then (:meth:`Reservation.asked`, :meth:`Reservation.note`)
is booked by whoever looks next, the rest is free again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

from seamline.kernel.clock import Clock, SystemClock, now_ms
from seamline.kernel.lifetime import TaskOwner
from seamline.models.gateway.errors import AiGatewayError, BudgetExceeded, NoTarget
from seamline.models.gateway.keys import Caller
from seamline.models.gateway.ledger import Exchange, Ledger, Line, Spent, Want, meter_name
from seamline.models.gateway.ledger_journal import RECORDS
from seamline.models.gateway.meters import Group, Meter, amount_of, limits_for, limits_of, line_of
from seamline.models.gateway.prices import NOTHING, Cost, money
from seamline.models.gateway.quota import FOREVER, Limit, Per, Unit, window

__all__ = ["Budgets", "Reservation", "limits_of"]

_log = logging.getLogger("seamline.models")

FLUSH_S: Final = 0.1
_RETRY_S: Final = 0.03
_PATIENCE_S: Final = 0.4
"""So long a call waits for what other processes hold and may not need."""
_HELD_OFF_S: Final = 0.5
_FORGET_S: Final = 3600.0
_GROUPS_MAX: Final = 20_000
_KEPT: Final[tuple[tuple[Unit, Per], ...]] = (("tokens", "month"), ("money", "month"), ("requests", "month"))
"""Counted for each key, whatever is limited."""


class Reservation:
    """Room for one call. It is to be settled, however the call ends; what is dropped unsettled is taken back later."""

    __slots__ = ("_budgets", "_group", "_noted", "_place", "cost")

    def __init__(self, budgets: Budgets, group: Group, cost: Cost) -> None:
        self._budgets = budgets
        self._group: Group | None = group
        self._place = 0
        self._noted = NOTHING
        self.cost = cost

    @property
    def counts_answers(self) -> bool:
        """Whether more than the number of calls is limited, so that no answer may outgrow its room."""
        return self._group is not None and self._group.counts_answers

    def asked(self, cost: Cost) -> None:
        """An engine is asked now. If this process ends before the call does, it has cost this much.

        Raises NoTarget if more calls are under way than are kept account of.
        """
        if self._group is None:
            return
        if self._place:
            self.note(cost)
            return
        self._noted = cost
        self._place = self._budgets.journal.begin(self._group.number, cost.tokens, cost.nano)
        if not self._place:
            raise NoTarget("too many calls are under way", "Try again when some have ended.")

    def note(self, cost: Cost) -> None:
        """What the call has cost so far."""
        self._noted = cost
        if self._place:
            self._budgets.journal.note(self._place, cost.tokens, cost.nano)

    def settle(self, cost: Cost) -> None:
        """What the call has cost; with :data:`~seamline.models.gateway.prices.NOTHING` it was none. Only the first
        time counts."""
        group = self._group
        if group is not None:
            self._group = None
            self._budgets.settled(group, self.cost, cost, self._place)

    def __del__(self) -> None:
        if self._group is not None:
            self._budgets.lost.append((self._group, self.cost, self._noted, self._place))


class _Waiter:
    __slots__ = ("answer", "cost", "group", "until", "want")

    def __init__(self, group: Group, cost: Cost, until: float) -> None:
        self.group = group
        self.cost = cost
        self.until = until
        self.want: Want | None = None
        self.answer: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()


class Budgets:
    """Of one process. To be started and closed; everything else on the same event loop.

    Args:
        path: the ledger, which all processes of this machine share.
        limits: that hold for all keys; each key may bring its own besides.
    """

    def __init__(self, path: Path, limits: Sequence[Limit] = (), *, clock: Clock | None = None) -> None:
        self._limits = tuple(limits)
        self._clock = clock or SystemClock()
        self._ledger = Ledger(path)
        self.journal = self._ledger.journal
        self.lost: deque[tuple[Group, Cost, Cost, int]] = deque()
        """Reservations that nobody settled; the collector may run in any thread."""
        self._groups: dict[tuple[Caller, str], Group] = {}
        self._old_groups: list[Group] = []
        self._new_groups: list[Group] = []
        self._dirty: list[Group] = []
        self._lent: set[Meter] = set()
        self._meters: dict[tuple[str, int], Meter] = {}
        self._numbers = count(1)
        self._written = 0
        self._calls = 0
        self._waiters: list[_Waiter] = []
        self._wake = asyncio.Event()
        self._owner = TaskOwner("budgets of the AI gateway")
        self._thread = ThreadPoolExecutor(1, "seamline-ledger")
        self._exchanging = asyncio.Lock()
        self._buried_s = self._cleaned_s = self._forgot_s = -1e9
        self._closed = False
        self._refused = 0

    async def start(self) -> None:
        self._owner.spawn(self._keep(), name="ledger")

    async def close(self) -> None:
        """Settle what is over and give all slices back."""
        self._closed = True
        async with self._exchanging:
            await self._owner.stop()
        for waiter in self._waiters:
            _fail(waiter, NoTarget("the AI gateway stops", "Ask again."))
        settled = False
        try:
            settled = await self.tell() and not self._calls
        finally:
            await asyncio.get_running_loop().run_in_executor(self._thread, partial(self._ledger.close, settled=settled))
            self._thread.shutdown(wait=False)

    # Every call.

    def reserve_now(self, who: Caller, model: str, cost: Cost) -> Reservation | None:
        """Room for a call, if the slices here have it; None is to ask :meth:`reserve`.

        Raises BudgetExceeded where that is already known.
        """
        group = self._groups.get((who, model))
        if group is None or not group.known or not group.begins <= now_ms(self._clock) < group.ends:
            return None
        tokens, amount = cost
        for meter in group.tokens:
            if meter.free < tokens:
                return self._lacking(meter, tokens)
        for meter in group.money:
            if meter.free < amount:
                return self._lacking(meter, amount)
        for meter in group.requests:
            if meter.free < 1:
                return self._lacking(meter, 1)
        if self.journal.tail - self._written + self._calls >= RECORDS:
            return None
        for meter in group.tokens:
            meter.free -= tokens
        for meter in group.money:
            meter.free -= amount
        for meter in group.requests:
            meter.free -= 1
        self._calls += 1
        group.calls += 1
        return Reservation(self, group, cost)

    def settled(self, group: Group, reserved: Cost, cost: Cost, place: int) -> None:
        """For :class:`Reservation`: a call is over."""
        tokens, amount = cost
        requests = 1 if place or cost is not NOTHING else 0
        if requests:
            self.journal.settle(place, group.number, tokens, amount)
        more = reserved.tokens - tokens
        for meter in group.tokens:
            meter.free += more
            meter.spent += tokens
        more = reserved.nano - amount
        for meter in group.money:
            meter.free += more
            meter.spent += amount
        more = 1 - requests
        for meter in group.requests:
            meter.free += more
            meter.spent += requests
        self._calls -= 1
        group.calls -= 1
        if not group.dirty:
            group.dirty = True
            self._dirty.append(group)
        if not self._wake.is_set() and (self._waiters or self.journal.tail - self._written == RECORDS // 4):
            self._wake.set()

    def _lacking(self, meter: Meter, amount: int) -> None:
        if meter.full and amount >= meter.full:
            if meter.free <= meter.full_free and self._clock.monotonic() < meter.held_off:
                raise self._exceeded(meter, amount)
            meter.full = 0

    # When a slice does not suffice.

    async def reserve(self, who: Caller, model: str, cost: Cost) -> Reservation:
        """Room for a call. Raises BudgetExceeded, and NoTarget if the ledger cannot be written."""
        now = now_ms(self._clock)
        group = self._groups.get((who, model))
        if group is None or not group.begins <= now < group.ends:
            group = self._group(who, model, now / 1000)
        elif (reservation := self.reserve_now(who, model, cost)) is not None:
            return reservation
        for unit, meter in group.meters:
            amount = amount_of(unit, cost)
            if meter.limit is not None and amount > meter.limit.most:
                raise self._exceeded(meter, amount)
        if self._closed:
            raise NoTarget("the AI gateway stops", "Ask again.")
        waiter = _Waiter(group, cost, self._clock.monotonic() + _PATIENCE_S)
        self._waiters.append(waiter)
        self._wake.set()
        group.calls += 1
        try:
            return await waiter.answer
        except asyncio.CancelledError:
            if waiter.answer.done() and not waiter.answer.cancelled() and waiter.answer.exception() is None:
                waiter.answer.result().settle(NOTHING)
            raise
        finally:
            group.calls -= 1

    def _group(self, who: Caller, model: str, now_s: float) -> Group:
        if len(self._groups) >= _GROUPS_MAX:
            self._old_groups += self._groups.values()
            self._groups.clear()
        meters: dict[Meter, Unit] = {
            self._meter(account, limit, limit.unit, limit.per, limit.models, now_s): limit.unit
            for limit, account in limits_for(who, model, self._limits)
        }
        for unit, per in _KEPT:
            meters[self._meter(f"used:{who.key.id}", None, unit, per, (), now_s)] = unit
        old = self._groups.get((who, model))
        pace = {meter.name: meter.ahead for _, meter in old.meters} if old is not None else {}
        for meter in meters:
            meter.groups += 1
            # A new window goes on at the pace of the one before.
            meter.ahead = meter.ahead or pace.get(meter.name, 0)
        group = Group(next(self._numbers), [(unit, meter) for meter, unit in meters.items()])
        if old is not None:
            self._old_groups.append(old)
        self._groups[who, model] = group
        self._new_groups.append(group)
        return group

    def _meter(
        self, account: str, limit: Limit | None, unit: Unit, per: Per, models: tuple[str, ...], now_s: float
    ) -> Meter:
        begins, ends = window(per, now_s)
        name = meter_name(account, unit, per, models)
        meter = self._meters.get((name, begins))
        if meter is None:
            meter = self._meters[name, begins] = Meter(name, limit, begins, ends)
        elif limit is not None and meter.limit is not None and limit.most < meter.limit.most:
            # Two limits on the same: the lower one holds.
            meter.limit = limit
        return meter

    # The ledger.

    async def _keep(self) -> None:
        """Exchange with the ledger while there is something to say; otherwise nothing wakes the process."""
        while True:
            pause = _RETRY_S if self._waiters else FLUSH_S if self._something() else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            if not await self.tell():
                await asyncio.sleep(FLUSH_S)

    async def tell(self) -> bool:
        """Exchange with the ledger now; done by itself many times a second. Whether it could be written."""
        async with self._exchanging:
            waiting, self._waiters = self._waiters, []
            return await self._exchange([waiter for waiter in waiting if not waiter.answer.done()])

    def _something(self) -> bool:
        return bool(self._dirty or self.lost or any(meter.free for meter in self._lent))

    async def _exchange(self, waiting: list[_Waiter]) -> bool:
        now_s = self._clock.monotonic()
        bury = not 0 <= now_s - self._buried_s < 1 or any(waiter.want and waiter.want.short >= 0 for waiter in waiting)
        self._take_back()
        dirty, self._dirty = self._dirty, []
        groups, self._new_groups = self._new_groups, []
        gone = [group for group in self._old_groups if not group.calls and group.known]
        lines = self._lines(waiting, dirty, now_s)
        before = [(line.spent, line.free) for line in lines.values()]
        asked = Exchange(
            self.journal.tail, list(lines.values()), [waiter.want for waiter in waiting if waiter.want],
            [(group.number, group.to_json()) for group in groups], [group.number for group in gone],
        )  # fmt: skip
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._thread, partial(self._write, asked, now_s, bury=bury)
            )
        except sqlite3.Error as error:
            _log.exception("the ledger of budgets cannot be written")
            for meter, (spent, free) in zip(lines, before, strict=True):
                meter.spent += spent
                meter.free += free if meter.limit is not None else 0
            for group in dirty:
                group.dirty = True
            self._dirty, self._new_groups = dirty + self._dirty, groups + self._new_groups
            for waiter in waiting:
                _fail(waiter, NoTarget(f"the ledger of budgets cannot be written ({error})", "Look after its disk."))
            return False
        self._buried_s = now_s if bury else self._buried_s
        self._written = asked.written
        self._old_groups = [group for group in self._old_groups if group not in gone]
        for group in groups:
            group.known = True
        for group in gone:
            for _, meter in group.meters:
                meter.groups -= 1
        for meter, line in lines.items():
            if line.most >= 0:
                meter.free += line.free
                meter.granted = line.reserved + line.free
                meter.used = line.used
                meter.tight = line.tight
                (self._lent.add if meter.granted else self._lent.discard)(meter)
        for meter in (*lines, *(meter for group in gone for _, meter in group.meters)):
            if not (meter.groups or meter.granted or meter.spent):
                self._meters.pop((meter.name, meter.begins), None)
        self._answer(waiting, lines)
        if not 0 <= now_s - self._cleaned_s < 1:
            self._cleaned_s = now_s
            self._drop_old()
        return True

    def _write(self, asked: Exchange, now_s: float, *, bury: bool) -> None:
        """In the ledger's thread."""
        if not 0 <= now_s - self._forgot_s < _FORGET_S:
            self._forgot_s = now_s
            self._ledger.forget_old(now_ms(self._clock) / 1000)
        self._ledger.exchange(asked, now_s, bury=bury)

    def _take_back(self) -> None:
        while self.lost:
            group, reserved, noted, place = self.lost.popleft()
            self.settled(group, reserved, noted if place else NOTHING, place)

    def _lines(self, waiting: list[_Waiter], dirty: list[Group], now_s: float) -> dict[Meter, Line]:
        """What is to be said of which meter; each has nothing to give until the ledger has answered."""
        places: dict[Meter, int] = {}
        for waiter in waiting:
            amounts: list[tuple[int, int]] = []
            for unit, meter in waiter.group.meters:
                amount = amount_of(unit, waiter.cost)
                amounts.append((places.setdefault(meter, len(places)), amount))
                meter.used_s = now_s
                meter.ahead = max(min(meter.ahead * 2, 1 << 50), 16 * amount)
            waiter.want = Want(amounts)
        wanted = set(places)
        for group in dirty:
            group.dirty = False
            for _, meter in group.meters:
                places.setdefault(meter, len(places))
        for meter in self._lent:
            if meter.free:
                places.setdefault(meter, len(places))
        return {meter: line_of(meter, now_s, wanted=meter in wanted) for meter in places}

    def _answer(self, waiting: list[_Waiter], lines: dict[Meter, Line]) -> None:
        now, meters = self._clock.monotonic(), list(lines)
        for waiter in waiting:
            assert waiter.want is not None
            if waiter.want.short < 0:
                self._calls += 1
                waiter.group.calls += 1
                reservation = Reservation(self, waiter.group, waiter.cost)
                if waiter.answer.done():
                    reservation.settle(NOTHING)
                else:
                    waiter.answer.set_result(reservation)
                continue
            meter = meters[waiter.want.short]
            if lines[meter].lent and now < waiter.until:
                self._waiters.append(waiter)
                continue
            amount = dict(waiter.want.amounts)[waiter.want.short]
            meter.full = min(meter.full or amount, amount)
            meter.full_free = meter.free
            meter.held_off = self._clock.monotonic() + _HELD_OFF_S
            _fail(waiter, self._exceeded(meter, amount))

    def _drop_old(self) -> None:
        now = now_ms(self._clock)
        for name in [name for name, group in self._groups.items() if not group.begins <= now < group.ends]:
            self._old_groups.append(self._groups.pop(name))

    def _exceeded(self, meter: Meter, amount: int) -> BudgetExceeded:
        limit = meter.limit
        assert limit is not None
        self._refused += 1
        show = money if limit.unit == "money" else str
        each = "" if limit.per == "total" else f" a {limit.per}"
        fact = f"the limit {limit.name!r} of {show(limit.most)} {limit.unit}{each} has no room for {show(amount)} more"
        remedy = "Ask for a shorter answer, or for a higher limit."
        retry_s = 0.0
        if amount <= limit.most and meter.ends != FOREVER:
            # What is only reserved may be given back at any time; what is used is gone until the window ends.
            gone = meter.used + amount > limit.most
            retry_s = max(meter.ends - now_ms(self._clock) / 1000, 0.001) if gone else 1.0
            remedy = f"Ask again in {retry_s:.0f} s." if retry_s >= 1 else "Ask again."
        error = BudgetExceeded(fact, remedy)
        error.retry_after_s = retry_s
        error.limit = limit.name
        error.kind = limit.kind
        return error

    # What people ask.

    async def spent(self) -> list[Spent]:
        """All that is kept of this machine, as of the last exchange of each process."""
        await self.tell()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ledger.spent)

    def stats(self) -> dict[str, int]:
        return {
            "calls": self._calls, "unwritten": self.journal.tail - self._written, "refused": self._refused,
            "meters": len(self._meters),
        }  # fmt: skip


def _fail(waiter: _Waiter, error: AiGatewayError) -> None:
    if not waiter.answer.done():
        waiter.answer.set_exception(error)
