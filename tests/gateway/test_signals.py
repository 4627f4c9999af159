"""Shared Signals: what others tell us takes effect once, and what we tell others they can verify.

The other side is made here from RFC 7515, 8417, 8935 and 8936 with nothing but a signature library.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from tests.gateway.auth_rig import Place, place

from seamline.gateway.auth.api_keys import ApiKeys
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings.auth import SignalSettings
from seamline.kernel.wire.http1_client import HttpPool
from seamline.mesh.identity.revocation import Kind, Revocation, Revocations
from seamline.module.principal import Subject, User

ISSUER = "https://id.example"
US = "https://shop.example"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
PUSH_TOKEN = "let me tell you"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW = int(START.timestamp())
ANN = {"format": "iss_sub", "iss": ISSUER, "sub": "ann"}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Other:
    """A transmitter: a key, its JWKS and configuration, and tokens."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.sets: dict[str, str] = {}
        self.polled: list[dict[str, Any]] = []
        self._number = 0

    async def fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        if url == f"{ISSUER}/.well-known/ssf-configuration":
            return 200, json.dumps({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"}).encode()
        if url == f"{ISSUER}/jwks":
            numbers = self.key.public_key().public_numbers()
            x, y = (b64(each.to_bytes(32, "big")) for each in (numbers.x, numbers.y))
            return 200, json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "x": x, "y": y}]}).encode()
        assert (method, url, headers["authorization"]) == ("POST", f"{ISSUER}/poll", "Bearer poll me")
        asked = json.loads(body)
        self.polled.append(asked)
        for jti in [*asked["ack"], *asked["setErrs"]]:
            self.sets.pop(jti, None)
        return 200, json.dumps({"sets": self.sets, "moreAvailable": False}).encode()

    def set(self, event: str, subject: Any = ANN, header: dict[str, Any] | None = None, **changed: Any) -> str:
        self._number += 1
        payload = changed.pop("payload", {"event_timestamp": NOW})
        claims = {
            "iss": ISSUER, "aud": US, "iat": NOW, "jti": f"j{self._number}", "sub_id": subject,
            "events": {event: payload}, **changed,
        }  # fmt: skip
        head: dict[str, Any] = {"alg": "ES256", "kid": "k1", "typ": "secevent+jwt", **(header or {})}
        signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class World:
    def __init__(self, site: Place, other: Other, known: Revocations) -> None:
        self.site, self.other, self.known = site, other, known

    async def ask(self, method: str, path: str, body: bytes = b"", /, **headers: str) -> tuple[int, Any]:
        pool = HttpPool("127.0.0.1", self.site.port, host_header=f"127.0.0.1:{self.site.port}")
        lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        try:
            response = await pool.request(method, path, lines, body, 20.0)
            content = await response.read_all()
            return response.status, json.loads(content) if content else None
        finally:
            await pool.close()

    async def push(self, token: str, secret: str = PUSH_TOKEN, kind: str = "application/secevent+jwt") -> Any:
        path = "/.seamline/signals/events"
        return await self.ask("POST", path, token.encode(), content_type=kind, authorization=f"Bearer {secret}")

    def refused(self, user: User) -> bool:
        return self.known.refuses(Subject(user)) is not None


@asynccontextmanager
async def listening(folder: Path, **more: Any) -> AsyncGenerator[World]:
    other, clock = Other(), ManualClock(START)
    known = Revocations(clock)
    source = SignalSettings(
        issuer=ISSUER, audience=(US,), push_token_sha256=hashlib.sha256(PUSH_TOKEN.encode()).hexdigest(), **more
    )
    async with place(
        folder, ask=other.fetch, clock=clock, revocations=known, api_keys=True, signals=(source,)
    ) as site:  # fmt: skip
        yield World(site, other, known)


def user(name: str = "ann", at: int = NOW - 60, **more: Any) -> User:
    return User(name, ISSUER, authenticated_at=at, **more)


SID = {"format": "complex", "session": {"format": "opaque", "id": "s1"}, "user": ANN}
DEVICE = {"format": "complex", "device": {"format": "opaque", "id": "d1"}, "user": ANN}
NOT_COMPLIANT = {"event_timestamp": NOW, "previous_status": "compliant", "current_status": "not-compliant"}


