"""Sign-in with providers that are not ours: one by other people, and one that lies in every way it can."""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from tests.gateway.auth_rig import Browser, Place, Reply, place, query_of, ticket_of

from seamline.kernel.clock import ManualClock, SystemClock

ISSUER = "https://id.example"
KEY = ECKey.generate_key("P-256", auto_kid=True)
OTHER = ECKey.generate_key("P-256", auto_kid=True)


@pytest.fixture
def foreign() -> Generator[str]:
    """A provider by other people (oidc-provider-mock, on Authlib), on a port of its own."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with warnings.catch_warnings(record=True):  # of its own use of Authlib
        import oidc_provider_mock
    claims: dict[str, object] = {"name": "Grace Example", "email": "grace@example.com", "roles": ["supervisor"]}
    grace = oidc_provider_mock.User(sub="grace", claims=claims)
    with oidc_provider_mock.run_server_in_thread(user_claims=[grace]) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own use of Authlib
async def test_a_provider_by_other_people(foreign: str, tmp_path: Path):
    """Two lines of settings and a secret: sign in, renew, sign out there as well."""
    clock = ManualClock(SystemClock().now())  # its tokens are of today
    auth: dict[str, Any] = {"issuer": foreign, "client_id": "shop", "client_secret": "hush", "recheck_s": 60}
    async with place(tmp_path, clock=clock, **auth) as site:
        browser = site.browser()
        begun = await browser.ask("GET", "/members", headers={"accept": "text/html"})
        begun = await browser.ask("GET", begun.header("location"))
        answered = await _sign_in_there(foreign, begun.header("location"), "grace")
        done = await browser.ask("GET", answered)
        assert (done.status, done.header("location")) == (303, "/members")
        user = (await browser.who())["user"]
        assert (user["id"], user["issuer"], user["name"]) == ("grace", foreign, "Grace Example")
        assert user["roles"] == ["supervisor"]
        clock.advance(61)
        assert (await browser.who())["user"]["id"] == "grace"
        asked = await browser.ask("GET", "/.seamline/sign-out")
        assert f"form-action 'self' {foreign};" in asked.header("content-security-policy")
        out = await browser.ask("POST", "/.seamline/sign-out", form={}, headers={"origin": site.origin})
        assert out.header("location").startswith(f"{foreign}/")
        assert "id_token_hint" in query_of(out.header("location"))
        assert (await browser.who())["user"] is None


async def _sign_in_there(provider: str, url: str, name: str) -> str:
    """The form of the foreign provider; where it sends the browser then."""
    other = Browser(urlsplit(provider).port or 0, "localhost")
    reply = await other.ask("POST", url, form={"sub": name})
    await other.close()
    return reply.header("location")


class Liar:
    """A provider whose documents and tokens a test falsifies."""

    def __init__(self) -> None:
        self.site: Place
        self.nonce = ""
        self.metadata: dict[str, Any] = {
            "issuer": ISSUER, "authorization_endpoint": f"{ISSUER}/authorize", "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/keys",
        }  # fmt: skip
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.key = KEY
        self.asked: list[dict[str, str]] = []
        self.token: Callable[[], Any] = self.good
        self.status = 200

    async def fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        _ = method, headers
        if url.endswith("/openid-configuration"):
            return 200, json.dumps(self.metadata).encode()
        if url == f"{ISSUER}/keys":
            return 200, json.dumps({"keys": [KEY.as_dict(private=False)]}).encode()
        assert url == f"{ISSUER}/token"
        self.asked.append({name: values[0] for name, values in parse_qs(body.decode()).items()})
        return self.status, json.dumps(self.token()).encode()

    def id_token(self) -> str:
        now = self.site.now()
        claims = {
            "iss": ISSUER,
            "aud": "shop",
            "sub": "grace",
            "iat": now,
            "exp": now + 60,
            "nonce": self.nonce,
            **self.claims,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": "ES256", "kid": KEY.kid, **self.header}, kept, self.key)

    def good(self) -> Any:
        return {"id_token": self.id_token(), "refresh_token": "again"}

    async def answer(self, browser: Browser, **changes: str) -> Reply:
        """Begin in a browser, and come back with a code."""
        begun = await browser.ask("GET", "/.seamline/sign-in?return=/members")
        asked = query_of(begun.header("location"))
        assert begun.header("location").startswith(f"{ISSUER}/authorize?")
        self.nonce = asked["nonce"]
        assert (asked["code_challenge_method"], asked["response_type"]) == ("S256", "code")
        query = {"code": "c", "state": asked["state"], **changes}
        return await browser.ask("GET", f"/.seamline/callback?{urlencode(query)}")


@pytest.fixture
def liar() -> Liar:
    return Liar()


async def _attempt(liar: Liar, tmp_path: Path, **changes: str) -> tuple[Place, Browser, Reply]:
    async with place(tmp_path, ask=liar.fetch, issuer=ISSUER, client_id="shop") as site:
        liar.site = site
        browser = site.browser()
        reply = await liar.answer(browser, **changes)
        assert ("__Host-session" in browser.cookies) == (reply.status == 303)
        return site, browser, reply


async def test_an_honest_answer_signs_in(liar: Liar, tmp_path: Path):
    """The ground on which the lies below are told; the verifier goes to the provider, its hash to the browser."""
    _, _, reply = await _attempt(liar, tmp_path)
    assert reply.status == 303
    assert len(liar.asked[0]["code_verifier"]) >= 43


@pytest.mark.parametrize(
    ("claims", "because"),
    [
        ({"nonce": "another"}, "another sign-in"),
        ({"nonce": None}, "another sign-in"),
        ({"nonce": 7}, "another sign-in"),
        ({"aud": "bank"}, "meant for"),
        ({"aud": ["shop", "bank"]}, "made for"),
        ({"azp": "bank"}, "made for"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"exp": 0}, "expired"),
        ({"exp": None}, "no expiry"),
        ({"sub": ""}, "nobody"),
    ],
)
async def test_wrong_id_tokens(liar: Liar, tmp_path: Path, claims: dict[str, Any], because: str):
    """Signed by the provider, and yet not for this sign-in, this client, or now."""
    liar.claims = claims
    site, _, reply = await _attempt(liar, tmp_path)
    assert reply.status == 400
    assert any(because in reason for reason in site.audit.reasons()), site.audit
    assert because not in reply.text


async def test_an_id_token_signed_by_somebody_else(liar: Liar, tmp_path: Path):
    """Under the provider's key id, by another key."""
    liar.key = OTHER
    _, _, reply = await _attempt(liar, tmp_path)
    assert reply.status == 400


