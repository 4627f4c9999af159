"""Do money and stock balance? Reads the shop's books, of SQLite files or of PostgreSQL, and says what does not.

``python balance.py <data directory or postgresql url>`` prints it, one line each, and ends with 1 if there is any.
The books are right only when nothing is under way, so whoever asks waits for that: :func:`settled`.
"""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

from seamline.events.log.rows import Kept, record_of

Rows = list[dict[str, Any]]
_LOG = "SELECT position, partition, time_ms, checksum, body FROM seamline_log ORDER BY position"
_BOOKS = {
    "inventory": {
        "stock": "SELECT * FROM stock",
        "deliveries": "SELECT * FROM deliveries",
        "reservations": "SELECT * FROM reservations",
        "reserved_lines": "SELECT * FROM reserved_lines",
    },
    "payments": {"charges": "SELECT * FROM charges", "payment_log": _LOG},
    "shipping": {"parcels": "SELECT * FROM parcels"},
    "emails": {"letters": "SELECT order_id, subject FROM outbox", "letter_log": _LOG},
    "checkout": {
        "orders": "SELECT id, status, reviewed, content FROM orders",
        "sagas": "SELECT id, type, key, status, ended_ms, stuck FROM seamline_sagas",
        "order_log": _LOG,
    },
}
_DEAD = "SELECT event_id, type, reason, detail FROM seamline_dead_letters"


@dataclass
class Books:
    """Everything that must fit together, as rows."""

    stock: Rows = field(default_factory=Rows)
    deliveries: Rows = field(default_factory=Rows)
    reservations: Rows = field(default_factory=Rows)
    reserved_lines: Rows = field(default_factory=Rows)
    charges: Rows = field(default_factory=Rows)
    payment_log: Rows = field(default_factory=Rows)
    parcels: Rows = field(default_factory=Rows)
    letters: Rows = field(default_factory=Rows)
    letter_log: Rows = field(default_factory=Rows)
    orders: Rows = field(default_factory=Rows)
    sagas: Rows = field(default_factory=Rows)
    order_log: Rows = field(default_factory=Rows)
    dead_letters: Rows = field(default_factory=Rows)


async def read(source: Path | str) -> Books:
    """The books of a data directory, or of a PostgreSQL database by its url."""
    books = Books()
    for module, queries in _BOOKS.items():
        wanted = {**queries, "dead_letters": _DEAD}
        found = _sqlite(source, module, wanted) if isinstance(source, Path) else await _server(source, module, wanted)
        for name, rows in found.items():
            getattr(books, name).extend(rows)
    return books


def _sqlite(data: Path, module: str, queries: Mapping[str, str]) -> dict[str, Rows]:
    connection = sqlite3.connect(f"file:{data / 'db' / module}.sqlite3?mode=ro", uri=True, timeout=10)
    try:
        connection.row_factory = sqlite3.Row
        known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        connection.execute("BEGIN")
        return {
            name: [dict(row) for row in connection.execute(query)]
            for name, query in queries.items()
            if _table(query) in known
        }
    finally:
        connection.close()


async def _server(url: str, module: str, queries: Mapping[str, str]) -> dict[str, Rows]:
    server = create_async_engine(url, poolclass=NullPool, isolation_level="REPEATABLE READ")
    async with server.connect() as connection:
        await connection.execute(text(f'SET search_path TO "{module}"'))
        tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = :module"
        known = set(await connection.scalars(text(tables), {"module": module}))
        return {
            name: [dict(row) for row in (await connection.execute(text(query))).mappings()]
            for name, query in queries.items()
            if _table(query) in known
        }


def _table(query: str) -> str:
    return query.partition(" FROM ")[2].split()[0]


def findings(books: Books) -> list[str]:
    """What does not balance, a sentence each; nothing if all is well."""
    return [*_stock(books), *_money(books), *_orders(books), *_strays(books), *_engine(books)]


