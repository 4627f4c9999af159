"""Actions: a form of a page asks, the supervisor does it or refuses, and the visitor sees how it goes.

``portal.js`` sends the form and reads the answer as server-sent events: ``progress`` any number of times, then ``done``
(a sentence, and where to go or what to show) or ``trouble``. Forms of other sites do not get here: the control API asks
for the word that only our page has, in a header.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.portal.errors import FieldError
from seamline.portal.live import EventStream, Write, event, told
from seamline.portal.session import require
from seamline.portal.shell import portal_of
from seamline.run.roles import Caller, Role

_BODY_BYTES_MAX: Final = 1024 * 1024
_FIELDS_MAX: Final = 2000


class Act:
    """One action under way: who acts, and what the form said."""

    def __init__(
        self, request: Request, caller: Caller, fields: list[tuple[str, str]], say: Callable[[str], None]
    ) -> None:
        self.request = request
        self.caller = caller
        self.say = say
        self._fields = fields

    def field(self, name: str, default: str | None = None) -> str:
        """Raises FieldError where it is missing or empty and has no default."""
        value = next((value for key, value in self._fields if key == name), "").strip()
        if value:
            return value
        if default is None:
            raise FieldError(f"the field {name!r} is empty", "Fill it in.")
        return default

    def fields(self, name: str) -> list[str]:
        """All values of a field that stands there more than once, such as ticked boxes."""
        return [value for key, value in self._fields if key == name]

    def values(self) -> dict[str, str]:
        """All fields, of each the last."""
        return dict(self._fields)

    async def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Ask the supervisor as who is signed in; it checks the role again, and writes to the audit."""
        return await portal_of(self.request).admin.ask(op, self.say, as_=self.caller, **arguments)


@dataclass(frozen=True)
class Done:
    """What is shown in the end: a sentence; where to ``go``, ``html`` ``into`` an element, or this page ``again``."""

    text: str
    go: str = ""
    into: str = ""
    html: str = ""
    again: bool = False


def action(path: str, role: Role, perform: Callable[[Act], Awaitable[Done]]) -> Route:
    """``POST path`` does it, for those who have ``role``."""

    async def answer(request: Request) -> Response:
        caller = require(request, role)
        fields = await _fields(request)

        async def produce(write: Write) -> None:
            said: asyncio.Queue[str | None] = asyncio.Queue()

            async def run() -> Done:
                try:
                    return await perform(Act(request, caller, fields, said.put_nowait))
                finally:
                    said.put_nowait(None)

            async def pass_on() -> None:
                while (text := await said.get()) is not None:
                    await write(event("progress", text))

            done, _ = await asyncio.gather(run(), pass_on())
            await write(told("done", asdict(done)))

        return EventStream(request, produce)

    return Route(path, answer, methods=["POST"])


async def _fields(request: Request) -> list[tuple[str, str]]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _BODY_BYTES_MAX:
            raise FieldError(f"the form is larger than {_BODY_BYTES_MAX} bytes", "Send less at a time.")
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except ValueError as error:
        raise FieldError(f"the form cannot be read: {error}", "Reload the page.") from error
