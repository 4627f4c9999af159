"""The application as the kit runs it, whatever the topology: what both ways of running it can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from seamline.module import Contract, compile_contract
from seamline.testing.errors import BadFakeError, NoSuchTargetError

if TYPE_CHECKING:
    from seamline.mesh.mesh import Mesh
    from seamline.run.application import Application

C = TypeVar("C", bound=Contract)

START_S = 90.0
"""How long a start may take, on a busy machine."""
STOP_S = 30.0

Fakes = Mapping[type[Contract], object]
Rules = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be run."""

    application: Application
    """All of its modules are loaded."""
    topology: str
    """``local``, ``copy``, ``processes``, or a topology of the application."""
    data: Path
    """An empty folder, prepared by :func:`seamline.testing.ground.prepare`."""


class Site(Protocol):
    """An application that runs. Coroutines are for the kit's own loop."""

    one_process: bool

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def address(self) -> tuple[str, int]:
        """Where the public side listens."""
        ...

    def ai_url(self) -> str:
        """Where the AI gateway answers, with ``/v1``; empty if it does not listen."""
        ...

    async def stub(self, contract: type[C], caller: str) -> C: ...
    async def gateway(self) -> Mesh:
        """A mesh that may say who the user is."""
        ...

    async def revoke(self, entry: Mapping[str, Any]) -> None: ...
    async def set_rules(self, rules: Rules) -> None: ...
    async def set_fakes(self, fakes: Fakes) -> None: ...
    def now(self) -> datetime: ...
    def advance(self, seconds: float) -> None: ...
    async def kill(self, module: str) -> list[int]:
        """SIGKILL for what hosts the module; the process ids."""
        ...

    async def restart(self) -> None: ...


def check_fakes(application: Application, fakes: Fakes) -> dict[str, dict[type[Contract], object]]:
    """Module to the services that stand in for it. Raises BadFakeError or NoSuchTargetError.

    A module is replaced as a whole: in many processes the rest of it would be out of reach.
    """
    found: dict[str, dict[type[Contract], object]] = {}
    for contract, service in fakes.items():
        module = application.contracts.get(contract)
        if module is None:
            raise NoSuchTargetError(
                f"no module of the application provides {contract.__name__!r}",
                "Is it the contract of this application?",
            )
        missing = [name for name in compile_contract(contract).methods if not _implements(service, contract, name)]
        if missing:
            raise BadFakeError(
                f"the fake {type(service).__name__!r} of {contract.__name__!r} has no {', '.join(map(repr, missing))}",
                f"Derive it from {contract.__name__!r} and write every method.",
            )
        found.setdefault(module, {})[contract] = service
    for module, services in found.items():
        left = [c.__name__ for c, owner in application.contracts.items() if owner == module and c not in services]
        if left:
            raise BadFakeError(
                f"module {module!r} also provides {', '.join(map(repr, left))}, which nothing stands in for",
                "Fake all contracts of the module, or none.",
            )
    return found


def _implements(service: object, contract: type[Contract], name: str) -> bool:
    own = getattr(type(service), name, None) or getattr(service, name, None)
    return callable(own) and own is not getattr(contract, name)