def _stock(books: Books) -> Iterator[str]:
    held: Counter[str] = Counter()
    sold: Counter[str] = Counter()
    delivered: Counter[str] = Counter()
    status = {row["order_id"]: row["status"] for row in books.reservations}
    for line in books.reserved_lines:
        {"held": held, "sold": sold}.get(status.get(line["order_id"], ""), Counter[str]())[line["product_id"]] += line[
            "quantity"
        ]
    for row in books.deliveries:
        delivered[row["product_id"]] += row["pieces"]
    for row in books.stock:
        product = row["product_id"]
        there, due = row["free"] + row["reserved"] + row["sold"], row["opening"] + row["restocked"]
        if there != due:
            yield f"stock of {product}: {there} pieces are free, reserved or sold, but {due} came"
        for what, count in (("reserved", held[product]), ("sold", sold[product]), ("restocked", delivered[product])):
            if row[what] != count:
                yield f"stock of {product}: {row[what]} pieces are {what}, but the entries say {count}"


def _money(books: Books) -> Iterator[str]:
    taken: defaultdict[str, Decimal] = defaultdict(Decimal)
    owed: defaultdict[str, Decimal] = defaultdict(Decimal)
    for charge in books.charges:
        if charge["refunded_at"] is None:
            taken[charge["currency"]] += Decimal(charge["amount"])
    for order in books.orders:
        if order["status"] == "placed":
            total = json.loads(order["content"])["total"]
            owed[total["currency"]] += Decimal(str(total["amount"]))
    for currency in sorted({*taken, *owed}):
        if taken[currency] != owed[currency]:
            yield f"money: {taken[currency]} {currency} were kept, but the orders placed cost {owed[currency]}"


def _orders(books: Books) -> Iterator[str]:
    state = _State(books)
    for row in books.orders:
        order = row["id"]
        for fault in state.faults_of(row):
            yield f"order {order} is {row['status']}, but {fault}"


class _State:
    """What each module, and each log, has of each order."""

    def __init__(self, books: Books) -> None:
        self.reservation = {row["order_id"]: row["status"] for row in books.reservations}
        self.reserved: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for line in books.reserved_lines:
            self.reserved[line["order_id"]][line["product_id"]] += line["quantity"]
        self.charge = {row["order_id"]: row for row in books.charges}
        self.parcel = {row["order_id"]: row for row in books.parcels}
        self.letters = Counter(row["order_id"] for row in books.letters)
        self.placed = _told(books.order_log, "OrderPlaced")
        self.undone = _told(books.order_log, "OrderUndone")
        self.captured = _told(books.payment_log, "PaymentCaptured")
        self.refunded = _told(books.payment_log, "PaymentRefunded")
        self.written = _told(books.letter_log, "LetterWritten")
        self.sagas = Counter(row["key"] for row in books.sagas if not row["ended_ms"])

    def faults_of(self, row: dict[str, Any]) -> Iterator[str]:
        order, content = row["id"], json.loads(row["content"])
        yield from self._events(order)
        match row["status"]:
            case "placed":
                yield from self._not_complete(order, content)
            case "undone":
                yield from self._not_undone(order)
            case "in review":
                yield from self._not_waiting(order)
            case status:
                yield f"that is {status!r}, and nothing should be under way"
        wanted = int(row["status"] == "placed" or (row["status"] == "undone" and bool(row["reviewed"])))
        if self.letters[order] != wanted or self.written[order] != wanted:
            yield f"{self.letters[order]} letters lie there and {self.written[order]} were told of, not {wanted}"

    def _events(self, order: str) -> Iterator[str]:
        charge = self.charge.get(order)
        for name, told, wanted in (
            ("PaymentCaptured", self.captured[order], int(charge is not None)),
            ("PaymentRefunded", self.refunded[order], int(charge is not None and charge["refunded_at"] is not None)),
        ):
            if told != wanted:
                yield f"{name} was told {told} times, not {wanted}"

    def _not_complete(self, order: str, content: dict[str, Any]) -> Iterator[str]:
        if self.reservation.get(order) != "sold":
            yield f"its pieces are {self.reservation.get(order, 'not reserved')}"
        lines: Counter[str] = Counter()
        for line in content["lines"]:
            lines[line["product_id"]] += line["quantity"]
        if self.reserved[order] != lines:
            yield f"{dict(self.reserved[order])} were put aside, {dict(lines)} were ordered"
        charge = self.charge.get(order)
        if charge is None or charge["refunded_at"] is not None:
            yield "it is not paid"
        elif Decimal(charge["amount"]) != Decimal(str(content["total"]["amount"])):
            yield f"{charge['amount']} was charged for {content['total']['amount']}"
        parcel = self.parcel.get(order)
        if parcel is None or parcel["cancelled_at"] is not None:
            yield "no parcel goes"
        if (self.placed[order], self.undone[order]) != (1, 0):
            yield f"OrderPlaced was told {self.placed[order]} times, OrderUndone {self.undone[order]} times"

    def _not_undone(self, order: str) -> Iterator[str]:
        if self.reservation.get(order, "released") != "released":
            yield f"its pieces are {self.reservation[order]}"
        charge = self.charge.get(order)
        if charge is not None and charge["refunded_at"] is None:
            yield f"{charge['amount']} {charge['currency']} are kept"
        parcel = self.parcel.get(order)
        if parcel is not None and parcel["cancelled_at"] is None:
            yield "its parcel goes"
        if (self.placed[order], self.undone[order]) != (0, 1):
            yield f"OrderPlaced was told {self.placed[order]} times, OrderUndone {self.undone[order]} times"

    def _not_waiting(self, order: str) -> Iterator[str]:
        if self.reservation.get(order) != "held":
            yield f"its pieces are {self.reservation.get(order, 'not reserved')}"
        if order in self.charge:
            yield "it is charged"
        if order in self.parcel:
            yield "it has a parcel"
        if self.placed[order] or self.undone[order]:
            yield "its end was told"
        if self.sagas[order] != 1:
            yield f"{self.sagas[order]} sagas wait for its approval"