@pytest.mark.parametrize("kind", ["logout+jwt", "at+jwt", "secevent+jwt"])
async def test_another_kind_of_token_is_no_id_token(liar: Liar, tmp_path: Path, kind: str):
    """What a token is for is part of what it says."""
    liar.header = {"typ": kind}
    _, _, reply = await _attempt(liar, tmp_path)
    assert reply.status == 400


@pytest.mark.parametrize("answer", [{}, {"id_token": 7}, {"id_token": ""}, {"error": "invalid_grant"}, [], "x"])
@pytest.mark.parametrize("status", [200, 400, 401, 500])
async def test_any_answer_of_the_token_endpoint(liar: Liar, tmp_path: Path, answer: Any, status: int):
    """Whatever the provider says instead of tokens, nobody is signed in and nothing breaks."""
    liar.token, liar.status = lambda: answer, status
    _, _, reply = await _attempt(liar, tmp_path)
    assert reply.status in (400, 503)


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"issuer": ISSUER + "/"},
        {"authorization_endpoint": "http://id.example/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": "http://169.254.169.254/latest"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": None},
        {"authorization_endpoint": "https://id.example/a\r\nset-cookie: x=y"},
        {"authorization_endpoint": "https://id.example/a b"},
        {"code_challenge_methods_supported": ["plain"]},
    ],
)
async def test_a_discovery_document_is_not_believed_blindly(liar: Liar, tmp_path: Path, metadata: dict[str, Any]):
    """It names another issuer, or leads where nobody should be sent, this gateway's own network included."""
    liar.metadata |= metadata
    async with place(tmp_path, ask=liar.fetch, issuer=ISSUER, client_id="shop") as site:
        reply = await site.browser().ask("GET", "/.seamline/sign-in")
        assert reply.status == 503
        assert "evil" not in reply.text


