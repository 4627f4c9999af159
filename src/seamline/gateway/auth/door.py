"""What the gateway asks for each request: who is it? A user, nobody, or a refusal; and the pages under /.seamline/.

What a request may bring, the first that is there counts: an ``authorization`` header with a bearer or DPoP token or an
API key, an ``x-api-key`` header, the session cookie, a client certificate. What is brought and does not hold is
refused, never taken for nothing; only a cookie that is old or not ours is as good as none, since browsers send those
by themselves. Other schemes of ``authorization`` are the app's own business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import quote

from seamline.gateway.auth import cookies
from seamline.gateway.auth.api_keys import PREFIX, KnownKeys
from seamline.gateway.auth.bearer import BearerTokens, Trusted
from seamline.gateway.auth.certificates import CertificateClients
from seamline.gateway.auth.development.provider import BASE, CLIENT, DevelopmentProvider
from seamline.gateway.auth.development.users import UsersFile
from seamline.gateway.auth.dpop import DpopProofs
from seamline.gateway.auth.errors import AuthenticationError, ProviderError, Refused
from seamline.gateway.auth.exchange import BODY_BYTES_MAX, Answer, Question, fields
from seamline.gateway.auth.outbound import Fetch, fetch
from seamline.gateway.auth.provider import Client, Provider
from seamline.gateway.auth.records import Records
from seamline.gateway.auth.same_origin import OWN_PATHS, SAFE_METHODS, Origins
from seamline.gateway.auth.sealing import Sealer
from seamline.gateway.auth.sessions import Opened, Session
from seamline.gateway.auth.sign_in import CALLBACK, SIGN_IN, SignIn
from seamline.gateway.auth.throttle import Throttle
from seamline.gateway.auth.tokens import Issuer, KeySet
from seamline.gateway.limits.sharing import Sharing
from seamline.kernel.clock import Clock
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import AuthSettings
from seamline.kernel.wire.http1 import Exchange, Header, HttpRequest
from seamline.mesh.identity.revocation import Kind, Revocation, Revocations
from seamline.module.principal import User

if TYPE_CHECKING:
    from seamline.gateway.signals.receiver import Receiver
    from seamline.gateway.signals.transmitter import Transmitter

_log = logging.getLogger("seamline.gateway")

_LOOK_S = 0.25
_OVERLAP = 100
_FORGET_S = 300.0
SIGNALS_HEARD = "/.seamline/signals/events"
_BEARER_SCHEMES = (b"bearer", b"dpop")
_UNREACHABLE = "Signing in is not possible at the moment. Try again shortly."


class Record(Protocol):
    """Writes a line to the audit."""

    def __call__(
        self, decision: str, *, principal: str, action: str, resource: str, reason: str, peer: str
    ) -> object: ...


class Caller(NamedTuple):
    """Who a request comes from. ``cookie`` is to be set with the answer."""

    user: User | None = None
    cookie: Header | None = None
    used: str = ""
    """What they brought: ``session``, ``token``, ``key``, ``certificate``; empty for nobody."""


NOBODY = Caller()


class Door:
    """Says who is asking.

    Args:
        settings: ``[auth]``, enabled.
        app: the application's name.
        folder: the application's folder, for files that ``[auth]`` names.
        identity: the folder for keys that the application's gateways share.
        records: what the application's gateways share; the door opens and closes them.
        audit: told of every refusal and sign-in.
        refuses: why a user is not to be let in any more, else None; asked for each request.
        on_ended: told of the user of each session that has ended before its time, here or at another gateway.
        revocations: where what the gateway learns to be no longer good is made void everywhere.
    """

    def __init__(
        self,
        settings: AuthSettings,
        *,
        app: str,
        folder: Path,
        identity: Path,
        records: Records,
        clock: Clock,
        audit: Record,
        refuses: Callable[[User], str | None] | None = None,
        on_ended: Callable[[User], None] | None = None,
        revocations: Revocations | None = None,
        fetch: Fetch = fetch,
        sharing: Sharing | None = None,
    ) -> None:
        self.settings = settings
        self._app = app
        self._folder = folder
        self._identity = identity
        self._clock = clock
        self._audit = audit
        self._refuses = refuses
        self._on_ended = on_ended
        self._revocations = revocations
        self._fetch = fetch
        self.records = records
        self.sealer = Sealer(
            identity / "session-keys.json", clock, keep_s=settings.session_max_s, secret=settings.session_secret
        )
        self._sharing = sharing
        self._throttle = Throttle(clock, sharing)
        self._keys = KnownKeys(self.records, self._throttle) if settings.api_keys else None
        self._certificates = CertificateClients(settings.certificates) if settings.client_ca else None
        self._bearer: BearerTokens | None = None
        self._sign_in: SignIn | None = None
        self._development: DevelopmentProvider | None = None
        self._receiver: Receiver | None = None
        self._transmitter: Transmitter | None = None
        self._origins = Origins(settings.public_url, "http", ("127.0.0.1", 0))
        self._owner = TaskOwner("gateway authentication")
        self._last_change = 0
        self._heeded: set[int] = set()
        self._next_forget = 0.0

    async def open(self, scheme: str, address: tuple[str, int]) -> None:
        """Get ready for requests to ``address``. Raises AuthenticationError, StoreError."""
        settings = self.settings
        await self.records.open()
        if self._sharing is not None:
            self._sharing.start()
        await asyncio.to_thread(self.sealer.prepare)
        self._origins = origins = Origins(settings.public_url, scheme, address)
        trusted: dict[str, Trusted] = {}
        provider = self._make_provider(origins)
        if provider is not None:
            audience = settings.audience or (provider.client.client_id,)
            trusted[provider.client.issuer] = Trusted(
                provider.issuer, audience, settings.roles_claim, settings.tenant_claim
            )
            self._sign_in = SignIn(
                settings,
                provider,
                self.records,
                self.sealer,
                origins,
                on_end=self._session_ended,
                refuses=self._refuses,
            )
        for each in settings.issuers:
            keys = KeySet(
                each.issuer, each.jwks_url, self._fetch, self._clock,
                fresh_s=settings.jwks_s, stale_s=settings.jwks_stale_s,
            )  # fmt: skip
            issuer = Issuer(each.issuer, keys, self._clock, algorithms=each.algorithms, skew_s=settings.clock_skew_s)
            trusted[each.issuer] = Trusted(issuer, each.audience, each.roles_claim, each.tenant_claim)
        if trusted:
            proofs = DpopProofs(self._clock, self.sealer, settings.clock_skew_s, self.records.use)
            self._bearer = BearerTokens(
                trusted, proofs, self._clock, realm=self._app, bound_only=settings.dpop == "required"
            )
        await self._open_signals(origins.canonical)
        await self.look()
        self._owner.spawn(self._keep_looking(), name="changes of sessions and keys")

    async def _open_signals(self, issuer: str) -> None:
        settings, revocations = self.settings, self._revocations
        if revocations is None or not (settings.signals or settings.transmit_signals):
            return
        from seamline.gateway.signals.receiver import Receiver  # only where there are signals
        from seamline.gateway.signals.store import SignalStore
        from seamline.gateway.signals.transmitter import Transmitter

        if settings.signals:
            self._receiver = receiver = Receiver(
                settings.signals, self._folder, self._fetch, self.records, self._clock,
                audit=self._audit, revoke=revocations.revoke_and_wait, skew_s=settings.clock_skew_s,
            )  # fmt: skip
            for polling in receiver.pollers():
                self._owner.spawn(polling, name="signals by poll")
        if settings.transmit_signals:
            store = SignalStore(self.records.database)
            await store.open()
            self._transmitter = transmitter = Transmitter(
                issuer, self._identity, store, self.records, self._fetch, self._clock, lambda: revocations.entries
            )
            revocations.on_change.append(transmitter.changed)
            self._owner.spawn(transmitter.keep_telling(), name="signals to others")

    def _make_provider(self, origins: Origins) -> Provider | None:
        settings = self.settings
        if not settings.interactive:
            return None
        issuer, client, algorithms, ask = settings.issuer, settings.client_id, settings.algorithms, self._fetch
        if settings.development:
            users = UsersFile(self._folder / settings.development)
            users.all()
            self._development = development = DevelopmentProvider(
                self._app, users, self._identity, self.records, self.sealer, origins, self._throttle,
                audience=(*settings.audience, CLIENT)[0], callback=CALLBACK,
                on_wrong_password=self._wrong_password,
            )  # fmt: skip
            issuer, client, algorithms, ask = development.issuer, CLIENT, ("ES256",), development.fetch
        known = Client(
            issuer=issuer,
            client_id=client,
            client_secret=settings.client_secret,
            scopes=settings.scopes,
            algorithms=algorithms,
            skew_s=settings.clock_skew_s,
            keys_fresh_s=settings.jwks_s,
            keys_stale_s=settings.jwks_stale_s,
        )
        return Provider(known, ask, self._clock)

    async def close(self) -> None:
        if self._transmitter is not None and self._revocations is not None:
            self._revocations.on_change.remove(self._transmitter.changed)
        await self._owner.stop()
        if self._sharing is not None:
            await self._sharing.close()
        await self.records.close()

    # Who is asking.

    def at_once(self, exchange: Exchange) -> Caller | None:
        """Who it is, if that needs no waiting; else :meth:`caller` is to be awaited."""
        request = exchange.request
        brought = cookie = None
        for name, value in request.headers:
            if name == b"cookie":
                if cookie is not None:
                    return None
                cookie = value
            elif name in (b"authorization", b"x-api-key"):
                brought = value
        if brought is not None:
            return None
        if cookie is None or (value := cookies.session_value(cookie)) is None or self._sign_in is None:
            return NOBODY if self._certificates is None else None
        opened = self._sign_in.opened(value)
        if opened is None or self._sign_in.due(opened.session) or request.method not in SAFE_METHODS or request.upgrade:
            return None
        return self._welcome(opened)

    async def caller(self, exchange: Exchange) -> Caller:
        """Who it is. Raises Refused."""
        request = exchange.request
        certificate: bytes | None = exchange.connection_state.get("client_certificate")
        authorization = [value for name, value in request.headers if name == b"authorization"]
        keys = [value for name, value in request.headers if name == b"x-api-key"]
        if len(authorization) + len(keys) > 1:
            raise Refused("more than one credential came at once", "Send one credential.", status=400)
        if keys and self._keys is not None:
            return await self._by_key(exchange, keys[0])
        if authorization:
            scheme, _, rest = authorization[0].partition(b" ")
            if scheme.lower() in _BEARER_SCHEMES:
                return await self._by_token(exchange, scheme.lower().decode(), rest.strip(), certificate)
        found = await self._by_cookie(exchange)
        if found is not None:
            return found
        if self._certificates is not None and certificate is not None:
            user = self._certificates.user(certificate)
            if user is None:
                raise Refused("a client certificate names nobody", "The certificate has no name to go by.", status=403)
            return self._let_in(Caller(user, used="certificate"))
        return NOBODY

    async def _by_key(self, exchange: Exchange, value: bytes) -> Caller:
        assert self._keys is not None
        user = await self._keys.user(value.decode("latin-1"), _address(exchange))
        return self._let_in(Caller(user, used="key"))

    async def _by_token(self, exchange: Exchange, scheme: str, token: bytes, certificate: bytes | None) -> Caller:
        if token.startswith(PREFIX.encode()) and self._keys is not None:
            return await self._by_key(exchange, token)
        if self._bearer is None:
            raise Refused("a token came where none is taken", "Tokens are not taken here.")
        request = exchange.request
        host = request.header(b"host") or b""
        url = self._origins.of(host) + request.path.decode("latin-1")
        proofs = [value for name, value in request.headers if name == b"dpop"]
        try:
            user = await self._bearer.user(
                scheme, token.decode("latin-1"), proofs=proofs, method=request.method, url=url, certificate=certificate
            )
        except ProviderError as error:
            raise Refused(f"a token could not be checked: {error.fact}", _UNREACHABLE, status=503) from None
        return self._let_in(Caller(user, used="token"))

    async def _by_cookie(self, exchange: Exchange) -> Caller | None:
        request = exchange.request
        brought = [value for name, value in request.headers if name == b"cookie"]
        if self._sign_in is None or not brought:
            return None
        value = cookies.session_value(b"; ".join(brought))
        opened = self._sign_in.opened(value) if value is not None else None
        if opened is None:
            return None
        if request.method not in SAFE_METHODS or request.upgrade:
            self._check_origin(request, opened)
        if self._sign_in.due(opened.session):
            opened = await self._sign_in.recheck(opened)
            if opened is None:
                return Caller(cookie=cookies.clear())
        return self._welcome(opened)

    def _check_origin(self, request: HttpRequest, opened: Opened) -> None:
        """Cookies go along with whatever a page makes a browser send, so that page must be one of ours."""
        assert self._sign_in is not None
        said = self._origins.came_from_here(request)
        if said is None:
            token = request.header(b"x-csrf-token") or b""
            said = self._sign_in.cookies.is_csrf_token(opened.session.id, token)
        if not said:
            told = "This request came from another site, and was not carried out."
            fact = f"a {request.method} with a session came from elsewhere"
            raise Refused(fact, told, status=403, principal=opened.user.id)

    def _welcome(self, opened: Opened) -> Caller:
        assert self._sign_in is not None
        if self._refuses is not None and self._refuses(opened.user) is not None:
            return Caller(cookie=cookies.clear())
        return Caller(opened.user, self._sign_in.rewritten(opened.session), "session")

    def _let_in(self, caller: Caller) -> Caller:
        assert caller.user is not None
        reason = self._refuses(caller.user) if self._refuses is not None else None
        if reason is None:
            return caller
        headers = self.challenges("invalid_token") if caller.used == "token" else []
        raise Refused(reason, "This credential is not valid any more.", headers=headers, principal=caller.user.id)

    # What a client is told.

    def challenges(self, error: str = "") -> list[Header]:
        """``www-authenticate`` for a 401."""
        if self._bearer is not None:
            return self._bearer.challenges(error)
        return [(b"www-authenticate", f'Bearer realm="{self._app}"'.encode())]

    def sign_in_at(self, request: HttpRequest) -> str | None:
        """Where a browser that opens a page is sent to sign in; None for programs and scripts."""
        opens = request.method in ("GET", "HEAD") and b"text/html" in (request.header(b"accept") or b"")
        mode = request.header(b"sec-fetch-mode")
        if self._sign_in is None or not opens or mode not in (None, b"navigate") or request.header(b"authorization"):
            return None
        return f"{SIGN_IN}?return={quote(request.target.decode('latin-1'), safe='')}"

    def refused(self, refused: Refused, exchange: Exchange) -> None:
        """Write a refusal to the audit."""
        request = exchange.request
        _log.info("%s %s: %s", request.method, request.path.decode("latin-1"), refused.fact)
        self._record("refuse", refused.principal, "authenticate", exchange, refused.fact)

    def _record(self, decision: str, principal: str, action: str, exchange: Exchange, reason: str) -> None:
        path = exchange.request.path.decode("latin-1")
        self._audit(decision, principal=principal, action=action, resource=path, reason=reason, peer=_address(exchange))

    def _wrong_password(self, name: str, address: str) -> None:
        self._audit(
            "refuse", principal=name, action="sign in", resource=self._app, reason="wrong password", peer=address
        )

    # The pages.

    def owns(self, path: str) -> bool:
        return path.startswith(OWN_PATHS) or (self._transmitter is not None and self._transmitter.owns(path))

    async def _signals(self, exchange: Exchange, path: str) -> Answer | None:
        """An answer to who tells us, or wants to be told, of what is no longer good. Raises Refused."""
        request = exchange.request
        try:
            if self._receiver is not None and (request.method, path) == ("POST", SIGNALS_HEARD):
                return await self._receiver.push(exchange, _address(exchange))
            if self._transmitter is None or not self._transmitter.owns(path):
                return None
            told = self._transmitter.public(path) if request.method == "GET" else None
            if told is not None:
                return told
            caller = await self.caller(exchange)
            user = caller.user if caller.used in ("key", "token") else None
            return await self._transmitter.answer(exchange, path, user, fields(request.query.decode("latin-1")))
        except (ProviderError, TimeoutError) as error:
            _log.warning("a signal cannot be taken now: %s", error)
            raise Refused("a signal cannot be taken now", _UNREACHABLE, status=503) from None
        except ValueError as error:
            raise Refused(f"a question cannot be read: {error}", "This cannot be read.", status=400) from None

    async def answer(self, exchange: Exchange, path: str) -> Answer:
        """One of our own pages. Raises Refused, HttpRefusal."""
        signals = await self._signals(exchange, path)
        if signals is not None:
            return signals
        request = exchange.request
        host = request.header(b"host") or b""
        ours = (self._development is not None and path.startswith(BASE + "/")) or (
            self._sign_in is not None and path in self._sign_in.paths
        )
        if not ours:
            raise Refused("there is no such page", "Nothing is here.", status=404)
        if not self._origins.known(host):
            # A page for a host that is not ours would send people, and codes, to whoever claims it.
            raise Refused(f"the host {host[:100]!r} is not ours", "This address is not known here.", status=421)
        body = await request.read_all(BODY_BYTES_MAX)
        try:
            query, form = fields(request.query.decode("latin-1")), fields(body.decode())
        except ValueError as error:
            raise Refused(f"a form cannot be read: {error}", "This request cannot be read.", status=400) from None
        method = "GET" if request.method == "HEAD" else request.method
        question = Question(method, path, query, form, self._origins.of(host), _address(exchange), request)
        try:
            if self._development is not None and path.startswith(BASE + "/"):
                return await self._development.answer(question)
            assert self._sign_in is not None
            answer = await self._sign_in.answer(question)
        except ProviderError as error:
            _log.warning("%s", error)
            raise Refused(f"the provider failed: {error.fact}", _UNREACHABLE, status=503) from None
        except AuthenticationError as error:
            if isinstance(error, Refused):
                raise
            _log.error("%s", error)  # a fact about a file, no traceback
            raise Refused(error.fact, _UNREACHABLE, status=503) from None
        if path == CALLBACK and answer.status == 303:
            self._record("allow", "", "sign in", exchange, "")
        return answer

    # What changes.

    def _session_ended(self, session: Session) -> None:
        self._audit("allow", principal=session.subject, action="end session", resource=self._app, reason="", peer="")
        if self._on_ended is not None:
            self._on_ended(Opened(session).user)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.look()
                if self._clock.monotonic() >= self._next_forget:
                    self._next_forget = self._clock.monotonic() + _FORGET_S
                    await self._forget()
            except Exception:  # the next look may go well
                _log.exception("the gateway's records cannot be read")
                await asyncio.sleep(1.0)

    async def _forget(self) -> None:
        await self.records.forget()
        await asyncio.to_thread(self.sealer.prepare)
        if self._sign_in is not None:
            self._sign_in.forget()

    async def look(self) -> None:
        """Heed what other gateways and the command line have written; done a few times a second by itself."""
        # Numbers are given when a change begins, so an earlier one may come to be seen after a later one.
        for number, kind, identity, until in await self.records.changes(self._last_change - _OVERLAP):
            if number in self._heeded:
                continue
            self._heeded.add(number)
            self._last_change = max(self._last_change, number)
            if kind == "key" and self._keys is not None:
                key = await self._keys.changed(identity)
                if key is not None and key.revoked:
                    self._void("client", identity, "the API key is revoked", until=key.expires * 1000)
            elif kind == "session" and self._sign_in is not None:
                self._sign_in.has_ended(identity, until)
                if self._on_ended is not None:
                    self._on_ended(User("", session=identity))
        self._heeded = {number for number in self._heeded if number > self._last_change - _OVERLAP}
        if self._development is not None:
            for name in self._development.changes():
                self._void("user", f"{self._development.issuer}|{name}", "the account has changed")

    def _void(self, kind: Kind, name: str, reason: str, until: int = 0) -> None:
        if self._revocations is not None:
            self._revocations.revoke([Revocation(kind, name, reason=reason, until=until)])


def _address(exchange: Exchange) -> str:
    client: Mapping[int, Any] | None = exchange.connection_state.get("client")
    return str(client[0]) if client else ""
