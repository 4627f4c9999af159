"""Programs bring tokens and keys, and every wrong one there is is refused, with a line in the audit."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from tests.gateway.auth_rig import Browser, Place, Reply, place

from seamline.gateway.auth.api_keys import ApiKeys
from seamline.gateway.auth.errors import ApiKeyError
from seamline.gateway.auth.tokens import TokenRefused, parts_of
from seamline.kernel.settings import IssuerSettings

ISSUER = "https://id.example"
RSA = RSAKey.generate_key(2048, auto_kid=True)
EC = ECKey.generate_key("P-256", auto_kid=True)
OTHER = RSAKey.generate_key(2048, auto_kid=True)


class World:
    """An issuer somewhere else: its documents, and how often they were asked for."""

    def __init__(self) -> None:
        self.keys: list[Key] = [RSA, EC]
        self.extra: list[dict[str, Any]] = []
        self.down = False
        self.asked: list[str] = []

    async def fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        _ = method, headers, body
        self.asked.append(url)
        if self.down:
            raise ConnectionRefusedError("nobody there")
        if url == f"{ISSUER}/.well-known/openid-configuration":
            return 200, json.dumps({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}).encode()
        if url == f"{ISSUER}/keys":
            return 200, json.dumps({"keys": [*(key.as_dict(private=False) for key in self.keys), *self.extra]}).encode()
        raise AssertionError(f"nothing should ask for {url}")


class Api:
    """A gateway that trusts the issuer for the audience ``shop``."""

    def __init__(self, site: Place, world: World) -> None:
        self.site = site
        self.world = world
        self.browser: Browser = site.browser()

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = self.site.now()
        told = {
            "iss": ISSUER, "aud": "shop", "sub": "robot", "iat": now, "exp": now + 300, "scope": "read write",
            "roles": ["robot"], "client_id": "robots", **changes,
        }  # fmt: skip
        return {name: value for name, value in told.items() if value is not None}

    def token(self, key: Any = RSA, header: Any = None, **changes: Any) -> str:
        algorithm = "RS256" if key.key_type == "RSA" else "ES256"
        full: dict[str, Any] = {"alg": algorithm, "kid": key.kid, "typ": "at+jwt", **(header or {})}
        return jwt.encode(
            full, self.claims(**changes), key, [algorithm], _Any(algorithms=[algorithm], strict_check_header=False)
        )

    async def ask(self, token: str, scheme: str = "Bearer", path: str = "/who", **headers: str) -> Reply:
        told = {
            "authorization": f"{scheme} {token}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return await self.browser.ask("GET", path, headers=told)

    async def refused(self, token: str, because: str, scheme: str = "Bearer", **headers: str) -> Reply:
        """The token is refused, the audit says why, and who sent it does not learn it."""
        self.site.audit.clear()
        reply = await self.ask(token, scheme, **headers)
        assert reply.status == 401, reply.text
        assert 'error="' in reply.header("www-authenticate")
        (line,) = self.site.audit
        assert because in line["reason"], line
        assert line["decision"] == "refuse"
        assert line["peer"] == "127.0.0.1"
        assert because not in reply.text
        assert token not in json.dumps(self.site.audit)
        return reply


class _Any(JWSRegistry):
    """An attacker is not held to what joserfc recommends."""

    max_header_length = 1 << 20
    max_payload_length = 1 << 20


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    world = World()
    issuer = IssuerSettings(issuer=ISSUER, audience=("shop",))
    async with place(tmp_path, ask=world.fetch, issuers=(issuer,), api_keys=True) as site:
        yield Api(site, world)


def raw(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    return ".".join(encoded(part) for part in (json.dumps(header).encode(), json.dumps(claims).encode(), signature))


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
async def test_a_good_token_says_who_it_is(api: Api, key: Key):
    """Issuer, subject, roles, client and scopes arrive; the token itself stays with the gateway."""
    reply = await api.ask(api.token(key))
    assert reply.status == 200
    user = reply.json()["user"]
    assert (user["id"], user["issuer"], user["roles"], user["client"]) == ("robot", ISSUER, ["robot"], "robots")
    assert user["scopes"] == ["read", "write"]
    assert "authorization" not in reply.json()["headers"]


async def test_an_apps_own_scheme_is_its_own_business(api: Api):
    """Basic credentials go to the app that is behind, and make nobody a user."""
    reply = await api.ask("YWRhOng=", "Basic")
    assert reply.json()["user"] is None
    assert "authorization" in reply.json()["headers"]


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"exp": -31}, "expired"),
        ({"exp": None}, "no expiry"),
        ({"exp": "tomorrow"}, "not a time"),
        ({"exp": True}, "not a time"),
        ({"exp": float("inf")}, "not a time"),
        ({"exp": float("nan")}, "not a time"),
        ({"exp": 1e300}, "not a time"),
        ({"nbf": 100}, "not valid yet"),
        ({"iat": 100}, "not valid yet"),
        ({"aud": "bank"}, "meant for"),
        ({"aud": ["bank", "till"]}, "meant for"),
        ({"aud": None}, "meant for"),
        ({"aud": {"shop": 1}}, "meant for"),
        ({"aud": "shop.evil"}, "meant for"),
        ({"iss": "https://evil.example"}, "nobody here trusts"),
        ({"iss": ISSUER + "/"}, "nobody here trusts"),
        ({"iss": None}, "nobody here trusts"),
        ({"iss": [ISSUER]}, "nobody here trusts"),
        ({"sub": None}, "nobody"),
        ({"sub": ""}, "nobody"),
        ({"sub": 7}, "nobody"),
        ({"nonce": "n"}, "ID token"),
        ({"cnf": {"kid": "x"}}, "bound in a way"),
        ({"cnf": "x"}, "bound in a way"),
    ],
)
async def test_wrong_claims(api: Api, changes: dict[str, Any], because: str):
    """Signed by the right key, and yet not for us, not now, or not from whom it says."""
    now = api.site.now()
    moved: dict[str, Any] = {
        name: now + value if name in ("exp", "nbf", "iat") and type(value) is int else value
        for name, value in changes.items()
    }
    await api.refused(api.token(**moved), because)


@pytest.mark.parametrize(
    ("header", "because"),
    [
        ({"typ": "logout+jwt"}, "type"),
        ({"typ": "dpop+jwt"}, "type"),
        ({"typ": "secevent+jwt"}, "type"),
        ({"typ": 7}, "type"),
        ({"jwk": OTHER.as_dict(private=False)}, "brings jwk"),
        ({"jku": "https://evil.example/keys"}, "brings jku"),
        ({"x5u": "https://evil.example/cert"}, "brings x5u"),
        ({"x5c": ["AAAA"]}, "brings x5c"),
        ({"crit": ["exp"]}, "brings crit"),
        ({"b64": False}, "brings b64"),
        ({"kid": "../../../dev/null"}, "no key"),
        ({"kid": "' OR 1=1 --"}, "no key"),
        ({"kid": "/etc/passwd"}, "no key"),
        ({"kid": ""}, "no key"),
        ({"kid": "x" * 5000}, "no key"),
    ],
)
async def test_wrong_headers(api: Api, header: dict[str, Any], because: str):
    """A header neither brings a key, nor points to one, nor names a file; nothing is fetched for it."""
    good = api.claims()
    full = {"alg": "RS256", "kid": RSA.kid, "typ": "at+jwt", **header}
    signed = f"{encoded(json.dumps(full).encode())}.{encoded(json.dumps(good).encode())}"
    private = RSA.private_key
    assert private is not None
    signature = private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    await api.refused(f"{signed}.{encoded(signature)}", because)
    assert all(url.startswith(ISSUER) for url in api.world.asked)


async def test_an_embedded_key_does_not_verify_its_own_token(api: Api):
    """CVE-2018-0114: signed by the attacker's key, which the header brings along under the right id."""
    jwk = {**OTHER.as_dict(private=False), "kid": RSA.kid}
    await api.refused(api.token(OTHER, header={"kid": RSA.kid, "jwk": jwk}), "brings jwk")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 7, "HS256", "HS512", "RS512", "PS256"])
