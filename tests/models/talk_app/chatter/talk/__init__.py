"""A language model that follows a script."""

from __future__ import annotations

from seamline import readonly
from seamline.models.chat import Chat


class Talk(Chat):
    """``made``: how many pieces it has said."""

    @readonly
    async def made(self) -> int: ...
