"""The page on security is true: its numbers are the code's, its policy passes its tests, its audit line is real."""

from __future__ import annotations

import ast
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from seamline.cli import policy as policy_verbs
from seamline.kernel.audit import AuditLog
from seamline.kernel.audit.log import FIELD_CHARACTERS_MAX
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import GatewaySettings, IdentitySettings, MeshSettings
from seamline.kernel.wire.http1_message import HttpLimits
from seamline.mesh import errors, server
from seamline.mesh.identity import CertificateAuthority, SpiffeId, authority, next_rotation
from seamline.mesh.identity.rotation import BACKDATE, CLOCK_SKEW
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy, read_cases, run_cases
from seamline.run.application import Application
from seamline.run.sockets import listen_mesh

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
BOUTIQUE = ROOT / "examples" / "boutique"


def block(kind: str, heading: str) -> str:
    """The first block of a kind below a heading."""
    found = re.search(rf"^## {heading}\n.*?^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def table(head: str) -> dict[str, str]:
    """Rows below a table's head; the first cell to the second."""
    found = re.search(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found, head
    return {
        row[0].strip(" `"): row[1].strip() for row in (line.strip("|").split("|") for line in found[1].splitlines())
    }


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch) -> Application:
    monkeypatch.setattr(sys, "path", [str(BOUTIQUE), *sys.path])
    return Application.load(BOUTIQUE)


def attributes(application: Application) -> dict[str, dict[str, str]]:
    return {name: {} for name in application.modules}


def policy_of(application: Application, text: str) -> Policy:
    return Policy.from_text(text, modules=attributes(application), contracts=application.contract_methods())


def test_the_policy_of_the_page_passes_the_tests_of_the_page(application: Application, tmp_path: Path):
    """Over the boutique's modules; and its forbid beats a permit for everything."""
    (tmp_path / "tests.toml").write_text(block("toml", "Policy"), encoding="utf-8")
    text = block("cedar", "Policy")
    policy = policy_of(application, text)
    results = run_cases(policy, read_cases(tmp_path / "tests.toml"))
    assert [each.passed for each in results] == [True] * 3
    assert policy.allows("frontend", "cart", "Cart", "contents")
    assert not policy.allows("frontend", "cart", "Cart", "add")
    assert policy.allows("cart", "cart", "Cart", "add")
    everything = policy_of(application, text + "permit (principal, action, resource);")
    assert not everything.allows("ads", "catalog", "Catalog", "search")
    assert everything.allows("cart", "catalog", "Catalog", "search")


def test_each_word_of_the_vocabulary_is_understood(application: Application):
    """Alone in a policy; and an empty folder permits nothing, not even what exists."""
    words = table("in Cedar")
    assert len(words) == 5
    for word in words:
        scope = {name: name for name in ("principal", "action", "resource")}
        scope[word.partition(" ")[0]] = word
        policy_of(application, f"permit ({scope['principal']}, {scope['action']}, {scope['resource']});")
    assert policy_of(application, "").permitted() == []


def test_modules_have_no_attributes_to_ask_for(application: Application):
    """A condition on one is refused where the application's own policy is read."""
    asking = 'permit (principal, action, resource) when { principal.owner == "money" };'
    with pytest.raises(errors.PolicyTypeError):
        policy_of(application, asking)
    assert application.policy().world.modules == attributes(application)


def test_the_names_of_an_identity():
    """SPIFFE ID and server name as on the page."""
    identity = SpiffeId("boutique.local", "boutique", "payments")
    lines = [line.split()[0] for line in block("text", "Identity").splitlines()]
    assert lines == [str(identity), identity.server_name]


def test_the_authoritys_files_have_the_modes_of_the_page(tmp_path: Path):
    """And the folder is where the page says that the supervisor keeps it."""
    folder = tmp_path / "identity"
    CertificateAuthority.load_or_create(folder, "boutique.local", "boutique")
    modes = table("file")
    assert f"{folder.stat().st_mode & 0o777:04o}" == modes.pop("the folder")
    assert modes == {name: f"{(folder / name).stat().st_mode & 0o777:04o}" for name in ("authority.json", "bundle.pem")}
    registrar = ROOT / "src" / "seamline" / "run" / "registrar.py"
    assert 'data / "identity"' in registrar.read_text(encoding="utf-8")


def test_the_times_of_the_page_are_the_codes(tmp_path: Path):
    """Lifetimes, overlap, skew; renewal as it is drawn."""
    hours = authority.OVERLAP.total_seconds() / 3600
    lifetime = IdentitySettings().certificate_lifetime_s / 3600
    assert table("time") == {
        "lifetime of a certificate": f"{lifetime:g} h, at most {authority.LIFETIME_MAX.total_seconds() / 3600:g} h "
        "(`certificate_lifetime_s`)",
        "renewed after": "40 to 60 % of it, by lot",
        "difference between clocks that is survived": f"{CLOCK_SKEW.total_seconds() / 60:g} min",
        "lifetime of a root": f"{authority.ROOT_LIFETIME.days} days",
        "replaced before its end": f"{authority.ROOT_LIFETIME.days / 4:g} days",
        "an old root stays trusted for": f"{hours:g} h",
    }

    class Lot:
        def uniform(self, low: float, high: float) -> float:
            assert (low, high) == (0.4, 0.6)
            return high

    begins = datetime(2026, 1, 1, tzinfo=UTC)
    assert next_rotation(begins - BACKDATE, begins + 10 * CLOCK_SKEW, Lot()) == begins + 6 * CLOCK_SKEW  # pyright: ignore[reportArgumentType]


def test_the_audit_line_of_the_page_is_what_is_written(application: Application, tmp_path: Path):
    """By a mesh that refuses the call, at the time of the page."""
    line = block("json", "Audit")
    clock = ManualClock(datetime(2026, 1, 1, 12, tzinfo=UTC))
    trail = AuditLog(tmp_path / "audit.jsonl", clock=clock)
    mesh = Mesh("boutique", application.policy(), MeshSettings(), audit=trail)
    mesh.denied("frontend", "payments", ("Payments", "charge"))
    trail.close()
    assert (tmp_path / "audit.jsonl").read_text(encoding="utf-8") == line
    assert trail.path.stat().st_mode & 0o777 == 0o600
    assert json.loads(line)["decision"] == "deny"


def test_the_bounds_of_the_audit_are_the_codes():
    """Lines, files and characters."""
    bounds = AuditLog.__init__.__kwdefaults__
    assert bounds is not None
    assert bounds["window_s"] == 60
    said = re.sub(r"\s+", " ", PAGE)
    assert (
        f"at most {bounds['per_window']} lines a minute for the same refusal and {bounds['total_per_window']} " in said
    )
    assert f"files of {bounds['bytes_max'] >> 20} MiB, of which {bounds['files_max']} are kept" in said
    assert f"text is cut after {FIELD_CHARACTERS_MAX} characters" in said


def test_the_limits_of_both_ports_are_the_codes():
    """As they stand in the parser's, the gateway's and the mesh's own settings."""
    limits, gateway, mesh = HttpLimits(), GatewaySettings(), MeshSettings()
    said = table("on both ports")
    assert said["request head"] == (
        f"{limits.head_bytes_max} bytes, {limits.header_count_max} headers, {limits.head_timeout_s:g} s"
    )
    assert said["for a body to arrive"].startswith(f"{limits.body_timeout_s:g} s, and one second more per")
    assert f"per {limits.body_rate_min} bytes" in said["for a body to arrive"]
    assert said["client that takes nothing of its answer"] == f"{limits.write_timeout_s:g} s"
    assert said["idle connection (HTTP)"] == f"{limits.idle_timeout_s:g} s" == f"{gateway.idle_timeout_s:g} s"
    assert said["HTTP connections"] == str(limits.connections_max) == str(gateway.connections_max)
    assert said["pipelined requests"] == str(limits.pipelined_max)
    assert said["TLS handshake"] == f"{gateway.head_timeout_s:g} s"
    assert "ssl_handshake_timeout=10," in Path(server.__file__).read_text(encoding="utf-8")
    assert table("on the public port") == {
        "body": f"{gateway.body_bytes_max} bytes",
        "until the answer begins": f"{gateway.request_timeout_s:g} s",
        "WebSocket message": f"{gateway.websocket_message_bytes_max} bytes",
    }
    said = table("on the mesh port")
    assert said["message"].startswith(f"{mesh.frame_bytes_max} bytes;")
    assert said["a frame that has begun"] == f"{server.PARTIAL_FRAME_S:g} s"
    assert said["silent connection"] == f"{4 * mesh.keepalive_s:g} s"
    assert said["calls under way on a connection"] == str(mesh.inflight_per_connection_max)
    assert said["answers that nobody reads"].startswith(f"{server.UNREAD_FRAMES_MAX} messages ")
    assert said["stream ahead of its reader"].startswith(f"{mesh.stream_credit_bytes} bytes;")


def test_the_mesh_listens_on_the_loopback_only():
    """Whatever the settings say."""
    assert "The mesh port listens on 127.0.0.1 only." in PAGE
    with listen_mesh() as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_the_verbs_of_the_page_exist():
    """Of ``seamline policy``."""
    commands = policy_verbs.app.registered_commands
    names = {each.name or getattr(each.callback, "__name__", "") for each in commands}
    said = set(re.findall(r"`seamline policy (\w+)", PAGE))
    assert {"test", "explain", "list"} <= said <= names


def test_what_the_page_leads_to_is_there():
    """The suite of attacks, and the other pages."""
    for place in re.findall(r"`((?:examples|tests)/[\w/.]+\.py)`", PAGE):
        assert (ROOT / place).is_file(), place
    for link in re.findall(r"\]\(([\w-]+\.md)", PAGE):
        assert (ROOT / "docs" / link).is_file(), link


def test_every_error_of_identity_and_policy_is_on_the_page():
    """By its code; the two roots of the tree are never raised."""
    tree = ast.parse(Path(errors.__file__).read_text(encoding="utf-8"))
    codes = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    codes = {code for code in codes if re.fullmatch(r"SL4\d{3}", code)}
    assert set(re.findall(r"^\| (SL4\d{3}) ", PAGE, re.MULTILINE)) == codes - {"SL4000", "SL4100", "SL4500"}
