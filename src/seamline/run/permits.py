"""What the code asks for and the policy keeps from it, found before somebody meets the refusal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from seamline.kernel.settings.tables import FILE_NAME
from seamline.mesh.errors import MissingPermitError
from seamline.mesh.policy import GATEWAY, HTTP, Policy

if TYPE_CHECKING:
    from seamline.run.application import Application


def missing_permits(application: Application, policy: Policy) -> list[MissingPermitError]:
    """Contracts that a module asks for and may call nothing of, and routes that the gateway may not follow.

    Which methods are called is not known without running the code; so one that may be called is enough.
    """
    return [*_uncallable(application, policy), *_unreachable(application, policy)]


def _uncallable(application: Application, policy: Policy) -> Iterator[MissingPermitError]:
    methods = {name: names for name, (_, names) in application.contract_methods().items()}
    for caller, contract, callee, place in application.asked():
        if caller == callee or any(policy.may(caller, callee, contract, each) for each in methods[contract]):
            continue
        yield MissingPermitError(
            f"module {caller!r} asks for {contract}, but may call nothing of it",
            f'Add `permit(principal == Module::"{caller}", action in Action::"{contract}", '
            f'resource == Module::"{callee}");` to policy/{callee}.cedar, or name the methods one by one.',
            place=place,
        )


def _unreachable(application: Application, policy: Policy) -> Iterator[MissingPermitError]:
    modules = application.modules.values()
    routes = {(module.name, mount.at): module.place for module in modules for mount in module.mounts}
    for route in application.settings.gateway.routes:
        routes.setdefault((route.module, route.path), f"{FILE_NAME} [gateway] routes")
    for (module, path), place in routes.items():
        if not policy.may(GATEWAY, module, "", HTTP):
            yield MissingPermitError(
                f"module {module!r} answers at {path!r}, but {GATEWAY!r} may not send public HTTP requests to it",
                policy.explain(GATEWAY, module, "", HTTP).remedy,
                place=place,
            )