async def test_algorithms_are_pinned(api: Api, algorithm: Any):
    """``none`` in any spelling, HMACs, and whatever was not agreed on."""
    await api.refused(raw({"alg": algorithm, "kid": RSA.kid, "typ": "at+jwt"}, api.claims()), "algorithm")
    await api.refused(raw({"alg": algorithm, "kid": RSA.kid, "typ": "at+jwt"}, api.claims(), b"x"), "algorithm")


@pytest.mark.parametrize("form", ["pem", "der", "jwk"])
async def test_a_public_key_is_no_secret(api: Api, form: str):
    """Key confusion: an HMAC whose secret is the issuer's public key, as anybody can read it."""
    public = RSA.public_key
    secrets = {
        "pem": public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        "der": public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        "jwk": json.dumps(RSA.as_dict(private=False)).encode(),
    }
    head = {"alg": "HS256", "kid": RSA.kid, "typ": "at+jwt"}
    signed = raw(head, api.claims()).rpartition(".")[0]
    mac = hmac.digest(secrets[form], signed.encode(), "sha256")
    await api.refused(f"{signed}.{encoded(mac)}", "algorithm")


async def test_a_symmetric_key_in_the_set_is_nobodys(api: Api):
    """An issuer that publishes a secret by mistake does not make it one that counts."""
    oct_key = OctKey.generate_key(256, parameters={"kid": "shared"})
    api.world.extra = [oct_key.as_dict(private=True)]
    token = jwt.encode({"alg": "HS256", "kid": "shared"}, api.claims(), oct_key)
    await api.refused(token, "algorithm")
    await api.refused(raw({"alg": "RS256", "kid": "shared", "typ": "at+jwt"}, api.claims(), b"x" * 256), "no key")


