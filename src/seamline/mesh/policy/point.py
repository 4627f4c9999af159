"""Another decision point: the rules of an Open Policy Agent, asked over its REST API (``POST /v1/data/<path>``).

It decides calls and public requests in place of the Cedar files; who may read events, views and secrets stays with
these. What it is asked is ``{"input": {"principal", "action", "resource", "context"}}``; what it answers is
``{"result": true}`` or ``{"result": {"allow": true, "reason": "...", "sign_in": false}}``. Whatever else comes, or
nothing in time, is a refusal.
"""

from __future__ import annotations

import json
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from seamline.kernel.settings.auth import loopback
from seamline.kernel.signal import log
from seamline.kernel.wire.http1_client import HttpPool
from seamline.mesh.errors import DecisionPointError
from seamline.mesh.policy.facts import Facts, user_attributes
from seamline.mesh.policy.rules import Key
from seamline.mesh.policy.values import Decimal4, Entity, Moment, Value, elements
from seamline.mesh.policy.world import call_name

if TYPE_CHECKING:
    from seamline.kernel.settings import PolicySettings

_log = log.get("seamline.policy")
_ANSWER_BYTES_MAX = 65_536
_KEPT_MAX = 10_000
_CACHE_MIN_S = 0.1
_TELL_EVERY_S = 10.0
_HEADERS = ((b"content-type", b"application/json"), (b"accept", b"application/json"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the decision point said. ``sign_in``: somebody who signs in might be let in."""

    allow: bool
    reason: str = ""
    sign_in: bool = False


class DecisionPoint:
    """Asks, bounded in time, and remembers answers for a while. Belongs to the event loop that first asks."""

    def __init__(self, settings: PolicySettings, clock: Callable[[], float] = monotonic) -> None:
        """Raises DecisionPointError for a URL that cannot be used."""
        self.url = settings.decision_point
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host or (parts.scheme == "http" and not loopback(host)):
            raise DecisionPointError(
                f"{self.url!r} is no https URL, nor http on this machine",
                "An answer that anybody on the way can change decides nothing.",
                place="seamline.toml [policy] decision_point",
            )
        self._parts = parts
        self._timeout_s = settings.decision_timeout_ms / 1000
        self._cache_s = max(settings.decision_cache_s, _CACHE_MIN_S)
        self._clock = clock
        self._pool: HttpPool | None = None
        self._kept: OrderedDict[bytes, tuple[float, Answer]] = OrderedDict()
        self._told = float("-inf")

    async def ask(self, question: Mapping[str, Any]) -> Answer:
        """The answer, from memory if it is fresh. A failure is a refusal, and is not remembered."""
        body = json.dumps({"input": question}, sort_keys=True).encode()
        now = self._clock()
        kept = self._kept.get(body)
        if kept is not None and now < kept[0]:
            return kept[1]
        try:
            answer = await self._asked(body)
        except (OSError, ValueError, DecisionPointError) as error:
            self._tell(error, now)
            return Answer(False, f"{self.url} gave no answer: {error or type(error).__name__}")
        self._kept[body] = (now + self._cache_s, answer)
        self._kept.move_to_end(body)
        if len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)
        return answer

    def forget(self) -> None:
        """Ask anew about everything."""
        self._kept.clear()

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    async def _asked(self, body: bytes) -> Answer:
        parts = self._parts
        if self._pool is None:
            secure = parts.scheme == "https"
            self._pool = HttpPool(
                parts.hostname or "",
                parts.port or (443 if secure else 8181),
                ssl.create_default_context() if secure else None,
                host_header=parts.netloc,
            )
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        response = await self._pool.request("POST", target, _HEADERS, body, self._timeout_s, replayable=True)
        content = await response.read_all(_ANSWER_BYTES_MAX)
        if response.status != 200:
            raise DecisionPointError(f"it answered with status {response.status}", "Is the path right?")
        return _read(json.loads(content))

    def _tell(self, error: Exception, now: float) -> None:
        if now - self._told < _TELL_EVERY_S:
            return
        self._told = now
        _log.error(
            "%s gave no answer, so what it should decide is refused: %s", self.url, error or type(error).__name__
        )


def _read(document: Any) -> Answer:
    """OPA leaves ``result`` out where no rule defines it: a refusal like every other."""
    fields = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    result = fields.get("result")
    if not isinstance(result, dict):
        return Answer(result is True, "" if "result" in fields else "no rule defines an answer")
    found = cast("dict[str, Any]", result)
    return Answer(found.get("allow") is True, str(found.get("reason", "")), found.get("sign_in") is True)


def question(key: Key, facts: Facts, own: Mapping[str, str]) -> dict[str, Any]:
    """What is asked about a request. Raises EvaluationError for an argument that policy cannot read."""
    caller, callee, contract, method = key
    context = {name: _plain(value) for name, value in facts.whole().items() if name != "user"}
    user = facts.user
    if user is not None:
        attributes = {name: _plain(value) for name, value in user_attributes(user, own).items()}
        context["user"] = {"id": user.id, "roles": sorted(user.roles), **attributes}
    return {
        "principal": {"type": "Module", "id": caller},
        "action": call_name(contract, method),
        "resource": {"type": "Module", "id": callee},
        "context": context,
    }


def _plain(value: Value) -> Any:
    """As JSON without Cedar's types: an entity is its id, a decimal its text, a time its milliseconds."""
    if isinstance(value, Entity):
        return value.id
    if isinstance(value, frozenset):
        return sorted((_plain(each) for each in elements(cast("frozenset[Any]", value))), key=str)
    if isinstance(value, dict):
        record = cast("dict[str, Value]", value)
        return {name: _plain(each) for name, each in record.items()}
    if isinstance(value, Decimal4):
        return str(value)
    return value.ms if isinstance(value, Moment) else value
