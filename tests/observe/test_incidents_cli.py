"""``seamline incidents`` on what is kept, with nothing running."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from seamline.cli import app
from seamline.kernel.clock import SystemClock
from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.incidents import Entry, Evidence, Incident, Note, Suspect, Symptom
from seamline.observe.store import TelemetryStore

S = 10**9
Run = Callable[..., tuple[int, str, str]]


def kept(folder: Path, *incidents: Incident) -> None:
    store = TelemetryStore(folder / ".seamline" / "telemetry", ObserveSettings(), SystemClock())
    store.start()
    for incident in incidents:
        store.put_incident(incident)
    store.close()


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "seamline.toml").write_text('[app]\nname = "shop"\n')

    def ask(*arguments: str) -> tuple[int, str, str]:
        status = app.run(["incidents", *arguments, "--app", str(tmp_path)])
        out = capsys.readouterr()
        return status, out.out, out.err

    return ask


@pytest.fixture
def past(tmp_path: Path, run: Run) -> Incident:
    """One that is over, and one that goes on."""
    now = SystemClock().now().timestamp()
    began = int(now - 600) * S
    over = Incident("INC-1", "Payments.charge fails: 60 % of its calls", "closed", "critical", began, began + 6 * S,
                    began + 90 * S, abstained=False)  # fmt: skip
    over.symptoms = [
        Symptom("checkout > payments Payments.charge errors", "errors", "payments", after=0.6, unit="ratio")
    ]
    over.suspects = [Suspect("payments", "errors", "Payments.charge", 8.0, [Evidence("errors", "it raises CardDown")])]
    over.timeline = [Entry(began + 90 * S, "closed", "it is over"), Entry(began, "began", "[red]it\x1b[31m began")]
    over.notes = [Note(began + S, "ann", "the bank is down")]
    goes_on = Incident("INC-2", "[bold]mail\x1b[2J takes 3 s", began_ns=began + 300 * S, detected_ns=began + 304 * S)
    kept(tmp_path, over, goes_on)
    return over


def test_they_are_listed_the_newest_first_and_nothing_in_them_speaks_to_the_terminal(run: Run, past: Incident):
    """With how long they lasted and who is suspected."""
    status, out, _ = run()
    assert status == 0
    lines = out.splitlines()[1:]
    assert [line.split()[0] for line in lines if line.startswith("INC")] == ["INC-2", "INC-1"]
    assert "1 min 30 s" in out
    assert "goes on" in out
    assert "payments (errors)" in out
    assert "[bold]mail" in out
    assert "\x1b" not in out


def test_a_script_learns_by_the_exit_status_whether_something_is_wrong(run: Run, past: Incident, tmp_path: Path):
    """1 as long as one goes on, 0 when all are closed; without --check always 0."""
    assert run("--open")[0] == 0
    assert run("--open", "--check")[0] == 1
    kept(tmp_path, Incident("INC-2", "mail", "closed", began_ns=past.began_ns, ended_ns=past.ended_ns))
    assert run("--check")[0] == 0
    status, out, _ = run("--open", "--check")
    assert (status, out.strip()) == (0, "Nothing goes wrong now.")


def test_only_what_was_open_since_a_time_is_listed(run: Run, past: Incident):
    """What ended before that is left out; what goes on is there however old."""
    found = json.loads(run("--since", "2m", "--json")[1])
    assert [each["id"] for each in found] == ["INC-2"]
    assert [each["id"] for each in json.loads(run("--json")[1])] == ["INC-2", "INC-1"]


def test_one_is_shown_with_its_evidence_and_how_it_went(run: Run, past: Incident):
    """In the order of time; by its id or number."""
    for name in ("INC-1", "inc-1", "1"):
        status, out, _ = run("show", name)
        assert status == 0
        assert "it raises CardDown" in out
        assert out.index("began") < out.index("it is over")
        assert "ann wrote: the bank is down" in out
    assert json.loads(run("show", "INC-1", "--json")[1])["suspects"][0]["module"] == "payments"


def test_one_that_is_not_there_and_a_store_that_is_not_there_are_said(run: Run, tmp_path: Path):
    """With what to do, and a status of their own."""
    status, _, said = run()
    assert status != 0
    assert "SL7601" in said
    kept(tmp_path)
    status, out, _ = run()
    assert (status, out.strip()) == (0, "Nothing went wrong in that time.")
    status, _, said = run("show", "INC-9")
    assert status == 2
    assert "SL9008" in said
