"""What a call costs: reserved before, settled after, whichever way it ends."""

from __future__ import annotations

from typing import Final, Protocol

from seamline.kernel.clock import Clock
from seamline.kernel.signal.gen_ai import Operation
from seamline.models.chat import Usage
from seamline.models.gateway.accounting import Accounting
from seamline.models.gateway.budgets import Budgets, Reservation
from seamline.models.gateway.errors import BudgetExceeded
from seamline.models.gateway.keys import Caller
from seamline.models.gateway.prices import NOTHING, Cost
from seamline.models.gateway.targets import Model, Target

_NOTED_EVERY: Final = 64
_NONE: Final = Usage()


class Progress(Protocol):
    """What can be seen of an answer, of which all or a part has come."""

    @property
    def usage(self) -> Usage | None: ...
    @property
    def finish(self) -> str: ...
    @property
    def pieces(self) -> int: ...


class Bill:
    """One call, from when it is let in until it is over. To be closed in any case; only the first time counts."""

    __slots__ = (
        "_clock", "_covered", "_extra", "_noted", "_open", "_reservation", "_till", "abandoned", "answer_max",
        "began", "caller", "cost", "failed", "finish", "first_at", "model", "operation", "progress", "size", "stream",
        "target", "usage",
    )  # fmt: skip

    def __init__(
        self,
        till: Till,
        caller: Caller,
        model: Model,
        operation: Operation,
        size: int,
        reservation: Reservation | None,
        stream: bool,
    ) -> None:
        self._till = till
        self._reservation = reservation
        self._extra: list[tuple[Target, Reservation]] = []
        self._covered = False
        self._noted = 0
        self._open = True
        self._clock = till.clock
        self.caller = caller
        self.model = model
        self.operation: Operation = operation
        self.size = size
        """Bytes of what was asked."""
        self.stream = stream
        self.answer_max = 0
        """So many tokens the answer may have, as :meth:`bound_answer` says; 0 is no bound."""
        self.began = till.clock.monotonic()
        self.first_at = 0.0
        self.target: Target | None = None
        self.progress: Progress | None = None
        self.abandoned: list[Target] = []
        self.usage = _NONE
        self.cost = NOTHING
        self.finish = ""
        self.failed = ""
        """Code of the error that it ended with."""

    @property
    def tokens(self) -> int:
        """About as many has what was asked."""
        return self.model.price.asked(self.size).tokens

    def bound_answer(self) -> None:
        """The caller did not say how long an answer may be: where a budget holds, as long as there is room for."""
        if self._reservation is not None and self._reservation.counts_answers:
            self.answer_max = self.model.price.output_tokens_max

    def asked(self, target: Target) -> None:
        """An engine is asked now."""
        if self._reservation is not None:
            self._reservation.asked(target.price.asked(self.size))

    def affordable(self, target: Target) -> bool:
        """Reserve what it costs to ask one more engine, which may be for nothing."""
        budgets = self._till.budgets
        if budgets is None:
            return True
        cost = target.price.asked(self.size)
        try:
            reservation = budgets.reserve_now(self.caller, self.model.alias, cost)
        except BudgetExceeded:
            reservation = None
        if reservation is not None:
            self._extra.append((target, reservation))
            return True
        # At the end of a budget there is nothing to be had without waiting. What is reserved for the answer covers one
        # more question: few answers are as long as they may be, and one is all that a limit can be passed by.
        covered, self._covered = self._covered, True
        kept, first = self._reservation, self.model.price.asked(self.size)
        if covered or kept is None:
            return False
        return kept.cost.tokens >= first.tokens + cost.tokens and kept.cost.nano >= first.nano + cost.nano

    def answers(self, target: Target, progress: Progress) -> None:
        """This is whose answer the caller gets."""
        self.target = target
        self.progress = progress
        if self.stream and not self.first_at:
            self.first_at = self._clock.monotonic()

    def goes_on(self) -> None:
        """Some of a stream was passed on."""
        if self._reservation is None:
            return
        target, progress = self.target, self.progress
        if progress is not None and target is not None and progress.pieces - self._noted >= _NOTED_EVERY:
            self._noted = progress.pieces
            self._reservation.note(target.price.cost(self._seen(target, progress)))

    def close(self, failed: str = "") -> None:
        """Settle with what the engine counted, or with what can be told without."""
        if not self._open:
            return
        self._open = False
        self.failed = failed
        target, progress = self.target, self.progress
        if target is not None and progress is not None:
            self.usage = self._seen(target, progress)
            self.finish = progress.finish
            self.cost = target.price.cost(self.usage)
        for each in self.abandoned:
            asked = each.price.asked(self.size)
            self.cost = Cost(self.cost.tokens + asked.tokens, self.cost.nano + asked.nano)
        for _, reservation in self._extra:
            reservation.settle(NOTHING)
        if self._reservation is not None:
            self._reservation.settle(self.cost)
        self._till.closed(self)

    def _seen(self, target: Target, progress: Progress) -> Usage:
        usage = progress.usage
        if usage is not None and (usage.output_tokens or usage.input_tokens):
            return usage if usage.output_tokens >= progress.pieces or progress.finish else _more(usage, progress.pieces)
        return Usage(input_tokens=target.price.asked(self.size).tokens, output_tokens=progress.pieces)


