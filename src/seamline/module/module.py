"""Module: what a team writes, owns and places. It only collects; wiring and the mesh act on it."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from seamline.module.contract import Contract
from seamline.module.errors import EventError, ModuleError, SagaError, ServiceError
from seamline.module.models import Batch, Cache, Loads, ModelType, RunsIn, Watch, Workers
from seamline.module.values import Event

if TYPE_CHECKING:
    from sqlalchemy import MetaData

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Mount:
    """An ASGI (or WSGI) app that is a module's public HTTP face under a path and, if given, a host."""

    app: Any
    at: str
    host: str | None = None
    wsgi: bool = False


Start = Literal["earliest", "latest"] | int | datetime
"""Where a new consumer group begins: with the oldest event kept, with what comes, at an offset, at a time (aware)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventHandler:
    """A function that wants to hear of an event, and how. See :meth:`Module.on`."""

    event: type[Event]
    function: Callable[..., Any]
    group: str
    concurrency: int = 16
    batch: int = 0
    batch_wait_s: float = 0.05
    where: Callable[[Any], bool] | None = None
    start: Start = "earliest"
    attempts: int = 8
    backoff_s: float = 0.1
    timeout_s: float = 30.0
    outside: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class SagaType:
    """A function that is a saga, and how it runs. See :meth:`Module.saga`."""

    function: Callable[..., Any]
    name: str
    version: int = 1
    timeout_s: float = 0.0
    compensate: Literal["reverse", "parallel"] = "reverse"
    cron: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotation:
    """A function that makes a secret's next value. See :meth:`Module.rotates`."""

    secret: str
    function: Callable[..., Any]
    every_s: float = 0.0
    overlap_s: float = 3600.0


