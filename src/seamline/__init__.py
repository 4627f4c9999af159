"""Seamline: systems as typed modules, whose topology is chosen when they run and changed while they run.

The names here are all that an application imports. ``Database``, ``Clock``, ``Events``, ``Sagas`` and ``Secrets`` are
asked for by type.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from seamline.kernel.clock import Clock
from seamline.kernel.errors import SeamlineError
from seamline.module import (
    Artefacts,
    Attribute,
    Batch,
    Cache,
    CallContext,
    CallError,
    Capture,
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
    Principal,
    SemanticCache,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    User,
    Watch,
    Workers,
    batched,
    current,
    idempotent,
    place,
    readonly,
    timeout,
    use,
)

if TYPE_CHECKING:
    from seamline.events.context import EventContext
    from seamline.events.events import Events
    from seamline.kernel.store import Database
    from seamline.sagas.errors import ApprovalExpired, StepFailed, WaitExpired
    from seamline.sagas.saga import Approval, Saga
    from seamline.sagas.sagas import SagaHandle, Sagas
    from seamline.secrets.secret import Secret
    from seamline.secrets.secrets import Secrets

__version__ = "0.1.0"

# SQLAlchemy takes a tenth of a second to import, and contracts need none of these.
_LATER: Final = {
    "Approval": "seamline.sagas.saga",
    "ApprovalExpired": "seamline.sagas.errors",
    "Database": "seamline.kernel.store",
    "EventContext": "seamline.events.context",
    "Events": "seamline.events.events",
    "Saga": "seamline.sagas.saga",
    "SagaHandle": "seamline.sagas.sagas",
    "Sagas": "seamline.sagas.sagas",
    "Secret": "seamline.secrets.secret",
    "Secrets": "seamline.secrets.secrets",
    "StepFailed": "seamline.sagas.errors",
    "WaitExpired": "seamline.sagas.errors",
}

__all__ = [
    "Approval",
    "ApprovalExpired",
    "Artefacts",
    "Attribute",
    "Batch",
    "Cache",
    "CallContext",
    "CallError",
    "Capture",
    "Clock",
    "Contract",
    "Database",
    "DeadlineExceeded",
    "Event",
    "EventContext",
    "Events",
    "Fault",
    "InternalError",
    "InvalidArgument",
    "Module",
    "Overloaded",
    "PermissionDenied",
    "Place",
    "Principal",
    "Saga",
    "SagaHandle",
    "Sagas",
    "SeamlineError",
    "Secret",
    "Secrets",
    "SemanticCache",
    "StepFailed",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "User",
    "WaitExpired",
    "Watch",
    "Workers",
    "batched",
    "current",
    "idempotent",
    "place",
    "readonly",
    "timeout",
    "use",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    message = f"module 'seamline' has no attribute {name!r}"
    raise AttributeError(message)
