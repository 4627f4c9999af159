"""Counts over time, made as they come: traffic of each edge and points of each metric, in windows, minutes and hours.

A window that is still told of is held in memory and written anew at each commit, so that what many processes tell of
the same two seconds adds up. Minutes are made of windows and hours of minutes when they are over; what comes late makes
its minute anew.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, cast

import msgspec

from seamline.kernel.signal.metrics import BUCKETS
from seamline.observe.records import Batch, Point, Profile, Traffic
from seamline.observe.store.schema import FINEST_KEPT_NS, HOUR_NS, MINUTE_NS
from seamline.observe.windows import Flow

LATE_NS: Final = HOUR_NS
"""What is told of a time before that, or of the future, is counted as of now."""
EARLY_NS: Final = 5 * 10**9
SETTLE_NS: Final = (0, 4 * 10**9, 8 * 10**9)
"""How long after its end a minute, an hour is made."""
EDGES_MAX: Final = 5_000
METRICS_MAX: Final = 20_000
MINE_MAX: Final = 2_000
"""So many of the edges and metrics one module may have: the rest of its own are put together as one, or dropped."""
STACKS_MAX: Final = 50_000
REST: Final = "…"
_OPEN_WINDOWS: Final = 16
_TEXT_MAX: Final = 256
_ATTRIBUTES_MAX: Final = 32

_ENCODER: Final = msgspec.msgpack.Encoder()
COUNTS: Final = msgspec.msgpack.Decoder(dict[int, int])
NAMED: Final = msgspec.msgpack.Decoder(dict[str, int])
_JSON: Final = msgspec.json.Encoder(order="sorted")

EdgeRow = tuple[int, int, int, int, int, bytes, bytes | None]
"""calls, errors, retries, inflight, sum_ns, histogram, codes"""
PointRow = tuple[int, float, float, float, float, bytes | None]
"""count, sum, low, high, last, buckets"""


def pack_flow(flow: Flow) -> EdgeRow:
    codes = _ENCODER.encode(flow.codes) if flow.codes else None
    return (
        flow.calls, flow.errors, flow.retries, flow.inflight, flow.sum_ns, _ENCODER.encode(flow.histogram), codes,
    )  # fmt: skip


def add_flow(flow: Flow, row: Sequence[object]) -> None:
    """Add a stored row. In flight is not a count: the latest row's stands."""
    calls, errors, retries, inflight, sum_ns, histogram, codes = cast("EdgeRow", row)
    flow.calls += calls
    flow.errors += errors
    flow.retries += retries
    flow.inflight = inflight
    flow.sum_ns += sum_ns
    mine = flow.histogram
    for bucket, count in COUNTS.decode(histogram).items():
        mine[bucket] = mine.get(bucket, 0) + count
    if codes is not None:
        for code, count in NAMED.decode(codes).items():
            flow.codes[code] = flow.codes.get(code, 0) + count


class Cell(msgspec.Struct, gc=False):
    """A metric in one window: of a gauge how often it was told and the sum of that, of a counter how much it grew."""

    count: int = 0
    sum: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    last: float = 0.0
    buckets: dict[str, int] = msgspec.field(default_factory=dict[str, int])

    def add_point(self, point: Point) -> None:
        value = point.value
        self.count += max(point.count, 0) if point.kind == "histogram" else 1
        self.sum += value
        self.low, self.high, self.last = min(self.low, value), max(self.high, value), value
        for bound, count in point.buckets.items():
            self.buckets[bound] = self.buckets.get(bound, 0) + count

    def add_row(self, row: Sequence[object]) -> None:
        count, sum_, low, high, last, buckets = cast("PointRow", row)
        self.count += count
        self.sum += sum_
        self.low, self.high, self.last = min(self.low, low), max(self.high, high), last
        if buckets is not None:
            for bound, number in NAMED.decode(buckets).items():
                self.buckets[bound] = self.buckets.get(bound, 0) + number

    def pack(self) -> PointRow:
        buckets = _ENCODER.encode(self.buckets) if self.buckets else None
        return self.count, self.sum, self.low, self.high, self.last, buckets


