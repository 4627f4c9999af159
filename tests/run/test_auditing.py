"""The supervisor signs how far each log has come, believes none that goes back, and looks at a start what was done."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Annotated, Any

import pytest
from supervised import Running, Starter, until
from tests.kernel.audit_rig import damage

from seamline.kernel.audit import AuditLog
from seamline.kernel.audit.verify import verify
from seamline.kernel.clock import ManualClock
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import MeshSettings, Settings
from seamline.mesh.errors import PolicyTypeError
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy, Vocabulary, arguments_of
from seamline.module.context import CURRENT, CallContext
from seamline.module.contract import Contract, compile_contract
from seamline.module.principal import Subject, User
from seamline.module.values import Attribute
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
    async def refund(self, cents: Annotated[int, Attribute]) -> int: ...
    async def look(self) -> int: ...


class Till(Payments):
    async def refund(self, cents: Annotated[int, Attribute]) -> int:
        return cents

    async def look(self) -> int:
        return 0


PERMIT = """permit (principal == Module::"desk", action in Action::"Payments", resource);"""
ANN = Subject(User(id="ann", issuer="https://id.example", roles=frozenset({"support"})), "helper")


def till(folder: Path, policy: str, *sensitive: str) -> tuple[Mesh, Payments]:
    """The desk's way to payments in one process, under a policy that can be written anew."""
    (folder / "policy").mkdir()
    (folder / "policy" / "shop.cedar").write_text(policy)
    spec = compile_contract(Payments)
    loaded = Policy.load(
        folder / "policy",
        modules={"desk": {}, "payments": {}},
        contracts={"Payments": ("payments", list(spec.methods))},
        arguments=arguments_of(spec),
        vocabulary=Vocabulary(roles=("support",)),
    )
    log = AuditLog(folder / "audit" / "payments.jsonl")
    mesh = Mesh("shop", loaded, MeshSettings(), audit=log)
    mesh.around = Sensitive(sensitive, log, mesh).around
    mesh.provide("payments", Payments, Till())
    return mesh, mesh.stub(Payments, "desk")


async def refunded(payments: Payments, *amounts: int, subject: Subject | None = ANN) -> None:
    token = CURRENT.set(CallContext("desk", "gateway", subject=subject))
    try:
        assert [await payments.refund(cents) for cents in amounts] == list(amounts)
        await payments.look()
    finally:
        CURRENT.reset(token)


async def test_a_permitted_call_of_a_sensitive_method_is_a_line_with_its_user(tmp_path: Path):
    """However often it is called; of other methods, nothing."""
    _, payments = till(tmp_path, PERMIT, "Payments.refund")
    await refunded(payments, *range(30))
    written = lines(tmp_path / "audit" / "payments.jsonl")
    assert len(written) == 30
    told = {"principal": "desk", "action": "Payments.refund", "decision": "allow", "user": "ann", "agent": "helper"}
    assert told.items() <= written[0].items()


async def test_what_a_marked_policy_permits_is_a_line(tmp_path: Path):
    """Of an `@audit`, with nothing about the method in the settings; from the next reading of the policy on."""
    mesh, payments = till(tmp_path, PERMIT)
    path = tmp_path / "audit" / "payments.jsonl"
    await refunded(payments, 1)
    assert not path.exists()
    marked = """@audit permit (principal == Module::"desk", action == Action::"Payments.refund", resource);"""
    (tmp_path / "policy" / "shop.cedar").write_text(PERMIT + marked)
    mesh.policy.reload()
    mesh.refresh()
    await refunded(payments, 2, 3)
    assert [line["action"] for line in lines(path)] == ["Payments.refund"] * 2
    assert {line["principal"] for line in lines(path)} == {"desk"}


async def test_what_a_marked_policy_permits_on_a_condition_is_a_line_where_it_holds(tmp_path: Path):
    """By arguments and by user, though another policy permits the call anyway."""
    marked = """@audit permit (principal, action == Action::"Payments.refund", resource)
    when { context.user in Role::"support" && context.args.cents > 5000 };"""
    _, payments = till(tmp_path, PERMIT + marked)
    await refunded(payments, 5000, 5001, 9000)
    await refunded(payments, 9001, subject=None)
    assert len(lines(tmp_path / "audit" / "payments.jsonl")) == 2


def test_a_public_request_that_a_marked_policy_permits_is_a_line(tmp_path: Path):
    """With its method and path; others are not."""
    marked = """permit (principal == Module::"gateway", action == Action::"http", resource == Module::"desk");
    @audit permit (principal == Module::"gateway", action == Action::"http", resource == Module::"desk")
    when { context.path like "/desk/refunds*" };"""
    mesh, _ = till(tmp_path, PERMIT + marked)
    assert mesh.audit is not None
    sensitive = Sensitive((), mesh.audit, mesh)
    for path in ("/desk/", "/desk/refunds/7"):
        sensitive.request("gateway", "desk", ANN, None, {"method": "POST", "path": path})
    (line,) = lines(tmp_path / "audit" / "payments.jsonl")
    told = {"action": "http", "resource": "desk", "path": "/desk/refunds/7", "method": "POST", "user": "ann"}
    assert told.items() <= line.items()


def test_a_mark_at_a_forbid_is_a_mistake(tmp_path: Path):
    """It would mark nothing: each denial is a line anyway."""
    with pytest.raises(PolicyTypeError, match="marks nothing") as caught:
        till(tmp_path, PERMIT + "\n@audit forbid (principal, action, resource) when { 1 == 2 };")
    assert caught.value.place == "policy/shop.cedar:2"
