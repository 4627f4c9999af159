"""A proof of on whose behalf cannot be made, widened, moved, cut or kept by anybody whom it was not given to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from seamline.kernel.clock import ManualClock
from seamline.mesh.errors import (
    BrokenChainError,
    DelegationError,
    ExpiredTokenError,
    MalformedTokenError,
    NoSvidError,
    UnknownKeyError,
    UntrustedSignerError,
    WrongAudienceError,
)
from seamline.mesh.identity import CertificateAuthority, WorkloadIdentity, new_key_and_csr
from seamline.mesh.identity.delegation import Delegation, in_event, in_saga
from seamline.mesh.identity.keyring import KnownKey, LocalSigners, PublicKeys
from seamline.module.principal import Subject, User

ANN = User(
    "ann", issuer="https://id.example", roles=frozenset({"support"}), tenant="t1", name="Ann", email="ann@example.com",
    session="s1", authenticated_at=7, level="mfa", client="web", scopes=frozenset({"read", "write"}),
    attributes={"age": 30, "beta": True},
)  # fmt: skip
MODULES = ("gateway", "frontend", "orders", "payments")


class World:
    """One process for each module, of one application."""

    def __init__(self, folder: Path, *, app: str = "shop", keys: PublicKeys | None = None) -> None:
        self.clock = ManualClock()
        self.keys = keys or PublicKeys()
        self.authority = CertificateAuthority.load_or_create(folder / app, "example.org", app, clock=self.clock)
        self.identities = {module: self._identity(module) for module in MODULES}
        self.at = {module: self.process(module) for module in MODULES}

    def _identity(self, module: str) -> WorkloadIdentity:
        identity = WorkloadIdentity("example.org", self.authority.app)
        identity.keys = self.keys
        key, request = new_key_and_csr()
        identity.install(module, key, self.authority.issue(request, module, 3600))
        return identity

    def process(self, module: str, may_read: Callable[[str, str], bool] | None = None) -> Delegation:
        return Delegation(self.identities[module], "gateway", self.clock, may_read)

    def through(self, *modules: str, user: User | None = ANN, agent: str = "") -> tuple[str, Subject]:
        """The token for the last of ``modules``, and the subject that the one before it made it from."""
        subject = self.at["gateway"].introduce(user, agent)
        token = self.at["gateway"].token(subject, modules[0])
        for caller, callee, peer in zip(modules, modules[1:], ("gateway", *modules), strict=False):
            subject = self.at[caller].accept(token, peer, caller).acting(caller)
            token = self.at[caller].token(subject, callee)
        return token, subject

    def sign(self, module: str, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
        """A link as ``module`` would sign it, whatever it says."""
        signer = self.identities[module].signer(module)
        head = {"alg": "ES256", "kid": signer.kid, "typ": "seamline+jwt", **(header or {})}
        signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(signer.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def extend(self, before: str, module: str, **changes: Any) -> str:
        """``before`` with a link of ``module`` to payments, changed at will."""
        last = claims_of(before.rsplit("~", 1)[-1])
        claims = {
            "iss": f"spiffe://example.org/shop/{module}",
            "aud": "spiffe://example.org/shop/payments",
            "iat": last["iat"],
            "exp": last["exp"],
            "prev": b64(hashlib.sha256(before.encode()).digest()),
            **changes,
        }
        return f"{before}~{self.sign(module, {k: v for k, v in claims.items() if v is not None})}"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def claims_of(link: str) -> dict[str, Any]:
    return json.loads(unb64(link.split(".")[1]))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def refused(world: World, token: str, kind: type[DelegationError], peer: str = "orders", me: str = "payments") -> None:
    """``token``, shown by ``peer`` to a fresh process of ``me``, is refused for this very reason."""
    with pytest.raises(kind) as caught:
        world.process(me).accept(token, peer, me)
    assert type(caught.value) is kind


# What travels.


@pytest.mark.parametrize("user", [ANN, User("bob"), None, replace(ANN, scopes=None), replace(ANN, scopes=frozenset())])
def test_all_of_the_user_arrives_after_three_hops(world: World, user: User | None):
    token, _ = world.through("frontend", "orders", "payments", user=user, agent="helper")
    subject = world.at["payments"].accept(token, "orders", "payments")
    assert subject.user == user
    assert subject.agent == "helper"
    assert subject.chain == ("frontend", "orders")


def test_a_proof_is_made_and_checked_once(world: World):
    """The second call of the same user over the same edge costs no signature, and no check of one."""
    token, subject = world.through("frontend", "orders", "payments")
    assert world.at["orders"].token(subject, "payments") is token
    assert world.at["payments"].accept(token, "orders", "payments") is world.at["payments"].accept(
        token, "orders", "payments"
    )


def test_requests_of_one_user_share_a_subject_and_two_users_do_not(world: World):
    gateway = world.at["gateway"]
    assert gateway.introduce(ANN) is gateway.introduce(replace(ANN))
    assert gateway.introduce(ANN) is not gateway.introduce(replace(ANN, attributes={}))
    assert gateway.introduce(ANN) is not gateway.introduce(ANN, "helper")


def test_a_process_of_many_modules_signs_for_each(world: World, tmp_path: Path):
    """Frontend and orders share a process; payments, elsewhere, sees the same links as if they did not."""
    both = world.identities["gateway"]
    for module in ("frontend", "orders"):
        key, request = new_key_and_csr()
        both.install(module, key, world.authority.issue(request, module, 3600))
    here = world.at["gateway"]
    subject = here.introduce(ANN).acting("frontend").acting("orders")
    proven = world.at["payments"].accept(here.token(subject, "payments"), "orders", "payments")
    assert proven.chain == ("frontend", "orders")
    assert proven.user == ANN


def test_narrowed_scopes_arrive_narrowed_and_stay_so(world: World):
    token, _ = world.through("frontend", "orders")
    at_orders = world.at["orders"].accept(token, "frontend", "orders").narrowed(frozenset({"read"}), "helper")
    token = world.at["orders"].token(at_orders.acting("orders"), "payments")
    proven = world.at["payments"].accept(token, "orders", "payments")
    assert proven.user is not None
    assert proven.user.scopes == {"read"}
    assert proven.agent == "helper"
    assert proven.user.id == "ann"


def test_a_call_that_takes_longer_than_its_proof_goes_on(world: World):
    """A handler of ten minutes calls on: whoever was given the proof in time says so."""
    token, _ = world.through("frontend", "orders")
    subject = world.at["orders"].accept(token, "frontend", "orders").acting("orders")
    world.clock.advance(600)
    token = world.at["orders"].token(subject, "payments")
    proven = world.at["payments"].accept(token, "orders", "payments")
    assert proven.user == ANN
    assert proven.chain == ("frontend", "orders")
    assert proven.via == ""


def test_the_gateway_renews_what_it_introduced(world: World):
    """A stream of an hour: its module's calls carry fresh proofs, all of one sign-in."""
    subject = world.at["gateway"].introduce(ANN)
    first = world.at["gateway"].token(subject, "frontend")
    world.clock.advance(3000)
    second = world.at["gateway"].token(subject, "frontend")
    assert first != second
    assert world.at["frontend"].accept(second, "gateway", "frontend").user == ANN
    assert claims_of(first)["jti"] == claims_of(second)["jti"]


