"""Stacks as a person reads them: few frames, those of the application above all."""

from __future__ import annotations

import asyncio
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

FRAMES_MAX: Final = 24
_DEPTH_MAX: Final = 200
_CODES_MAX: Final = 20_000

_OWN = str(Path(__file__).parents[2])
_LIBRARY: Final = tuple({f"{folder}/" for folder in (*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), _OWN)})

_LOOP: Final = (asyncio.Runner.run.__code__, asyncio.Handle._run.__code__)  # noqa: SLF001  # to know it by

Frames = tuple[int, ...]
"""From the innermost out: for each frame the number of its code and the instruction that it is at."""


class Stacks:
    """Notes stacks at little cost, and spells them out when somebody reads them.

    Args:
        folders: of each module's code, to guess who a stack belongs to where nobody says it.
    """

    def __init__(self, folders: Mapping[str, str] | None = None) -> None:
        self._codes: dict[int, CodeType] = {}  # by id: to hash a code object is to hash all that it holds
        self._folders = sorted(((f"{folder}/", name) for name, folder in (folders or {}).items()), reverse=True)

    def note(self, frame: FrameType | None) -> Frames:
        codes = self._codes
        found: list[int] = []
        depth = 0
        while frame is not None and depth < _DEPTH_MAX:
            code = frame.f_code
            number = id(code)
            codes[number] = code
            found.append(number)
            found.append(frame.f_lasti)
            frame = frame.f_back
            depth += 1
        return tuple(found)

    def forget_some(self) -> None:
        """For who has spelled out all that was noted, now and then."""
        if len(self._codes) > _CODES_MAX:
            self._codes.clear()

    def spelled(self, frames: Frames) -> str:
        """``function (file:line)`` from the outermost in, joined by ``;``: at most 24, the innermost among them."""
        codes = self._codes
        found = [
            (codes[number], instruction)
            for number, instruction in zip(frames[::2], frames[1::2], strict=True)
            if number in codes
        ]
        begins = next((i for i, (code, _) in enumerate(found) if code in _LOOP), 0)
        if begins:
            found = found[:begins]  # how the loop itself was started is the same for all
        if len(found) > FRAMES_MAX:
            # The sort is stable: after the innermost, the application's from the inside out, then the libraries'.
            order = sorted(range(len(found)), key=lambda i: i > 0 and is_library(found[i][0].co_filename))
            found = [found[i] for i in sorted(order[:FRAMES_MAX])]
        return ";".join(_label(code, instruction) for code, instruction in reversed(found))

    def module(self, frames: Frames) -> str:
        """Whose code the innermost frame of a module is; ``""`` where there is none."""
        codes = [self._codes[number] for number in frames[::2] if number in self._codes]
        return self.module_of(code.co_filename for code in codes)

    def module_of(self, files: Iterable[str]) -> str:
        """Whose the first file is that is a module's."""
        return next(
            (name for file in files for folder, name in self._folders if file.startswith(folder)),
            "",
        )


@lru_cache(4_096)
def is_library(file: str) -> bool:
    """Whether a file is Python's, a library's or ours, and not the application's."""
    return file.startswith(("<", *_LIBRARY))


@lru_cache(16_384)
def _label(code: CodeType, instruction: int) -> str:
    line = next((line for start, end, line in code.co_lines() if start <= instruction < end), None)
    return f"{code.co_qualname} ({shown_file(code.co_filename)}:{line or code.co_firstlineno})".replace(";", ",")


@lru_cache(4_096)
def shown_file(file: str) -> str:
    """As it would be imported from, without the folders above."""
    roots = [root for root in sys.path if root and file.startswith(f"{root}/")]
    return file[len(max(roots, key=len)) + 1 :] if roots else file
