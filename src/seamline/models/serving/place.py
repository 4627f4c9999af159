"""Where a model's methods run. One implementation runs them in this process, the other in processes of their own."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Protocol

from seamline.module.models import Artefacts


class Place(Protocol):
    """``load`` before anything else; after ``unload`` it may be loaded again."""

    async def load(self) -> None:
        """Load and warm it. Raises whatever the model raises."""
        ...

    async def batch(self, method: str, calls: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        """The results of some calls, by their arguments; a result may be an exception."""
        ...

    async def single(self, method: str, context: contextvars.Context, arguments: tuple[Any, ...]) -> Any: ...

    def stream(self, method: str, arguments: tuple[Any, ...]) -> AsyncGenerator[Any]: ...

    async def unload(self) -> None: ...

    def stats(self) -> dict[str, Any]:
        """For JSON."""
        ...


def loaded_with(load: Callable[..., Any], artefacts: Artefacts | None) -> tuple[Any, ...]:
    """What a model's ``load`` is given. Raises ValueError where it needs files and there are none."""
    wanted = [*inspect.signature(load).parameters.values()]
    if not wanted or (artefacts is None and wanted[0].default is not inspect.Parameter.empty):
        return ()
    if artefacts is None:
        raise ValueError("`load` wants its artefacts, and settings name none")
    return (artefacts,)
