"""Seamline: systems as typed modules, whose topology is chosen when they run and changed while they run.

The names here are all that an application imports. ``Database`` and ``Clock`` are asked for by type.
"""

from typing import TYPE_CHECKING, Any

from seamline.kernel.clock import Clock
from seamline.kernel.errors import SeamlineError
from seamline.module import (
    CallContext,
    CallError,
    Contract,
    DeadlineExceeded,
    Event,
    Fault,
    InternalError,
    InvalidArgument,
    Module,
    Overloaded,
    PermissionDenied,
    Place,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    current,
    idempotent,
    place,
    readonly,
    timeout,
    use,
)

if TYPE_CHECKING:
    from seamline.kernel.store import Database

__version__ = "0.1.0"

__all__ = [
    "CallContext",
    "CallError",
    "Clock",
    "Contract",
    "Database",
    "DeadlineExceeded",
    "Event",
    "Fault",
    "InternalError",
    "InvalidArgument",
    "Module",
    "Overloaded",
    "PermissionDenied",
    "Place",
    "SeamlineError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "current",
    "idempotent",
    "place",
    "readonly",
    "timeout",
    "use",
]


def __getattr__(name: str) -> Any:
    if name == "Database":  # SQLAlchemy takes a tenth of a second to import, and contracts do not need it
        from seamline.kernel.store import Database

        return Database
    message = f"module 'seamline' has no attribute {name!r}"
    raise AttributeError(message)