@pytest.mark.parametrize(
    ("event", "subject", "payload", "void"),
    [
        (CAEP + "session-revoked", SID, {"event_timestamp": NOW}, user(attributes={"sid": "s1"})),
        (CAEP + "session-revoked", ANN, {"event_timestamp": NOW}, user()),
        (CAEP + "token-claims-change", ANN, {"claims": {"role": "none"}, "event_timestamp": NOW}, user()),
        (CAEP + "credential-change", ANN, {"credential_type": "password", "change_type": "update"}, user()),
        (CAEP + "assurance-level-change", ANN, {"change_direction": "decrease", "event_timestamp": NOW}, user()),
        (CAEP + "device-compliance-change", DEVICE, NOT_COMPLIANT, user(attributes={"device": "d1"})),
        (RISC + "account-disabled", ANN, {}, user(at=NOW + 60)),
        (RISC + "account-disabled", {"format": "email", "email": "Ann@x.org"}, {}, user(email="ann@X.org")),
        (
            CAEP + "session-revoked",
            {"format": "aliases", "identifiers": [{"format": "opaque", "id": "zed"}, ANN]},
            {"event_timestamp": NOW},
            user(),
        ),
    ],
)
async def test_each_event_makes_void_what_it_names(tmp_path: Path, event: str, subject: Any, payload: Any, void: User):
    """And nobody else; it is acknowledged with 202 and no body."""
    async with listening(tmp_path) as world:
        assert not world.refused(void)
        assert await world.push(world.other.set(event, subject, payload=payload)) == (202, None)
        assert world.refused(void)
        assert not world.refused(user("bob", attributes={"sid": "s2", "device": "d2"}))


async def test_who_signs_in_afterwards_is_good_and_an_account_comes_back(tmp_path: Path):
    async with listening(tmp_path) as world:
        await world.push(world.other.set(CAEP + "session-revoked"))
        assert world.refused(user(at=NOW - 1))
        assert not world.refused(user(at=NOW + 1))
        await world.push(world.other.set(RISC + "account-disabled"))
        assert world.refused(user(at=NOW + 1))
        await world.push(world.other.set(RISC + "account-enabled"))
        assert not world.refused(user(at=NOW + 1))


async def test_a_higher_assurance_takes_nothing_away(tmp_path: Path):
    async with listening(tmp_path) as world:
        token = world.other.set(CAEP + "assurance-level-change", payload={"change_direction": "increase"})
        assert (await world.push(token))[0] == 202
        assert world.known.entries == ()


async def test_a_token_counts_once(tmp_path: Path):
    """A replay of `account-enabled` does not bring back an account that was disabled since."""
    async with listening(tmp_path) as world:
        enabled = world.other.set(RISC + "account-enabled")
        await world.push(enabled)
        await world.push(world.other.set(RISC + "account-disabled"))
        assert (await world.push(enabled))[0] == 202
        assert world.refused(user())


@pytest.mark.parametrize(
    ("wrong", "err"),
    [
        ({"aud": "https://elsewhere"}, "invalid_audience"),
        ({"iss": "https://evil.example"}, "authentication_failed"),
        ({"iat": NOW - 30 * 86_400}, "invalid_request"),
        ({"iat": NOW + 3600}, "invalid_request"),
        ({"jti": ""}, "invalid_request"),
        ({"sub": "ann"}, "invalid_request"),
        ({"exp": NOW + 60}, "invalid_request"),
        ({"events": []}, "invalid_request"),
        ({"header": {"typ": "JWT"}}, "invalid_request"),
        ({"header": {"alg": "none"}}, "invalid_key"),
        ({"header": {"alg": "HS256"}}, "invalid_key"),
        ({"header": {"jwk": {}}}, "invalid_key"),
        ({"header": {"kid": "k2"}}, "invalid_key"),
    ],
)
async def test_a_wrong_token_is_refused(tmp_path: Path, wrong: dict[str, Any], err: str):
    """Each with its code of RFC 8935 and an audit line; nothing is revoked."""
    async with listening(tmp_path) as world:
        status, told = await world.push(world.other.set(RISC + "account-disabled", **wrong))
        assert status in (400, 401)
        assert told["err"] == err
        assert world.known.entries == ()
        assert any(line["decision"] == "refuse" and line["action"] == "signal" for line in world.site.audit)


async def test_a_forged_push_is_refused(tmp_path: Path):
    """A signature of another key, another bearer token, another content type, and another issuer's users."""
    async with listening(tmp_path) as world:
        good = world.other.set(RISC + "account-disabled")
        stranger = Other().set(RISC + "account-disabled")
        assert (await world.push(stranger))[1]["err"] == "invalid_key"
        assert (await world.push(good, secret="guess"))[0] == 401
        assert (await world.push(good, kind="application/json"))[0] == 400
        assert (await world.push("no token"))[0] == 400
        foreign = {"format": "iss_sub", "iss": "https://bank.example", "sub": "ann"}
        assert (await world.push(world.other.set(RISC + "account-disabled", foreign)))[0] == 202
        assert world.known.entries == ()


