"""Module: what a team writes, owns and places. It only collects; wiring and the mesh act on it."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from seamline.module.contract import Contract
from seamline.module.errors import ModuleError, ServiceError
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


@dataclasses.dataclass(frozen=True)
class EventHandler:
    """A function that wants to hear of an event."""

    event: type[Event]
    function: Callable[..., Any]


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
        self.mounts: list[Mount] = []
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

    def on(self, event: type[Event]) -> Callable[[F], F]:
        """Handle an event of any contract; parameters after the event are wired by type."""

        def register(function: F) -> F:
            self.event_handlers.append(EventHandler(event, function))
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