class Till:
    """Lets calls in that their callers can pay for."""

    def __init__(self, clock: Clock, budgets: Budgets | None = None, accounting: Accounting | None = None) -> None:
        self.clock = clock
        self.budgets = budgets
        self.accounting = accounting

    def open_now(
        self, caller: Caller, model: Model, operation: Operation, size: int, tokens_max: int = 0, *, answers: int = 1,
        stream: bool = False,
    ) -> Bill | None:  # fmt: skip
        """None where it takes a wait to tell: :meth:`open` waits. Raises BudgetExceeded, NotAllowed."""
        caller.key.allow(model.alias)
        reservation = None
        if (budgets := self.budgets) is not None:
            reservation = budgets.reserve_now(caller, model.alias, model.price.estimate(size, tokens_max, answers))
            if reservation is None:
                return None
        bill = Bill(self, caller, model, operation, size, reservation, stream)
        if answers and not tokens_max:
            bill.bound_answer()
        return bill

    async def open(
        self, caller: Caller, model: Model, operation: Operation, size: int, tokens_max: int = 0, *, answers: int = 1,
        stream: bool = False,
    ) -> Bill:  # fmt: skip
        """Raises BudgetExceeded, NotAllowed, NoTarget."""
        caller.key.allow(model.alias)
        reservation = None
        if self.budgets is not None:
            cost = model.price.estimate(size, tokens_max, answers)
            reservation = await self.budgets.reserve(caller, model.alias, cost)
        bill = Bill(self, caller, model, operation, size, reservation, stream)
        if answers and not tokens_max:
            bill.bound_answer()
        return bill

    def closed(self, bill: Bill) -> None:
        """For :class:`Bill`: a call is over."""
        if self.accounting is None:
            return
        target = bill.target
        self.accounting.done(
            bill.caller,
            bill.model.alias,
            operation=bill.operation,
            provider=target.engine.provider if target is not None else "",
            engine_model=target.model if target is not None else "",
            usage=bill.usage,
            cost=bill.cost,
            began=bill.began,
            ended=self.clock.monotonic(),
            first_at=bill.first_at,
            finish=bill.finish,
            failed=bill.failed,
            asked_again=len(bill.abandoned),
        )

    def given_again(self, caller: Caller, model: Model) -> None:
        """An answer was given for which nobody was asked."""
        if self.accounting is not None:
            now = self.clock.monotonic()
            self.accounting.done(
                caller, model.alias, operation="chat", provider="", engine_model="", usage=_NONE, cost=NOTHING,
                began=now, ended=now, cached=True,
            )  # fmt: skip


def _more(usage: Usage, output_tokens: int) -> Usage:
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
