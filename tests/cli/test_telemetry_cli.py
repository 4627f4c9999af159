"""``seamline traces``, ``metrics`` and ``logs`` on what is kept, with nothing running."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seamline.cli import app
from seamline.cli.metrics import figure, sparkline
from seamline.kernel.clock import SystemClock
from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.records import Batch, Log, Point, Source, Span, Traffic
from seamline.observe.store import TelemetryStore

S = 10**9
ID = bytes(range(1, 17))
MS = 10**6
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "seamline.toml").write_text('[app]\nname = "shop"\n')
    store = TelemetryStore(tmp_path / ".seamline" / "telemetry", ObserveSettings(), SystemClock())
    store.start()
    now = time.time_ns()
    began = now - 60 * S
    spans = [
        Span(ID, b"1" * 8, b"", "POST /checkout", "server", "frontend", "", began, 100 * MS),
        Span(ID, b"2" * 8, b"1" * 8, "Checkout.place", "server", "checkout", "frontend", began + 10 * MS, 80 * MS,
             "unavailable", "[bold]the card\x1b[31m service", {"user.id": "u77", "raw": b"\x01"}),
        Span(ID, b"3" * 8, b"2" * 8, "Cart.get", "server", "cart", "checkout", began + 20 * MS, 5 * MS),
        Span(b"x" * 16, b"1" * 8, b"", "GET /", "server", "frontend", "", began + S, 3 * MS),
    ]  # fmt: skip
    logs = [
        Log(now - 50 * S, 9, "cart", "an item was added", trace_id=ID),
        Log(now - 40 * S, 17, "checkout", "card declined", exception="CardDeclined: no", attributes={"order": "o-1"}),
    ]
    points = [Point("process.memory.usage", 78 * 2**20, unit="By"), Point("sent", 4, "cart", "counter")]
    traffic = [Traffic("frontend", "cart", "Cart.get", "server", 30, 3, histogram={40: 30})]
    store.add(Batch(Source("w", 2), now, S, spans=spans, logs=logs, points=points, traffic=traffic))
    store.close()

    def ask(*arguments: str) -> tuple[int, str, str]:
        status = app.run([*arguments, "--app", str(tmp_path)])
        out = capsys.readouterr()
        return status, out.out, out.err

    return ask


def parsed(answer: tuple[int, str, str]) -> Any:
    assert answer[0] == 0, answer
    return json.loads(answer[1])


def test_traces_are_listed_by_what_is_asked(run: Run) -> None:
    """Each option narrows the list; the table shows names, durations and failures."""
    status, out, _ = run("traces")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == [(b"x" * 16).hex(), ID.hex()]
    assert "POST /checkout" in out
    for options, found in (
        (("--failed",), [ID]), (("--module", "cart"), [ID]), (("--method", "GET /"), [b"x" * 16]),
        (("--slower-than", "90"), [ID]), (("--where", "user.id=u77"), [ID]), (("--where", "user.id=u7"), []),
        (("--search", "the card serv"), [ID]), (("--since", "10s"), []), (("--limit", "1"), [b"x" * 16]),
    ):  # fmt: skip
        rows = parsed(run("traces", "--json", *options))
        assert [row["trace_id"] for row in rows] == [each.hex() for each in found], options
    assert run("traces", "--module", "nobody")[1] == "no such traces\n"
    assert run("traces", "--where", "nonsense")[0] == 2
    assert run("traces", "--since", "yesterday")[0] == 2


def test_a_trace_is_a_waterfall_with_its_critical_path(run: Run) -> None:
    """The tree with own times, filled where it is on the path; what was sent cannot speak to the terminal."""
    status, out, _ = run("traces", ID.hex()[:8])
    assert status == 0
    root, place, cart = (next(line for line in out.splitlines() if name in line) for name in
                         ("POST /checkout", "Checkout.place", "Cart.get"))  # fmt: skip
    assert "100 ms" in root.replace(".0", "")
    assert "unavailable [bold]the card" in place
    assert "\x1b[31m" not in out
    assert root.count("█") < root.count("░")
    assert cart.count("█") >= 1
    assert place.index("Checkout") > root.index("POST")
    assert "of the path" in out
    rows = parsed(run("traces", ID.hex(), "--json"))
    assert [(row["name"], row["self_ns"] // MS, row["critical_ns"] // MS) for row in rows] == [
        ("POST /checkout", 20, 20), ("Checkout.place", 75, 75), ("Cart.get", 5, 5),
    ]  # fmt: skip
    assert rows[1]["attributes"] == {"user.id": "u77", "raw": "01"}
    assert run("traces", "00" * 16)[0] == 2
    assert run("traces", "ffff")[0] == 2


def test_metrics_are_lines_of_a_terminal(run: Run) -> None:
    """Names without an argument; with one a sparkline of each series; `calls` is what is counted of calls."""
    names = {row["name"] for row in parsed(run("metrics", "--json"))}
    assert names == {"process.memory.usage", "sent"}
    assert {row["name"] for row in parsed(run("metrics", "--module", "cart", "--json"))} == {"sent"}
    status, out, _ = run("metrics", "process.memory.usage")
    assert status == 0
    assert "78 MB" in out
    assert "w/2" in out
    assert sum(map(sum, ([each or 0 for each in row["columns"]["calls"]] for row in
                         parsed(run("metrics", "calls", "--json"))))) == 30  # fmt: skip
    assert "p99_ms" in run("metrics", "calls", "--module", "cart")[1]
    assert run("metrics", "nothing")[0] == 2


def test_kept_lines_are_read_when_nothing_runs(run: Run) -> None:
    """Oldest first as in the stream, by level, words, trace and time; without a filter too, as nothing runs."""
    for options, found in (
        ((), ["an item was added", "card declined"]), (("--level", "error"), ["card declined"]),
        (("--search", "item"), ["an item was added"]), (("--trace", ID.hex()), ["an item was added"]),
        (("--module", "checkout"), ["card declined"]), (("--since", "45s"), ["card declined"]),
        (("-n", "1"), ["card declined"]), (("-n", "0"), []),
    ):  # fmt: skip
        status, out, _ = run("logs", "--json", *options)
        assert status == 0
        assert [json.loads(line)["message"] for line in out.splitlines()] == found, options
    status, out, _ = run("logs", "--level", "error")
    assert "checkout       error: card declined order=o-1" in out
    assert "CardDeclined: no" in out
    assert run("logs", "--level", "loud")[0] == 2
    assert run("logs", "--follow", "--search", "x")[0] == 2


def test_where_nothing_was_kept_the_error_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SL7601, and what to do."""
    (tmp_path / "seamline.toml").write_text('[app]\nname = "shop"\n')
    assert app.run(["traces", "--app", str(tmp_path)]) == 9
    assert "SL7601" in capsys.readouterr().err


def test_figures_and_sparklines_are_short() -> None:
    """The least is the lowest tick, the most the highest, a gap a space."""
    assert sparkline([0, 1, None, 7]) == "▁▂ █"
    assert sparkline([3, 3]) == "▁▁"
    assert sparkline([None]) == ""
    assert (figure(12.345), figure(4560.4), figure(5 * 2**20, "By"), figure(2, "ms")) == (
        "12.3",
        "4,560",
        "5 MB",
        "2 ms",
    )