async def test_a_key_serves_its_own_kind_only(api: Api):
    """An RSA key does not verify ES256, an EC key not RS256, a key for encryption nothing, a short one nothing."""
    await api.refused(raw({"alg": "ES256", "kid": RSA.kid, "typ": "at+jwt"}, api.claims(), b"x" * 64), "no key")
    await api.refused(raw({"alg": "RS256", "kid": EC.kid, "typ": "at+jwt"}, api.claims(), b"x" * 256), "no key")
    weak = rsa.generate_private_key(65537, 1024)  # that it is short is the point
    modulus = encoded(weak.public_key().public_numbers().n.to_bytes(128, "big"))
    crypt = RSAKey.generate_key(2048)
    api.site.clock.advance(11)
    api.world.keys = [RSA]
    api.world.extra = [
        {"kty": "RSA", "kid": "short", "n": modulus, "e": "AQAB"},
        {**crypt.as_dict(private=False), "kid": "crypt", "use": "enc"},
    ]
    signed = raw({"alg": "RS256", "kid": "short", "typ": "at+jwt"}, api.claims()).rpartition(".")[0]
    signature = weak.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    await api.refused(f"{signed}.{encoded(signature)}", "no key")
    await api.refused(api.token(crypt, header={"kid": "crypt"}), "no key")


async def test_signatures(api: Api):
    """Stripped, of another key, of another token, cut, or over other claims."""
    good = api.token()
    head, claims, signature = good.split(".")
    assert (await api.ask(good)).status == 200
    await api.refused(f"{head}.{claims}.", "signature")
    await api.refused(f"{head}.{claims}", "not a signed token")
    await api.refused(f"{head}.{claims}.{signature[:-8]}", "signature")
    await api.refused(f"{head}.{encoded(json.dumps(api.claims(roles=['root'])).encode())}.{signature}", "signature")
    await api.refused(api.token(OTHER, header={"kid": RSA.kid}), "signature")
    zero = raw({"alg": "ES256", "kid": EC.kid, "typ": "at+jwt"}, api.claims(), bytes(64))
    await api.refused(zero, "signature")  # CVE-2022-21449


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "%00",
        "e30.e30.e30.e30.e30",
        "e30.e30.",
        "e30.W10.x",
        "W10.e30.x",
        "x" * 20_000,
        "é.é.é",
    ],
)
async def test_what_is_no_token(api: Api, token: str):
    """Anything at all may stand there; it is refused and breaks nothing."""
    reply = await api.ask(token)
    assert reply.status == 401
    assert (await api.ask(api.token())).status == 200