# Attacks.


def test_stolen_by_another_module(world: World):
    """What orders was given is worth nothing to payments or the frontend, whichever way they show it."""
    token, _ = world.through("frontend", "orders")
    refused(world, token, WrongAudienceError, peer="payments", me="orders")
    refused(world, token, WrongAudienceError, peer="frontend", me="payments")
    refused(world, world.extend(token, "payments"), UntrustedSignerError, peer="payments")
    refused(world, world.extend(token, "frontend"), UntrustedSignerError, peer="frontend")


def test_replayed_to_another_module(world: World):
    token, _ = world.through("frontend", "orders", "payments")
    refused(world, token, WrongAudienceError, peer="orders", me="frontend")


def test_another_user_written_in(world: World):
    """The gateway's link changed, or a later one that names a user of its own."""
    token, _ = world.through("frontend", "orders", "payments")
    first, *rest = token.split("~")
    head, _, signature = first.split(".")
    claims = claims_of(first)
    claims["user"]["sub"] = "admin"
    forged = f"{head}.{b64(json.dumps(claims).encode())}.{signature}"
    refused(world, "~".join([forged, *rest]), UntrustedSignerError)
    before = "~".join([first, *rest[:-1]])
    refused(world, world.extend(before, "orders", user={"sub": "admin"}), BrokenChainError)
    refused(world, world.extend(before, "orders", jti="another"), BrokenChainError)


