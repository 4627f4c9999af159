"""Attacks with tokens, keys and proofs of possession at the public port, and on sessions."""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from examples.boutique.tests.attacks.target import Target, attack
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

THIEF = RSAKey.generate_key(2048, auto_kid=True)


class _Anything(JWSRegistry):
    """An attacker is not held to what the library recommends."""

    max_header_length = 1 << 20
    max_payload_length = 1 << 20


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(t: Target, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    told = {
        "iss": t.issuer.url, "aud": "shop", "sub": "cleo", "iat": now, "exp": now + 300, "roles": ["support"],
        "jti": uuid.uuid4().hex, **changes,
    }  # fmt: skip
    return {name: value for name, value in told.items() if value is not None}


def token(t: Target, key: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
    key = key or t.issuer.rsa
    head: dict[str, Any] = {"alg": "RS256", "kid": t.issuer.rsa.kid, "typ": "at+jwt", **(header or {})}
    registry = _Anything(algorithms=["RS256"], strict_check_header=False)
    return jwt.encode(head, claims(t, **changes), key, ["RS256"], registry)


async def refused(t: Target, value: str, scheme: str = "Bearer", **headers: str) -> None:
    """The desk stays closed, and who sent the token does not learn why."""
    status, told, body = await t.get("/desk/", authorization=f"{scheme} {value}", **headers)
    assert status == 401, (status, body)
    assert "www-authenticate" in told
    assert b"Traceback" not in body


async def let_in(t: Target, value: str, scheme: str = "Bearer", **headers: str) -> None:
    """What shows that the refusals are not for another reason."""
    status, _, body = await t.get("/desk/", authorization=f"{scheme} {value}", **headers)
    assert status == 200, (status, body)


# Access tokens.


@attack("algorithm")
async def alg_none(t: Target) -> None:
    await let_in(t, token(t))
    head = {"alg": "none", "kid": t.issuer.rsa.kid, "typ": "at+jwt"}
    await refused(t, f"{encoded(json.dumps(head).encode())}.{encoded(json.dumps(claims(t)).encode())}.")


@attack("algorithm")
async def key_confusion(t: Target) -> None:
    """An HMAC whose secret is the issuer's public key."""
    secret = t.issuer.rsa.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = {"alg": "HS256", "kid": t.issuer.rsa.kid, "typ": "at+jwt"}
    signed = f"{encoded(json.dumps(head).encode())}.{encoded(json.dumps(claims(t)).encode())}"
    await refused(t, f"{signed}.{encoded(hmac.digest(secret, signed.encode(), 'sha256'))}")


@attack("brings jwk")
async def an_embedded_key(t: Target) -> None:
    """CVE-2018-0114."""
    await refused(t, token(t, THIEF, {"jwk": {**THIEF.as_dict(private=False), "kid": t.issuer.rsa.kid}}))


@attack("brings jku")
async def a_key_to_be_fetched(t: Target) -> None:
    """The header names an address with keys: nobody goes there."""
    before = len(t.issuer.asked)
    await refused(t, token(t, THIEF, {"jku": f"{t.issuer.url}/mine"}))
    assert "/mine" not in t.issuer.asked[before:]


@attack("no key")
async def kid_traversal(t: Target) -> None:
    await refused(t, token(t, THIEF, {"kid": "../../../../dev/null"}))


@attack("no key")
async def kid_injection(t: Target) -> None:
    await refused(t, token(t, THIEF, {"kid": "x' UNION SELECT 'k' --"}))


@attack("meant for")
async def another_audience(t: Target) -> None:
    await refused(t, token(t, aud="bank"))


@attack("nobody here trusts")
async def another_issuer(t: Target) -> None:
    await refused(t, token(t, iss="https://evil.example"))


@attack("expired")
async def an_expired_token(t: Target) -> None:
    await refused(t, token(t, exp=int(time.time()) - 60))


@attack("not valid yet")
async def a_token_of_the_future(t: Target) -> None:
    await refused(t, token(t, nbf=int(time.time()) + 600))


@attack("no expiry")
async def a_token_without_end(t: Target) -> None:
    await refused(t, token(t, exp=None))


@attack("signature")
async def a_stripped_signature(t: Target) -> None:
    await refused(t, token(t).rpartition(".")[0] + ".")


@attack("signature")
async def changed_claims(t: Target) -> None:
    head, _, signature = token(t, sub="ada", roles=[]).split(".")
    await refused(t, f"{head}.{encoded(json.dumps(claims(t)).encode())}.{signature}")


@attack("signature")
async def a_signature_of_zeros(t: Target) -> None:
    """CVE-2022-21449."""
    head = {"alg": "ES256", "kid": t.issuer.ec.kid, "typ": "at+jwt"}
    signed = f"{encoded(json.dumps(head).encode())}.{encoded(json.dumps(claims(t)).encode())}"
    await refused(t, f"{signed}.{encoded(bytes(64))}")


@attack("type")
async def a_token_of_another_kind(t: Target) -> None:
    await refused(t, token(t, header={"typ": "logout+jwt"}))


@attack("more than one credential")
async def two_credentials(t: Target) -> None:
    status, _, _ = await t.get("/desk/", authorization=f"Bearer {token(t)}", x_api_key="slk_x")
    assert status == 400


# Proof of possession.


class Holder:
    """Who holds the key that a token is bound to."""

    def __init__(self, t: Target) -> None:
        self.t = t
        self.key = ECKey.generate_key("P-256")
        self.token = token(t, cnf={"jkt": self.key.thumbprint()})
        self.nonce = ""

    def proof(self, key: ECKey | None = None, **changes: Any) -> str:
        key = key or self.key
        said = {
            "htm": "GET", "htu": f"http://{self.t.host}:{self.t.port}/desk/", "iat": int(time.time()),
            "jti": uuid.uuid4().hex, "ath": encoded(hashlib.sha256(self.token.encode()).digest()),
            "nonce": self.nonce, **changes,
        }  # fmt: skip
        head = {"alg": "ES256", "typ": "dpop+jwt", "jwk": key.as_dict(private=False)}
        return jwt.encode(head, {name: value for name, value in said.items() if value}, key, ["ES256"])

    async def begin(self) -> None:
        _, told, _ = await self.t.get("/desk/", authorization=f"DPoP {self.token}", dpop=self.proof())
        self.nonce = told["dpop-nonce"]


@attack("used before")
async def a_replayed_proof(t: Target) -> None:
    holder = Holder(t)
    await holder.begin()
    proof = holder.proof()
    await let_in(t, holder.token, "DPoP", dpop=proof)
    await refused(t, holder.token, "DPoP", dpop=proof)


@attack("another key")
async def a_proof_of_a_thief(t: Target) -> None:
    holder = Holder(t)
    await holder.begin()
    await refused(t, holder.token, "DPoP", dpop=holder.proof(ECKey.generate_key("P-256")))


@attack("without proof")
async def a_bound_token_as_a_plain_one(t: Target) -> None:
    await refused(t, Holder(t).token)


@attack("another request")
async def a_proof_for_another_request(t: Target) -> None:
    holder = Holder(t)
    await holder.begin()
    await refused(t, holder.token, "DPoP", dpop=holder.proof(htu="https://evil.example/desk/"))


# Sessions.


@attack("came from elsewhere")
async def csrf(t: Target) -> None:
    """A form on a stranger's page, sent by the browser of somebody who is signed in at the desk."""
    browser = t.browser()
    await browser.sign_in("cleo", "thimble")
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}, {}):
        sent = {"content-type": "application/x-www-form-urlencoded", **headers}
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        answer = await t.raw(
            f"POST /desk/refund HTTP/1.1\r\nhost: {t.host}:{t.port}\r\ncookie: {cookies}\r\n{lines}"
            "content-length: 9\r\nconnection: close\r\n\r\norder=o-1".encode()
        )
        assert answer.startswith(b"HTTP/1.1 403 "), answer


