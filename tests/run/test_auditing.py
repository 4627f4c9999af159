"""The supervisor signs how far each log has come, believes none that goes back, and looks at a start what was done."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from supervised import Running, Starter, until
from tests.kernel.audit_rig import damage

from seamline.kernel.audit import AuditLog
from seamline.kernel.audit.verify import verify
from seamline.kernel.clock import ManualClock
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import Settings
from seamline.module.context import CURRENT, CallContext
from seamline.module.contract import Contract, compile_contract
from seamline.module.principal import Subject, User
from seamline.run.auditing import Auditing
from seamline.run.control import Audited
from seamline.run.sensitive import Sensitive


def heads(running: Running) -> dict[str, int]:
    return {each["log"]: each["lines"] for each in running.ask("audit-heads")["heads"]}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_a_worker_writes_is_signed_while_it_runs(start: Starter):
    """And its last lines when it stops; all of it verifies."""
    running = start(topology="services").until_ready()
    until(lambda: {"supervisor", "front", "cart", "orders"} <= set(heads(running)), "checkpoints of all logs")
    assert {each.name for each in verify(running.data / "audit")} >= {"supervisor", "front", "cart", "orders"}
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert damage(running.data / "audit") == []
    signed = {report.name: (report.lines, report.signed) for report in verify(running.data / "audit")}
    assert all(count == upto for name, (count, upto) in signed.items() if name != "checkpoints"), signed


def test_killed_and_started_again_the_audit_is_whole(start: Starter):
    """SIGKILL of the supervisor, and of its workers with it, again and again."""
    for _ in range(3):
        running = start().until_ready()
        until(lambda running=running: "supervisor" in heads(running), "a checkpoint")
        running.kill()
        assert damage(running.data / "audit") == []


def test_what_was_altered_while_nothing_ran_is_said_at_the_start(start: Starter):
    """In the log, and as a line of the audit; the application starts all the same."""
    running = start().until_ready()
    until(lambda: "supervisor" in heads(running), "a checkpoint")
    running.signal(signal.SIGTERM)
    running.wait()
    path = running.data / "audit" / "supervisor.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"start"', b'"stert"', 1))
    running = start().until_ready()
    until(lambda: "the audit was altered: supervisor.jsonl:" in running.messages(), "the finding")
    found = [line for line in lines(path) if line.get("kind") == "audit" and line.get("decision") == "fail"]
    assert found[0]["action"] == "verify"


def settings_in(folder: Path) -> Settings:
    (folder / "seamline.toml").write_text('[app]\nname = "shop"\nmodules = []\n')
    return Settings.load(folder, {})


async def test_a_worker_speaks_of_its_own_log_and_not_of_another_past(tmp_path: Path):
    """Who took a worker over cannot have another log signed, or its own signed anew."""
    log = AuditLog(tmp_path / "audit" / "supervisor.jsonl", clock=ManualClock())
    auditing = Auditing(settings_in(tmp_path), tmp_path, ManualClock(), log)
    async with TaskOwner("test") as owner:
        owner.spawn(auditing.run(), name="audit")
        auditing.hear(Audited("orders", 5, "aa" * 32), "orders")
        while not auditing.heads():  # noqa: ASYNC110 - a thread opens it
            await asyncio.sleep(0.01)
        auditing.hear(Audited("payments", 9, "bb" * 32), "orders")
        auditing.hear(Audited("orders", 4, "cc" * 32), "orders")
        auditing.hear(Audited("orders~1", 1, "dd" * 32), "orders")
        assert {each.log: each.number for each in auditing.heads() if each.log != "supervisor"} == {
            "orders": 5, "orders~1": 1,
        }  # fmt: skip
    auditing.finish()
    refused = [line["reason"] for line in lines(log.path) if line["decision"] == "refuse"]
    assert len(refused) == 2
    assert "'payments', which is not its own" in refused[0]
    assert "was at line 5 before" in refused[1]


class Payments(Contract):
    async def refund(self, cents: int) -> int: ...
    async def look(self) -> int: ...


async def test_a_permitted_call_of_a_sensitive_method_is_a_line_with_its_user(tmp_path: Path):
    """However often it is called; of other methods, nothing."""
    log = AuditLog(tmp_path / "audit" / "payments.jsonl")
    sensitive = Sensitive(("Payments.refund",), log)

    async def handler(cents: int = 0) -> int:
        return cents

    methods = compile_contract(Payments).methods
    look, refund = (sensitive.wrap(methods[name], handler, {}) for name in ("look", "refund"))
    assert look is handler
    subject = Subject(User(id="ann", issuer="https://id.example"), "helper")
    token = CURRENT.set(CallContext("payments", "desk", subject=subject))
    try:
        assert [await refund(number) for number in range(30)] == list(range(30))
    finally:
        CURRENT.reset(token)
    log.close()
    written = lines(log.path)
    assert len(written) == 30
    told = {"principal": "desk", "action": "Payments.refund", "decision": "allow", "user": "ann", "agent": "helper"}
    assert told.items() <= written[0].items()
