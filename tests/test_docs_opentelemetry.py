"""The page on OpenTelemetry is true: its request is taken, its tables are the code's."""

from __future__ import annotations

import json
import re
import time
import tomllib
from pathlib import Path

from tests.observe.otlp_rig import JSON, place

from seamline.kernel.settings.observe import ObserveSettings, TelemetrySettings
from seamline.observe import prometheus
from seamline.observe.otlp import bounds, exporter, mapping, measures, names, reading, receiver, senders, telling
from seamline.observe.prometheus import Totals
from seamline.observe.records import Batch, Point, Source, Traffic

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "opentelemetry.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def rows(title: str, table: int = 0) -> list[list[str]]:
    """The rows of one of a section's tables."""
    blocks = re.findall(r"(?:^\|.*\n)+", section(title), re.MULTILINE)
    lines = blocks[table].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines]


async def test_the_request_on_the_page_is_taken():
    """The curl command's body, with times of now, is a span of the service it names."""
    found = re.search(r"-d '(.*?)'\n```", section("In"), re.DOTALL)
    assert found
    body = found[1]
    span = json.loads(body)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    now = time.time_ns()
    body = body.replace(span["startTimeUnixNano"], str(now)).replace(span["endTimeUnixNano"], str(now + 12_000_000))
    async with place() as here:
        answer = await here.post("/v1/traces", body.encode(), JSON)
        assert (answer.status, answer.body) == (200, b"{}")
        (taken,) = here.spans
        assert (taken.module, taken.name, taken.kind, taken.duration_ns) == (
            "billing", "POST /charge", "server", 12_000_000,
        )  # fmt: skip


def test_where_it_listens():
    """The address, paths and content types are the code's."""
    assert ObserveSettings().otlp_listen in section("In")
    assert ObserveSettings().otlp_grpc_listen == ""
    for path in receiver.PATHS:
        assert path.decode() in section("In")
    for kind in receiver.TYPES:
        assert f"`{kind.decode()}`" in section("In")


def test_the_attributes_of_ours():
    """All that stand for what has no field of its own, and no others."""
    ours = {value for value in vars(mapping).values() if isinstance(value, str) and value.startswith("otel.")}
    assert {row[0] for row in rows("What becomes of it")} == ours


def test_the_names_that_are_kept_from_others():
    """The mark, and the labels that are renamed."""
    text = section("What becomes of it")
    assert f"`{names.MARK}`" in text
    for label in (*measures.RESERVED, *names.RESERVED):
        assert f"`{label}`" in text


def test_the_bounds():
    """Each number of the table, in its order."""
    expected = [
        bounds.ATTRIBUTES_MAX, bounds.KEY_CHARACTERS_MAX, bounds.TEXT_CHARACTERS_MAX, bounds.ITEMS_MAX,
        bounds.DEPTH_MAX, bounds.EVENTS_MAX, bounds.LINKS_MAX, bounds.BUCKETS_MAX, bounds.TIMES_MAX,
        bounds.SERVICES_MAX, bounds.SERIES_MAX, bounds.METRICS_MAX, bounds.OBJECTS_MAX,
    ]  # fmt: skip
    assert [int(row[0].replace(",", "")) for row in rows("What is refused", 1)] == expected
    assert names.OTHER in section("What is refused")
    assert f"{receiver.HELD_BYTES_MAX // 2**20} MiB" in section("What is refused")
    assert receiver.UNPACKED == 4


def test_the_statuses():
    """Those that the receiver gives, and no others."""
    code = Path(receiver.__file__).read_text(encoding="utf-8") + Path(reading.__file__).read_text(encoding="utf-8")
    given = {int(status) for status in re.findall(r"HttpRefusal\((\d{3})", code)}
    assert {int(row[0]) for row in rows("What is refused")} == {200, 503, *given}
    assert f"longer than {int(reading.BODY_TIMEOUT_S)} seconds" in section("What is refused")


def test_the_settings_of_the_way_out():
    """The section in the example has keys that exist, and the protocols are those of the settings."""
    found = re.search(r"```toml\n(.*?)```", section("Out"), re.DOTALL)
    assert found
    TelemetrySettings(**tomllib.loads(found[1])["telemetry"])
    for protocol in ("http/protobuf", "http/json", "grpc"):
        assert f"`{protocol}`" in section("Out")


def test_how_it_is_sent():
    """Queue, request, attempts, and the statuses after which there is another."""
    text = section("Out")
    assert f"has a queue of {exporter.QUEUED_MAX:,}" in text
    assert f"at most {exporter.AT_ONCE} of them" in text
    assert f"up to {exporter.ATTEMPTS} times" in text
    assert f"After {', '.join(map(str, sorted(senders.AGAIN)))} and lost" in text
    told = {row[1] for row in rows("Out")}
    for name in (telling.CALL_DURATION, telling.CALL_ERRORS):
        assert any(name in cell for cell in told)
    source = Path(telling.__file__).read_text(encoding="utf-8")
    for key in re.findall(r"`((?:service|seamline)\.(?!call)[a-z.]+)`", section("Out")):
        assert f'"{key}"' in source or key == "seamline.release"


def test_the_metrics_of_prometheus():
    """The names in the table are those on the page that is rendered, and the example's name is right."""
    totals = Totals()
    call = Traffic("a", "b", "B.c", "server", 1, 1, 1, 1, 1, {5: 1}, {"internal": 1})
    totals.add(Batch(Source("w"), 1, traffic=[call], points=[Point("process.cpu.time", 1.0, "", "counter", "s")]))
    shown = set(re.findall(r"^# TYPE (\S+)", totals.render()[0].decode(), re.MULTILINE))
    told = {row[0] for row in rows("Prometheus")}
    assert told == {name for name in shown if name.startswith("seamline_")}
    assert "process_cpu_time_seconds_total" in shown
    assert f"{prometheus.SERIES_MAX:,}" in section("Prometheus")
