"""Who looks at a page: the supervisor's control API has checked them and says so in two headers.

The portal listens on a socket that only the supervisor's user can reach, so the headers can be believed. Reading a
role here serves to hide what would be refused; the supervisor checks it again for everything that changes something.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from seamline.portal.errors import NoCallerError, RoleNeededError
from seamline.run.roles import ROLES, Caller, Role, suffices

CALLER_HEADER: Final = "x-seamline-caller"
ROLE_HEADER: Final = "x-seamline-role"


def caller_of(request: Request) -> Caller:
    """Raises NoCallerError where nobody has signed in."""
    name, role = request.headers.get(CALLER_HEADER, ""), request.headers.get(ROLE_HEADER, "")
    known: Role | None = next((each for each in ROLES if each == role), None)
    if not name or known is None:
        raise NoCallerError("nobody is signed in", "`seamline admin token` prints an address to sign in with.")
    return Caller(name, known, "portal")


def require(request: Request, role: Role) -> Caller:
    """Raises NoCallerError, or RoleNeededError where the role does not suffice."""
    caller = caller_of(request)
    if not suffices(caller.role, role):
        raise RoleNeededError(f"this needs the role {role!r}, and {caller.name} has {caller.role!r}")
    return caller
