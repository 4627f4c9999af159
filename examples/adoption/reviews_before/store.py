"""Reviews in a SQLite file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS reviews (
    id INTEGER PRIMARY KEY,
    product_id TEXT NOT NULL,
    author TEXT NOT NULL,
    stars INTEGER NOT NULL,
    text TEXT NOT NULL,
    held INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS reviews_of_product ON reviews (product_id, held);
"""

_FIRST = [
    (1, "harbour-lamp", "Mirte", 5, "I read more since it stands here. The switch on the cable is clever."),
    (2, "harbour-lamp", "Jonas", 4, "Lovely light. The arm was stiff for a week, then perfect."),
    (3, "enamel-kettle", "Aoife", 5, "It does sing. My neighbour asked what song."),
    (4, "stoneware-mug", "Tomás", 5, "Bought two, so that we need not share."),
    (5, "stoneware-mug", "Edda", 4, "A little heavier than I thought, and I like that."),
    (6, "walnut-board", "Sef", 5, "Oiled it once. It thanked me."),
    (7, "wool-throw", "Ingrid", 5, "The dog has claimed it. We may visit."),
    (8, "field-notebook", "Paul", 4, "Lies flat, as promised. I wish it had a pen loop."),
    (9, "canvas-tote", "Noor", 5, "Carried eleven kilos of apples home. No complaint."),
    (10, "bicycle-bell", "Wim", 5, "People smile before they step aside."),
]


@dataclass(frozen=True)
class Stored:
    author: str
    stars: int
    text: str


class ReviewStore:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._ready = False

    def _open(self) -> closing[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=10)
        if not self._ready:
            connection.executescript(_SCHEMA)
            connection.executemany("INSERT OR IGNORE INTO reviews VALUES (?, ?, ?, ?, ?, 0)", _FIRST)
            self._ready = True
        return closing(connection)

    def add(self, product_id: str, author: str, stars: int, text: str, *, held: bool) -> None:
        with self._open() as connection:
            connection.execute(
                "INSERT INTO reviews (product_id, author, stars, text, held) VALUES (?, ?, ?, ?, ?)",
                (product_id, author, stars, text, held),
            )

    def printed(self, product_id: str) -> list[Stored]:
        """The reviews that are fit to print, newest first."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT author, stars, text FROM reviews WHERE product_id = ? AND NOT held ORDER BY id DESC LIMIT 100",
                (product_id,),
            ).fetchall()
        return [Stored(*row) for row in rows]

    def rating(self, product_id: str) -> tuple[int, float | None]:
        """How many reviews there are, and the mean of their stars."""
        with self._open() as connection:
            count, mean = connection.execute(
                "SELECT count(*), avg(stars) FROM reviews WHERE product_id = ? AND NOT held", (product_id,)
            ).fetchone()
        return count, mean
