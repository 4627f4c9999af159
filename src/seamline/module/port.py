"""The call port: how a module reaches contracts. The mesh implements it; ``run`` binds the two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, cast

from seamline.module.contract import Contract
from seamline.module.errors import WiringError
from seamline.module.principal import Principal

C = TypeVar("C", bound=Contract)
U = TypeVar("U", bound=Contract | Principal)


class CallPort(Protocol):
    """Gives stubs of contracts."""

    def stub(self, contract: type[C], caller: str) -> C:
        """A stub of ``contract`` whose calls are made as the module ``caller``."""
        ...


Stubs = Callable[[type[Contract]], Any]
"""From a contract to the stub bound to one module's identity."""

MOUNTED: ContextVar[Stubs] = ContextVar("seamline_mounted")
"""The stubs of the module whose mounted app is serving a request."""


def use(contract: type[U]) -> Callable[[], Awaitable[U]]:
    """A contract, or the Principal, for code inside a mounted app.

    In FastAPI: ``payments: Annotated[Payments, Depends(use(Payments))]``. Elsewhere in a mounted app:
    ``payments = await use(Payments)()``. The calls are made under the identity of the module that mounts the app.

    Raises:
        WiringError: it is neither; or outside of a request that came through Seamline.
    """
    if contract is Principal:

        async def principal() -> U:
            return cast("U", Principal())

        return principal
    if not issubclass(contract, Contract):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all code is typed
        raise WiringError(
            f"use({contract.__name__}): {contract.__name__} is no contract, and a mounted app asks for contracts only",
            f"Ask for {contract.__name__} in a service, and let the app call its contract.",
        )

    async def dependency() -> U:
        stubs = MOUNTED.get(None)
        if stubs is None:
            raise WiringError(
                f"use({contract.__name__}) was asked outside of a request that came through Seamline",
                "Start the app with `seamline up`, or override the dependency in the test.",
            )
        return stubs(cast("type[Contract]", contract))

    dependency.__seamline_contract__ = contract  # pyright: ignore[reportFunctionMemberAccess]
    return dependency