@attack("belongs to no sign-in of this browser")
async def session_fixation(t: Target) -> None:
    """The answer to a sign-in that the attacker began, in the browser of somebody else; and a session he chose."""
    attacker, victim = t.browser(), t.browser()
    form = await attacker.get("/.seamline/sign-in", follow=True, headers={"accept": "text/html"})
    ticket = form.text.partition('name="ticket" value="')[2].partition('"')[0]
    assert ticket
    sent = await attacker.post(
        form.path.partition("?")[0], form={"ticket": ticket, "name": "ada", "password": "lovelace"}
    )
    callback = (sent.header("location") or "").removeprefix(f"http://{t.host}:{t.port}")
    assert "code=" in callback
    answer = await victim.get(callback)
    assert answer.status == 400
    assert "__Host-session" not in victim.cookies
    victim.cookies["__Host-session"] = "chosen-by-the-attacker"
    await victim.sign_in("ada", "lovelace")
    assert victim.cookies["__Host-session"] != "chosen-by-the-attacker"


@attack("wrong password")
async def open_redirect(t: Target) -> None:
    """Nobody is sent to another site after signing in; a wrong password is no sign-in."""
    host = f"{t.host}:{t.port}"
    for place in ("https://evil.example", "//evil.example", "/\\evil.example", "/%0d%0alocation:https://evil.example"):
        browser = t.browser()
        form = await browser.get(f"/.seamline/sign-in?return={place}", follow=True, headers={"accept": "text/html"})
        ticket = form.text.partition('name="ticket" value="')[2].partition('"')[0]
        at = form.path.partition("?")[0]
        sent = await browser.post(at, form={"ticket": ticket, "name": "ada", "password": "lovelace"})
        back = await browser.get((sent.header("location") or "").removeprefix(f"http://{host}"))
        where = back.header("location") or ""
        assert where == "/" or (where.startswith("/%") and "\n" not in where) or where.startswith(f"http://{host}/"), (
            place, where,
        )  # fmt: skip
    form = await t.browser().get("/.seamline/sign-in", follow=True, headers={"accept": "text/html"})
    browser = t.browser()
    form = await browser.get("/.seamline/sign-in", follow=True, headers={"accept": "text/html"})
    ticket = form.text.partition('name="ticket" value="')[2].partition('"')[0]
    wrong = await browser.post(
        form.path.partition("?")[0], form={"ticket": ticket, "name": "nobody-of-us", "password": "x"}
    )
    assert wrong.status != 303


