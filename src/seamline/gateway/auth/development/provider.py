"""OpenID Connect for the users of a file: authorization code with PKCE, refresh, userinfo, RP-initiated logout.

    GET  /.seamline/id/.well-known/openid-configuration
    GET  /.seamline/id/jwks
    GET  /.seamline/id/authorize       the sign-in page
    POST /.seamline/id/authorize       name and password
    POST /.seamline/id/token
    GET  /.seamline/id/userinfo
    GET  /.seamline/id/end-session

It has one client, the gateway itself. Codes and refresh tokens are sealed, so that any gateway process may redeem what
another gave, and each is good once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey

from seamline.gateway.auth.development.users import DevelopmentUser, UsersFile, matches
from seamline.gateway.auth.errors import Refused
from seamline.gateway.auth.exchange import Answer, Question, as_json, fields, page, redirect
from seamline.gateway.auth.pages import sign_in_page
from seamline.gateway.auth.records import Records
from seamline.gateway.auth.same_origin import Origins
from seamline.gateway.auth.sealing import Sealer, locked, replace_file
from seamline.gateway.auth.throttle import Throttle
from seamline.gateway.auth.tokens import TokenRefused, check_header, number, parts_of, verified

BASE = "/.seamline/id"
CLIENT = "seamline"
_ALGORITHM = "ES256"
_TICKET_S, _CODE_S, _TOKEN_S, _REFRESH_S = 900, 60, 300, 43_200
_AT_ONCE = 2  # passwords looked at: each takes 32 MB


class _Request(msgspec.Struct, frozen=True, array_like=True):
    """An authorization request, sealed into the sign-in form."""

    redirect_uri: str
    state: str
    nonce: str
    challenge: str
    scope: str
    until: int


class _Grant(msgspec.Struct, frozen=True, array_like=True):
    """What a code, or a refresh token, stands for."""

    id: str
    user: str
    redirect_uri: str
    nonce: str
    challenge: str
    scope: str
    authenticated_at: int
    until: int


class DevelopmentProvider:
    """Serves the pages above.

    Args:
        app: what people sign in to.
        audience: what access tokens are for.
        callback: the path to which its one client may be sent back.
        on_wrong_password: told of name and address.
    """

    def __init__(
        self,
        app: str,
        users: UsersFile,
        folder: Path,
        records: Records,
        sealer: Sealer,
        origins: Origins,
        throttle: Throttle,
        *,
        audience: str,
        callback: str,
        on_wrong_password: Callable[[str, str], None],
    ) -> None:
        self._app = app
        self._users = users
        self._records = records
        self._sealer = sealer
        self._origins = origins
        self._throttle = throttle
        self._audience = audience
        self._callback = callback
        self._on_wrong_password = on_wrong_password
        self._key = _signing_key(folder / "development-provider.json")
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self.issuer = origins.canonical + BASE

    async def fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """The gateway asks its own provider without the way through its own socket."""
        _ = headers
        parts = urlsplit(url)
        form = fields(body.decode()) if body else {}
        question = Question(method, parts.path, fields(parts.query), form, self._origins.canonical, "127.0.0.1")
        answer = await self.answer(question)
        return answer.status, answer.body

    def changes(self) -> list[str]:
        """Users whose earlier sign-ins are no longer good."""
        return self._users.changes()

    async def answer(self, question: Question) -> Answer:
        """Raises Refused."""
        match question.method, question.path.removeprefix(BASE):
            case "GET", "/.well-known/openid-configuration":
                return as_json(200, self._discovery())
            case "GET", "/jwks":
                return as_json(200, {"keys": [self._key.as_dict(private=False, use="sig", alg=_ALGORITHM)]})
            case "GET", "/authorize":
                return self._ask(question)
            case "POST", "/authorize":
                return await self._sign_in(question)
            case "POST", "/token":
                return await self._tokens(question.form)
            case "GET", "/userinfo":
                return self._userinfo(question)
            case "GET", "/end-session":
                return self._end(question)
            case _:
                return as_json(404, {"error": "not_found"})

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/end-session",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [_ALGORITHM],
            "token_endpoint_auth_methods_supported": ["none"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "profile", "email"],
            "authorization_response_iss_parameter_supported": True,
        }

    # Authorize.

    def _ask(self, question: Question) -> Answer:
        asked = question.query
        redirect_uri = asked.get("redirect_uri", "")
        if asked.get("client_id") != CLIENT or not self._registered(redirect_uri):
            # Nobody is sent to an address that is not registered, not even with an error.
            raise Refused(
                "an authorization request of an unknown client", "This sign-in is not known here.", status=400
            )
        back = {"state": asked.get("state", ""), "iss": self.issuer}
        error = (
            "unsupported_response_type" if asked.get("response_type") != "code"
            else "invalid_request" if asked.get("code_challenge_method") != "S256" or not asked.get("code_challenge")
            else "invalid_scope" if "openid" not in asked.get("scope", "").split()
            else "login_required" if asked.get("prompt") == "none"
            else ""
        )  # fmt: skip
        if error:
            return redirect(f"{redirect_uri}?{urlencode({'error': error, **back})}")
        request = _Request(
            redirect_uri=redirect_uri,
            state=back["state"],
            nonce=asked.get("nonce", ""),
            challenge=asked["code_challenge"],
            scope=asked["scope"],
            until=self._records.now() + _TICKET_S,
        )
        ticket = self._sealer.seal(b"development ticket", msgspec.msgpack.encode(request))
        return self._form(200, ticket, name=asked.get("login_hint", "")[:100])

    def _form(self, status: int, ticket: str, *, name: str = "", problem: str = "") -> Answer:
        return page(status, sign_in_page(self._app, f"{BASE}/authorize", ticket, name=name, problem=problem))

    async def _sign_in(self, question: Question) -> Answer:
        if question.request is not None and self._origins.came_from_here(question.request) is False:
            raise Refused("a password was sent from another site", "This form is not ours.", status=403)
        ticket, name = question.form.get("ticket", ""), question.form.get("name", "")[:100]
        plain = self._sealer.open(b"development ticket", ticket)
        request = msgspec.msgpack.decode(plain, type=_Request) if plain is not None else None
        if request is None or request.until < self._records.now():
            raise Refused(
                "a sign-in form was too old or not ours", "This form is too old. Please begin again.", status=400
            )
        wait_s = self._throttle.wait_s(name, question.address)
        if wait_s > 0:
            seconds = int(wait_s) + 1
            problem = f"Too many attempts. Try again in {seconds} second{'s' if seconds > 1 else ''}."
            answer = self._form(429, ticket, name=name, problem=problem)
            answer.headers.append((b"retry-after", b"%d" % seconds))
            return answer
        # Counted before it is looked at: many at once are as many attempts.
        self._throttle.begin(name, question.address)
        user = self._users.all().get(name)
        async with self._at_once:
            password = question.form.get("password", "")
            good = await asyncio.to_thread(matches, password, user.password if user is not None else "")
        if user is None or not good or user.disabled:
            self._throttle.tell(name, question.address)
            self._on_wrong_password(name, question.address)
            return self._form(401, ticket, name=name, problem="The name or the password is not right.")
        self._throttle.succeeded(name, question.address, counted=True)
        now = self._records.now()
        grant = _Grant(
            id=secrets.token_urlsafe(16),
            user=user.id,
            redirect_uri=request.redirect_uri,
            nonce=request.nonce,
            challenge=request.challenge,
            scope=request.scope,
            authenticated_at=now,
            until=now + _CODE_S,
        )
        code = self._sealer.seal(b"development code", msgspec.msgpack.encode(grant))
        query = urlencode({"code": code, "state": request.state, "iss": self.issuer})
        return redirect(f"{request.redirect_uri}?{query}")

    def _registered(self, redirect_uri: str) -> bool:
        parts = urlsplit(redirect_uri)
        host = parts.netloc.encode("latin-1", "replace")
        ours = parts.scheme == self._origins.scheme and self._origins.known(host)
        return ours and parts.path == self._callback and not parts.query and not parts.fragment

    # Tokens.

    async def _tokens(self, form: Mapping[str, str]) -> Answer:
        match form.get("grant_type"):
            case "authorization_code":
                grant = await self._redeem(b"development code", form.get("code", ""))
                digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
                challenge = base64.urlsafe_b64encode(digest).rstrip(b"=")
                if (
                    grant is None
                    or form.get("client_id") != CLIENT
                    or form.get("redirect_uri") != grant.redirect_uri
                    or not hmac.compare_digest(challenge, grant.challenge.encode())
                ):
                    return as_json(400, {"error": "invalid_grant"})
            case "refresh_token":
                grant = await self._redeem(b"development refresh", form.get("refresh_token", ""))
            case _:
                return as_json(400, {"error": "unsupported_grant_type"})
        user = self._users.all().get(grant.user) if grant is not None else None
        if grant is None or user is None or user.disabled:
            return as_json(400, {"error": "invalid_grant"})
        return as_json(200, self._answer(grant, user))

    async def _redeem(self, purpose: bytes, sealed: str) -> _Grant | None:
        plain = self._sealer.open(purpose, sealed)
        grant = msgspec.msgpack.decode(plain, type=_Grant) if plain is not None else None
        if grant is None or grant.until < self._records.now():
            return None
        return grant if await self._records.use(f"{purpose.decode()}:{grant.id}", grant.until + 1) else None

    def _answer(self, grant: _Grant, user: DevelopmentUser) -> dict[str, Any]:
        now = self._records.now()
        common = {
            "iss": self.issuer, "sub": user.id, "iat": now, "exp": now + _TOKEN_S, "auth_time": grant.authenticated_at,
            **_claims(user),
        }  # fmt: skip
        identity = {**common, "aud": CLIENT, **({"nonce": grant.nonce} if grant.nonce else {})}
        access = {
            **common, "aud": self._audience, "client_id": CLIENT, "scope": grant.scope,
            "jti": secrets.token_urlsafe(12),
        }  # fmt: skip
        again = msgspec.structs.replace(grant, id=secrets.token_urlsafe(16), until=now + _REFRESH_S)
        return {
            "access_token": self._signed(access, "at+jwt"),
            "id_token": self._signed(identity, "JWT"),
            "refresh_token": self._sealer.seal(b"development refresh", msgspec.msgpack.encode(again)),
            "token_type": "Bearer",
            "expires_in": _TOKEN_S,
            "scope": grant.scope,
        }

    def _signed(self, claims: dict[str, Any], kind: str) -> str:
        return jwt.encode({"alg": _ALGORITHM, "kid": self._key.kid or "", "typ": kind}, claims, self._key, [_ALGORITHM])

    def _userinfo(self, question: Question) -> Answer:
        scheme, _, token = question.header(b"authorization").decode("latin-1").partition(" ")
        try:
            check_header(parts_of(token if scheme.lower() == "bearer" else "")[0], [_ALGORITHM])
            claims = verified(token, self._key, _ALGORITHM)
            expires = number(claims, "exp")
        except TokenRefused:
            expires, claims = None, {}
        user = self._users.all().get(str(claims.get("sub")))
        if expires is None or expires < self._records.now() or user is None or claims.get("client_id") != CLIENT:
            return as_json(401, {"error": "invalid_token"}, (b"www-authenticate", b'Bearer error="invalid_token"'))
        return as_json(200, {"sub": user.id, **_claims(user)})

    def _end(self, question: Question) -> Answer:
        """There is no session here to end: every sign-in asks for the password."""
        back = question.query.get("post_logout_redirect_uri", "")
        parts = urlsplit(back)
        host = parts.netloc.encode("latin-1", "replace")
        if parts.scheme != self._origins.scheme or not self._origins.known(host):
            back = question.origin + "/"
        return redirect(back)


def _claims(user: DevelopmentUser) -> dict[str, Any]:
    found: dict[str, Any] = {"name": user.name or user.id, "preferred_username": user.id, "roles": list(user.roles)}
    if user.email:
        found |= {"email": user.email, "email_verified": True}
    if user.tenant:
        found["tenant"] = user.tenant
    return found


def _signing_key(path: Path) -> ECKey:
    """The provider's key, made once for all processes."""
    with locked(path):
        if path.exists():
            return ECKey.import_key(msgspec.json.decode(path.read_bytes()))
        key = ECKey.generate_key("P-256", auto_kid=True)
        replace_file(path, msgspec.json.encode(key.as_dict(private=True)))
        return key