def _told(log: Rows, type_: str) -> Counter[str]:
    """How often an event was told, by its key."""
    told: Counter[str] = Counter()
    for row in log:
        record = record_of(Kept(*(row[name] for name in ("position", "partition", "time_ms", "checksum", "body"))))
        if record is None:
            told["a damaged record"] += 1
        elif record.type == type_:
            told[record.key] += 1
    return told


def _strays(books: Books) -> Iterator[str]:
    """What belongs to no order: something was begun, and nobody would ever finish or undo it."""
    known = {row["id"] for row in books.orders}
    for row in books.reservations:
        if row["order_id"] not in known and row["status"] != "released":
            yield f"pieces are {row['status']} for order {row['order_id']}, which is in no book"
    for row in books.charges:
        if row["order_id"] not in known and row["refunded_at"] is None:
            yield f"order {row['order_id']} was charged, which is in no book"
    for row in books.parcels:
        if row["order_id"] not in known and row["cancelled_at"] is None:
            yield f"a parcel goes for order {row['order_id']}, which is in no book"
    for order in Counter(row["order_id"] for row in books.letters):
        if order not in known:
            yield f"a letter was written about order {order}, which is in no book"


def _engine(books: Books) -> Iterator[str]:
    waiting = {row["id"] for row in books.orders if row["status"] == "in review"}
    for saga in books.sagas:
        if saga["stuck"]:
            yield f"saga {saga['type']} {saga['key']} is stuck: {saga['stuck']}"
        elif not saga["ended_ms"] and saga["key"] not in waiting:
            yield f"saga {saga['type']} {saga['key']} is {saga['status']}, and nothing should be under way"
    for letter in books.dead_letters:
        yield f"the event {letter['type']} {letter['event_id']} is dead: {letter['reason']} {letter['detail']}"


async def check(source: Path | str) -> list[str]:
    """What does not balance now."""
    return findings(await read(source))


async def settled(source: Path | str, *, within_s: float = 20.0) -> list[str]:
    """What does not balance once nothing is under way any more, or after ``within_s`` at the latest."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + within_s
    while (found := await check(source)) and loop.time() < end_s:  # noqa: ASYNC110  # files tell nobody
        await asyncio.sleep(0.05)
    return found


def main(source: str) -> int:
    found = asyncio.run(check(source if "://" in source else Path(source)))
    for line in found or ["Money and stock balance."]:
        print(line)  # noqa: T201  # what it is for
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
