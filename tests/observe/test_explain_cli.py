"""``seamline explain INC-7``: from what is kept, whether or not the application runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.observe.planted import Fault, plant

from seamline.cli.app import run
from seamline.kernel.clock import SystemClock
from seamline.kernel.settings import ObserveSettings
from seamline.observe.explain import explain, summary_of
from seamline.observe.incidents import Incident
from seamline.observe.store import TelemetryStore


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An application's folder in which one incident is kept."""
    (tmp_path / "seamline.toml").write_text('[app]\nname = "shop"\nmodules = []\n', encoding="utf-8")
    planted = plant(Fault("release", "cart", 0.5), "services", 8)
    found = explain(planted.before, planted.after, planted.symptoms, planted.marks, planted.traces)
    began_ns = planted.after[0].at_ns
    incident = Incident(
        "INC-7", "frontend > cart errors", began_ns=began_ns, ended_ns=began_ns + 90 * 10**9, status="closed",
        symptoms=planted.symptoms, suspects=found.suspects, abstained=False, marks=planted.marks,
    )  # fmt: skip
    incident.summary = summary_of(incident)
    store = TelemetryStore(tmp_path / ".seamline" / "telemetry", ObserveSettings(), SystemClock())
    store.start()
    store.put_incident(incident)
    store.close()
    return tmp_path


def test_suspects_stand_with_their_evidence(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary, each suspect in words with a table of evidence, and what was changed before."""
    assert run(["explain", "inc-7", "--app", str(app)]) == 0
    printed = capsys.readouterr().out
    assert "INC-7  frontend > cart errors" in printed
    assert "lasted 1 min 30 s" in printed
    assert "1. the new release of cart" in printed
    assert "ValueError" in printed
    assert "before: cart 1.4" in printed


def test_as_json_it_is_the_incident(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that is kept, for a script."""
    assert run(["explain", "INC-7", "--app", str(app), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["id"], printed["suspects"][0]["module"]) == ("INC-7", "cart")


def test_an_incident_that_is_not_kept_is_said(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence and an exit status, not a traceback."""
    assert run(["explain", "INC-99", "--app", str(app)]) == 2
    assert "SL9008" in capsys.readouterr().err