async def test_a_claim_that_stands_twice_is_no_claim(api: Api):
    """Two readers of the same JSON could read different things."""
    good = api.claims()
    twice = json.dumps(good)[:-1] + ', "sub": "admin"}'
    head = json.dumps({"alg": "RS256", "kid": RSA.kid, "typ": "at+jwt"}).encode()
    signed = f"{encoded(head)}.{encoded(twice.encode())}"
    private = RSA.private_key
    assert private is not None
    signature = private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    await api.refused(f"{signed}.{encoded(signature)}", "not a signed token")


async def test_a_deep_token_is_not_read(api: Api):
    """Nesting that would exhaust a parser is refused as what is no token."""
    with pytest.raises(TokenRefused):
        parts_of(f"{encoded(b'[' * 4000)}.e30.x")
    await api.refused(f"{encoded(b'[' * 4000)}.e30.x", "not a signed token")


async def test_a_known_token_stops_counting_when_it_expires(api: Api):
    """That it was verified once is remembered no longer than it lasts."""
    token = api.token()
    assert (await api.ask(token)).status == 200
    api.site.clock.advance(331)
    await api.refused(token, "expired")


async def test_the_skew_of_clocks_is_bounded(api: Api):
    """Half a minute either way, and no more."""
    now = api.site.now()
    assert (await api.ask(api.token(exp=now - 29))).status == 200
    await api.refused(api.token(exp=now - 30), "expired")
    assert (await api.ask(api.token(nbf=now + 30))).status == 200
    await api.refused(api.token(nbf=now + 31), "not valid yet")


async def test_two_credentials_are_none(api: Api):
    """A request that brings two is refused, whichever of them are good."""
    good = api.token()
    reply = await api.ask(good, x_api_key="slk_x")
    assert reply.status == 400


async def test_a_token_in_the_address_is_not_taken(api: Api):
    """Addresses are logged and shared."""
    reply = await api.browser.ask("GET", f"/who?access_token={api.token()}")
    assert reply.json()["user"] is None


# The issuer's keys.


async def test_a_new_key_is_found_and_a_made_up_one_is_not_asked_for_again_and_again(api: Api):
    """Rotation costs one look; a flood of unknown ids costs one look in ten seconds."""
    assert (await api.ask(api.token())).status == 200
    asked = len(api.world.asked)
    api.world.keys = [OTHER]
    assert (await api.ask(api.token(OTHER))).status == 200
    assert len(api.world.asked) == asked + 1
    for number in range(20):
        await api.refused(api.token(header={"kid": f"made-up-{number}"}), "no key")
    assert len(api.world.asked) == asked + 1
    api.site.clock.advance(11)
    await api.refused(api.token(header={"kid": "made-up"}), "no key")
    assert len(api.world.asked) == asked + 2


async def test_a_withdrawn_key_stops_counting(api: Api):
    """Within the time that keys are fresh, and that a verified token is remembered."""
    token = api.token(exp=api.site.now() + 9000)
    assert (await api.ask(token)).status == 200
    api.world.keys = [EC]
    api.site.clock.advance(601)
    await api.refused(token, "no key")


async def test_known_keys_serve_while_the_issuer_is_down(api: Api):
    """For a day; then nothing is believed any more, and a client hears that it is not its fault."""
    assert (await api.ask(api.token())).status == 200
    api.world.down = True
    api.site.clock.advance(3600)
    assert (await api.ask(api.token())).status == 200
    api.site.clock.advance(90_000)
    assert (await api.ask(api.token())).status == 503
    api.world.down = False
    api.site.clock.advance(6)
    assert (await api.ask(api.token())).status == 200


async def test_many_at_once_ask_for_the_keys_once(api: Api):
    """A start under load is one question to the issuer."""

    def ask(number: int) -> Awaitable[Reply]:
        authorization = f"Bearer {api.token(jti=str(number))}"
        return api.site.browser().ask("GET", "/who", headers={"authorization": authorization})

    replies = await asyncio.gather(*(ask(number) for number in range(8)))
    assert [reply.status for reply in replies] == [200] * 8
    assert len(api.world.asked) == 2