async def test_the_answer_of_another_provider_is_refused(liar: Liar, tmp_path: Path):
    """Mix-up (RFC 9207): the answer must name the provider that was asked."""
    _, _, reply = await _attempt(liar, tmp_path, iss="https://evil.example")
    assert reply.status == 400
    liar.metadata["authorization_response_iss_parameter_supported"] = True
    _, _, reply = await _attempt(liar, tmp_path)
    assert reply.status == 400
    _, _, reply = await _attempt(liar, tmp_path, iss=ISSUER)
    assert reply.status == 303


async def test_a_provider_that_is_down_ends_no_session_at_once(liar: Liar, tmp_path: Path):
    """For an hour its last word counts; then the session ends."""
    async with place(tmp_path, ask=liar.fetch, issuer=ISSUER, client_id="shop", session_idle_s=36_000) as site:
        liar.site = site
        browser = site.browser()
        await liar.answer(browser)
        liar.token, liar.status = dict, 503
        site.clock.advance(400)
        assert (await browser.who())["user"]["id"] == "grace"
        site.clock.advance(4000)
        assert (await browser.who())["user"] is None


async def test_a_renewal_about_somebody_else_ends_the_session(liar: Liar, tmp_path: Path):
    """A refresh token that turns one user into another is refused."""
    async with place(tmp_path, ask=liar.fetch, issuer=ISSUER, client_id="shop") as site:
        liar.site = site
        browser = site.browser()
        await liar.answer(browser)
        liar.claims = {"sub": "mallory"}
        site.clock.advance(301)
        assert (await browser.who())["user"] is None


async def test_what_the_provider_gave_is_not_readable_on_disk(liar: Liar, tmp_path: Path):
    """Refresh and ID tokens are sealed before they are stored, and not in the cookie at all."""
    liar.token = lambda: {"id_token": liar.id_token(), "refresh_token": "canary-of-a-refresh-token"}
    site, browser, reply = await _attempt(liar, tmp_path)
    assert reply.status == 303
    assert browser.cookies["__Host-session"]
    content = b"".join(path.read_bytes() for path in site.folder.rglob("*") if path.is_file())
    assert b"grace" in content
    assert b"canary" not in content


# The development provider as an attacker sees it.

DEVELOPMENT: Mapping[str, Any] = {"development": "users.toml"}


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "https://evil.example/.seamline/callback"},
        {"redirect_uri": "{origin}/elsewhere"},
        {"redirect_uri": "{origin}/.seamline/callback?x=1"},
        {"redirect_uri": "{origin}.evil.example/.seamline/callback"},
        {"redirect_uri": "//evil.example/.seamline/callback"},
        {"redirect_uri": ""},
        {"client_id": "other"},
    ],
)
async def test_codes_go_to_the_registered_address_only(tmp_path: Path, changes: dict[str, str]):
    """An unknown client or address is not even sent an error."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        asked = _request(site) | {name: value.format(origin=site.origin) for name, value in changes.items()}
        reply = await site.browser().ask("GET", f"/.seamline/id/authorize?{urlencode(asked)}")
        assert reply.status == 400
        assert not reply.header("location")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "id_token"}, "unsupported_response_type"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"scope": "profile"}, "invalid_scope"),
        ({"prompt": "none"}, "login_required"),
    ],
)
async def test_an_authorization_request_without_pkce_or_code_flow(tmp_path: Path, changes: dict[str, str], error: str):
    """The implicit flow, PKCE with plain or without, and silence where a password is needed."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        reply = await site.browser().ask("GET", f"/.seamline/id/authorize?{urlencode(_request(site) | changes)}")
        assert query_of(reply.header("location"))["error"] == error