@pytest.mark.parametrize("scopes", [["read", "write", "admin"], ["admin"]])
def test_widened_scopes(world: World, scopes: list[str]):
    token, _ = world.through("frontend", "orders")
    refused(world, world.extend(token, "orders", scopes=scopes), BrokenChainError)


def test_scopes_that_were_taken_away_do_not_come_back(world: World):
    token, _ = world.through("frontend", "orders")
    narrow = world.extend(token, "orders", scopes=["read"])
    world.at["payments"].accept(narrow, "orders", "payments")
    wide = world.extend(narrow, "payments", scopes=["read", "write"], aud="spiffe://example.org/shop/orders")
    refused(world, wide, BrokenChainError, peer="payments", me="orders")


@pytest.mark.parametrize("seconds", [1, 60, 86_400])
def test_a_longer_life_than_the_link_before(world: World, seconds: int):
    token, _ = world.through("frontend", "orders")
    ends = claims_of(token.split("~")[-1])["exp"] + seconds
    refused(world, world.extend(token, "orders", exp=ends), BrokenChainError)


def test_a_link_taken_out(world: World):
    """Without the link of the frontend orders would be its own master; without the gateway's there is no user."""
    token, _ = world.through("frontend", "orders", "payments")
    links = token.split("~")
    refused(world, "~".join([links[0], links[2]]), BrokenChainError)
    refused(world, "~".join(links[1:]), UntrustedSignerError)
    refused(world, links[2], UntrustedSignerError)


def test_links_in_another_order_or_twice(world: World):
    token, _ = world.through("frontend", "orders", "payments")
    first, second, third = token.split("~")
    refused(world, f"{first}~{third}~{second}", BrokenChainError, peer="frontend")
    refused(world, f"{first}~{second}~{second}~{third}", BrokenChainError)


def test_a_link_put_under_another_sign_in(world: World):
    """The links of ann's call under the gateway's link for bob."""
    token, _ = world.through("frontend", "orders", "payments")
    other, _ = world.through("frontend", user=User("bob"))
    refused(world, "~".join([other, *token.split("~")[1:]]), BrokenChainError)


def test_a_module_cannot_begin_a_chain(world: World):
    claims = {
        "iss": "spiffe://example.org/shop/orders", "aud": "spiffe://example.org/shop/payments", "iat": now(world),
        "exp": now(world) + 60, "jti": "x", "user": {"sub": "admin"},
    }  # fmt: skip
    refused(world, world.sign("orders", claims), UntrustedSignerError)
    claims["iss"] = "spiffe://example.org/shop/gateway"
    refused(world, world.sign("orders", claims), UntrustedSignerError, peer="gateway")


@pytest.mark.parametrize("moved", [-3600, 61, 3600])
def test_expired_or_not_yet_valid(world: World, moved: int):
    token, _ = world.through("frontend", "orders", "payments")
    world.clock.advance(moved)
    refused(world, token, ExpiredTokenError)


def test_it_ends_although_it_was_good_a_moment_ago(world: World):
    """What was checked once is not good for ever."""
    token, _ = world.through("frontend", "orders", "payments")
    world.at["payments"].accept(token, "orders", "payments")
    world.clock.advance(61)
    with pytest.raises(ExpiredTokenError):
        world.at["payments"].accept(token, "orders", "payments")


