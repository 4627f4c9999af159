"""Getting an answer to begin: one target after the other, and beside each other where one keeps us waiting.

A target that is asked and does not begin within the model's patience is not given up: the next is asked as well, and
whoever begins first is listened to. So an engine that hangs costs its caller the patience and no more, and one that is
only slow still answers. What a caller may cost beyond its first try comes out of one budget for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

from seamline.kernel.clock import Clock
from seamline.kernel.lifetime import Runners, Running
from seamline.mesh.limits import RetryBudget
from seamline.models.errors import EngineCannotError, EngineError, EngineRefused, EngineStalled
from seamline.models.gateway.errors import NoTarget
from seamline.models.gateway.targets import Model, Target, Usual, Wants

SWEEP_S: Final = 0.05
_IMPATIENT: Final = 0.2
"""Of the patience, for who is asked because another did not begin."""
_CALLERS_FAULT: Final = frozenset({400, 405, 406, 411, 413, 414, 415, 422, 451})
"""What another engine would say as well."""


class Begun(Protocol):
    """An answer whose first bytes are here."""

    async def aclose(self) -> None: ...


class Watched(Protocol):
    def sweep(self, now: float) -> None: ...


T = TypeVar("T", bound=Begun)


class Watch:
    """Looks after what waits for engines, twenty times a second while anything does."""

    def __init__(self, clock: Clock, runners: Runners, retries: RetryBudget) -> None:
        self.clock = clock
        self.runners = runners
        self.retries = retries
        self.now = clock.monotonic()
        """As of the last look, where that is exact enough."""
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watched: Watched) -> None:
        self._watched.add(watched)
        if self._timer is None:
            self.now = self.clock.monotonic()
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._tick)

    def discard(self, watched: Watched) -> None:
        self._watched.discard(watched)

    def sweep(self) -> None:
        self.now = now = self.clock.monotonic()
        for watched in list(self._watched):
            watched.sweep(now)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        self.sweep()
        if self._watched:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._tick)


class Interrupt:
    """Wakes a task that waits, for a reason of ours, so that it is not taken for a cancellation by somebody else."""

    __slots__ = ("_before", "_task", "reason")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self.reason = ""

    def wake(self, reason: str) -> None:
        if not self.reason:
            self.reason = reason
            self._task.cancel()

    def caught(self) -> str:
        """The reason of a CancelledError, empty if it is not ours."""
        reason, self.reason = self.reason, ""
        if not reason:
            return ""
        return reason if self._task.uncancel() <= self._before else ""


class Race(Generic[T]):
    """One call's way to an answer that has begun.

    Args:
        begin: asks a target; gives its answer once it has begun, raises EngineError.
        whole: nothing comes before all of it has.
        asking: hears of each target before it is asked.
        affordable: whether one more target may be asked beside the first, which may cost money.
        abandoned: to which are added those who may have worked for nothing, and want to be paid for what they were
            asked.
    """

    _left: Iterator[Target] | None = None
    _over = False
    """Nobody is left to be asked."""
    _target: Target | None = None
    _since = 0.0
    _able = False
    _error: EngineError | None = None
    _won: tuple[Target, T] | None = None
    _rivals: Sequence[_Rival] = ()
    _rivals_over: asyncio.Event | None = None

    def __init__(
        self,
        watch: Watch,
        model: Model,
        wants: Wants,
        begin: Callable[[Target], Awaitable[T]],
        *,
        whole: bool,
        asking: Callable[[Target], None],
        affordable: Callable[[Target], bool],
        abandoned: list[Target],
        beside: Target | None = None,
    ) -> None:
        self._watch = watch
        self._model = model
        self._begin = begin
        self._whole = whole
        self._asking = asking
        self._affordable = affordable
        self._wants = wants
        self._beside = beside
        """Asked already: the first, or whoever began an answer that broke off."""
        self._interrupt = Interrupt()
        self._abandoned = abandoned

    async def run(self) -> tuple[Target, T]:
        """Raises NoTarget, or the EngineError of the target that was asked last."""
        watch = self._watch
        monotonic = watch.clock.monotonic
        watch.retries.call()
        watch.add(self)
        try:
            while (found := self._next(began := monotonic())) is not None:
                target, ticket = found
                self._since = began
                self._target = target
                try:
                    self._asking(target)
                    begun = await self._begin(target)
                except EngineError as error:
                    if not self._goes_on(target, ticket, error):
                        break
                except asyncio.CancelledError:
                    reason = self._interrupt.caught()
                    if not reason:
                        target.forget(ticket)
                        raise
                    late = EngineStalled(f"{target.name} did not begin to answer", "Look at the engine.")
                    if not self._goes_on(target, ticket, late):
                        break
                except BaseException:
                    target.forget(ticket)
                    raise
                else:
                    now = monotonic()
                    target.well(ticket, now)
                    (target.wholes if self._whole else target.streams).add(now - began)
                    return target, begun
                finally:
                    self._target = None
            return await self._rivals_answer()
        finally:
            watch.discard(self)
            if self._rivals:
                await self._dismiss()

    def _goes_on(self, target: Target, ticket: int, error: EngineError) -> bool:
        """Whether the next is asked, now that this one failed."""
        self._told(target, ticket, error)
        self._error = error
        return _elsewhere(error) and not self._rivals and self._may(error)

    async def _dismiss(self) -> None:
        for rival in self._rivals:
            if not rival.over:
                self._abandoned.append(rival.target)
                rival.dismissed = True
                if rival.running is not None:
                    rival.running.cancel()
        if self._won is not None:
            await self._won[1].aclose()

    def sweep(self, now: float) -> None:
        """Ask another target beside one that keeps us waiting; give up what takes too long."""
        settings = self._model.settings
        target = self._target
        if target is not None:
            waited = now - self._since
            if waited >= (settings.timeout_s if self._whole else settings.first_token_timeout_s):
                self._interrupt.wake("late")
                return
            patience = max(settings.patience_s, 2 * self._usual(target).p95_s)
            if not self._rivals and waited >= patience:
                self._rival(now)
        if self._rivals:
            last = self._rivals[-1]
            if not last.over and now - last.since >= settings.patience_s * _IMPATIENT:
                self._rival(now)

    # Beside the first.

    def _rival(self, now: float) -> None:
        if self._over or not self._watch.retries.take(now):
            return
        found = self._next(now)
        if found is None:
            return
        target, ticket = found
        if not self._affordable(target):
            target.forget(ticket)
            self._over = True
            return
        if self._rivals_over is None:
            self._rivals_over = asyncio.Event()
        self._rivals_over.clear()
        rival = _Rival(target, now)
        self._rivals = (*self._rivals, rival)
        rival.running = self._watch.runners.start(self._run_rival(rival, ticket))

    async def _run_rival(self, rival: _Rival, ticket: int) -> None:
        watch, target, settings = self._watch, rival.target, self._model.settings
        try:
            async with asyncio.timeout(settings.timeout_s if self._whole else settings.first_token_timeout_s):
                self._asking(target)
                begun = await self._begin(target)
        except (EngineError, TimeoutError) as error:
            failed = error if isinstance(error, EngineError) else EngineStalled(f"{target.name} did not begin", "")
            self._told(target, ticket, failed)
            self._error = failed
            rival.over = True
            if not rival.dismissed:
                self._rival(watch.clock.monotonic())
                self._all_over()
            return
        except BaseException:
            target.forget(ticket)
            rival.over = True
            raise
        now = watch.clock.monotonic()
        target.well(ticket, now)
        self._usual(target).add(now - rival.since)
        rival.over = True
        if self._won is not None or rival.dismissed:
            await begun.aclose()
            return
        self._won = target, begun
        if self._target is not None:
            self._interrupt.wake("rival")
        assert self._rivals_over is not None
        self._rivals_over.set()

    def _all_over(self) -> None:
        if self._rivals_over is not None and all(rival.over for rival in self._rivals):
            self._rivals_over.set()

    async def _rivals_answer(self) -> tuple[Target, T]:
        """What those asked beside the first have to say, now that the first has nothing."""
        if self._rivals_over is not None:
            self._all_over()
            await self._rivals_over.wait()
        if self._won is not None:
            won, self._won = self._won, None
            return won
        raise self._error or self._nobody()

    # Whom to ask.

    def _next(self, now: float) -> tuple[Target, int] | None:
        """A target that may be asked now, and its ticket."""
        if self._left is None:
            if self._beside is None and (first := self._model.first(self._wants)) is not None:
                self._able = True
                self._beside = first
                ticket = first.begin(now)
                if ticket is not None:
                    return first, ticket
            self._left = self._model.in_order(self._wants)
        for target in self._left:
            if target is self._beside:
                continue
            self._able = True
            ticket = target.begin(now)
            if ticket is not None:
                return target, ticket
        self._over = True
        return None

    def _may(self, error: EngineError) -> bool:
        """Whether another try fits into the budget of retries. Who merely cannot has cost nothing."""
        return isinstance(error, EngineCannotError) or self._watch.retries.take(self._watch.clock.monotonic())

    def _told(self, target: Target, ticket: int, error: EngineError) -> None:
        now = self._watch.clock.monotonic()
        if isinstance(error, EngineCannotError) or not _elsewhere(error):
            target.well(ticket, now)
        else:
            target.ill(ticket, now, error)
            if isinstance(error, EngineStalled):
                self._abandoned.append(target)

    def _usual(self, target: Target) -> Usual:
        return target.wholes if self._whole else target.streams

    def _nobody(self) -> NoTarget | EngineCannotError:
        if not self._able:
            return EngineCannotError(f"no engine of {self._model.alias!r} can do this", "Ask another model, or less.")
        now = self._watch.clock.monotonic()
        again = min((target.free_in_s(now) for target in self._model.targets), default=0.0)
        error = NoTarget(f"no engine of {self._model.alias!r} can be asked now", "Come again later.")
        error.retry_after_s = again
        return error


class _Rival:
    __slots__ = ("dismissed", "over", "running", "since", "target")

    def __init__(self, target: Target, since: float) -> None:
        self.target = target
        self.since = since
        self.over = False
        self.dismissed = False
        """Somebody else began first."""
        self.running: Running | None = None


def _elsewhere(error: EngineError) -> bool:
    """Whether another engine may do better."""
    if isinstance(error, EngineRefused) and error.status in _CALLERS_FAULT:
        return error.kind == "context_length_exceeded"
    return True
