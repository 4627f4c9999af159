"""Which earlier call means about the same as this one: by the cosine of what a function makes of them."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from seamline.models.errors import ExtraMissingError
from seamline.module.models import SemanticCache

_GROUPS_MAX: Final = 100
_ROWS_FIRST: Final = 16


@dataclass(frozen=True, slots=True)
class Where:
    """A call: its group, within which others are compared, and its direction."""

    group: tuple[str, str, str]
    """Method, principal, and what has to be equal besides."""
    direction: Any


class _Group:
    """The last calls of one group, as rows of a matrix that grows to ``entries``, then written round and round."""

    def __init__(self, width: int, entries: int, numpy: Any) -> None:
        self._numpy = numpy
        self._entries = entries
        self._next = 0
        self.rows = numpy.empty((min(entries, _ROWS_FIRST), width), dtype=numpy.float32)
        self.keys: list[Any] = []

    def keep(self, direction: Any, key: Any) -> None:
        if len(self.keys) < self._entries:
            if len(self.keys) == len(self.rows):
                grown = min(2 * len(self.rows), self._entries) - len(self.rows)
                self.rows = self._numpy.concatenate([self.rows, self._numpy.empty_like(self.rows[:grown])])
            self.keys.append(key)
        else:
            self.keys[self._next] = key
        self.rows[self._next] = direction
        self._next = (self._next + 1) % self._entries


class Similar:
    """What was asked before, by group; bounded. Needs numpy."""

    def __init__(self, semantic: SemanticCache) -> None:
        try:
            import numpy as np
        except ImportError:
            raise ExtraMissingError(
                "a semantic cache needs numpy, which is not installed", "Install seamline[models]."
            ) from None
        self._numpy: Any = np
        self._semantic = semantic
        self._groups: OrderedDict[tuple[str, str, str], _Group] = OrderedDict()

    async def place(self, method: str, who: str, arguments: tuple[Any, ...]) -> Where:
        semantic = self._semantic
        vector = semantic.embed(*arguments)
        if inspect.isawaitable(vector):
            vector = await vector
        direction = self._numpy.asarray(vector, dtype=self._numpy.float32)
        length = float(self._numpy.linalg.norm(direction))
        same = semantic.same(*arguments) if semantic.same is not None else ""
        return Where((method, who, same), direction / length if length else direction)

    def nearest(self, where: Where) -> Any | None:
        """The key of the most similar, if one is similar enough."""
        group = self._groups.get(where.group)
        if group is None:
            return None
        self._groups.move_to_end(where.group)
        cosines = group.rows[: len(group.keys)] @ where.direction
        best = int(cosines.argmax())
        return group.keys[best] if cosines[best] >= self._semantic.similarity else None

    def keep(self, where: Where, key: Any) -> None:
        group = self._groups.get(where.group)
        if group is None:
            group = self._groups[where.group] = _Group(len(where.direction), self._semantic.entries, self._numpy)
            if len(self._groups) > _GROUPS_MAX:
                self._groups.popitem(last=False)
        group.keep(where.direction, key)