# Proof of possession.


class Prover:
    """A client that holds a key, and what it says with it."""

    def __init__(self, api: Api, key: Key | None = None) -> None:
        self.api = api
        self.key: Any = key or ECKey.generate_key("P-256")
        self.nonce = ""
        self.token = api.token(cnf={"jkt": self.key.thumbprint()})
        self.count = 0
        self.url = f"{api.site.origin}/who"

    def proof(self, header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
        self.count += 1
        key = key or self.key
        claims: dict[str, Any] = {
            "htm": "GET", "htu": self.url, "iat": self.api.site.now(),
            "jti": f"proof-{self.count}",
            "ath": encoded(hashlib.sha256(self.token.encode()).digest()), "nonce": self.nonce, **changes,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        algorithm = {"EC": "ES256", "RSA": "RS256", "OKP": "Ed25519"}.get(key.key_type, "HS256")
        head = {"alg": algorithm, "typ": "dpop+jwt", "jwk": key.as_dict(private=False), **(header or {})}
        return jwt.encode(head, claims, key, [algorithm], _Any(algorithms=[algorithm], strict_check_header=False))

    async def begin(self) -> None:
        """Ask once without a nonce, as a client does, and keep the one it is given."""
        reply = await self.api.ask(self.token, "DPoP", dpop=self.proof(nonce=None))
        assert reply.status == 401
        assert 'error="use_dpop_nonce"' in reply.header("www-authenticate")
        self.nonce = reply.header("dpop-nonce")
        assert self.nonce

    async def refused(self, proof: str, because: str) -> None:
        reply = await self.api.refused(self.token, because, "DPoP", dpop=proof)
        assert reply.header("www-authenticate").startswith("DPoP ")


@pytest.fixture
async def prover(api: Api) -> Prover:
    made = Prover(api)
    await made.begin()
    return made


@pytest.mark.parametrize("kind", ["EC", "RSA", "OKP"])
async def test_a_bound_token_with_a_proof(api: Api, kind: str):
    """Who holds the key is let in, with every kind of key."""
    keys: dict[str, Any] = {"EC": None, "RSA": OTHER, "OKP": OKPKey.generate_key("Ed25519")}
    prover = Prover(api, keys[kind])
    await prover.begin()
    reply = await api.ask(prover.token, "DPoP", dpop=prover.proof())
    assert reply.status == 200, reply.text
    assert reply.json()["user"]["id"] == "robot"
    assert "dpop" not in reply.json()["headers"]


async def test_a_proof_counts_once(prover: Prover):
    """Replay: the same proof again is refused."""
    proof = prover.proof()
    assert (await prover.api.ask(prover.token, "DPoP", dpop=proof)).status == 200
    await prover.refused(proof, "used before")


async def test_a_proof_counts_once_among_all_gateways(tmp_path: Path):
    """What one gateway has seen, its neighbour refuses."""
    world = World()
    auth: dict[str, Any] = {
        "issuers": (IssuerSettings(issuer=ISSUER, audience=("shop",)),), "public_url": "https://shop.example",
    }  # fmt: skip
    async with (
        place(tmp_path, ask=world.fetch, **auth) as one,
        place(tmp_path, ask=world.fetch, clock=one.clock, **auth) as other,
    ):
        prover = Prover(Api(one, world))
        prover.url = "https://shop.example/who"
        await prover.begin()
        proof = prover.proof()
        assert (await prover.api.ask(prover.token, "DPoP", dpop=proof)).status == 200
        await Api(other, world).refused(prover.token, "used before", "DPoP", dpop=proof)


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"htm": "POST"}, "another request"),
        ({"htm": None}, "another request"),
        ({"htu": "https://evil.example/who"}, "another request"),
        ({"htu": "{origin}/other"}, "another request"),
        ({"htu": None}, "another request"),
        ({"htu": 7}, "another request"),
        ({"htu": "http://[::1"}, "another request"),
        ({"ath": "AAAA"}, "another token"),
        ({"ath": None}, "another token"),
        ({"iat": -91}, "just now"),
        ({"iat": 31}, "just now"),
        ({"iat": None}, "just now"),
        ({"nonce": "made-up"}, "names no nonce"),
        ({"nonce": 7}, "names no nonce"),
        ({"jti": None}, "no id"),
        ({"jti": ""}, "no id"),
        ({"jti": "x" * 300}, "no id"),
    ],
)
async def test_wrong_proofs(prover: Prover, changes: dict[str, Any], because: str):
    """For another request, another token, another time, or nobody's nonce."""
    now, origin = prover.api.site.now(), prover.api.site.origin
    moved: dict[str, Any] = {
        name: now + value if name == "iat" and value is not None
        else value.format(origin=origin) if isinstance(value, str) else value
        for name, value in changes.items()
    }  # fmt: skip
    await prover.refused(prover.proof(**moved), because)