class Names:
    """A table of names, its numbers in memory; it grows no further than ``most``, one owner's share than ``mine``."""

    def __init__(self, table: str, columns: Sequence[str], most: int, owner: int, mine: int) -> None:
        self._select = f"SELECT id, {', '.join(columns)} FROM {table}"  # noqa: S608 - our own names
        self._insert = f"INSERT INTO {table} (id, {', '.join(columns)}) VALUES (?{', ?' * len(columns)})"  # noqa: S608
        self._most, self._owner, self._mine = most, owner, mine
        self._known: dict[tuple[object, ...], int] = {}
        self._owned: dict[object, int] = {}

    def load(self, connection: sqlite3.Connection) -> None:
        self._known.clear()
        self._owned.clear()
        for number, *names in connection.execute(self._select):
            self._known[tuple(names)] = number
            self._owned[names[self._owner]] = self._owned.get(names[self._owner], 0) + 1

    def number(self, connection: sqlite3.Connection, names: tuple[object, ...]) -> int | None:
        """The number of these names; None if there is no room for them."""
        known = self._known.get(names)
        if known is not None:
            return known
        owner = names[self._owner]
        owned = self._owned.get(owner, 0)
        if len(self._known) >= self._most or owned >= self._mine:
            return None
        number = len(self._known) + 1
        connection.execute(self._insert, (number, *names))
        self._known[names] = number
        self._owned[owner] = owned + 1
        return number


