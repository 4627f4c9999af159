"""The benchmarks run: one real row through the command line, and our side of every remote row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.families import FAMILIES
from benchmarks.ours.sides import frames_side
from benchmarks.session import Effort, Session
from benchmarks.sides import alternate

ROOT = Path(__file__).parents[2]
TINY = Effort(rounds=1, seconds=0.1, warm_up_s=0.1)
AGREED = {
    "inprocess_call_overhead_us",
    "remote_call_vs_grpc_aio",
    "remote_call_vs_fastapi_httpx",
    "remote_call_vs_two_envoys",
    "http_wire_vs_uvicorn",
    "boutique_cpu_per_request_vs_fastapi_services",
    "boutique_p50_vs_fastapi_services",
    "boutique_services_cpu_per_request_vs_fastapi_services",
    "tracing_overhead_percent",
    "startup_to_first_request_s",
    "monolith_rss_mb",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_agreed_rows_exist_once():
    names = [name for family in FAMILIES for name in family.rows]
    assert set(names) >= AGREED
    assert len(names) == len(set(names))


def test_one_row_by_its_name_leaves_the_report_alone_when_quick():
    """What a quick run finds is not a figure to be compared with later."""
    report = ROOT / "benchmarks" / "results" / "latest.json"
    before = report.read_bytes() if report.exists() else None
    done = run("--quick", "--rounds", "1", "--only", "inprocess_call_overhead_us")
    assert done.returncode == 0, done.stderr
    assert "inprocess_call_overhead_us" in done.stdout
    assert (report.read_bytes() if report.exists() else None) == before


def test_an_unknown_row_is_answered_with_those_that_exist():
    done = run("--only", "remote_call")
    assert done.returncode != 0
    assert "There is no row 'remote_call'" in done.stderr
    assert "remote_call_vs_grpc_aio" in done.stderr


def test_our_side_of_the_remote_rows_answers_every_call_under_mutual_tls():
    with Session(TINY) as session:
        load = TINY.load | {"in_flight": 4}
        [measures] = alternate([frames_side(session)], load, rounds=1, warm_up_s=0.1)
    assert measures[0].calls > 10
    assert measures[0].errors == 0
    assert measures[0].p50_ms <= measures[0].p99_ms
