"""Sagas that wait for events: a consumer group of their module hears for them.

What it hears is kept for a day, so that an event counts that came after a saga began and before it waited. The group
exists from the start for every event that a saga's code waits for.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.context import EventContext
from seamline.kernel.codec import codec
from seamline.module.module import EventHandler
from seamline.module.values import Event
from seamline.sagas.errors import SagaUseError
from seamline.sagas.journal.records import NULL, Message

if TYPE_CHECKING:
    from seamline.events.runtime import EventsRuntime
    from seamline.sagas.course import Course
    from seamline.sagas.engine import Engine
    from seamline.sagas.saga import Wait

KEPT_MS: Final = 86_400_000

_HEAR: Final = "INSERT INTO seamline_saga_events (name, id, body, time_ms) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_WAITING: Final = "SELECT saga FROM seamline_saga_waits WHERE name = ?"
_WAIT: Final = "INSERT INTO seamline_saga_waits (name, saga) VALUES (?, ?) ON CONFLICT DO NOTHING"
_HEARD: Final = "SELECT id, body FROM seamline_saga_events WHERE name = ? AND time_ms >= ? ORDER BY time_ms, id"
_FORGET: Final = "DELETE FROM seamline_saga_events WHERE time_ms < ?"


class Heard(msgspec.Struct):
    """An event as a saga's journal has it."""

    id: str
    event: msgspec.Raw = NULL


_HEARD_DECODER = msgspec.json.Decoder(Heard)


def reader_of(event: type[Event]) -> Callable[[bytes], Any]:
    """From what the journal has to the event. Raises CodecError."""
    decode = codec(event).decode
    return lambda data: decode(bytes(_HEARD_DECODER.decode(data).event))


def heard_id(body: str) -> str:
    return _HEARD_DECODER.decode(body).id


def name_of(event: type[Event], key: str) -> str:
    return f"{event.__name__}/{key}"


def awaited_events(function: Callable[..., Any]) -> set[type[Event]]:
    """The events that a saga's code waits for: the first argument of each ``wait_event``."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):
        return set()
    known = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    found: set[type[Event]] = set()
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        value = _value(node.args[0], known) if node.func.attr == "wait_event" else None
        if isinstance(value, type) and issubclass(value, Event):
            found.add(value)
    return found


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, known), node.attr, None)
    return None


def listen(engine: Engine, events: EventsRuntime) -> None:
    """Hear of what the module's sagas wait for. Raises EventError where nobody declares such an event."""
    awaited = {event for kind in engine.by_name.values() for event in awaited_events(kind.function)}
    for event in sorted(awaited, key=lambda each: each.__name__):
        engine.heard.add(event.__name__)
        events.listen(engine.module, handler(engine, event))


def handler(engine: Engine, event: type[Event]) -> EventHandler:
    """Hands an event to the sagas that wait for it, in the transaction that notes that it was handled."""
    encode = codec(event).encode

    async def hear(happened: Event, context: EventContext) -> None:
        key = str(getattr(happened, event.event_key)) if event.event_key else context.key
        body = msgspec.json.encode(Heard(context.id, msgspec.Raw(encode(happened)))).decode()
        async with engine.database.transaction() as connection:
            await _hand_over(engine, connection, name_of(event, key), context.id, body)

    hear.__annotations__["happened"] = event
    # A time and not "latest": the group may take its place a moment later.
    return EventHandler(event=event, function=hear, group=f"sagas_{event.__name__}", start=engine.clock.now())


async def _hand_over(engine: Engine, connection: AsyncConnection, name: str, id_: str, body: str) -> None:
    store, now_ms = engine.journal.store, engine.now_ms()
    await _one_at_a_time(engine, connection, name)
    await connection.exec_driver_sql(store.sql(_HEAR), (name, id_, body, now_ms))
    waiting: Sequence[Any] = (await connection.exec_driver_sql(store.sql(_WAITING), (name,))).all()
    for row in waiting:
        await engine.journal.post_with(connection, str(row[0]), "event", name, body, now_ms, must=False)
    if waiting:
        engine.starts.expect(connection)


async def begin(course: Course, wait: Wait[Any]) -> None:
    """Let the saga be told of the event, or give it the one that came already."""
    engine = course.engine
    if wait.name.partition("/")[0] not in engine.heard:
        raise SagaUseError(
            f"saga {course.id!r} waits for {wait.name!r}, which its module does not hear of",
            "Write `await s.wait_event(TheEvent, key)` in the saga's own function, with the event's class by its name",
        )
    store = engine.journal.store
    async with engine.database.transaction() as connection:
        await _one_at_a_time(engine, connection, wait.name)
        await connection.exec_driver_sql(store.sql(_WAIT), (wait.name, course.id))
        rows: Sequence[Any] = (await connection.exec_driver_sql(store.sql(_HEARD), (wait.name, course.began_ms))).all()
    for row in rows:
        id_, body = str(row[0]), str(row[1])
        if id_ not in course.past.heard and wait.future is not None and not wait.future.done():
            wait.future.set_result(Message(0, "event", wait.name, body, 0))


async def _one_at_a_time(engine: Engine, connection: AsyncConnection, name: str) -> None:
    """In PostgreSQL two transactions might each miss what the other is about to write."""
    if engine.database.path is None:
        await connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext($1))", (f"seamline saga {name}",))


async def forget(engine: Engine) -> None:
    """What was heard long ago."""
    if engine.heard:
        await engine.journal.store.run([(_FORGET, (engine.now_ms() - KEPT_MS,))])