class Rollups:
    """Used by the writer's thread only, within its transactions."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._edges = Names("edges", ("caller", "callee", "method", "side"), EDGES_MAX, 1, MINE_MAX)
        columns = ("name", "kind", "unit", "module", "workload", "replica", "attributes")
        self._metrics = Names("metrics", columns, METRICS_MAX, 3, MINE_MAX)
        self._stacks = Names("stacks", ("module", "stack"), STACKS_MAX, 0, STACKS_MAX // 4)
        self._flows: dict[int, dict[int, Flow]] = {}
        self._inflight: dict[int, dict[int, dict[tuple[str, int], int]]] = {}
        self._cells: dict[int, dict[int, Cell]] = {}
        self._touched: set[tuple[int, int]] = set()
        self._told: set[tuple[int, int]] = set()
        self._spent: dict[tuple[int, int], tuple[int, int]] = {}
        self._minutes: set[int] = set()
        self._hours: set[int] = set()
        self._rolled = 0
        self._dropped = 0

    def load(self, connection: sqlite3.Connection) -> None:
        """Begin with what the file has: names, and the minutes and hours that are yet to be made."""
        self.forget()
        self._rolled = meta(connection, "rolled_1")
        for names in (self._edges, self._metrics, self._stacks):
            names.load(connection)
        for tier, ahead, length in ((0, self._minutes, MINUTE_NS), (1, self._hours, HOUR_NS)):
            made = meta(connection, f"rolled_{tier + 1}")
            for table in ("traffic", "points"):
                sql = f"SELECT DISTINCT at / {length} FROM {table} WHERE tier = ? AND at >= ?"  # noqa: S608
                ahead.update(each * length for (each,) in connection.execute(sql, (tier, made)))

    def forget(self) -> None:
        """After a rollback: what is in memory may be ahead of the file."""
        for held in (self._flows, self._inflight, self._cells, self._touched, self._told, self._spent):
            held.clear()

    @property
    def waiting(self) -> bool:
        return bool(self._minutes or self._hours)

    def is_due(self, now_ns: int) -> bool:
        """Whether a minute or an hour is over that is yet to be made."""
        return any(
            ahead and min(ahead) + length + SETTLE_NS[tier] <= now_ns
            for tier, ahead, length in ((1, self._minutes, MINUTE_NS), (2, self._hours, HOUR_NS))
        )

    def take_dropped(self) -> int:
        """For how many points and stacks there was no room since this was last asked."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def add(self, connection: sqlite3.Connection, batch: Batch, now_ns: int) -> None:
        at = batch.at_ns - batch.interval_ns // 2
        if not now_ns - LATE_NS <= at <= now_ns + EARLY_NS:
            at = now_ns
        window = at - at % self._window_ns
        if batch.traffic or batch.points:
            minute = window - window % MINUTE_NS
            self._minutes.add(minute)
            if minute < self._rolled:  # until it is made anew, it is read from its windows
                self._rolled = minute
                set_meta(connection, "rolled_1", minute)
        source = batch.source
        for traffic in batch.traffic:
            self._add_traffic(connection, window, traffic, (source.workload, source.replica))
        for point in batch.points:
            self._add_point(connection, window, point, source.workload, source.replica)
        for profile in batch.profiles:
            self._add_profile(connection, at - at % MINUTE_NS, profile)

    def _add_traffic(
        self, connection: sqlite3.Connection, window: int, traffic: Traffic, teller: tuple[str, int]
    ) -> None:
        names = tuple(each[:_TEXT_MAX] for each in (traffic.caller, traffic.callee, traffic.method, traffic.side))
        edge = self._edges.number(connection, names)
        if edge is None:
            caller, callee, _, side = names
            edge = self._edges.number(connection, (caller, callee, REST, side))
        buckets = traffic.histogram
        if edge is None or (buckets and not (min(buckets) >= 0 and max(buckets) < BUCKETS)):
            self._dropped += 1
            return
        flows = self._flows.get(window)
        if flows is None:
            flows = self._load_flows(connection, window)
        flow = flows.get(edge)
        if flow is None:
            flow = flows[edge] = Flow()
        flow.add(traffic)
        # Who tells twice in one window has not twice as many calls in flight.
        told = self._inflight.setdefault(window, {}).setdefault(edge, {})
        told[teller] = traffic.inflight
        flow.inflight = sum(told.values())
        self._touched.add((window, edge))

    def _add_point(
        self, connection: sqlite3.Connection, window: int, point: Point, workload: str, replica: int
    ) -> None:
        if not math.isfinite(point.value) or len(point.attributes) > _ATTRIBUTES_MAX:
            self._dropped += 1
            return
        if point.kind == "counter" and point.value < 0:
            return  # a counter that was set back has not grown by less than nothing
        attributes = {key[:_TEXT_MAX]: value[:_TEXT_MAX] for key, value in point.attributes.items()}
        names = (
            point.name[:_TEXT_MAX], point.kind, point.unit[:_TEXT_MAX], point.module[:_TEXT_MAX], workload, replica,
            _JSON.encode(attributes).decode(),
        )  # fmt: skip
        metric = self._metrics.number(connection, names)
        if metric is None:
            self._dropped += 1
            return
        cells = self._cells.get(window)
        if cells is None:
            cells = self._load_cells(connection, window)
        cell = cells.get(metric)
        if cell is None:
            cell = cells[metric] = Cell()
        cell.add_point(point)
        self._told.add((window, metric))

    def _add_profile(self, connection: sqlite3.Connection, minute: int, profile: Profile) -> None:
        stack = self._stacks.number(connection, (profile.module, profile.stack[: 16 * _TEXT_MAX]))
        if stack is None:
            self._dropped += 1
            return
        cpu_ns, blocked_ns = self._spent.get((minute, stack), (0, 0))
        self._spent[minute, stack] = (cpu_ns + max(profile.cpu_ns, 0), blocked_ns + max(profile.blocked_ns, 0))

    def _load_flows(self, connection: sqlite3.Connection, window: int) -> dict[int, Flow]:
        flows: dict[int, Flow] = {}
        for edge, *row in connection.execute(f"{_FLOWS} WHERE tier = 0 AND at = ?", (window,)):
            add_flow(flows.setdefault(edge, Flow()), row)
        self._flows[window] = flows
        return flows

    def _load_cells(self, connection: sqlite3.Connection, window: int) -> dict[int, Cell]:
        cells: dict[int, Cell] = {}
        for metric, *row in connection.execute(f"{_CELLS} WHERE tier = 0 AND at = ?", (window,)):
            cells.setdefault(metric, Cell()).add_row(row)
        self._cells[window] = cells
        return cells

    def write(self, connection: sqlite3.Connection) -> None:
        """What was added since the last time, within the transaction at hand."""
        flows, cells = self._flows, self._cells
        _write_flows(connection, ((0, at, edge, *pack_flow(flows[at][edge])) for at, edge in sorted(self._touched)))
        _write_cells(connection, ((0, at, metric, *cells[at][metric].pack()) for at, metric in sorted(self._told)))
        connection.executemany(
            "INSERT INTO profiles VALUES (1, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "cpu_ns = cpu_ns + excluded.cpu_ns, blocked_ns = blocked_ns + excluded.blocked_ns",
            [(at, stack, *spent) for (at, stack), spent in sorted(self._spent.items())],
        )
        if self._spent:
            self._hours.update(at - at % HOUR_NS for at, _ in self._spent)
        self._spent.clear()
        self._touched.clear()
        self._told.clear()

    def settle(self) -> None:
        """After the commit."""
        for held in (self._flows, self._cells):
            while len(held) > _OPEN_WINDOWS:
                del held[min(held)]
        while len(self._inflight) > _OPEN_WINDOWS:
            del self._inflight[min(self._inflight)]

    def roll(self, connection: sqlite3.Connection, now_ns: int) -> None:
        """Make the minutes and hours that are over, within the transaction at hand."""
        for tier, ahead, length in ((1, self._minutes, MINUTE_NS), (2, self._hours, HOUR_NS)):
            over = sorted(at for at in ahead if at + length + SETTLE_NS[tier] <= now_ns)
            for at in over:
                self._roll_one(connection, tier, at, length)
                ahead.discard(at)
                if tier == 1:
                    self._hours.add(at - at % HOUR_NS)
            if over:
                set_meta(connection, f"rolled_{tier}", max(over[-1] + length, meta(connection, f"rolled_{tier}")))
        self._rolled = meta(connection, "rolled_1")

    def _roll_one(self, connection: sqlite3.Connection, tier: int, at: int, length: int) -> None:
        within = (tier - 1, at, at + length)
        flows: dict[int, Flow] = {}
        for edge, *row in connection.execute(f"{_FLOWS} WHERE tier = ? AND at >= ? AND at < ? ORDER BY at", within):
            add_flow(flows.setdefault(edge, Flow()), row)
        _write_flows(connection, ((tier, at, edge, *pack_flow(flow)) for edge, flow in sorted(flows.items())))
        cells: dict[int, Cell] = {}
        for metric, *row in connection.execute(f"{_CELLS} WHERE tier = ? AND at >= ? AND at < ? ORDER BY at", within):
            cells.setdefault(metric, Cell()).add_row(row)
        _write_cells(connection, ((tier, at, metric, *cell.pack()) for metric, cell in sorted(cells.items())))
        if tier == 2:
            connection.execute(
                "INSERT OR REPLACE INTO profiles SELECT 2, ?, stack, sum(cpu_ns), sum(blocked_ns) FROM profiles "
                "WHERE tier = 1 AND at >= ? AND at < ? GROUP BY stack",
                (at, at, at + length),
            )


