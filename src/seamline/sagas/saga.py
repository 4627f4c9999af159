"""What a saga's function sees: ``s``, its steps, and what it waits for."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload
from uuid import UUID

import msgspec

from seamline.kernel.codec import codec
from seamline.module.values import Event
from seamline.sagas import hearing, waiting
from seamline.sagas.calls import Callee, callee_of
from seamline.sagas.errors import SagaUseError
from seamline.sagas.journal.records import NULL

if TYPE_CHECKING:
    from seamline.sagas.course import Course

T = TypeVar("T")
E = TypeVar("E", bound=Event)


@dataclasses.dataclass(frozen=True)
class Approval:
    """What a person said."""

    approved: bool
    by: str = ""
    comment: str = ""


class Renewed(BaseException):
    """Leaves the saga's function when it continues as new."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.arguments = arguments


class Step(Generic[T]):
    """A step that has its place in the journal and runs when it is awaited."""

    __slots__ = (
        "arguments", "attempts", "awaited", "backoff_s", "call", "callee", "course", "name", "place", "timeout_s",
        "undo",
    )  # fmt: skip

    def __init__(
        self,
        course: Course,
        place: str,
        call: Callable[..., Any],
        callee: Callee,
        arguments: tuple[Any, ...],
        undo: Callable[..., Any] | None,
        name: str,
        attempts: int | None,
        backoff_s: float | None,
        timeout_s: float | None,
    ) -> None:
        self.course = course
        self.place = place
        self.call = call
        self.callee = callee
        self.arguments = arguments
        self.undo = undo
        self.name = name or callee.name
        self.attempts = attempts
        self.backoff_s = backoff_s
        self.timeout_s = timeout_s
        self.awaited = False

    def __await__(self) -> Generator[Any, Any, T]:
        if self.awaited:
            raise SagaUseError(f"the step {self.name!r} is awaited twice", "Keep its result, or make another step")
        self.awaited = True
        self.course.places.unstarted -= 1
        return self.course.perform(self).__await__()


