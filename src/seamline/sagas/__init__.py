"""Sagas: functions whose steps are journalled, so that they go on after a crash and are undone when they fail.

The retry of a step is this room's work; the retry of a call within a step is the mesh's. What a called module does to
answer a key only once is in ``once``.
"""

from seamline.sagas.errors import (
    ApprovalExpired,
    SagaBusyError,
    SagaCancelled,
    SagaEndedError,
    SagaMismatchError,
    SagasError,
    SagaTimedOut,
    StepFailed,
    UnknownSagaError,
    WaitExpired,
)
from seamline.sagas.saga import Approval, Saga
from seamline.sagas.sagas import SagaHandle, SagaInfo, Sagas

__all__ = [
    "Approval",
    "ApprovalExpired",
    "Saga",
    "SagaBusyError",
    "SagaCancelled",
    "SagaEndedError",
    "SagaHandle",
    "SagaInfo",
    "SagaMismatchError",
    "SagaTimedOut",
    "Sagas",
    "SagasError",
    "StepFailed",
    "UnknownSagaError",
    "WaitExpired",
]