_FLOWS: Final = "SELECT edge, calls, errors, retries, inflight, sum_ns, histogram, codes FROM traffic"
_CELLS: Final = "SELECT metric, count, sum, low, high, last, buckets FROM points"


def _write_flows(connection: sqlite3.Connection, rows: Iterable[tuple[object, ...]]) -> None:
    connection.executemany("INSERT OR REPLACE INTO traffic VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def _write_cells(connection: sqlite3.Connection, rows: Iterable[tuple[object, ...]]) -> None:
    connection.executemany("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def meta(connection: sqlite3.Connection, key: str) -> int:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else 0


def set_meta(connection: sqlite3.Connection, key: str, value: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def age_rollups(connection: sqlite3.Connection, now_ns: int, hot_ns: int, history_ns: int) -> None:
    """Delete what is past its time; a time in the far future, left by a clock that was wrong, is, too."""
    kept = {
        ("traffic", 0): FINEST_KEPT_NS, ("traffic", 1): history_ns, ("traffic", 2): 10 * history_ns,
        ("points", 0): FINEST_KEPT_NS, ("points", 1): history_ns, ("points", 2): 10 * history_ns,
        ("profiles", 1): max(hot_ns, FINEST_KEPT_NS), ("profiles", 2): history_ns,
    }  # fmt: skip
    for (table, tier), age_ns in kept.items():
        for where in ("at < ?", "at > ?"):
            bound = now_ns - age_ns if where == "at < ?" else now_ns + 24 * HOUR_NS
            connection.execute(f"DELETE FROM {table} WHERE tier = ? AND {where}", (tier, bound))  # noqa: S608
    connection.execute("DELETE FROM marks WHERE at < ?", (now_ns - 10 * history_ns,))
    connection.execute("DELETE FROM incidents WHERE open = 0 AND began < ?", (now_ns - 10 * history_ns,))
