"""Starting sagas, and reaching those that go on. A module asks for :class:`Sagas` by type."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import msgspec

from seamline.kernel.codec import codec
from seamline.sagas.engine import Engine
from seamline.sagas.errors import DamagedJournalError, UntypedStepError
from seamline.sagas.journal.records import OK, Head, Work, error_from, read_outcome, read_work
from seamline.sagas.journal.statements import STATEMENTS
from seamline.sagas.kinds import Kind
from seamline.sagas.saga import Approval, Saga

T = TypeVar("T")
P = ParamSpec("P")

SagaFunction = Callable[Concatenate[Saga, ...], Awaitable[T]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SagaInfo:
    """How a saga stands. Times are aware, in UTC.

    ``status`` is ``running``, ``undoing``, ``stuck`` (a person should look at it), ``succeeded``, ``failed`` (and what
    it had done is undone) or ``cancelled`` (likewise).
    """

    id: str
    type: str
    key: str
    version: int
    status: str
    owner: str
    started: datetime
    updated: datetime
    ended: datetime | None
    waiting: tuple[str, ...]
    trouble: tuple[str, ...]
    stuck: str
    trace: str
    parent: str
    notes: dict[str, Any]


class SagaHandle(Generic[T]):
    """A saga that was started, here or elsewhere."""

    def __init__(self, engine: Engine, saga: str, kind: Kind | None = None) -> None:
        self._engine = engine
        self._kind = kind
        self.id = saga

    def __repr__(self) -> str:
        return f"SagaHandle({self.id!r})"

    async def result(self, timeout_s: float | None = None) -> T:
        """Wait for its end and give its result.

        Raises:
            Fault, CallError, SagasError: what it failed with.
            TimeoutError: it has not ended in time; it goes on.
        """
        if self._kind is None:
            head = await self._engine.journal.head(self.id)
            self._kind = self._engine.by_name.get(head.type)
        future = self._engine.watch.wait(self.id)
        try:
            async with asyncio.timeout(timeout_s):
                _, text = await future
        finally:
            self._engine.watch.forget(self.id, future)
        return outcome_value(self.id, self._kind, text)

    async def status(self) -> SagaInfo:
        """How it stands. Raises UnknownSagaError."""
        return info_of(await self._engine.journal.head(self.id), self._engine.by_name)

    async def query(self) -> dict[str, Any]:
        """What the saga has told with ``s.note(...)``."""
        course = self._engine.running.get(self.id)
        if course is not None:
            return {name: msgspec.json.decode(value) for name, value in course.notes.items()}
        return info_of(await self._engine.journal.head(self.id), self._engine.by_name).notes

    async def signal(self, name: str, value: Any = None) -> None:
        """Send it a value, which is kept until it waits for it. Within a transaction of the module: atomic with it.

        Raises UnknownSagaError or SagaEndedError.
        """
        try:
            body = (
                codec(type(value)).encode(value) if not isinstance(value, dict | list) else msgspec.json.encode(value)
            )
        except Exception as error:  # whatever the codec's library raises
            raise UntypedStepError(f"the signal {name!r} has a value that cannot be sent: {error}") from error
        await self._engine.tell(self.id, "signal", name, body.decode())

    async def approve(self, name: str, *, by: str = "", comment: str = "", approved: bool = True) -> None:
        """Answer what :meth:`Saga.approval` asks. Raises UnknownSagaError or SagaEndedError."""
        body = msgspec.json.encode(Approval(approved, by, comment)).decode()
        await self._engine.tell(self.id, "approval", name, body)

    async def cancel(self, reason: str = "") -> None:
        """Stop it at the next step and undo what it did; too late past its point of no return.

        Raises UnknownSagaError or SagaEndedError.
        """
        await self._engine.tell(self.id, "cancel", "", reason)


class Sagas:
    """Starts the sagas of the module that asks for it: ``def __init__(self, sagas: Sagas)``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def start(self, saga: SagaFunction[T], *arguments: Any, key: str = "", **keywords: Any) -> SagaHandle[T]:
        """Start a saga with its input; it is on disk when this returns, and will come to an end.

        Inside a transaction of the module's database it is started if, and when, that commits.

        Args:
            saga: the function, as ``@module.saga`` has it.
            arguments: its input: the parameters that are not wired, in their order.
            key: one saga of its type for each key, for ever: starting it again gives the one there is.
            keywords: more input, by name.

        Raises:
            SagaBusyError: the journal cannot be written, or this process ends.
        """
        engine = self._engine
        kind = engine.starts.kind_of(saga)
        data = _encoded(kind, arguments, keywords)
        connection = await engine.database.current()
        if connection is None:
            return SagaHandle(engine, await engine.starts.launch(kind, data, key), kind)
        begun = engine.starts.row(kind, data, key, "", owned=False)
        saga_id = begun.saga
        store = engine.journal.store
        await connection.exec_driver_sql(store.sql(STATEMENTS["start"]), begun.row)
        if key:
            sql = store.sql("SELECT id FROM seamline_sagas WHERE type = ? AND key = ?")
            saga_id = str((await connection.exec_driver_sql(sql, (kind.name, key))).scalar_one())
        engine.starts.expect(connection)
        return SagaHandle(engine, saga_id, kind)

    async def run(self, saga: SagaFunction[T], *arguments: Any, key: str = "", **keywords: Any) -> T:
        """Start a saga and wait for its result; with a key, the result of the one there is.

        A caller that gives up leaves the saga to go on.

        Raises:
            Fault, CallError, SagasError: what it failed with.
        """
        engine = self._engine
        kind = engine.starts.kind_of(saga)
        saga_id = await engine.starts.launch(kind, _encoded(kind, arguments, keywords), key)
        future = engine.watch.wait(saga_id)
        try:
            _, text = await future
        finally:
            engine.watch.forget(saga_id, future)
        return outcome_value(saga_id, kind, text)

    def handle(self, saga_id: str) -> SagaHandle[Any]:
        """Of a saga of this module, by its id."""
        return SagaHandle(self._engine, saga_id)


