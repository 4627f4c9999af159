"""The control API: no way in without a token, none with a stale one, none through somebody's browser."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from supervised import Running, Starter
from tests.gateway.test_parts import write_certificate
from tests.pages import read_page

from seamline.kernel.audit.search import Query, entries
from seamline.kernel.audit.verify import verify
from seamline.kernel.clock import ManualClock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import AdminSettings, Settings, SettingsError
from seamline.run.api_sessions import ApiSessions
from seamline.run.roles import needed


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


class Client:
    """Sends what it is told to, headers and all."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc
        self.origin = url

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            told.setdefault("content-type", "application/json")
        try:
            connection.request(method, path, content, told)
            answer = connection.getresponse()
            raw = answer.read()
            return Reply(answer.status, dict(answer.getheaders()), json.loads(raw) if raw else {})
        finally:
            connection.close()

    def sign_in(self, token: str) -> str:
        reply = self.send("POST", "/v1/session", {"token": token})
        assert reply.status == 200, reply
        return f"Bearer {reply.body['bearer']}"


@pytest.fixture
def running(start: Starter) -> Running:
    return start().until_ready()


@pytest.fixture
def client(running: Running) -> Client:
    return Client(running.status()["control_url"])


def token(running: Running, role: str = "admin") -> str:
    return running.ask("token", role=role)["token"]


def audited(running: Running, **query: str) -> list[dict[str, Any]]:
    return list(entries(running.data / "audit", Query(**query)))


def test_nobody_comes_in_without_a_token(client: Client, running: Running):
    """Every path and method but the exchange of a token is refused, before it is looked at."""
    for method in ("GET", "POST", "PUT", "DELETE"):
        for path in ("/", "/v1/status", "/v1/stop", "/v1/nothing", "/v1/session", "/v1/../status", "/status"):
            if (method, path) == ("POST", "/v1/session"):
                continue
            assert client.send(method, path).status == 401, (method, path)
    assert client.send("POST", "/v1/session", {"token": "sla_wrong"}).status == 401
    assert client.send("POST", "/v1/session", {"token": 5}).status == 401
    assert client.send("POST", "/v1/stop", {}, authorization="Bearer x").status == 401
    assert client.send("POST", "/v1/stop", {}, authorization="Basic YWRtaW46YWRtaW4=").status == 401
    refused = audited(running, kind="authentication", decision="refuse")
    assert any("wrong, used or expired" in line["reason"] for line in refused)


def test_a_token_is_good_once(client: Client, running: Running):
    given = token(running)
    assert client.send("POST", "/v1/session", {"token": given}).status == 200
    assert client.send("POST", "/v1/session", {"token": given}).status == 401


def test_what_the_socket_can_the_api_can(client: Client, running: Running):
    """Status, a change with its progress as lines, and an error with its code and status."""
    bearer = client.sign_in(token(running))
    assert client.send("POST", "/v1/status", authorization=bearer).body["app"] == "shop"
    connection = http.client.HTTPConnection(client.host, timeout=20)
    connection.request(
        "POST", "/v1/switch", b'{"topology": "services"}',
        {"content-type": "application/json", "accept": "application/x-ndjson", "authorization": bearer},
    )  # fmt: skip
    lines = [json.loads(line) for line in connection.getresponse().read().splitlines()]
    connection.close()
    assert any("progress" in line for line in lines)
    assert lines[-1]["result"]["topology"] == "services"
    assert running.status()["topology"] == "services"
    wrong = client.send("POST", "/v1/switch", {"topology": "mars"}, authorization=bearer)
    assert wrong.status in {404, 422}
    assert wrong.body["error"]["code"].startswith("SL")
    assert client.send("POST", "/v1/nothing", {}, authorization=bearer).status == 404
    assert client.send("GET", "/v1/status", authorization=bearer).status == 405


def test_a_role_may_do_its_own_and_no_more(client: Client, running: Running):
    """A viewer looks, an operator runs, only an admin stops, revokes, reads secrets and makes tokens."""
    viewer, operator = (client.sign_in(token(running, role)) for role in ("viewer", "operator"))
    assert client.send("POST", "/v1/status", authorization=viewer).status == 200
    assert client.send("POST", "/v1/switch", {"topology": "services"}, authorization=viewer).status == 403
    assert client.send("POST", "/v1/scale", {"replicas": {"cart": 2}}, authorization=operator).status == 200
    for name in ("stop", "revoke", "secrets", "token", "rotate", "inject", "issue", "external"):
        for bearer in (viewer, operator):
            assert client.send("POST", f"/v1/{name}", {"role": "admin"}, authorization=bearer).status == 403, name
    assert running.status()["ready"]
    (denied,) = [line for line in audited(running, kind="admin", decision="deny") if line["action"] == "switch"]
    assert denied["role"] == "viewer"
    assert denied["peer"].startswith("127.0.0.1:")


