"""What a module says of its models; the room ``models`` acts on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

RunsIn = Literal["thread", "loop"]
"""Where a model's methods run: in threads of its own, or, if they are ``async``, on the event loop."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """How calls that wait at the same time are put together.

    Args:
        max: calls in one batch, at most.
        wait_ms: how long a batch waits for calls that are likely to come, in milliseconds. With nothing else under
            way and nobody expected, it does not wait.
    """

    max: int = 32
    wait_ms: float = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelType:
    """A class that is a model. See :meth:`seamline.Module.model`."""

    cls: type[Any]
    contract: type[Any]
    version: str
    batch: Batch
    runs_in: RunsIn
    concurrency: int
    waiting_max: int
    warm: Sequence[tuple[str, tuple[Any, ...]]] = ()

    @property
    def name(self) -> str:
        """``Similar@minilm-1``."""
        return f"{self.contract.__name__}@{self.version}"


def batched(method: F) -> F:
    """Mark a model's method that answers several calls at once.

    It takes the contract's parameters, each as a list with one element a call, and returns a list with one result a
    call. A result that is an exception is raised to that caller only.
    """
    method.__seamline_batched__ = True  # type: ignore[attr-defined]
    return method


def is_batched(method: object) -> bool:
    return bool(getattr(method, "__seamline_batched__", False))