class Wait(Generic[T]):
    """Something that the saga waits for, with its place in the journal."""

    __slots__ = (
        "awaited",
        "begin",
        "course",
        "due_ms",
        "future",
        "kind",
        "name",
        "place",
        "read",
        "shown",
        "since",
        "timeout_s",
    )

    def __init__(
        self,
        course: Course,
        place: str,
        kind: str,
        name: str,
        timeout_s: float | None,
        read: Callable[[bytes], Any],
        shown: msgspec.Raw = NULL,
        begin: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.begin = begin
        self.course = course
        self.place = place
        self.kind = kind
        self.name = name
        self.timeout_s = timeout_s
        self.read = read
        self.shown = shown
        self.future: asyncio.Future[Any] | None = None
        self.since = 0.0
        self.due_ms = 0
        self.awaited = False

    def __await__(self) -> Generator[Any, Any, T]:
        if self.awaited:
            raise SagaUseError(f"{self.kind} {self.name!r} is awaited twice", "Keep its result, or wait anew")
        self.awaited = True
        self.course.places.unstarted -= 1
        return waiting.wait(self.course, self).__await__()


class Saga:
    """The first parameter of a saga's function.

    Everything that a saga does to the world, and everything it learns of it, goes through here: then it goes on after
    a crash where it was. Between two awaits its code must come to the same each time it runs.
    """

    __slots__ = ("_course",)

    def __init__(self, course: Course) -> None:
        self._course = course

    @property
    def id(self) -> str:
        """Unique for ever; good as an order's number."""
        return self._course.id

    @property
    def key(self) -> str:
        """What it was started with as ``key=``; empty without."""
        return self._course.key

    # An undo that takes the step's result comes before one that takes its arguments, for the types of lambdas.
    @overload
    def step(
        self,
        call: Callable[..., Awaitable[T]],
        *arguments: Any,
        undo: Callable[[T], Any] | None = None,
        name: str = "",
        attempts: int | None = None,
        backoff_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Step[T]: ...
    @overload
    def step(
        self,
        call: Callable[..., Awaitable[T]],
        *arguments: Any,
        undo: Callable[..., Any],
        name: str = "",
        attempts: int | None = None,
        backoff_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Step[T]: ...
    @overload
    def step(
        self,
        call: Callable[..., T],
        *arguments: Any,
        undo: Callable[[T], Any] | None = None,
        name: str = "",
        attempts: int | None = None,
        backoff_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Step[T]: ...
    @overload
    def step(
        self,
        call: Callable[..., T],
        *arguments: Any,
        undo: Callable[..., Any],
        name: str = "",
        attempts: int | None = None,
        backoff_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Step[T]: ...
    def step(
        self,
        call: Callable[..., Any],
        *arguments: Any,
        undo: Callable[..., Any] | None = None,
        name: str = "",
        attempts: int | None = None,
        backoff_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Step[Any]:
        """Do something that is journalled: its result is on disk before the next step begins.

        Args:
            call: a contract's method (the callee runs it once, however often it is asked); an ``async`` function of
                the module (what it writes to the module's database commits with the journal); or a plain function,
                which runs in a thread.
            arguments: what it is called with.
            undo: what takes it back when the saga fails later: called with the step's result, or with the step's
                arguments if it returns None.
            name: for people, in place of the function's.
            attempts: how often it is tried before the step fails; ``[sagas] step_attempts`` otherwise. A fault is an
                answer and not tried again.
            backoff_s: the pause after the first failure, in seconds; it doubles with each, up to 30 s.
            timeout_s: the longest that one attempt may take, in seconds.

        Returns:
            To be awaited, alone or with others through :meth:`gather`.

        Raises:
            Fault: what the call answered, when awaited.
            CallError: the call failed too often, or for good.
            StepFailed: likewise, with any other error.
        """
        course = self._course
        return Step(
            course, course.places.take(), call, callee_of(call), arguments, undo, name, attempts, backoff_s, timeout_s
        )

    async def gather(self, *steps: Awaitable[Any]) -> list[Any]:
        """Run steps at once and wait until all have ended. Raises what the first in order that failed raised."""
        results = await asyncio.gather(*steps, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Sleep by the wall clock, through restarts; a sleeping saga needs no memory."""
        return self._wait("sleep", f"{seconds:g} s", seconds, _nothing)

    def wait_signal(self, name: str, type_: type[T], timeout_s: float | None = None) -> Awaitable[T]:
        """A value that somebody sends with ``handle.signal(name, value)``; one sent earlier counts.

        Raises WaitExpired after ``timeout_s`` seconds.
        """
        return self._wait("signal", name, timeout_s, _reader(type_))

    def wait_event(self, event: type[E], key: str, timeout_s: float | None = None) -> Awaitable[E]:
        """An event with this key that came after the saga began. Raises WaitExpired after ``timeout_s`` seconds."""
        wait = self._wait("event", hearing.name_of(event, key), timeout_s, hearing.reader_of(event))
        wait.begin = lambda: hearing.begin(self._course, wait)
        return wait

    def approval(self, name: str, timeout_s: float | None = None, **shown: Any) -> Awaitable[Approval]:
        """Wait for a person, who sees ``shown`` (values that JSON has). Raises ApprovalExpired after ``timeout_s``."""
        data = msgspec.Raw(msgspec.json.encode(shown)) if shown else NULL
        return self._wait("approval", name, timeout_s, _reader(Approval), data)

    def child(
        self,
        function: Callable[..., Awaitable[T]],
        *arguments: Any,
        key: str = "",
    ) -> Awaitable[T]:
        """Another saga of this module, and its result; what it failed with is raised here. Once cancelled or timed
        out, this saga cancels it and waits for its end."""
        course = self._course
        place = course.places.take()
        kind = course.engine.starts.kind_of(function)
        wanted = key or f"{course.id}:{place}"

        async def begin() -> None:
            await course.engine.starts.begin_child(course, wait, kind, arguments, wanted)

        wait: Wait[Any] = Wait(course, place, "child", f"{kind.name}/{wanted}", None, kind.result.decode, NULL, begin)
        return wait

    def publish(self, event: Event) -> Step[str]:
        """Publish an event of this module in the commit that journals it. Gives the event's id."""
        course = self._course
        call = course.engine.publisher()
        return Step(course, course.places.take(), call, callee_of(call), (event,), None,
                    f"publish {type(event).__name__}", None, None, None)  # fmt: skip

    def pivot(self) -> None:
        """The point of no return: what was done before is not undone any more, and steps from here on are tried until
        they succeed."""
        self._course.pivot()

    def note(self, **values: Any) -> None:
        """What ``handle.query()`` and ``seamline sagas show`` tell of the saga: values that JSON has."""
        self._course.note(values)

    def patched(self, name: str) -> bool:
        """True where the saga may take the new course called ``name``; False where it began on the old one."""
        return self._course.patched(name)

    def continue_as_new(self, *arguments: Any) -> Any:
        """End this run and begin again with new input, under the same id and with an empty journal::

            return s.continue_as_new(since + 1)

        What was done is kept and not undone later.
        """
        raise Renewed(arguments)

    def now(self) -> datetime:
        """The time, the same when the saga is replayed: that of the last thing that was journalled."""
        return datetime.fromtimestamp(self._course.now_ms / 1000, UTC)

    def random(self) -> float:
        """From 0 to 1, the same when the saga is replayed."""
        return self._course.places.lots().random()

    def uuid(self) -> UUID:
        """A random one, the same when the saga is replayed."""
        return UUID(int=self._course.places.lots().getrandbits(128), version=4)

    def _wait(
        self, kind: str, name: str, timeout_s: float | None, read: Callable[[bytes], Any], shown: msgspec.Raw = NULL
    ) -> Wait[Any]:
        course = self._course
        return Wait(course, course.places.take(), kind, name, timeout_s, read, shown)


def _nothing(_: bytes) -> None:
    return None


def _reader(kind: Any) -> Callable[[bytes], Any]:
    return codec(kind).decode