def test_what_nobody_has_given_a_role_is_for_admins():
    """An operation that is added tomorrow is not open to a viewer by accident."""
    assert needed("something new", {}) == "admin"
    assert needed("secrets", {"operation": "list"}) == "admin"
    assert needed("events", {"operation": "replay"}) == "operator"
    assert needed("events", {"operation": "topics"}) == "viewer"


def test_another_name_for_this_address_is_refused(client: Client, running: Running):
    """DNS rebinding: a page of evil.example whose name now points here sends its own host."""
    bearer = client.sign_in(token(running))
    for host in ("evil.example", f"evil.example:{client.host.rpartition(':')[2]}", "127.0.0.1:1", ""):
        assert client.send("POST", "/v1/status", host=host, authorization=bearer).status in {400, 421}, host
    assert client.send("POST", "/v1/session", {"token": token(running)}, host="evil.example").status == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "https://evil.example", "sec_fetch_site": "same-origin"},
    ],
)
def test_a_page_of_another_origin_is_refused(client: Client, running: Running, headers: dict[str, str]):
    """Even with a session that is good, and when it would begin one: nobody is signed in by somebody else."""
    bearer = client.sign_in(token(running))
    assert client.send("POST", "/v1/scale", {"replicas": {}}, authorization=bearer, **headers).status == 403
    fresh = token(running)
    assert client.send("POST", "/v1/session", {"token": fresh, "cookie": True}, **headers).status == 403
    assert client.send("POST", "/v1/session", {"token": fresh}).status == 200, "the refused request used the token up"


def test_a_form_cannot_ask(client: Client, running: Running):
    """The types that a form can send without a question to the server beforehand are not JSON."""
    bearer = client.sign_in(token(running))
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert client.send("POST", "/v1/status", {}, authorization=bearer, content_type=kind).status == 415


