"""``[telemetry]``: what the processes tell. ``[observe]``: what is kept of it, watched and said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from seamline.kernel.settings.errors import BadValueError
from seamline.kernel.settings.tables import TableReader

MIB = 1024 * 1024
_SLO_TARGET = "Checkout.place, module:checkout or http:frontend"


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """``[telemetry]``. Counts and durations of all calls are told always; the rest decides about traces."""

    sample: float = 0.01
    """Share of the new traces that are recorded, 0 to 1, beyond those of ``sample_per_s``."""
    sample_per_s: float = 10
    """So many new traces a second are recorded in each process, whatever ``sample`` says."""
    slow_ms: float = 1000
    """A call that took longer, or failed, leaves a span although its trace is not recorded."""
    profile_hz: float = 50
    """Looks at the stack in each second of CPU; 0 for none."""
    otlp: str = ""
    """The endpoint of a backend that is sent everything, too."""
    otlp_protocol: Literal["http/protobuf", "http/json", "grpc"] = "http/protobuf"
    otlp_headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    log: Literal["pretty", "json"] = "pretty"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class SloSettings:
    """``[observe.slos.<name>]``: the share of good answers that is promised."""

    target: str
    """A method (``Checkout.place``), ``module:<name>`` or ``http:<module>``."""
    objective: float = 0.99
    latency_ms: float = 0
    """An answer that takes longer is not good; 0 looks at errors only."""
    window_days: float = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveSettings:
    """``[observe]``."""

    store: bool = True
    """Keep telemetry in the data folder, watch it, and serve the portal."""
    otlp_listen: str = "127.0.0.1:4318"
    """Where other services' OTLP over HTTP is taken; empty for nowhere, port 0 for any."""
    otlp_grpc_listen: str = ""
    """The same over gRPC, which is usually port 4317."""
    otlp_bytes_max: int = 4 * MIB
    """Of one request; unpacked it may be four times that."""
    hot_s: float = 21_600
    """How long everything is kept in SQLite before it goes to history."""
    history_days: float = 14
    size_max_mb: float = 2_000
    """Of all that is kept, together."""
    keep_traces: float = 0.1
    """Share of the traces that go to history; slow and failed ones all do."""
    window_s: float = 2
    """What change is looked for in."""
    slos: Mapping[str, SloSettings] = field(default_factory=lambda: MappingProxyType({}))
    notify: tuple[str, ...] = ()
    """Who is told of incidents: ``https://`` for a signed webhook, and what Apprise knows."""
    notify_secret: str = field(default="", repr=False)
    """Signs the webhooks."""
    model: str = ""
    """The endpoint (OpenAI-compatible) of a model that puts explanations into prose; a template does without."""
    model_name: str = ""
    model_key: str = field(default="", repr=False)


def read_telemetry(reader: TableReader, table: dict[str, Any]) -> TelemetrySettings:
    """``[telemetry]``, checked. Raises a SettingsError."""
    found = reader.section(TelemetrySettings, "telemetry", table)

    def refused(key: str, fact: str, remedy: str) -> BadValueError:
        return BadValueError(fact, remedy, place=reader.place("telemetry", key))

    if not 0 <= found.sample <= 1:
        fact = f"sample is {found.sample!r}, and a share lies between 0 and 1"
        raise refused("sample", fact, "0.01 keeps one trace in a hundred.")
    if not 0 <= found.profile_hz <= 1000:
        raise refused("profile_hz", f"profile_hz is {found.profile_hz!r}", "0 to 1000; 50 costs next to nothing.")
    for key in ("sample_per_s", "slow_ms"):
        if getattr(found, key) < 0:
            raise refused(key, f"{key} is {getattr(found, key)!r}", "0 or more.")
    _check_url(reader, "telemetry", "otlp", found.otlp)
    for name, value in found.otlp_headers.items():
        if not name.isascii() or any(each in name + value for each in "\r\n\0"):
            raise refused("otlp_headers", f"the header {name!r} is not text in one line", 'authorization = "..."')
    return found


def read_observe(reader: TableReader, table: dict[str, Any]) -> ObserveSettings:
    """``[observe]``, checked. Raises a SettingsError."""
    table = dict(table)
    slos = {name: _slo(reader, name, entry) for name, entry in reader.table(table, "slos", "observe.slos").items()}
    table.pop("slos", None)
    found = reader.section(ObserveSettings, "observe", table, {"slos"})

    def refused(key: str, remedy: str) -> BadValueError:
        return BadValueError(f"{key} is {getattr(found, key)!r}", remedy, place=reader.place("observe", key))

    for key in ("otlp_listen", "otlp_grpc_listen"):
        host, _, port = getattr(found, key).rpartition(":")
        if getattr(found, key) and (not host or not port.isdigit() or int(port) > 65535):
            raise refused(key, "Write 127.0.0.1:4318, or leave it empty.")
    for key, least in (("otlp_bytes_max", 1024), ("hot_s", 60), ("history_days", 0), ("size_max_mb", 16)):
        if getattr(found, key) < least:
            raise refused(key, f"{least} or more.")
    if not 0.25 <= found.window_s <= 60:
        raise refused("window_s", "0.25 to 60 seconds; 2 finds a fault within ten.")
    if not 0 <= found.keep_traces <= 1:
        raise refused("keep_traces", "A share, 0 to 1.")
    _check_url(reader, "observe", "model", found.model)
    return replace(found, slos=MappingProxyType(slos))


def _slo(reader: TableReader, name: str, entry: Any) -> SloSettings:
    section = f"observe.slos.{name}"
    if not isinstance(entry, dict):
        raise BadValueError(f"{name} is {entry!r}", f"Write [{section}].", place=reader.place("observe.slos", name))
    if "target" not in entry:
        raise BadValueError(f"the SLO {name!r} has no target", f"target = {_SLO_TARGET}.", place=reader.place(section))
    table = cast("dict[str, Any]", entry)
    slo = SloSettings(**reader.values(SloSettings, section, table, overrides=False))
    if not 0 < slo.objective < 1:
        fact = f"objective is {slo.objective!r}"
        raise BadValueError(fact, "0.99 lets one in a hundred fail.", place=reader.place(section, "objective"))
    if slo.latency_ms < 0 or slo.window_days <= 0:
        raise BadValueError(f"{name!r} measures nothing", "window_days above 0.", place=reader.place(section))
    kind, colon, rest = slo.target.partition(":")
    if not slo.target or (colon and (kind not in {"module", "http"} or not rest)):
        raise BadValueError(f"target is {slo.target!r}", f"Write {_SLO_TARGET}.", place=reader.place(section, "target"))
    return slo


def _check_url(reader: TableReader, section: str, key: str, url: str) -> None:
    parts = urlsplit(url)
    if url and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise BadValueError(
            f"{key} is no URL that can be sent to", "http:// or https://.", place=reader.place(section, key)
        )
