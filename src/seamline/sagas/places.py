"""Where in a saga's code things happen: their numbers, within the branch that asks where branches run at once."""

from __future__ import annotations

import asyncio
import random
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seamline.sagas.course import Course


class Branch:
    """A task of the saga's own, as ``asyncio.gather`` makes them; it counts its places apart from others."""

    __slots__ = ("branches", "lots", "path", "places", "task")

    def __init__(self, path: str, task: asyncio.Task[Any] | None) -> None:
        self.path = path
        self.task = task
        self.places = 0
        self.branches = 0
        self.lots: random.Random | None = None


_BRANCH: ContextVar[Branch] = ContextVar("seamline_saga_branch")


class Places:
    """Gives numbers in one run of a saga, and chance that is the same each time that it is replayed."""

    __slots__ = ("_course", "_main", "unstarted")

    def __init__(self, course: Course) -> None:
        self._course = course
        self._main = Branch("", None)
        self.unstarted = 0
        """How many were taken for what nobody has awaited yet."""

    def _branch(self) -> Branch:
        task = asyncio.current_task()
        if task is self._course.task:
            return self._main
        found = _BRANCH.get(self._main)
        if found.task is not task:
            found.branches += 1
            found = Branch(f"{found.path}b{found.branches}.", task)
            _BRANCH.set(found)
        return found

    def take(self) -> str:
        """The next one."""
        self.unstarted += 1
        if asyncio.current_task() is self._course.task:
            main = self._main
            main.places += 1
            return str(main.places)
        branch = self._branch()
        branch.places += 1
        return f"{branch.path}{branch.places}"

    def lots(self) -> random.Random:
        branch = self._branch()
        if branch.lots is None:
            branch.lots = random.Random(f"{self._course.prefix}{branch.path}")
        return branch.lots