def test_what_was_checked_for_one_peer_is_not_good_for_another(world: World):
    token, _ = world.through("frontend", "orders", "payments")
    world.at["payments"].accept(token, "orders", "payments")
    with pytest.raises(WrongAudienceError):
        world.at["payments"].accept(token, "frontend", "payments")


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES384"},
        {"alg": "RS256"},
        {"typ": "JWT"},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"crit": ["b64"], "b64": False},
        {"kid": "../../../etc/passwd"},
        {"kid": "' OR 1=1 --"},
        {"kid": ""},
        {"kid": 7},
        {"kid": None},
    ],
    ids=str,
)
def test_headers_that_ask_for_another_way_of_checking(world: World, header: dict[str, Any]):
    """Although the signature below such a header is a module's own."""
    token, _ = world.through("frontend", "orders")
    link = world.extend(token, "orders").split("~")[-1]
    forged = world.sign("orders", claims_of(link), header)
    refused(world, f"{token}~{forged}", MalformedTokenError)


def test_no_signature(world: World):
    token, _ = world.through("frontend", "orders", "payments")
    head, body, _ = token.split("~")[-1].split(".")
    before = token.rpartition("~")[0]
    none = b64(json.dumps({"alg": "none", "kid": "x" * 43, "typ": "seamline+jwt"}).encode())
    for link in (f"{head}.{body}.", f"{head}.{body}", f"{none}.{body}.", f"{head}.{body}.{b64(bytes(64))}"):
        with pytest.raises(DelegationError):
            world.process("payments").accept(f"{before}~{link}", "orders", "payments")


def test_the_public_key_as_a_secret(world: World):
    """Key confusion: an HMAC with the bytes of the public key, in each of its forms."""
    token, _ = world.through("frontend", "orders", "payments")
    head, body, _ = token.split("~")[-1].split(".")
    before = token.rpartition("~")[0]
    public = world.identities["orders"].signer("orders").key.public_key()
    forms = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    ]
    for form in forms:
        for kept in (head, b64(json.dumps({**json.loads(unb64(head)), "alg": "HS256"}).encode())):
            mac = b64(hmac.digest(form, f"{kept}.{body}".encode(), "sha256") * 2)
            with pytest.raises(DelegationError):
                world.process("payments").accept(f"{before}~{kept}.{body}.{mac}", "orders", "payments")