def _request(site: Place) -> dict[str, str]:
    return {
        "client_id": "seamline", "redirect_uri": f"{site.origin}/.seamline/callback", "response_type": "code",
        "scope": "openid", "state": "s", "nonce": "n", "code_challenge": "c" * 43, "code_challenge_method": "S256",
    }  # fmt: skip


async def test_a_stolen_code_is_worth_nothing(tmp_path: Path):
    """Without the verifier, for another address, late, or a second time."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        form = await browser.open("/.seamline/sign-in")
        sent = {"ticket": ticket_of(form), "name": "ada", "password": "lovelace"}

        async def code() -> str:
            reply = await browser.ask("POST", "/.seamline/id/authorize", form=sent)
            return query_of(reply.header("location"))["code"]

        async def redeem(**fields: str) -> Reply:
            given = {
                "grant_type": "authorization_code", "client_id": "seamline",
                "redirect_uri": f"{site.origin}/.seamline/callback", "code_verifier": "v" * 43, **fields,
            }  # fmt: skip
            return await browser.ask("POST", "/.seamline/id/token", form=given)

        assert (await redeem(code=await code())).json() == {"error": "invalid_grant"}
        assert (await redeem(code=await code(), redirect_uri="https://evil")).json() == {"error": "invalid_grant"}
        assert (await redeem(code="made up")).json() == {"error": "invalid_grant"}
        assert (await redeem(grant_type="refresh_token", refresh_token=await code())).json() == {
            "error": "invalid_grant"
        }
        assert (await redeem(grant_type="password", username="ada", password="lovelace")).status == 400


async def test_guessing_passwords_is_slowed_down(tmp_path: Path):
    """Five from one address for one account, then the wait doubles; unknown names are no different from known ones."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        for name in ("ada", "nobody"):
            browser = site.browser()
            statuses = [(await browser.sign_in(name, "wrong")).status for _ in range(8)]
            assert statuses == [401] * 5 + [429] * 3
        assert (await site.browser().sign_in()).status == 429
        site.clock.advance(2)
        assert (await site.browser().sign_in(at="/members")).json()["user"]["id"] == "ada"
        lines = [line for line in site.audit if line["reason"] == "wrong password"]
        assert {line["principal"] for line in lines} == {"ada", "nobody"}


async def test_many_passwords_at_once_are_as_many_attempts(tmp_path: Path):
    """A burst is counted before it is looked at."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        replies = await asyncio.gather(*(site.browser().sign_in("ada", "wrong") for _ in range(12)))
        assert sorted(reply.status for reply in replies) == [401] * 5 + [429] * 7


async def test_right_passwords_are_not_counted_against_anybody(tmp_path: Path):
    """A busy office behind one address signs in all morning."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        for _ in range(35):
            assert (await site.browser().sign_in(at="/members")).status == 200


async def test_a_password_form_of_another_site_is_refused(tmp_path: Path):
    """And one that is too old, or that this gateway did not make."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        form = await browser.open("/.seamline/sign-in")
        sent = {"ticket": ticket_of(form), "name": "ada", "password": "lovelace"}
        evil = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
        assert (await browser.ask("POST", "/.seamline/id/authorize", form=sent, headers=evil)).status == 403
        assert (await browser.ask("POST", "/.seamline/id/authorize", form={**sent, "ticket": "x"})).status == 400
        site.clock.advance(901)
        assert (await browser.ask("POST", "/.seamline/id/authorize", form=sent)).status == 400


async def test_a_disabled_user_and_a_name_that_is_markup(tmp_path: Path):
    """The form shows what was typed, as text."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        page = await site.browser().sign_in('"><script>alert(1)</script>', "x")
        assert page.status == 401
        assert "<script>" not in page.text
        assert "script-src" not in page.header("content-security-policy")
        assert "default-src 'none'" in page.header("content-security-policy")
