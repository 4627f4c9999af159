"""`seamline audit`: altered logs are named with a failing status, lines are found, events have the shape of OCSF."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.audit_rig import sign

from seamline.cli.app import run
from seamline.kernel.audit import AuditLog
from seamline.kernel.audit.ocsf import event
from seamline.kernel.audit.search import Follower, Query
from seamline.kernel.clock import ManualClock

Said = Callable[..., tuple[int, str]]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """An application whose audit has two logs, one of them signed; the clock starts with 2026."""
    (tmp_path / "seamline.toml").write_text('[app]\nname = "shop"\nmodules = []\n')
    root, clock = tmp_path / ".seamline", ManualClock()
    orders = AuditLog(root / "audit" / "orders.jsonl", clock=clock)
    gateway = AuditLog(root / "audit" / "gateway.jsonl", clock=clock)
    orders.write("call", "deny", principal="ads", action="Payments.charge", resource="payments", reason="no permit")
    clock.advance(3600)
    gateway.write("authentication", "refuse", principal="eve", action="sign in", resource="shop",
                  reason="wrong password\x1b[2J", peer="127.0.0.1:5")  # fmt: skip
    clock.advance(3600)
    orders.write("call", "allow", principal="desk", action="Payments.refund", resource="payments", user="ann")
    sign(root, orders)
    orders.close()
    gateway.close()
    return tmp_path


@pytest.fixture
def said(shop: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    def ask(*words: str) -> tuple[int, str]:
        status = run(["audit", *words, "--app", str(shop)])
        return status, capsys.readouterr().out

    return ask


def found(said: Said, *words: str) -> list[dict[str, Any]]:
    status, out = said("search", "--json", *words)
    assert status == 0
    return [json.loads(line) for line in out.splitlines()]


def test_a_whole_audit_is_said_to_be_whole(said: Said):
    status, out = said("verify", "--json")
    assert status == 0
    report = json.loads(out)
    assert not report["damaged"]
    assert {each["log"]: (each["lines"], each["signed_to"]) for each in report["logs"]} == {
        "checkpoints": (1, 0), "gateway": (1, 0), "orders": (2, 2),
    }  # fmt: skip


def test_an_altered_line_is_named_and_the_status_fails(said: Said, shop: Path):
    path = shop / ".seamline" / "audit" / "orders.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"desk"', b'"mask"'))
    status, out = said("verify")
    assert status == 1
    assert "orders.jsonl:2: changed: its bytes do not have its hash" in out


def test_heads_kept_elsewhere_count(said: Said, shop: Path, tmp_path: Path):
    """The folder's own checkpoints are gone with the line that they told of."""
    status, out = said("heads")
    kept = tmp_path / "heads.json"
    kept.write_text(out)
    folder = shop / ".seamline" / "audit"
    lines = (folder / "orders.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "orders.jsonl").write_bytes(lines[0])
    (folder / "checkpoints.jsonl").unlink()
    assert said("verify")[0] == 0
    status, out = said("verify", "--against", str(kept))
    assert status == 1
    assert "orders.jsonl:1: cut off: lines 2 to 2 once stood behind it" in out
    assert said("verify", "--key", "00" * 32)[0] != 0
    kept.write_text("{}")
    assert said("verify", "--against", str(kept))[0] == 2


def test_lines_of_all_logs_are_found_in_the_order_of_time(said: Said):
    assert [line["principal"] for line in found(said)] == ["ads", "eve", "desk"]


@pytest.mark.parametrize(
    ("words", "principals"),
    [
        (("--decision", "deny"), ["ads"]),
        (("--kind", "authentication"), ["eve"]),
        (("--principal", "d*"), ["desk"]),
        (("--action", "Payments.*"), ["ads", "desk"]),
        (("REFUND",), ["desk"]),
        (("--since", "2026-01-01T01:00"), ["eve", "desk"]),
        (("--until", "2026-01-01T01:00Z"), ["ads"]),
        (("--since", "2026-01-01T02:00+01:00", "--until", "2026-01-01T01:30"), ["eve"]),
        (("--lines", "1"), ["desk"]),
    ],
)
def test_lines_are_found_by_what_they_say(said: Said, words: tuple[str, ...], principals: list[str]):
    assert [line["principal"] for line in found(said, *words)] == principals


def test_a_time_that_is_none_is_refused(said: Said):
    assert said("search", "--since", "yesterday")[0] == 2


def test_what_a_stranger_sent_does_not_speak_to_the_terminal(said: Said):
    _, out = said("search")
    assert "wrong password" in out
    assert "\x1b" not in out


def test_what_comes_is_followed_over_a_rotation(tmp_path: Path):
    """Each new line once, whichever file it is in by then."""
    folder = tmp_path / "audit"
    log = AuditLog(folder / "orders.jsonl", bytes_max=4000, per_window=10**6, total_per_window=10**6)
    log.write("call", "deny", principal="before", action="x")
    follower = Follower(folder, Query(kind="call"))
    heard: list[str] = []
    for number in range(40):
        log.write("call", "deny", principal=str(number), action="x")
        if number % 3 == 0:
            heard += [line["principal"] for line in follower.more()]
    log.close()
    heard += [line["principal"] for line in follower.more()]
    assert heard == [str(number) for number in range(40)]
    assert log.rotations > 2


def test_events_have_the_classes_of_ocsf(said: Said):
    status, out = said("export")
    assert status == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [each["class_uid"] for each in events] == [6003, 3002, 6003]
    for each in events:
        assert each["type_uid"] == each["class_uid"] * 100 + each["activity_id"]
        assert each["category_uid"] == each["class_uid"] // 1000
        assert {"time", "severity_id", "status_id", "metadata", "unmapped"} <= set(each)
        assert each["metadata"]["version"].startswith("1.")
        assert {"name", "vendor_name"} <= set(each["metadata"]["product"])
    denied, refused, allowed = events
    assert (denied["status_id"], refused["status_id"], allowed["status_id"]) == (2, 2, 1)
    assert denied["api"] == {"operation": "Payments.charge", "service": {"name": "payments"}}
    assert refused["user"] == {"name": "eve"}
    assert refused["src_endpoint"] == {"ip": "127.0.0.1", "port": 5}
    assert allowed["actor"]["user"]["uid"] == "ann"
    assert denied["time"] == 1767225600000


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"kind": "revocation", "decision": "revoke", "resource": "user eve"}, (3001, 5)),
        ({"kind": "revocation", "decision": "allow", "resource": "user eve"}, (3001, 2)),
        ({"kind": "revocation", "decision": "revoke", "resource": "module ads"}, (6003, 99)),
        ({"kind": "authentication", "decision": "allow", "action": "end session"}, (3002, 2)),
        ({"kind": "identity", "decision": "refuse", "action": "connect"}, (3002, 1)),
        ({"kind": "secret", "decision": "allow", "action": "get"}, (6003, 2)),
        ({"kind": "policy", "decision": "allow", "action": "change"}, (6003, 3)),
    ],
)
def test_each_kind_has_its_class(line: dict[str, Any], expected: tuple[int, int]):
    found = event({"time": "2026-01-01T00:00:00.000Z", **line}, "1")
    assert (found["class_uid"], found["activity_id"]) == expected