@attack("while nobody is signed in")
async def a_forged_session(t: Target) -> None:
    """A cookie that another key sealed, or that was changed by a bit, is nobody's."""
    browser = t.browser()
    await browser.sign_in("bo", "needle")
    assert (await browser.get("/desk/")).status == 200
    value = browser.cookies["__Host-session"]
    middle = len(value) // 2
    for changed in (value[:middle] + ("A" if value[middle] != "A" else "B") + value[middle + 1 :], value[:-4], "x"):
        browser.cookies["__Host-session"] = changed
        assert (await browser.get("/desk/")).status == 401


@attack("taken from a lost laptop")
async def a_revoked_session(t: Target) -> None:
    """What worked a moment ago is worth nothing once the user is revoked."""
    browser = t.browser()
    await browser.sign_in("bo", "needle")
    assert (await browser.get("/desk/")).status == 200
    await t.admin.ask("revoke", entries=[{"kind": "user", "id": "bo", "reason": "taken from a lost laptop"}], by="test")
    assert (await browser.get("/desk/")).status in (401, 403)


@attack("may not send public HTTP")
async def a_shopper_at_the_desk(t: Target) -> None:
    browser = t.browser()
    await browser.sign_in("ada", "lovelace")
    assert (await browser.get("/desk/")).status == 403
    assert (await browser.post("/desk/refund", form={"order": "o-1"})).status == 403
