"""What a user writes: modules, contracts, faults, events, and how they are wired together.

Nothing here talks to a network, knows a policy or starts a process: the call port says what a call is,
the mesh makes it.
"""

from seamline.module.context import CallContext, Place, current, place
from seamline.module.contract import Contract, compile_contract, idempotent, readonly, timeout
from seamline.module.errors import (
    CallError,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    ModuleError,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from seamline.module.models import Artefacts, Batch, Cache, Capture, SemanticCache, Watch, Workers, batched
from seamline.module.module import Module
from seamline.module.port import use
from seamline.module.principal import Principal, Subject, User
from seamline.module.values import Attribute, Event, Fault

__all__ = [
    "Artefacts",
    "Attribute",
    "Batch",
    "Cache",
    "CallContext",
    "CallError",
    "Capture",
    "Contract",
    "DeadlineExceeded",
    "Event",
    "Fault",
    "InternalError",
    "InvalidArgument",
    "Module",
    "ModuleError",
    "Overloaded",
    "PermissionDenied",
    "Place",
    "Principal",
    "SemanticCache",
    "Subject",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "User",
    "Watch",
    "Workers",
    "batched",
    "compile_contract",
    "current",
    "idempotent",
    "place",
    "readonly",
    "timeout",
    "use",
]
