"""Counts over time, read back: the graph of who calls whom, rates and latencies, metrics, profiles, windows.

Where a time was rolled up, minutes stand for windows and hours for minutes, so that a day costs no more than a quarter
of an hour; the edges of the time that are not whole minutes come from the windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec

from seamline.kernel.signal.metrics import BUCKETS, bucket_ms
from seamline.observe.records import Mark, Point, Profile, Side, Traffic
from seamline.observe.store.query import EdgeSummary, MetricName, Series, SeriesQuery
from seamline.observe.store.rollups import COUNTS, NAMED, Cell, add_flow, meta
from seamline.observe.store.schema import HOUR_NS, MINUTE_NS
from seamline.observe.store.search import FOREVER, Look
from seamline.observe.windows import Flow, Window

SERIES_MAX: Final = 200
STEPS: Final = 120
STEPS_MAX: Final = 2_000
WINDOWS_MAX: Final = 10_000
STACKS_MAX: Final = 2_000
_S: Final = 10**9
_SHARES: Final = (0.5, 0.95, 0.99)
_NICE: Final = tuple(
    each * _S for each in (1, 2, 4, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
)
_FLOW: Final = "calls, errors, retries, inflight, sum_ns, histogram, codes"
_CELL: Final = "count, sum, low, high, last, buckets"
_MARK: Final = msgspec.msgpack.Decoder(Mark)
_ATTRIBUTES: Final = msgspec.json.Decoder(dict[str, str])


class Part(NamedTuple):
    """A stretch of time and the tier it is read from."""

    tier: int
    since: int
    until: int


class Cover(NamedTuple):
    """Which tier knows which time, of one table."""

    rolled: tuple[int, int]
    """Until when minutes, and hours, have been made."""
    finest_from: tuple[int, int]
    """From when windows, and minutes, are still there; 0 where none were deleted."""
    window_ns: int

    @classmethod
    def of(cls, look: Look, table: str) -> Cover:
        first: list[int] = []
        for tier in (0, 1, 2):
            sql = f"SELECT min(at) FROM {table} WHERE tier = ?"  # noqa: S608 - our own names
            first.append(look.rows(sql, (tier,))[0][0] or FOREVER)
        rolled = (meta(look.connection, "rolled_1"), meta(look.connection, "rolled_2"))
        # Where the next tier knows nothing older, this one is not short of anything.
        finest, minutes = (
            first[tier] if first[tier + 1] < first[tier] - first[tier] % length else 0
            for tier, length in ((0, MINUTE_NS), (1, HOUR_NS))
        )
        return cls(rolled, (finest, minutes), meta(look.connection, "window_ns") or 2 * _S)

    def parts(self, since: int, until: int, *, tier: int = 2) -> Iterator[Part]:
        """The stretches that make up the time, from the coarsest tier that fits, ``tier`` at most."""
        if tier == 0:
            if since < until:
                yield Part(0, since, until)
            return
        length = MINUTE_NS if tier == 1 else HOUR_NS
        begin, end = -(-since // length) * length, until - until % length
        if since < self.finest_from[tier - 1]:
            begin = since - since % length  # what is finer is no longer kept
        if until <= self.finest_from[tier - 1]:
            end = -(-until // length) * length
        end = min(end, self.rolled[tier - 1])
        if begin >= end:
            yield from self.parts(since, until, tier=tier - 1)
            return
        if since < begin:
            yield from self.parts(since, begin, tier=tier - 1)
        yield Part(tier, begin, end)
        yield from self.parts(end, until, tier=tier - 1)

    def step(self, since: int, until: int, step: int) -> int:
        """A step that the tiers can fill: whole minutes, or hours, where nothing finer is kept."""
        least = MINUTE_NS if since < self.finest_from[0] else self.window_ns
        if since < self.finest_from[1]:
            least = HOUR_NS
        wanted = max(step or (until - since) // STEPS, least, (until - since) // STEPS_MAX, 1)
        if step:
            return -(-wanted // least) * least
        return next((each for each in _NICE if each >= wanted and each % least == 0), -(-wanted // least) * least)


def graph(look: Look, since: int, until: int, *, by_method: bool) -> list[EdgeSummary]:
    names = _edges(look)
    flows: dict[tuple[str, str, str, Side], Flow] = {}
    for edge, flow in _summed(look, Cover.of(look, "traffic").parts(since, until)).items():
        caller, callee, method, side = names[edge]
        key = (caller, callee, method if by_method else "", side)
        known = flows.get(key)
        if known is None:
            flows[key] = flow
        else:
            known.add(flow)
    seconds = max(until - since, 1) / 1e9
    found = [_edge(key, flow, seconds) for key, flow in flows.items()]
    return sorted(found, key=lambda each: (-each.calls, each.caller, each.callee, each.side, each.method))


def _summed(look: Look, parts: Iterable[Part]) -> dict[int, Flow]:
    """What was counted on each edge. The graph of a whole application reads many rows: sums are kept in lists."""
    sums: dict[int, list[int]] = {}
    histograms: dict[int, list[int]] = {}
    codes: dict[int, list[bytes]] = {}
    for part in parts:
        sql = f"SELECT edge, {_FLOW} FROM traffic WHERE tier = ? AND at >= ? AND at < ? ORDER BY at"  # noqa: S608
        for edge, calls, errors, retries, inflight, sum_ns, histogram, code in look.connection.execute(sql, part):
            total = sums.get(edge)
            if total is None:
                total = sums[edge] = [0, 0, 0, 0, 0]
                histograms[edge] = [0] * BUCKETS
            total[0] += calls
            total[1] += errors
            total[2] += sum_ns
            total[3] += retries
            total[4] = inflight
            counts = histograms[edge]
            for bucket, count in COUNTS.decode(histogram).items():
                counts[bucket] += count
            if code is not None:
                codes.setdefault(edge, []).append(code)
    flows: dict[int, Flow] = {}
    for edge, (calls, errors, sum_ns, retries, inflight) in sums.items():
        flow = flows[edge] = Flow(calls, errors, sum_ns, retries, inflight)
        flow.histogram = {bucket: count for bucket, count in enumerate(histograms[edge]) if count}
        for packed in codes.get(edge, ()):
            for code, count in NAMED.decode(packed).items():
                flow.codes[code] = flow.codes.get(code, 0) + count
    return flows


def _edges(look: Look) -> dict[int, tuple[str, str, str, Side]]:
    return {
        number: (caller, callee, method, side)
        for number, caller, callee, method, side in look.rows("SELECT id, caller, callee, method, side FROM edges")
    }


def _edge(key: tuple[str, str, str, Side], flow: Flow, seconds: float) -> EdgeSummary:
    caller, callee, method, side = key
    p50, p95, p99 = _quantiles(flow)
    return EdgeSummary(
        caller=caller,
        callee=callee,
        side=side,
        calls=flow.calls,
        errors=flow.errors,
        retries=flow.retries,
        inflight=flow.inflight,
        rate=flow.calls / seconds,
        mean_ms=flow.mean_ms,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        codes=flow.codes,
        method=method,
    )


def _quantiles(flow: Flow) -> list[float]:
    """p50, p95 and p99 in milliseconds, in one walk over the buckets that are not empty."""
    filled = sorted(flow.histogram.items())
    total, found, seen = sum(flow.histogram.values()), list[float](), 0
    for bucket, count in filled:
        seen += count
        while len(found) < len(_SHARES) and seen >= _SHARES[len(found)] * total:
            found.append(bucket_ms(bucket))
    return found or [0.0] * len(_SHARES)


def red(look: Look, q: SeriesQuery) -> Series:
    chosen = _chosen(_edges(look), q)
    cover = Cover.of(look, "traffic")
    step = cover.step(q.since_ns, q.until_ns, q.step_ns)
    begin = q.since_ns - q.since_ns % step
    flows: dict[int, Flow] = {}
    numbers = ", ".join(map(str, chosen)) or "NULL"
    for part in cover.parts(begin, q.until_ns, tier=_tier_of(step)):
        sql = (
            f"SELECT at, {_FLOW} FROM traffic WHERE tier = ? AND at >= ? AND at < ? "  # noqa: S608
            f"AND edge IN ({numbers}) ORDER BY at"
        )
        for at, *row in look.connection.execute(sql, part):
            add_flow(flows.setdefault(at - at % step, Flow()), row)
    at_ns = list(range(begin, q.until_ns, step))
    names = ("calls", "errors", "rate", "error_ratio", "mean_ms", "p50_ms", "p95_ms", "p99_ms")
    columns: dict[str, list[float | None]] = {name: [] for name in names}
    for at in at_ns:
        flow = flows.get(at)
        seconds = (min(at + step, q.until_ns) - at) / 1e9
        for name, value in zip(names, _red_of(flow, seconds), strict=True):
            columns[name].append(value)
    return Series(name=_title(q), unit="calls/s", at_ns=at_ns, columns=columns, step_ns=step, module=q.module)


def _red_of(flow: Flow | None, seconds: float) -> tuple[float | None, ...]:
    if flow is None or not flow.calls:
        return 0, 0, 0.0, None, None, None, None, None
    return flow.calls, flow.errors, flow.calls / seconds, flow.error_ratio, flow.mean_ms, *_quantiles(flow)


def _title(q: SeriesQuery) -> str:
    edge = " > ".join(each for each in (q.caller, q.callee or q.module) if each)
    return " ".join(each for each in (edge, q.method, q.side) if each) or "all"


def _chosen(edges: Mapping[int, tuple[str, str, str, Side]], q: SeriesQuery) -> list[int]:
    fitting = {
        number: names
        for number, names in edges.items()
        if (not q.caller or names[0] == q.caller)
        and (not q.callee or names[1] == q.callee)
        and (not q.method or names[2] == q.method)
        and (not q.module or names[1] == q.module)
        and (not q.side or names[3] == q.side)
    }
    if q.side:
        return list(fitting)
    answered = {names[:3] for names in fitting.values() if names[3] != "client"}
    return [number for number, names in fitting.items() if names[3] != "client" or names[:3] not in answered]


def _tier_of(step: int) -> int:
    """The coarsest tier whose rows fall into one step each."""
    return 2 if step % HOUR_NS == 0 else 1 if step % MINUTE_NS == 0 else 0


def metric_names(look: Look, since: int) -> list[MetricName]:
    """By name; one that has not told since then is left out."""
    last: dict[int, int] = {}
    for tier, length in ((2, HOUR_NS), (1, MINUTE_NS), (0, 0)):
        # Hours of the last days, minutes of the last hours: every metric that tells is in one of them.
        sql = "SELECT metric, max(at) FROM points WHERE tier = ? AND at >= ? GROUP BY metric"
        newest = look.rows("SELECT max(at) FROM points WHERE tier = ?", (tier,))[0][0]
        if newest is None:
            continue
        for number, at in look.rows(sql, (tier, max(since - length, newest - 5 * MINUTE_NS if tier == 0 else 0))):
            last[number] = max(at, last.get(number, 0))
    found: dict[tuple[str, str, str], tuple[set[str], int, int]] = {}
    for number, name, kind, unit, module in look.rows("SELECT id, name, kind, unit, module FROM metrics"):
        if number in last:
            modules, count, at = found.get((name, kind, unit), (set[str](), 0, 0))
            modules.add(module)
            found[name, kind, unit] = (modules, count + 1, max(at, last[number]))
    return [
        MetricName(name, cast("Any", kind), unit, sorted(modules - {""}), count, at)
        for (name, kind, unit), (modules, count, at) in sorted(found.items())
    ]


def metric(
    look: Look, name: str, module: str, attributes: Mapping[str, str], since: int, until: int, step: int
) -> list[Series]:
    cover = Cover.of(look, "points")
    step = cover.step(since, until, step)
    begin = since - since % step
    known: dict[int, tuple[str, str, str, str, int, dict[str, str]]] = {}
    sql = "SELECT id, kind, unit, module, workload, replica, attributes FROM metrics WHERE name = ?"
    for number, kind, unit, of, workload, replica, text in look.rows(sql, (name,)):
        told = _ATTRIBUTES.decode(text)
        if (not module or of == module) and attributes.items() <= told.items():
            known[number] = (kind, unit, of, workload, replica, told)
    chosen = list(known)[:SERIES_MAX]
    cells: dict[int, dict[int, Cell]] = {number: {} for number in chosen}
    numbers = ", ".join(map(str, chosen)) or "NULL"
    for part in cover.parts(begin, until, tier=_tier_of(step)):
        sql = (
            f"SELECT metric, at, {_CELL} FROM points WHERE tier = ? AND at >= ? AND at < ? "  # noqa: S608
            f"AND metric IN ({numbers}) ORDER BY at"
        )
        for number, at, *row in look.connection.execute(sql, part):
            cells[number].setdefault(at - at % step, Cell()).add_row(row)
    at_ns = list(range(begin, until, step))
    found: list[Series] = []
    for number in chosen:
        if not cells[number]:
            continue
        kind, unit, of, workload, replica, told = known[number]
        columns = _columns(cast("Any", kind), [cells[number].get(at) for at in at_ns], step / 1e9)
        found.append(
            Series(name, unit, at_ns, columns, step, cast("Any", kind), of, workload, replica, told)
        )  # fmt: skip
    return found


def _columns(
    kind: Literal["gauge", "counter", "histogram"], cells: Sequence[Cell | None], seconds: float
) -> dict[str, list[float | None]]:
    if kind == "counter":
        return {"value": [cell.sum / seconds if cell else None for cell in cells]}
    if kind == "gauge":
        return {"value": [cell.sum / cell.count if cell and cell.count else None for cell in cells]}
    return {
        "rate": [cell.count / seconds if cell else None for cell in cells],
        "mean": [cell.sum / cell.count if cell and cell.count else None for cell in cells],
        **{
            name: [_quantile(cell.buckets, share) if cell else None for cell in cells]
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        },
    }


def _quantile(buckets: Mapping[str, int], share: float) -> float | None:
    """Within the bucket it is taken to be spread evenly; beyond the last bound nothing is known but that bound."""
    bounds = sorted((float(bound.replace("+", "")), count) for bound, count in buckets.items())
    rank, seen, low = share * sum(count for _, count in bounds), 0.0, 0.0
    for bound, count in bounds:
        if count and seen + count >= rank:
            return low if math.isinf(bound) else low + (bound - low) * (rank - seen) / count
        seen += count
        low = bound
    return None


def profile(look: Look, module: str, since: int, until: int) -> list[tuple[str, int]]:
    sql = (
        "SELECT stacks.stack, sum(cpu_ns) AS cpu FROM profiles JOIN stacks ON stacks.id = profiles.stack "
        "WHERE tier = ? AND at > ? AND at < ? AND (module = ? OR ? = '') GROUP BY stacks.id "
        "ORDER BY cpu DESC LIMIT ?"
    )
    spent: dict[str, int] = {}
    for part in Cover.of(look, "profiles").parts(since, until):
        tier = max(part.tier, 1)
        length = HOUR_NS if tier == 2 else MINUTE_NS
        begin = part.since - (length if part.since == since else 1)
        for stack, cpu_ns in look.rows(sql, (tier, begin, part.until, module, module, STACKS_MAX)):
            spent[stack] = spent.get(stack, 0) + cpu_ns
    return sorted(spent.items(), key=lambda each: (-each[1], each[0]))


def windows(look: Look, since: int, until: int) -> list[Window]:
    """As they were told; where they are no longer kept, minutes."""
    cover = Cover.of(look, "traffic")
    tier = 0 if since >= cover.finest_from[0] else 1
    length = cover.window_ns if tier == 0 else MINUTE_NS
    found: dict[int, Window] = {}

    def window(at: int) -> Window:
        known = found.get(at)
        if known is None:
            known = found[at] = Window(at, length)
        return known

    edges = _edges(look)
    sql = f"SELECT at, edge, {_FLOW} FROM traffic WHERE tier = ? AND at >= ? AND at < ? ORDER BY at LIMIT ?"  # noqa: S608
    rows_max = WINDOWS_MAX * 100
    for at, edge, *row in look.connection.execute(sql, (tier, since, until, rows_max)):
        flow = Flow()
        add_flow(flow, row)
        window(at).add_traffic(
            Traffic(*edges[edge], flow.calls, flow.errors, flow.retries, flow.inflight, flow.sum_ns, flow.histogram,
                    flow.codes)
        )  # fmt: skip
    metrics = {
        number: (name, kind, unit, module, workload, _ATTRIBUTES.decode(attributes))
        for number, name, kind, unit, module, workload, attributes in look.rows(
            "SELECT id, name, kind, unit, module, workload, attributes FROM metrics"
        )
    }
    sql = f"SELECT at, metric, {_CELL} FROM points WHERE tier = ? AND at >= ? AND at < ? ORDER BY at LIMIT ?"  # noqa: S608
    for at, number, *row in look.connection.execute(sql, (tier, since, until, rows_max)):
        name, kind, unit, module, workload, attributes = metrics[number]
        cell = Cell()
        cell.add_row(row)
        value = cell.high if kind == "gauge" else cell.sum
        window(at).add_point(Point(name, value, module, kind, unit, attributes, cell.count, cell.buckets), workload)
    _add_profiles(look, found, since, until)
    for at, body in look.rows("SELECT at, body FROM marks WHERE at >= ? AND at < ? ORDER BY at", (since, until)):
        window(at - at % length).marks.append(_MARK.decode(body))
    return [found[at] for at in sorted(found)]


def _add_profiles(look: Look, found: Mapping[int, Window], since: int, until: int) -> None:
    """A minute's CPU is spread evenly over the windows of that minute: it is not kept any finer."""
    sql = (
        "SELECT at, module, stacks.stack, cpu_ns, blocked_ns FROM profiles JOIN stacks ON stacks.id = profiles.stack "
        "WHERE tier = 1 AND at > ? AND at < ?"
    )
    by_minute: dict[int, list[Window]] = {}
    for at, window in found.items():
        by_minute.setdefault(at - at % MINUTE_NS, []).append(window)
    for at, module, stack, cpu_ns, blocked_ns in look.rows(sql, (since - MINUTE_NS, until)):
        among = by_minute.get(at, ())
        for window in among:
            window.add_profile(Profile(module, stack, cpu_ns // len(among), blocked_ns // len(among)))