def test_a_key_inside_the_token(world: World):
    """A link signed with a key that it brings along itself."""
    token, _ = world.through("frontend", "orders")
    own = ec.generate_private_key(ec.SECP256R1())
    numbers = own.public_key().public_numbers()
    x, y = b64(numbers.x.to_bytes(32, "big")), b64(numbers.y.to_bytes(32, "big"))
    jwk = {"kty": "EC", "crv": "P-256", "x": x, "y": y}
    kid = b64(hashlib.sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()).digest())
    claims = claims_of(world.extend(token, "orders").split("~")[-1])
    for header, kind in (
        ({"alg": "ES256", "kid": kid, "typ": "seamline+jwt", "jwk": jwk}, MalformedTokenError),
        ({"alg": "ES256", "kid": kid, "typ": "seamline+jwt"}, UnknownKeyError),
    ):
        signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(own.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        refused(world, f"{token}~{signed}.{signature}", kind)


def test_a_key_told_under_anothers_name(world: World):
    """Whoever could slip a key in under a known name gains nothing: a name is the key's own hash."""
    own = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = b64(own.public_bytes(Encoding.X962, PublicFormat.CompressedPoint))
    known = world.identities["orders"].signer("orders").kid
    keys = PublicKeys()
    keys.add([KnownKey(known, "payments", point, 0, 1 << 40)])
    assert keys.find(known) is None
    before = world.keys.find(known)
    world.keys.add([KnownKey(known, "payments", point, 0, 1 << 40)])
    assert world.keys.find(known) == before


def test_signed_with_the_key_of_another_module(world: World):
    token, _ = world.through("frontend", "orders")
    link = world.extend(token, "orders").split("~")[-1]
    forged = world.sign("payments", claims_of(link))
    refused(world, f"{token}~{forged}", UntrustedSignerError)


def test_signed_with_a_key_whose_certificate_has_ended(world: World):
    """A key that leaked from an old disk signs nothing new."""
    world.clock.advance(2 * 3600)
    claims = {
        "iss": "spiffe://example.org/shop/gateway", "aud": "spiffe://example.org/shop/payments", "iat": now(world),
        "exp": now(world) + 60, "jti": "x", "user": {"sub": "admin"},
    }  # fmt: skip
    refused(world, world.sign("gateway", claims), UntrustedSignerError, peer="gateway")


def test_a_token_of_another_application(world: World, tmp_path: Path):
    """Of the same trust domain, by a gateway of its own; also where its keys had become known here."""
    other = World(tmp_path, app="bank")
    token, _ = other.through("frontend", "orders", "payments")
    refused(world, token, UnknownKeyError)
    shared = World(tmp_path, app="bank2", keys=world.keys)
    token, _ = shared.through("frontend", "orders", "payments")
    refused(world, token, UntrustedSignerError)


@pytest.mark.parametrize(
    "token",
    ["", "~", "a", "a.b.c", "...", "é.é.é", "\x00", "a.b.c~", "~a.b.c", "A" * 30_000, "~" * 60, "a.b.c~" * 40, "=.=.="],
    ids=lambda token: repr(token[:12]),
)
def test_what_is_no_token_at_all(world: World, token: str):
    refused(world, token, MalformedTokenError)


def test_damage_anywhere_is_found(world: World):
    """Whichever character of a token is exchanged, it is refused."""
    token, _ = world.through("frontend", "orders", "payments")
    here = world.process("payments")
    accepted = [
        place
        for place, old in enumerate(token)
        if not _refuses(here, f"{token[:place]}{'A' if old != 'A' else 'B'}{token[place + 1 :]}")
    ]
    assert accepted == []


def test_a_circle_of_calls_ends(world: World):
    """Modules that call each other for ever run into a bound, not into a token without end."""
    both = world.identities["gateway"]
    key, request = new_key_and_csr()
    both.install("orders", key, world.authority.issue(request, "orders", 3600))
    subject = world.at["gateway"].introduce(ANN)
    for _ in range(40):
        subject = subject.acting("orders")
    with pytest.raises(BrokenChainError):
        world.at["gateway"].token(subject, "payments")


def test_only_the_gateways_process_introduces(world: World):
    """A worker without the gateway's key may call somebody a user, and proves it to nobody."""
    subject = world.at["orders"].introduce(ANN).acting("orders")
    with pytest.raises(NoSvidError):
        world.at["orders"].token(subject, "payments")


def test_rsa_keys_are_not_taken():
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    point = b64(rsa_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    keys = PublicKeys()
    keys.add([KnownKey("x" * 43, "orders", point, 0, 1 << 40)])
    with pytest.raises(Exception, match="public key"):
        keys.find("x" * 43)


# What waits.


def reader(module: str, publisher: str) -> bool:
    return (module, publisher) == ("payments", "orders")


def waiting(world: World, via: str) -> str:
    token, _ = world.through("frontend", "orders")
    subject = world.at["orders"].accept(token, "frontend", "orders")
    return world.at["orders"].defer(subject, "orders", via)[0]


def test_an_event_is_acted_on_by_its_readers_long_after(world: World):
    """Days later, by a process that knows nothing but the token; and it calls on in the user's name."""
    text = waiting(world, in_event("e1"))
    world.clock.advance(40 * 86_400)
    world.identities["payments"] = world._identity("payments")  # pyright: ignore[reportPrivateUsage]  # a new certificate
    here = world.process("payments", reader)
    subject = here.resume(text, "payments", in_event("e1"))
    assert subject.user == ANN
    assert subject.chain == ("frontend", "orders")
    assert subject.via == "event:e1"
    token = here.token(subject.acting("payments"), "frontend")
    proven = world.process("frontend", reader).accept(token, "payments", "frontend")
    assert proven.user == ANN
    assert proven.chain == ("frontend", "orders", "payments")
    assert proven.via == "event:e1"


def test_an_events_proof_is_of_that_event_and_for_its_readers(world: World):
    text = waiting(world, in_event("e1"))
    with pytest.raises(WrongAudienceError):
        world.process("payments", reader).resume(text, "payments", in_event("e2"))
    with pytest.raises(WrongAudienceError):
        world.process("payments", reader).resume(text, "payments", in_saga("e1"))
    with pytest.raises(UntrustedSignerError):
        world.process("frontend", reader).resume(text, "frontend", in_event("e1"))


def test_who_may_not_read_the_event_convinces_nobody(world: World):
    """A module that got hold of another's log acts on it as if it were a reader: the callee asks policy itself."""
    text = waiting(world, in_event("e1"))
    thief = world.process("frontend", lambda module, publisher: True)
    token = thief.token(thief.resume(text, "frontend", in_event("e1")).acting("frontend"), "payments")
    with pytest.raises(UntrustedSignerError):
        world.process("payments", reader).accept(token, "frontend", "payments")


def test_what_waits_makes_no_call_as_it_is(world: World):
    text = waiting(world, in_saga("s1"))
    refused(world, text, WrongAudienceError, peer="orders", me="orders")
    text = waiting(world, in_event("e1"))
    refused(world, text, WrongAudienceError, peer="orders", me="orders")


def test_a_saga_is_resumed_by_its_module_only(world: World):
    text = waiting(world, in_saga("s1"))
    world.clock.advance(86_400)
    subject = world.process("orders").resume(text, "orders", in_saga("s1"))
    assert subject.user == ANN
    assert subject.chain == ("frontend",)
    with pytest.raises(UntrustedSignerError):
        world.process("payments").resume(text, "payments", in_saga("s1"))
    with pytest.raises(WrongAudienceError):
        world.process("orders").resume(text, "orders", in_saga("s2"))


def test_what_waits_too_long_is_left_to_people(world: World):
    text = waiting(world, in_saga("s1"))
    world.clock.advance(91 * 86_400)
    with pytest.raises(ExpiredTokenError):
        world.process("orders").resume(text, "orders", in_saga("s1"))


@pytest.mark.parametrize(
    "changes",
    [
        {"via": "saga:s1", "since": 10**9, "aud": "spiffe://example.org/shop/orders"},
        {"via": "saga:s1", "since": None, "aud": "spiffe://example.org/shop/orders"},
        {"via": "saga:s1"},
        {"via": "event:e1", "aud": "spiffe://example.org/shop/orders"},
        {"via": "holiday", "aud": "spiffe://example.org/shop/orders"},
        {"aud": "spiffe://example.org/shop/orders#events"},
        {"since": 1},
    ],
    ids=str,
)
def test_a_deferred_link_is_for_oneself_and_began_in_time(world: World, changes: dict[str, Any]):
    """A module cannot keep a proof alive for others, or say that it was given in time when it was not."""
    token, _ = world.through("frontend", "orders")
    ends = claims_of(token.split("~")[-1])["exp"]
    if "since" not in changes and "via" in changes:
        changes = {"since": ends - 60, **changes}
    refused(world, world.extend(token, "orders", **changes), BrokenChainError, peer="orders", me="payments")


def test_a_process_without_certificates_keeps_its_own_key(tmp_path: Path):
    """What waited comes back after a restart, and is worth nothing beside another data folder."""

    def process(folder: str) -> Delegation:
        return Delegation(LocalSigners(tmp_path / folder, "example.org", "shop"), "gateway", ManualClock(), reader)

    first = process("one")
    text, _ = first.defer(first.introduce(ANN).acting("frontend"), "orders", in_event("e1"))
    again = process("one").resume(text, "payments", in_event("e1"))
    assert again.user == ANN
    assert again.chain == ("frontend", "orders")
    assert (tmp_path / "one" / "local.pem").stat().st_mode & 0o077 == 0
    with pytest.raises(UnknownKeyError):
        process("two").resume(text, "payments", in_event("e1"))


def now(world: World) -> int:
    return int(world.clock.now().timestamp())


def _refuses(here: Delegation, token: str) -> bool:
    try:
        here.accept(token, "orders", "payments")
    except DelegationError:
        return True
    return False