def test_a_cookie_without_its_page_opens_nothing(client: Client, running: Running):
    """Another server of this machine is sent the cookie, too; it does not know what the page was told."""
    reply = client.send("POST", "/v1/session", {"token": token(running), "cookie": True}, origin=client.origin)
    assert "bearer" not in reply.body
    cookie = reply.headers["set-cookie"]
    for word in ("__Host-", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"):
        assert word in cookie
    value = cookie.partition(";")[0]
    assert client.send("POST", "/v1/status", cookie=value).status == 401
    assert client.send("POST", "/v1/status", cookie=value, x_seamline_page="wrong").status == 401
    page = reply.body["page"]
    assert client.send("POST", "/v1/status", cookie=value, x_seamline_page=page).status == 200
    assert client.send("DELETE", "/v1/session", cookie=value, x_seamline_page=page).status == 200
    assert client.send("POST", "/v1/status", cookie=value, x_seamline_page=page).status == 401


def test_wrong_tokens_are_slowed_down(client: Client):
    """After thirty in a minute none is looked at."""
    found = [client.send("POST", "/v1/session", {"token": f"sla_{number}"}).status for number in range(32)]
    assert found == [401] * 30 + [429] * 2


def test_every_answer_keeps_to_itself(client: Client, running: Running):
    """Not cached, not framed, not read by other origins; and no answer names what serves it."""
    for reply in (
        client.send("POST", "/v1/status"),
        client.send("POST", "/v1/status", authorization=client.sign_in(token(running))),
        client.send("POST", "/v1/status", host="evil.example"),
    ):
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert not {name.lower() for name in reply.headers} & {"access-control-allow-origin", "server"}


def test_every_act_is_audited_and_the_name_of_who_acts_cannot_be_given(client: Client, running: Running):
    """Over the API ``who`` and ``by`` are the session's; a body that says otherwise is not believed."""
    bearer = client.sign_in(token(running))
    session = client.send("GET", "/v1/session", authorization=bearer).body["session"]
    entry = {"kind": "user", "id": "eve", "reason": "left"}
    reply = client.send("POST", "/v1/revoke", {"entries": [entry], "by": "the queen"}, authorization=bearer)
    assert reply.status == 200, reply
    (line,) = audited(running, kind="revocation")
    assert line["principal"] == f"session {session}"
    client.send("POST", "/v1/restart", {"workload": "all"}, authorization=bearer)
    acts = [each for each in audited(running, kind="admin") if each["principal"] == f"session {session}"]
    assert [each["action"] for each in acts] == ["revoke", "restart"]
    running.ask("stop")
    running.wait()
    assert not any(report.damaged for report in verify(running.data / "audit"))
    kinds = {each["kind"] for each in audited(running)}
    assert {"admin", "authentication", "identity", "topology", "revocation", "policy"} <= kinds


def test_stop_is_answered_before_it_ends(client: Client, running: Running):
    bearer = client.sign_in(token(running))
    assert client.send("POST", "/v1/stop", {}, authorization=bearer).body == {"drained": True}
    assert running.wait() == 0


def test_tokens_and_sessions_end_with_time():
    """A token after ten minutes, a session an hour after its last use, and at the latest after twelve."""
    clock = ManualClock()
    sessions = ApiSessions(AdminSettings(), clock)
    stale, good = sessions.new_token(), ""
    clock.advance(601)
    assert sessions.open(stale) is None
    good = sessions.new_token("viewer")
    clock.advance(599)
    opened = sessions.open(good)
    assert opened is not None
    for _ in range(12):
        clock.advance(3599)
        found = sessions.caller(opened.bearer, None, "")
        assert found is not None
        assert found.role == "viewer"
    clock.advance(3599)
    assert sessions.caller(opened.bearer, None, "") is None
    second = sessions.open(sessions.new_token())
    assert second is not None
    clock.advance(3601)
    assert sessions.caller(second.bearer, None, "") is None


def test_only_hashes_are_kept():
    """What is in memory opens nothing."""
    sessions = ApiSessions(AdminSettings(), ManualClock())
    given = sessions.new_token()
    opened = sessions.open(sessions.new_token())
    assert opened is not None
    kept = repr({**vars(sessions)}) + repr(list(sessions._sessions.values()))  # pyright: ignore[reportPrivateUsage]
    for secret in (given, opened.bearer, opened.page):
        assert secret not in kept


@pytest.mark.parametrize(
    ("toml", "fact"),
    [
        ('listen = "0.0.0.0:9443"', "where others can reach it"),
        ('listen = "0.0.0.0:9443"\nremote = true', "without TLS"),
        ('listen = "9443"', "listen is"),
        ('listen = "127.0.0.1:0"\ntls_key = "x"', "only one of"),
    ],
)
def test_it_is_bound_beyond_the_loopback_only_when_told_and_with_tls(tmp_path: Path, toml: str, fact: str):
    (tmp_path / "seamline.toml").write_text(f'[app]\nname = "shop"\nmodules = ["shop.cart"]\n[admin]\n{toml}\n')
    with pytest.raises(SettingsError, match=fact):
        Settings.load(tmp_path, {})


def test_it_can_be_left_out(start: Starter):
    """With an empty ``listen`` nothing listens, and there are no tokens."""
    start.write(more='[admin]\nlisten = ""')
    running = start().until_ready()
    assert running.status()["control_url"] == ""
    with pytest.raises(SeamlineError, match="not served"):
        running.ask("token")


def test_the_client_of_the_page_asks(running: Running):
    """The example in docs/admin-api.md, against a supervisor."""
    found = re.search(r"^```python\n(.*?)^```", read_page("admin-api.md"), re.MULTILINE | re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)  # the page's own
    told = running.ask("token", role="viewer")
    assert names["topology"](told["url"], told["token"]) == "monolith"


def test_beyond_the_loopback_it_speaks_tls_only_and_answers_to_its_names(start: Starter, tmp_path: Path):
    """Plain HTTP gets nothing; a name that is not in ``hosts`` is refused."""
    certificate, key = write_certificate(tmp_path, "localhost")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start.write(
        more=f'[admin]\nlisten = "0.0.0.0:{port}"\nremote = true\nhosts = ["localhost:{port}"]\n'
        f'tls_certificate = "{certificate}"\ntls_key = "{key}"\n'
    )
    running = start().until_ready()
    told = running.ask("token")
    assert told["url"] == f"https://localhost:{port}"
    context = ssl.create_default_context(cafile=str(certificate))

    def status(host: str) -> int:
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
        connection.request(
            "POST", "/v1/session", json.dumps({"token": told["token"]}),
            {"content-type": "application/json", "host": host},
        )  # fmt: skip
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    assert status(f"127.0.0.1:{port}") == 421
    assert status(f"localhost:{port}") == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        Client(f"http://localhost:{port}").send("POST", "/v1/status")


def test_a_port_that_is_taken_ends_the_start_with_the_key_to_change(start: Starter):
    """The remedy names the section of this address, not the gateway's."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        start.write(more=f'[admin]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n')
        running = start()
        assert running.wait() == 6
    (failed,) = [line["failed"] for line in running.lines() if "failed" in line]
    assert "under [admin]" in failed["remedy"]