def _encoded(kind: Kind, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bytes:
    values = kind.arguments(arguments, keywords)
    try:
        return kind.input.encode(values)
    except Exception as error:  # whatever the codec's library raises
        raise UntypedStepError(
            f"the input of saga {kind.name!r} cannot be written down: {error}", "Give what its parameters' types say"
        ) from error


def outcome_value(saga: str, kind: Kind | None, text: str) -> Any:
    """The result in a saga's outcome; raises the error in it."""
    outcome = read_outcome(saga, text)
    if outcome.outcome != OK:
        raise error_from(saga, outcome.outcome, outcome.error, outcome.output)
    return msgspec.json.decode(outcome.output) if kind is None else kind.result.decode(bytes(outcome.output))


def info_of(head: Head, by_name: Mapping[str, Kind]) -> SagaInfo:
    """A saga's row, for people and programs."""
    try:
        work, damage = read_work(head), ""
    except DamagedJournalError as error:
        work, damage = Work(), str(error)
    waiting = tuple(_waits(each.kind, each.name, each.due_ms) for each in work.waiting)
    kind = by_name.get(head.type)
    if not head.ended_ms and (kind is None or kind.version < head.version):
        waiting = (f"a process that knows {head.type!r} in version {head.version}",)
    return SagaInfo(
        id=head.id,
        type=head.type,
        key=head.key,
        version=head.version,
        status="stuck" if (head.stuck or damage) and not head.ended_ms else head.status,
        owner=head.owner or "",
        started=_time(head.created_ms),
        updated=_time(head.updated_ms),
        ended=_time(head.ended_ms) if head.ended_ms else None,
        waiting=waiting,
        trouble=tuple(f"{each.name}: {each.error} ({each.attempts} attempts)" for each in work.trouble.values()),
        stuck=head.stuck or damage,
        trace=head.trace,
        parent=head.parent.partition(" ")[0],
        notes={name: msgspec.json.decode(value) for name, value in work.notes.items()},
    )


def _waits(kind: str, name: str, due_ms: int) -> str:
    until = f" until {_time(due_ms):%Y-%m-%d %H:%M:%S} UTC" if due_ms else ""
    return f"{kind} {name}{until}"


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