@pytest.mark.parametrize(
    ("header", "because"),
    [
        ({"typ": "jwt"}, "not a DPoP proof"),
        ({"typ": None}, "not a DPoP proof"),
        ({"jwk": None}, "not a DPoP proof"),
        ({"alg": "none"}, "algorithm"),
        ({"alg": "HS256"}, "algorithm"),
        ({"jku": "https://evil.example"}, "brings jku"),
    ],
)
async def test_wrong_heads_of_proofs(prover: Prover, header: dict[str, Any], because: str):
    """A proof is a proof, signed by a public key that it brings, by an algorithm for that."""
    head, claims, signature = prover.proof().split(".")
    full = json.loads(base64.urlsafe_b64decode(head + "==")) | header
    changed = {name: value for name, value in full.items() if value is not None}
    await prover.refused(f"{encoded(json.dumps(changed).encode())}.{claims}.{signature}", because)


async def test_a_proof_of_another_key(prover: Prover):
    """Whoever stole the token does not have its key; bringing the right key in the head does not help."""
    thief = ECKey.generate_key("P-256")
    await prover.refused(prover.proof(key=thief), "another key")
    await prover.refused(prover.proof(key=thief, header={"jwk": prover.key.as_dict(private=False)}), "signature")
    private = prover.key.as_dict(private=True)
    await prover.refused(prover.proof(header={"jwk": private}), "not a public one")
    secret = OctKey.generate_key(256)
    await prover.refused(prover.proof(key=secret, header={"jwk": secret.as_dict(private=True)}), "algorithm")


async def test_a_bound_token_is_no_bearer_token(prover: Prover):
    """Downgrade: the stolen token as a plain one, without a proof, with two, and an unbound one with a proof."""
    api = prover.api
    await api.refused(prover.token, "without proof", "Bearer")
    await api.refused(prover.token, "0 DPoP proofs", "DPoP")
    unbound = api.token()
    await api.refused(unbound, "bound to no key", "DPoP", dpop=prover.proof())


async def test_a_nonce_grows_old(prover: Prover):
    """After at most ten minutes the client is given a new one, and goes on."""
    prover.api.site.clock.advance(601)
    prover.token = prover.api.token(cnf={"jkt": prover.key.thumbprint()})
    await prover.refused(prover.proof(), "names no nonce")
    await prover.begin()
    assert (await prover.api.ask(prover.token, "DPoP", dpop=prover.proof())).status == 200


async def test_bound_tokens_only(tmp_path: Path):
    """Where it is required, a plain bearer token opens nothing."""
    world = World()
    issuer = IssuerSettings(issuer=ISSUER, audience=("shop",))
    async with place(tmp_path, ask=world.fetch, issuers=(issuer,), dpop="required") as site:
        api = Api(site, world)
        await api.refused(api.token(), "bound to nothing")
        prover = Prover(api)
        await prover.begin()
        assert (await api.ask(prover.token, "DPoP", dpop=prover.proof())).status == 200


# API keys.


