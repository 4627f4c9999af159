"""Publishing: ``Events``, which a module asks for by type."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Coroutine, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from seamline.events.codec import encode_event
from seamline.events.errors import EventEncodeError, UndeclaredEventError
from seamline.events.record import SUBJECT, Record
from seamline.events.spans import producer_span
from seamline.kernel.clock import Clock, now_ms
from seamline.module.context import current
from seamline.module.values import Event

if TYPE_CHECKING:
    from seamline.events.log import Log
    from seamline.kernel.signal.trace import Tracer
    from seamline.kernel.store import Database
    from seamline.module.context import CallContext
    from seamline.module.principal import Proofs

_HEADER = re.compile(r"[a-z0-9]{1,20}")
EVENT_BYTES_MAX = 1024 * 1024
"""Of an event's data. What is larger belongs in a store, and its address in the event."""


class Events:
    """Publishes the events of one module.

    ::

        async with db.transaction() as tx:
            await tx.execute(insert(orders).values(id=order_id))
            await events.publish(OrderPlaced(order_id=order_id))

    Inside a transaction of the module's own database the event is published if the transaction commits, and never
    otherwise. Outside of one it is on disk when ``publish`` returns.
    """

    def __init__(
        self,
        module: str,
        database: Database,
        log: Log | None,
        clock: Clock,
        owners: Mapping[type[Event], str],
        proofs: Proofs | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._module = module
        self._database = database
        self._log = log
        self._clock = clock
        self._owners = owners
        self._proofs = proofs
        self._tracer = tracer

    async def publish(
        self,
        event: Event,
        *,
        key: str | None = None,
        delay_s: float = 0.0,
        ttl_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Publish one event, and return its id.

        Args:
            event: of a class that this module's contract declares.
            key: events of one key keep their order; the field that the class names when None.
            delay_s: handed out no earlier, in seconds. It takes its place in the order then.
            ttl_s: not handed out later, in seconds; 0 is for ever.
            headers: CloudEvents extension attributes: names of lower-case letters and digits.

        Raises:
            UndeclaredEventError: another module, or none, declares the class.
            EventEncodeError: a field holds a value that is not of its type, the event is too large, or a header's
                name cannot travel.
            LogFullError: there is no room; nothing was accepted.
        """
        record = self._record(event, key, delay_s, ttl_s, headers)
        call = self._recorded()
        await (self._put(record) if call is None else self._told(call, [record], self._put(record)))
        return record.id

    async def _put(self, record: Record) -> None:
        if self._database.is_free() and self._log is not None:
            on_disk = self._log.submit(record)
            if on_disk is not None:
                await on_disk
                return
        await self._append([record])

    async def publish_all(self, events: Sequence[Event]) -> list[str]:
        """Publish several at once, all or none, and return their ids. Raises what :meth:`publish` does."""
        records = [self._record(event, None, 0.0, 0.0, None) for event in events]
        if records:
            call = self._recorded()
            await (self._append(records) if call is None else self._told(call, records, self._append(records)))
        return [record.id for record in records]

    def _recorded(self) -> CallContext | None:
        """The call under way, if its trace is recorded."""
        call = current()
        sampled = call is not None and call.origin is not None and call.origin.sampled
        return call if sampled and self._tracer is not None else None

    async def _told(self, call: CallContext, records: Sequence[Record], work: Coroutine[Any, Any, None]) -> None:
        """Do the work, and record a span for each event."""
        assert self._tracer is not None
        started = monotonic()
        failure: BaseException | None = None
        try:
            await work
        except BaseException as error:
            failure = error
            raise
        finally:
            for record in records:
                producer_span(self._tracer, call, record, started, failure)

    async def _append(self, records: Sequence[Record]) -> None:
        assert self._log is not None
        await self._log.append(records, await self._database.current())

    def _record(
        self, event: Event, key: str | None, delay_s: float, ttl_s: float, headers: Mapping[str, str] | None
    ) -> Record:
        cls = type(event)
        if self._log is None or self._owners.get(cls) != self._module:
            raise self._undeclared(cls)
        at_ms = now_ms(self._clock)
        if key is None:
            key = str(getattr(event, cls.event_key)) if cls.event_key else ""
        call = current()
        data = encode_event(event)
        if len(data) > EVENT_BYTES_MAX:
            raise EventEncodeError(
                f"the event {cls.__name__} has {len(data):,} bytes of data; {EVENT_BYTES_MAX:,} are the most",
                "Keep the bulk where your module keeps its data, and publish how to get it.",
                place=cls.__module__,
            )
        due_ms = at_ms + int(delay_s * 1000) if delay_s > 0 else 0
        name = new_id(at_ms)
        carried = _checked(headers) if headers else {}
        if call is not None and call.subject is not None and self._proofs is not None:
            carried[SUBJECT] = self._proofs.defer(call.subject, self._module, f"event:{name}")[0]
        return Record(
            id=name,
            source=self._module,
            type=cls.__name__,
            data=data,
            time_ms=at_ms,
            key=key,
            version=cls.event_version,
            trace=_traceparent(call),
            due_ms=due_ms,
            expires_ms=(due_ms or at_ms) + int(ttl_s * 1000) if ttl_s > 0 else 0,
            headers=carried,
        )

    def _undeclared(self, cls: type[Event]) -> UndeclaredEventError:
        owner = self._owners.get(cls)
        if owner is None:
            fact = f"module {self._module!r} publishes {cls.__name__}, which no module's contract declares"
            remedy = f"Declare the class in the package of module {self._module!r}, beside its contract."
        else:
            fact = f"module {self._module!r} publishes {cls.__name__}, an event of module {owner!r}"
            remedy = f"Only {owner!r} tells of it: call {owner!r}, or declare an event of your own."
        return UndeclaredEventError(fact, remedy, place=cls.__module__)


_lots = random.Random()
"""A generator of this process's own, which no ``random.seed`` of a program reaches."""


def _seed_lots() -> None:
    _lots.seed(os.urandom(32))


_seed_lots()
os.register_at_fork(after_in_child=_seed_lots)


def new_id(at_ms: int) -> str:
    """Unique, and in the order of time, so that an index of ids grows at its end."""
    # 80 bits that two processes draw alike only by chance: each begins at a seed of 256 bits from the system, also
    # after a fork. For one id to meet another, both must be of one millisecond; with a million events in each, the odds
    # of that are one in 10^12. Nothing secret hangs on them: an id is a name, and asking for it the system for each
    # event costs more than the rest of the record.
    return (at_ms << 80 | _lots.getrandbits(80)).to_bytes(16, "big").hex()


def _traceparent(call: CallContext | None) -> str:
    """Under which span an event is published: one of its own, where the trace is recorded."""
    origin = call.origin if call is not None else None
    if call is None or origin is None:
        return ""
    return (origin.child() if origin.sampled else origin.at(call.span_id())).to_traceparent()


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    for name in headers:
        if not _HEADER.fullmatch(name) or name == SUBJECT:
            raise EventEncodeError(
                f"{name!r} cannot be the name of an event's header",
                f"CloudEvents allows up to 20 lower-case letters and digits; {SUBJECT!r} is the platform's.",
            )
    return dict(headers)
