"""What the command line and the portal ask of the sagas of this process's modules. Everything in JSON's words."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Any, cast

import msgspec

from seamline.sagas.engine import Engine
from seamline.sagas.errors import SagasError, UnknownSagaError
from seamline.sagas.journal.records import Entry, Head, Message, read_entry, read_work
from seamline.sagas.journal.statements import COLUMNS
from seamline.sagas.mail import BY_HAND
from seamline.sagas.saga import Approval
from seamline.sagas.sagas import info_of

LIMIT_MAX = 1000
LOOK_S_MAX = 5.0
LOOK_PAUSE_S = 0.02
STATUSES = ("running", "undoing", "stuck", "succeeded", "failed", "cancelled", "active")
_SEARCHED = ("id", "key", "input", "result", "stuck", "work")
_NEWEST = "id IN (SELECT id FROM seamline_sagas ORDER BY id DESC LIMIT 50000)"
"""A text is looked for in so many of them: it stands in no index."""


class Admin:
    """Operations by name: ``list``, and ``show``, ``retry``, ``cancel``, ``signal`` and ``approve`` of one saga."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self._operations: dict[str, Callable[[Engine, Head, dict[str, Any]], Awaitable[Any]]] = {
            "show": self._show,
            "retry": self._retry,
            "cancel": self._cancel,
            "signal": self._signal,
            "approve": self._approve,
        }

    async def run(self, operation: str, arguments: dict[str, Any]) -> Any:
        """The answer; None where the saga is not one of this process's modules. Raises SagasError."""
        if operation == "list":
            return await self._list(arguments)
        asked = self._operations.get(operation)
        if asked is None:
            raise SagasError(f"there is no operation {operation!r} on sagas", "See `seamline sagas --help`")
        for engine in self._chosen(arguments):
            try:
                head = await engine.journal.head(str(arguments["id"]))
            except UnknownSagaError:
                continue
            return await asked(engine, head, arguments)
        return None

    def _chosen(self, arguments: dict[str, Any]) -> list[Engine]:
        module = arguments.get("module")
        return [engine for name, engine in self._engines.items() if module in (None, name)]

    async def _list(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """The newest first. ``type``, ``status``, ``key`` (its beginning), ``text`` (anywhere in the newest of them),
        ``parent``, ``since`` (ISO 8601), ``before`` (an id, to go on behind it), ``limit``."""
        limit = min(int(arguments.get("limit") or 50), LIMIT_MAX)
        where, values = conditions(arguments)
        sql = f"SELECT {COLUMNS} FROM seamline_sagas{where} ORDER BY id DESC LIMIT ?"  # noqa: S608  # values are bound
        found: list[dict[str, Any]] = []
        for engine in self._chosen(arguments):
            rows = await engine.journal.store.read(sql, (*values, limit))
            found += [_outline(engine, Head(*row)) for row in rows]
        return sorted(found, key=_by_id, reverse=True)[:limit]

    async def _show(self, engine: Engine, head: Head, _: dict[str, Any]) -> dict[str, Any]:
        rows = (await engine.journal.entries([head.id]))[head.id]
        messages = (await engine.journal.messages([head.id]))[head.id]
        return {
            **_outline(engine, head),
            "input": _decoded(head.input),
            "result": _decoded(head.result) if head.result else None,
            "journal": [_entry(head.id, *row) for row in rows],
            "messages": [_message(each) for each in messages],
        }

    async def _retry(self, engine: Engine, head: Head, arguments: dict[str, Any]) -> dict[str, Any]:
        """Try again at once. ``skip``: the place of a compensation that was done by hand."""
        skip = str(arguments.get("skip") or "")
        if skip:
            await self._check_skipped(engine, head, skip)
        await engine.tell(head.id, "skip" if skip else "retry", skip, "")
        return {"id": head.id, "module": engine.module}

    async def _check_skipped(self, engine: Engine, head: Head, place: str) -> None:
        """A slip of the hand would leave undone what nobody undid. Raises SagasError."""
        if f"undo {place}" in read_work(head).trouble:
            return
        if head.status != "undoing":
            raise SagasError(
                f"saga {head.id!r} is not undoing anything ({head.status})", "Only a compensation is left out"
            )
        rows = (await engine.journal.entries([head.id]))[head.id]
        found = {each["kind"] for each in (_entry(head.id, *row) for row in rows) if each["place"] == place}
        if not found or "undo" in found:
            raise SagasError(
                f"saga {head.id!r} has nothing left to undo at place {place!r}",
                "`seamline sagas show` tells the place of the compensation that fails",
            )

    async def _cancel(self, engine: Engine, head: Head, arguments: dict[str, Any]) -> dict[str, Any]:
        await engine.tell(head.id, "cancel", "", str(arguments.get("reason") or ""))
        return {"id": head.id, "module": engine.module}

    async def _signal(self, engine: Engine, head: Head, arguments: dict[str, Any]) -> dict[str, Any]:
        """``value`` is JSON, as text."""
        text = str(arguments.get("value") or "null")
        try:
            msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise SagasError(f"{text!r} is not JSON: {error}", "Write text in quotes: '\"yes\"'") from None
        return await self._answer(engine, head, BY_HAND, str(arguments["name"]), text)

    async def _approve(self, engine: Engine, head: Head, arguments: dict[str, Any]) -> dict[str, Any]:
        answer = Approval(
            bool(arguments.get("approved", True)), str(arguments.get("by") or ""), str(arguments.get("comment") or "")
        )
        return await self._answer(
            engine, head, "approval", str(arguments["name"]), msgspec.json.encode(answer).decode()
        )

    async def _answer(self, engine: Engine, head: Head, kind: str, name: str, body: str) -> dict[str, Any]:
        """``awaited``: whether the saga waits for it now; what comes early, or under a wrong name, is only kept."""
        number = await engine.tell(head.id, kind, name, body)
        wanted = "signal" if kind == BY_HAND else kind
        awaited = any((each.kind, each.name) == (wanted, name) for each in read_work(head).waiting)
        if awaited and kind == BY_HAND:
            await _taken(engine, head.id, name, number)
        return {"id": head.id, "module": engine.module, "awaited": awaited}


async def _taken(engine: Engine, saga: str, name: str, number: int) -> None:
    """Wait, though not for ever, until the saga has looked at what it was sent. Raises SagasError if it refused it."""
    until_s = monotonic() + LOOK_S_MAX
    while monotonic() < until_s:
        there = any(message.n == number for message in (await engine.journal.messages([saga]))[saga])
        if not there:  # what it had against it was written in the same commit
            refusal = read_work(await engine.journal.head(saga)).refused.get(str(number))
            if refusal:
                raise SagasError(
                    f"saga {saga!r} does not take this as its signal {name!r}: {refusal}",
                    "Send a value that fits; the saga waits on",
                )
            return
        await asyncio.sleep(LOOK_PAUSE_S)


def conditions(arguments: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """``WHERE ...`` and its values. Raises SagasError."""
    parts: list[str] = []
    values: list[Any] = []
    if arguments.get("type"):
        parts.append("type = ?")
        values.append(str(arguments["type"]))
    if arguments.get("key"):
        key = str(arguments["key"])
        parts.append("key >= ? AND key < ?")
        values += [key, f"{key}\U0010ffff"]
    if arguments.get("text"):
        found = re.sub("([%_!])", r"!\1", str(arguments["text"]).lower())
        parts += ["(" + " OR ".join(f"lower({each}) LIKE ? ESCAPE '!'" for each in _SEARCHED) + ")", _NEWEST]
        values += [f"%{found}%"] * len(_SEARCHED)
    if arguments.get("parent"):
        parent = str(arguments["parent"])  # with its place behind it
        parts.append("parent >= ? AND parent < ?")
        values += [parent, f"{parent}\U0010ffff"]
    if arguments.get("before"):
        parts.append("id < ?")
        values.append(str(arguments["before"]))
    if arguments.get("since"):
        parts.append("created_ms >= ?")
        values.append(_milliseconds(str(arguments["since"])))
    status = arguments.get("status")
    if status == "stuck":
        parts.append("stuck <> '' AND ended_ms = 0")
    elif status == "active":
        parts.append("ended_ms = 0")
    elif status in STATUSES:
        parts.append("status = ?" + (" AND stuck = ''" if status in ("running", "undoing") else ""))
        values.append(status)
    elif status:
        raise SagasError(f"there is no status {status!r}", f"There are {', '.join(STATUSES)}")
    return (f" WHERE {' AND '.join(parts)}" if parts else ""), tuple(values)


def _milliseconds(text: str) -> int:
    """Of a time as it is shown, or as ISO 8601 has it; in UTC where it does not say otherwise."""
    try:
        time = datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        raise SagasError(f"{text!r} is no time", "Write one such as 2026-03-01T00:00:00Z") from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _by_id(row: dict[str, Any]) -> str:
    return cast("str", row["id"])


def _outline(engine: Engine, head: Head) -> dict[str, Any]:
    info = dataclasses.asdict(info_of(head, engine.by_name))
    for name in ("started", "updated", "ended"):
        info[name] = info[name].isoformat(timespec="milliseconds") if info[name] else None
    return {"module": engine.module, **info, "run": head.run}


def _entry(saga: str, seq: int, text: str, crc: int) -> dict[str, Any]:
    try:
        entry: Entry = read_entry(saga, seq, text, crc)
    except SagasError as error:
        return {"seq": seq, "place": "?", "kind": "damaged", "name": "", "outcome": "damaged", "error": error.fact}
    return {"seq": seq, **msgspec.json.decode(text), "outcome": entry.outcome, "attempts": entry.attempts}


def _decoded(text: str) -> Any:
    """What is damaged is shown as it is."""
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text


def _message(message: Message) -> dict[str, Any]:
    body = _decoded(message.body) if message.kind not in ("cancel", "retry", "skip") else message.body
    return {"n": message.n, "kind": message.kind, "name": message.name, "body": body, "time_ms": message.time_ms}