async def test_an_api_key(api: Api):
    """Either header; roles, scopes and the key's id arrive, the key itself does not."""
    key, text = await ApiKeys(api.site.door.records).create(
        "nightly export", roles=["reader"], scopes=["read"], tenant="acme", valid_s=3600
    )
    for headers in ({"authorization": f"Bearer {text}"}, {"x-api-key": text}):
        reply = await api.browser.ask("GET", "/who", headers=headers)
        user = reply.json()["user"]
        assert (user["id"], user["client"], user["issuer"]) == (f"key:{key.id}", key.id, "api-key")
        assert (user["roles"], user["scopes"], user["tenant"]) == (["reader"], ["read"], "acme")
        assert not {"authorization", "x-api-key"} & set(reply.json()["headers"])
    secret = text.rpartition("_")[2]
    written = [path.read_bytes() for path in api.site.folder.rglob("*") if path.is_file()]
    assert any(key.id.encode() in content for content in written)
    assert all(secret.encode() not in content for content in written)


@pytest.mark.parametrize("change", ["secret", "id", "form", "empty", "long", "case"])
async def test_wrong_api_keys(api: Api, change: str):
    """All of them hear the same."""
    _, text = await ApiKeys(api.site.door.records).create("x", valid_s=3600)
    wrong = {
        "secret": text[:-4] + "0000", "id": f"slk_{'a' * 16}_{text[-64:]}", "form": text.replace("_", "-"),
        "empty": "slk_",
        "long": text + "0" * 5000, "case": text.upper(),
    }[change]  # fmt: skip
    for headers in ({"authorization": f"Bearer {wrong}"}, {"x-api-key": wrong}):
        reply = await api.browser.ask("GET", "/who", headers=headers)
        assert reply.status == 401
        assert reply.json()["message"] in ("The API key is not valid.", "The access token is not valid.")
    assert all(line["decision"] == "refuse" for line in api.site.audit)
    assert text[-64:] not in json.dumps(api.site.audit)


async def test_a_key_expires_is_rotated_with_overlap_and_revoked(api: Api):
    """Each takes effect for a gateway that knows the key already, as soon as it hears of the change."""
    keys = ApiKeys(api.site.door.records)
    door = api.site.door

    async def status(text: str) -> int:
        await door.look()
        return (await api.browser.ask("GET", "/who", headers={"x-api-key": text})).status

    key, first = await keys.create("x", valid_s=3600)
    assert await status(first) == 200
    _, second = await keys.rotate(key.id, overlap_s=60)
    assert (await status(first), await status(second)) == (200, 200)
    api.site.clock.advance(61)
    assert (await status(first), await status(second)) == (401, 200)
    await keys.revoke(key.id)
    assert await status(second) == 401
    with pytest.raises(ApiKeyError):
        await keys.rotate(key.id, overlap_s=60)
    with pytest.raises(ApiKeyError):
        await keys.revoke("nobody")
    _, third = await keys.create("y", valid_s=100)
    assert await status(third) == 200
    api.site.clock.advance(101)
    assert await status(third) == 401


async def test_guessing_a_keys_secret_is_slowed_down(api: Api):
    """After a few wrong ones the next waits, and the right one from there as well; from elsewhere it is let in."""
    _, text = await ApiKeys(api.site.door.records).create("x", valid_s=0)
    wrong = text[:-4] + ("0000" if not text.endswith("0000") else "1111")
    statuses = [(await api.browser.ask("GET", "/who", headers={"x-api-key": wrong})).status for _ in range(8)]
    assert statuses == [401] * 5 + [429] * 3
    reply = await api.browser.ask("GET", "/who", headers={"x-api-key": text})
    assert reply.status == 429
    assert int(reply.header("retry-after")) >= 1
    api.site.clock.advance(2)
    assert (await api.browser.ask("GET", "/who", headers={"x-api-key": text})).status == 200


async def test_keys_are_not_taken_unless_switched_on(tmp_path: Path):
    """Without ``api_keys`` the header is the app's own."""
    async with place(tmp_path, development="users.toml") as site:
        reply = await site.browser().ask("GET", "/who", headers={"x-api-key": "slk_a_b"})
        assert reply.json()["user"] is None
        assert "x-api-key" in reply.json()["headers"]