class Module:
    """The unit of design, ownership, identity and placement.

    Args:
        name: lower-case, unique in the application; it is the module's identity.
        provides: the contract, or contracts, that the module's services implement.
        tables: SQLAlchemy metadata of the module's own database, for migrations.
        owner: the people to ask.
        version: of the code; canary weights and mirroring in ``[mesh]`` go by it.
    """

    def __init__(
        self,
        name: str,
        *,
        provides: type[Contract] | tuple[type[Contract], ...] = (),
        tables: MetaData | None = None,
        owner: str = "",
        version: str = "",
    ) -> None:
        if not name.isidentifier() or name != name.lower():
            raise ModuleError(f"{name!r} is not a module name", "Use lower-case letters, digits and underscores.")
        self.name = name
        self.provides: tuple[type[Contract], ...] = provides if isinstance(provides, tuple) else (provides,)
        self.tables = tables
        self.owner = owner
        self.version = version
        self.services: list[type[Contract]] = []
        self.factories: list[Callable[..., Any]] = []
        self.startups: list[Callable[..., Any]] = []
        self.shutdowns: list[Callable[..., Any]] = []
        self.event_handlers: list[EventHandler] = []
        self.sagas: list[SagaType] = []
        self.rotations: list[Rotation] = []
        self.models: list[ModelType] = []
        self.replayers: dict[type[Contract], type[Any]] = {}
        self.mounts: list[Mount] = []
        self.views: list[str] = []
        """Names of materialised views, which others may query; see :mod:`seamline.events.streams`."""
        frame = inspect.currentframe()
        caller = frame.f_back if frame is not None else None
        self.source = str(caller.f_globals.get("__name__", "")) if caller is not None else ""
        self.package = self.source.rpartition(".")[0]
        """The Python package whose inside is the module's own."""
        self.place = f"{caller.f_code.co_filename}:{caller.f_lineno}" if caller is not None else ""

    @property
    def folder(self) -> Path:
        """Where the package lies."""
        spec = importlib.util.find_spec(self.package) if self.package else None
        if spec is None or not spec.submodule_search_locations:
            return Path(self.place.rpartition(":")[0]).parent
        return Path(next(iter(spec.submodule_search_locations)))

    def service(self, cls: type[T]) -> type[T]:
        """Declare a class that implements one or more of the module's contracts. Its constructor is wired by type."""
        implemented = [contract for contract in self.provides if issubclass(cls, contract)]
        if not implemented:
            wanted = ", ".join(c.__name__ for c in self.provides) or "nothing"
            raise ServiceError(
                f"the service {cls.__name__!r} of module {self.name!r} implements none of its contracts ({wanted})",
                "Derive it from the contract, and name the contract in `Module(..., provides=...)`.",
                place=f"{inspect.getsourcefile(cls)}",
            )
        self.services.append(cls)  # pyright: ignore[reportArgumentType]  # it derives from a contract, as checked above
        return cls

    def model(
        self,
        contract: type[Contract],
        *,
        version: str,
        batch: Batch | None = None,
        runs_in: RunsIn = "thread",
        concurrency: int = 0,
        waiting_max: int = 1000,
        warm: Sequence[tuple[str, tuple[Any, ...]]] = (),
        workers: int | Workers = 1,
        cache: Cache | None = None,
        loads: Loads = "",
        idle_s: float = 0.0,
        watch: Watch | None = None,
    ) -> Callable[[type[T]], type[T]]:
        """Declare a class that answers a contract of the module as a model.

        Its constructor is wired by type. If it has a method ``load``, that runs once in each process before the first
        call, and may block; a parameter of ``load`` is given the model's :class:`~seamline.Artefacts`. The contract's
        methods are methods of the class: plain functions, which run in threads; generators, whose items stream;
        functions marked :func:`~seamline.batched`, which answer several calls at once; or ``async`` ones.

        Args:
            contract: one that the module provides.
            version: of the model; a word.
            batch: how calls are put together for methods that are batched.
            runs_in: ``thread``; ``loop`` where all methods are ``async``; ``process`` for one that keeps a CPU busy or
                that nobody trusts with the process it is called in. Of such a model's arguments and answers each
                process has copies, and its constructor takes nothing.
            concurrency: calls, or batches, at once in each process; as many threads. 0 is 1, and 256 in the loop.
            waiting_max: calls that may wait in each process; more are refused with Overloaded, which says when to come
                again.
            warm: calls that are made before the first, as ``("embed", ("some text",))``.
            workers: how many processes of its own it has where it runs in such; or :class:`~seamline.Workers`.
            cache: keep answers of methods that are ``@readonly``.
            loads: ``start``, ``background`` or ``first_call``; the first version of a contract loads at the start,
                others when they are first asked. Who asks while it loads waits, as long as their deadline permits.
            idle_s: unload it after so many seconds without a call; the next call loads it. 0 keeps it.
            watch: look at what it is asked and answers, and tell scores.
        """

        def register(cls: type[T]) -> type[T]:
            if contract not in self.provides:
                raise ServiceError(
                    f"the model {cls.__name__!r} of module {self.name!r} answers {contract.__name__}, which the module "
                    "does not provide",
                    f"Write `Module({self.name!r}, provides={contract.__name__})`.",
                    place=f"{inspect.getsourcefile(cls)}",
                )
            processes = Workers(count=workers) if isinstance(workers, int) else workers
            if not version or concurrency < 0 or waiting_max < 1 or idle_s < 0 or processes.count < 1:
                raise ServiceError(
                    f"the model {cls.__name__!r} has version={version!r}, concurrency={concurrency}, "
                    f"waiting_max={waiting_max}, idle_s={idle_s}, workers={processes.count}",
                    "Give it a version, at least one worker, room for one to wait, and no number below 0.",
                    place=f"{inspect.getsourcefile(cls)}",
                )
            if any(each.contract is contract and each.version == version for each in self.models):
                raise ServiceError(
                    f"module {self.name!r} has {contract.__name__} twice in version {version!r}",
                    "Give each its own version.",
                    place=f"{inspect.getsourcefile(cls)}",
                )
            self.models.append(
                ModelType(
                    cls=cls, contract=contract, version=version, batch=batch or Batch(), runs_in=runs_in,
                    concurrency=concurrency, waiting_max=waiting_max, warm=tuple(warm), workers=processes, cache=cache,
                    loads=loads, idle_s=idle_s, watch=watch,
                )
            )  # fmt: skip
            return cls

        return register

    def replays(self, contract: type[Contract]) -> Callable[[type[T]], type[T]]:
        """Declare the class that decides again what was decided with a model of the module, for
        ``seamline models replay``: a :class:`~seamline.models.watch.replay.Replayer`. Its constructor is wired by type.
        """

        def register(cls: type[T]) -> type[T]:
            missing = [name for name in ("past", "again") if not inspect.iscoroutinefunction(getattr(cls, name, None))]
            if contract not in self.provides or contract in self.replayers or missing:
                wrong = f"has no async method {missing[0]!r}" if missing else "is the second to replay it"
                if contract not in self.provides:
                    wrong = "replays what the module does not provide"
                raise ServiceError(
                    f"{cls.__name__!r} is to replay {contract.__name__} in module {self.name!r}, and {wrong}",
                    "Write one class with the methods of `seamline.models.watch.replay.Replayer`.",
                    place=f"{inspect.getsourcefile(cls)}",
                )
            self.replayers[contract] = cls
            return cls

        return register

    def provide(self, factory: F) -> F:
        """Declare a function that makes a thing other constructors ask for by its return type. It may be async."""
        self.factories.append(factory)
        return factory

    def startup(self, function: F) -> F:
        """Run an async function, wired by type, before the module takes its first call."""
        self.startups.append(function)
        return function

    def shutdown(self, function: F) -> F:
        """Run an async function, wired by type, after the module's last call."""
        self.shutdowns.append(function)
        return function

    def on(
        self,
        event: type[Event],
        *,
        group: str = "",
        concurrency: int = 16,
        batch: int = 0,
        batch_wait_s: float = 0.05,
        where: Callable[[Any], bool] | None = None,
        start: Start = "earliest",
        attempts: int = 8,
        backoff_s: float = 0.1,
        timeout_s: float = 30.0,
        outside: bool = False,
    ) -> Callable[[F], F]:
        """Handle an event of any contract; parameters after the event are wired by type.

        All that the handler writes to the module's own database commits once, together with the note that the event
        was handled, so that an event that is delivered again has no second effect there. Call other modules before
        the first write.

        Args:
            event: the event's class.
            group: the consumer group's name in this module; the function's name when empty. A new name is a new group.
            concurrency: how many events are handled at once in each process; events with one key come in order.
            batch: above 0, the handler takes a list of up to so many events, which commit as one.
            batch_wait_s: how long a batch that is not full waits for more, in seconds.
            where: only events for which this is true are handled.
            start: where a new group begins.
            attempts: after so many failures the event goes to the dead letters.
            backoff_s: the pause after the first failure, in seconds; it doubles with each, up to 30 s.
            timeout_s: the longest that one attempt may take, in seconds.
            outside: the handler's effect is outside of the database: nothing is held open while it runs, it may run
                more than once, and ``EventContext.idempotency_key`` tells the outside so.
        """

        def register(function: F) -> F:
            if concurrency < 1 or batch < 0 or attempts < 1 or timeout_s <= 0:
                raise EventError(
                    f"the handler {function.__qualname__} has concurrency={concurrency}, batch={batch}, "
                    f"attempts={attempts}, timeout_s={timeout_s}",
                    "concurrency and attempts are at least 1, batch at least 0, timeout_s above 0.",
                    place=self.place,
                )
            if isinstance(start, datetime) and start.tzinfo is None:
                raise EventError(
                    f"the handler {function.__qualname__} starts at {start}, of no time zone",
                    "Say which: `datetime(..., tzinfo=UTC)`.",
                    place=self.place,
                )
            handler = EventHandler(
                event=event,
                function=function,
                group=group or function.__name__,
                concurrency=concurrency,
                batch=batch,
                batch_wait_s=batch_wait_s,
                where=where,
                start=start,
                attempts=attempts,
                backoff_s=backoff_s,
                timeout_s=timeout_s,
                outside=outside,
            )
            if any(each.group == handler.group and each.event is event for each in self.event_handlers):
                raise EventError(
                    f"module {self.name!r} has two handlers of {event.__name__} in the group {handler.group!r}",
                    "Give one of them a group of its own: `@module.on(..., group=...)`.",
                    place=self.place,
                )
            self.event_handlers.append(handler)
            return function

        return register

    @overload
    def saga(self, function: F) -> F: ...
    @overload
    def saga(
        self,
        *,
        name: str = "",
        version: int = 1,
        timeout_s: float = 0.0,
        compensate: Literal["reverse", "parallel"] = "reverse",
        cron: str = "",
    ) -> Callable[[F], F]: ...
    def saga(
        self,
        function: F | None = None,
        *,
        name: str = "",
        version: int = 1,
        timeout_s: float = 0.0,
        compensate: Literal["reverse", "parallel"] = "reverse",
        cron: str = "",
    ) -> F | Callable[[F], F]:
        """Declare an ``async`` function a saga: its first parameter is the :class:`~seamline.sagas.Saga`, parameters
        whose types the wiring knows are wired, and the others are its input.

        Args:
            name: under which running sagas are kept; the function's name when empty.
            version: of the code's course; a saga from a newer version is left to the workers that know it.
            timeout_s: the longest it may take, in seconds, before it is compensated; 0 is for ever.
            compensate: undo one after another in reverse, or all at once.
            cron: start one at each of these times (five fields, UTC); such a saga has no input.
        """

        def register(found: F) -> F:
            if not inspect.iscoroutinefunction(found):
                raise SagaError(f"the saga {found.__qualname__} is not async", "Write `async def`.", place=self.place)
            known = name or found.__name__
            if any(each.name == known for each in self.sagas):
                raise SagaError(
                    f"module {self.name!r} has two sagas called {known!r}", "Rename one of them.", place=self.place
                )
            self.sagas.append(
                SagaType(
                    function=found, name=known, version=version, timeout_s=timeout_s, compensate=compensate, cron=cron
                )
            )
            return found

        return register if function is None else register(function)

    def rotates(self, secret: str, *, every_s: float = 0, overlap_s: float = 3600) -> Callable[[F], F]:
        """Declare an ``async`` function that makes the next value of a secret, as str or bytes.

        Its first parameter is the :class:`~seamline.Secret` as it is; parameters after it are wired by type. It runs
        in one process at a time, when the time has come or ``seamline secrets rotate`` says so. A module needs a
        permit for ``Action::"rotate"``, and for ``Action::"secret"``.

        Args:
            secret: its name.
            every_s: how old a value may become, in seconds; 0 rotates only when somebody says so.
            overlap_s: for how long the value before it stays valid, in seconds.
        """

        def register(function: F) -> F:
            if not inspect.iscoroutinefunction(function) or every_s < 0 or overlap_s < 0:
                raise ModuleError(
                    f"{function.__qualname__} rotates {secret!r} with every_s={every_s}, overlap_s={overlap_s}",
                    "Write `async def`, and no time below 0.",
                    place=self.place,
                )
            if any(each.secret == secret for each in self.rotations):
                raise ModuleError(
                    f"module {self.name!r} rotates {secret!r} twice", "Keep one of the functions.", place=self.place
                )
            self.rotations.append(Rotation(secret=secret, function=function, every_s=every_s, overlap_s=overlap_s))
            return function

        return register

    def mount(self, app: Any, *, at: str = "/", host: str | None = None, wsgi: bool = False) -> None:
        """Make an existing ASGI or WSGI app the module's public HTTP face, unchanged.

        Args:
            app: the ASGI application (FastAPI, Starlette, Django, ...), or a WSGI one with ``wsgi=True``.
            at: path prefix under which the public reaches it; it becomes the app's ``root_path``.
            host: only for requests to this host.
            wsgi: the app is WSGI (Flask, Django without ASGI); needs the ``wsgi`` extra.
        """
        if not at.startswith("/"):
            raise ModuleError(f"mount(at={at!r}) does not begin with '/'", f"Write at={'/' + at!r}.", place=self.place)
        self.mounts.append(Mount(app, at.rstrip("/") or "/", host, wsgi))

    def __repr__(self) -> str:
        return f"Module({self.name!r})"