async def test_polled_tokens_are_taken_and_acknowledged(tmp_path: Path):
    """What is good is acknowledged, what is not is reported, and neither is asked for again."""
    (tmp_path / "token").write_text("poll me\n")
    async with listening(tmp_path, poll_url=f"{ISSUER}/poll", poll_token_file="token") as world:
        world.other.sets = {"j1": world.other.set(RISC + "account-disabled"), "j2": "rubbish"}
        async with asyncio.timeout(20):
            while world.other.sets:
                world.site.clock.advance(2)
                await asyncio.sleep(0)
        assert world.refused(user())
        last = next(each for each in world.other.polled if each["ack"])
        assert (last["ack"], list(last["setErrs"])) == (["j1"], ["j2"])


class Ear:
    """A receiver by push: keeps what it was sent, and answers what it is told to."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], str]] = []
        self.statuses: list[int] = []
        self.arrived = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        lines = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(lines["content-length"]))
        self.heard.append((lines, body.decode()))
        status = self.statuses.pop(0) if self.statuses else 202
        writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        await writer.drain()
        writer.close()
        self.arrived.set()

    async def until(self, number: int, clock: ManualClock) -> None:
        async with asyncio.timeout(20):
            while len(self.heard) < number:
                clock.advance(1)
                self.arrived.clear()
                with_time = asyncio.wait_for(self.arrived.wait(), 0.2)
                try:
                    await with_time
                except TimeoutError:
                    continue


@asynccontextmanager
async def telling(folder: Path) -> AsyncGenerator[tuple[World, dict[str, str]]]:
    known = Revocations(clock := ManualClock(START))
    async with place(folder, clock=clock, revocations=known, api_keys=True, transmit_signals=True) as site:
        _, text = await ApiKeys(site.door.records).create("siem", scopes=["signals"], valid_s=86_400)
        yield World(site, Other(), known), {"x_api_key": text}


async def claims_of(world: World, token: str) -> dict[str, Any]:
    """The claims of a token of ours, verified with the keys that we publish."""
    _, configuration = await world.ask("GET", "/.well-known/ssf-configuration")
    assert configuration["issuer"] == world.site.origin
    _, jwks = await world.ask("GET", configuration["jwks_uri"].removeprefix(world.site.origin))
    head, body, signature = token.split(".")
    header = json.loads(unb64(head))
    assert (header["typ"], header["alg"]) == ("secevent+jwt", "ES256")
    (key,) = [each for each in jwks["keys"] if each["kid"] == header["kid"]]
    assert "d" not in key
    x, y = (int.from_bytes(unb64(key[each]), "big") for each in "xy")
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    raw = unb64(signature)
    pair = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    try:
        public.verify(pair, f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        pytest.fail("the signature is not of the published key")
    claims = json.loads(unb64(body))
    assert "sub" not in claims
    assert "exp" not in claims
    return cast("dict[str, Any]", claims)


@pytest.mark.parametrize(
    ("kind", "name", "event", "subject"),
    [
        ("session", "s1", CAEP + "session-revoked", {"format": "complex", "session": {"format": "opaque", "id": "s1"}}),
        ("user", f"{ISSUER}|ann", CAEP + "session-revoked", ANN),
        ("client", "k1", CAEP + "credential-change", {"format": "opaque", "id": "k1"}),
        (
            "device",
            "d1",
            CAEP + "device-compliance-change",
            {"format": "complex", "device": {"format": "opaque", "id": "d1"}},
        ),
    ],
)
async def test_what_we_revoke_is_told_by_poll(tmp_path: Path, kind: Kind, name: str, event: str, subject: Any):
    """Until it is acknowledged, and not after; verified by a receiver that knows only our address."""
    async with telling(tmp_path) as (world, key):
        wanted = {"delivery": {"method": "urn:ietf:rfc:8936"}}
        status, stream = await world.ask("POST", "/.seamline/signals/streams", json.dumps(wanted).encode(), **key)
        assert status == 201
        world.known.revoke([Revocation(kind, name, reason="stolen")])
        path = stream["delivery"]["endpoint_url"].removeprefix(world.site.origin)
        answer: dict[str, Any] = {"sets": {}}
        async with asyncio.timeout(20):
            while not answer["sets"]:
                _, answer = await world.ask("POST", path, b"{}", **key)
        ((jti, token),) = answer["sets"].items()
        claims = await claims_of(world, token)
        assert (claims["jti"], claims["aud"], claims["sub_id"]) == (jti, stream["aud"], subject)
        assert list(claims["events"]) == [event]
        again = await world.ask("POST", path, b"{}", **key)
        assert list(again[1]["sets"]) == [jti]
        assert (await world.ask("POST", path, json.dumps({"ack": [jti]}).encode(), **key))[1]["sets"] == {}


async def test_push_is_tried_again_in_order_until_it_is_taken(tmp_path: Path):
    """A receiver that fails twice has each event once, with its authorization, in the order of what happened."""
    ear = Ear()
    ear.statuses = [503, 500]
    server = await asyncio.start_server(ear.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with telling(tmp_path) as (world, key):
            delivery = {
                "method": "urn:ietf:rfc:8935", "endpoint_url": f"http://127.0.0.1:{port}/in",
                "authorization_header": "Bearer hello",
            }  # fmt: skip
            body = json.dumps({"delivery": delivery}).encode()
            status, stream = await world.ask("POST", "/.seamline/signals/streams", body, **key)
            assert status == 201
            question = json.dumps({"stream_id": stream["stream_id"], "state": "are you there"}).encode()
            assert (await world.ask("POST", "/.seamline/signals/verify", question, **key))[0] == 204
            await ear.until(3, world.site.clock)
            assert len({token for _, token in ear.heard}) == 1
            lines, token = ear.heard[-1]
            assert lines["authorization"] == "Bearer hello"
            assert lines["content-type"] == "application/secevent+jwt"
            claims = await claims_of(world, token)
            assert claims["events"] == {SSF + "verification": {"state": "are you there"}}
            world.known.revoke([Revocation("session", "s1"), Revocation("session", "s2")])
            await ear.until(5, world.site.clock)
            told = [await claims_of(world, each) for _, each in ear.heard[3:]]
            assert [each["sub_id"]["session"]["id"] for each in told] == ["s1", "s2"]
    finally:
        server.close()


async def test_streams_are_managed_by_who_owns_them(tmp_path: Path):
    """Made, changed, paused and deleted; nobody else sees them, and nobody without the scope has any."""
    async with telling(tmp_path) as (world, key):
        keys = ApiKeys(world.site.door.records)
        other = {"x_api_key": (await keys.create("other", scopes=["signals"], valid_s=600))[1]}
        without = {"x_api_key": (await keys.create("reader", scopes=["read"], valid_s=600))[1]}
        streams = "/.seamline/signals/streams"
        poll = json.dumps({"delivery": {"method": "urn:ietf:rfc:8936"}, "events_requested": [CAEP + "x"]}).encode()
        assert (await world.ask("POST", streams, poll))[0] == 401
        assert (await world.ask("POST", streams, poll, **without))[0] == 403
        _, stream = await world.ask("POST", streams, poll, **key)
        assert stream["events_delivered"] == []
        one = f"{streams}?stream_id={stream['stream_id']}"
        assert (await world.ask("GET", one, b"", **other))[0] == 404
        assert (await world.ask("GET", streams, b"", **other))[1] == []
        change = json.dumps({"stream_id": stream["stream_id"], "events_requested": [CAEP + "session-revoked"]}).encode()
        assert (await world.ask("PATCH", streams, change, **key))[1]["events_delivered"] == [CAEP + "session-revoked"]
        paused = json.dumps({"stream_id": stream["stream_id"], "status": "paused"}).encode()
        assert (await world.ask("POST", "/.seamline/signals/status", paused, **key))[1]["status"] == "paused"
        assert (await world.ask("DELETE", one, b"", **other))[0] == 404
        assert (await world.ask("DELETE", one, b"", **key))[0] == 204
        assert (await world.ask("GET", one, b"", **key))[0] == 404


@pytest.mark.parametrize("url", ["http://example.com/in", "https://u:p@example.com/", "file:///etc/passwd", "", 5])
async def test_an_endpoint_that_nobody_should_be_sent_to_is_refused(tmp_path: Path, url: Any):
    async with telling(tmp_path) as (world, key):
        delivery = {"method": "urn:ietf:rfc:8935", "endpoint_url": url}
        body = json.dumps({"delivery": delivery}).encode()
        assert (await world.ask("POST", "/.seamline/signals/streams", body, **key))[0] == 400
