"""The browser's way: to the provider and back with a session, again to the provider now and then, and out.

GET  /.seamline/sign-in?return=/path   to the provider (code flow with PKCE, state and nonce)
GET  /.seamline/callback               back from it
GET  /.seamline/sign-out               a page that asks
POST /.seamline/sign-out               the end of the session, there as well where the provider offers it
GET  /.seamline/session                who is signed in, as JSON
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

import msgspec

from seamline.gateway.auth.cookies import clear, cookie_value, session_value, sign_in_cookie, sign_in_name
from seamline.gateway.auth.errors import ProviderError, Refused
from seamline.gateway.auth.exchange import Answer, Question, as_json, page, redirect
from seamline.gateway.auth.pages import message_page, sign_out_page
from seamline.gateway.auth.provider import Provider, Tokens
from seamline.gateway.auth.records import Records
from seamline.gateway.auth.same_origin import Origins, return_path
from seamline.gateway.auth.sealing import Sealer
from seamline.gateway.auth.sessions import (
    Kept,
    Opened,
    Session,
    SessionCookies,
    session_of,
)
from seamline.gateway.auth.tokens import TokenRefused
from seamline.gateway.auth.users import user_of
from seamline.gateway.pages import SIGN_OUT
from seamline.kernel.settings import AuthSettings
from seamline.kernel.wire.http1 import Header
from seamline.module.principal import User

SIGN_IN = "/.seamline/sign-in"
CALLBACK = "/.seamline/callback"
SESSION = "/.seamline/session"
_log = logging.getLogger("seamline.gateway")

_UNDER_WAY_S = 600
_CLAIM_S = 15
_RECHECK_GRACE_S = 3600
_FRESH_MAX = 10_000
_PURPOSE = b"sign-in"


class UnderWay(msgspec.Struct, frozen=True, array_like=True):
    """A sign-in that has begun; sealed in a cookie of the browser that began it."""

    state: str
    nonce: str
    verifier: str
    back: str
    redirect_uri: str
    until: int
    anew: bool = False


class SignIn:
    """Serves the pages above, and keeps sessions.

    ``on_end`` is told of a session that has ended here. ``refuses`` says why a user is not let in any more.
    """

    def __init__(
        self,
        settings: AuthSettings,
        provider: Provider,
        records: Records,
        sealer: Sealer,
        origins: Origins,
        *,
        on_end: Callable[[Session], None],
        refuses: Callable[[User], str | None] | None = None,
    ) -> None:
        self._settings = settings
        self._provider = provider
        self._records = records
        self._sealer = sealer
        self._origins = origins
        self._on_end = on_end
        self._refuses = refuses
        self.cookies = SessionCookies(sealer)
        self._ended: dict[str, int] = {}
        self._fresh: OrderedDict[str, Opened] = OrderedDict()
        self._not_before: dict[str, int] = {}
        self._pages: dict[tuple[str, str], Callable[[Question], Awaitable[Answer]]] = {
            ("GET", SIGN_IN): self._begin,
            ("GET", CALLBACK): self._return,
            ("GET", SIGN_OUT): self._ask_to_sign_out,
            ("POST", SIGN_OUT): self._sign_out,
            ("GET", SESSION): self._tell,
        }

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(path for _, path in self._pages)

    async def answer(self, question: Question) -> Answer:
        """Raises Refused, ProviderError."""
        serve = self._pages.get((question.method, question.path))
        return await serve(question) if serve is not None else as_json(405, {"code": "method_not_allowed"})

    # A request with a cookie.

    def opened(self, value: bytes) -> Opened | None:
        """The session of a cookie, if it is ours and in force. What is known better than by the cookie counts."""
        found = self.cookies.open(value)
        if found is None:
            return None
        session = found.session
        now = self._records.now()
        settings = self._settings
        if now >= session.created + settings.session_max_s or session.id in self._ended:
            return None
        fresh = self._fresh.get(session.id)
        if fresh is not None and fresh.session.checked > session.checked:
            if now >= fresh.session.checked + settings.session_idle_s and now >= session.seen + settings.session_idle_s:
                return None
            return fresh
        return found if now < session.seen + settings.session_idle_s else None

    def due(self, session: Session) -> bool:
        """Whether the provider is to be asked about the user again."""
        if not session.renewable:
            return False
        now = self._records.now()
        return now >= session.checked + self._settings.recheck_s and now >= self._not_before.get(session.id, 0)

    def rewritten(self, session: Session) -> Header | None:
        """The cookie anew, when it is time to note that the session is used."""
        now = self._records.now()
        if now < session.seen + min(60, max(1, self._settings.session_idle_s // 10)):
            return None
        return self._cookie(msgspec.structs.replace(session, seen=now))

    async def recheck(self, opened: Opened) -> Opened | None:
        """Ask the provider whether the user is still who they were; None ends the session."""
        session = opened.session
        record = await self._records.find(session.id)
        kept = self.cookies.kept(record.state) if record is not None else None
        if record is None or kept is None:
            self._over(session)
            return None
        if record.checked_at > session.checked:
            return self._remember(kept.session)  # another request, or another gateway, has asked
        now = self._records.now()
        self._not_before[session.id] = now + _CLAIM_S
        if not await self._records.claim(session.id, _CLAIM_S):
            return opened
        try:
            tokens = await self._provider.renew(kept.refresh_token, session.subject)
        except TokenRefused as error:
            _log.info("the session of %s ends: %s", session.subject, error)
            await self.end(session)
            return None
        except ProviderError as error:
            _log.warning("%s", error)
            if now > session.checked + self._settings.recheck_s + _RECHECK_GRACE_S:
                await self.end(session)
                return None
            return opened
        user = self._user(tokens, opened.user)
        renewed = session_of(user, now=self._records.now(), renewable=True, old=session)
        await self._records.renew(
            session.id, self.cookies.keep(Kept(renewed, tokens.refresh_token, tokens.id_token or kept.id_token))
        )
        return self._remember(renewed)

    def _remember(self, session: Session) -> Opened:
        fresh = self._fresh[session.id] = Opened(session)
        self._fresh.move_to_end(session.id)
        if len(self._fresh) > _FRESH_MAX:
            self._fresh.popitem(last=False)
        return fresh

    async def end(self, session: Session) -> None:
        """End a session everywhere."""
        self._over(session)
        await self._records.end(session.id, session.created + self._settings.session_max_s)

    def has_ended(self, session: str, until: int) -> None:
        """Another gateway has ended it."""
        self._ended[session] = until
        self._fresh.pop(session, None)

    def forget(self) -> None:
        now = self._records.now()
        self._ended = {session: until for session, until in self._ended.items() if until > now}
        self._not_before = {session: then for session, then in self._not_before.items() if then > now}

    def _over(self, session: Session) -> None:
        self.has_ended(session.id, session.created + self._settings.session_max_s)
        self._on_end(session)

    def _cookie(self, session: Session) -> Header:
        return self.cookies.write(session, session.created + self._settings.session_max_s - self._records.now())

    # The pages.

    async def _begin(self, question: Question) -> Answer:
        return await self._send_away(question, return_path(question.query.get("return", "")))

    async def _send_away(self, question: Question, back: str, *, anew: bool = False) -> Answer:
        under_way = UnderWay(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            back=back,
            anew=anew,
            redirect_uri=question.origin + CALLBACK,
            until=self._records.now() + _UNDER_WAY_S,
        )
        url = await self._provider.authorization_url(
            under_way.redirect_uri, under_way.state, under_way.nonce, under_way.verifier, anew=anew
        )
        if url.startswith(self._origins.canonical + "/"):  # our own provider: stay at the name the browser knows
            url = question.origin + url.removeprefix(self._origins.canonical)
        sealed = self._sealer.seal(_PURPOSE, msgspec.msgpack.encode(under_way))
        return redirect(url, sign_in_cookie(under_way.state, sealed, _UNDER_WAY_S))

    async def _return(self, question: Question) -> Answer:
        state = question.query.get("state", "")
        name = sign_in_name(state)
        plain = self._sealer.open(_PURPOSE, cookie_value(question.header(b"cookie"), name))
        under_way = msgspec.msgpack.decode(plain, type=UnderWay) if plain is not None else None
        if (
            under_way is None
            or not secrets.compare_digest(under_way.state.encode(), state.encode())
            or under_way.until < self._records.now()
        ):
            # Not begun in this browser: a forged answer, or one that was long in coming.
            raise Refused("an answer of the provider belongs to no sign-in of this browser", _STALE, status=400)
        done = sign_in_cookie(under_way.state, "", 0)
        try:
            await self._provider.check_answer(question.query.get("iss"))
            if "error" in question.query:
                return self._not_signed_in(question.query["error"], under_way, done)
            tokens = await self._redeem(question.query.get("code", ""), under_way)
        except TokenRefused as error:
            raise Refused(f"a sign-in failed: {error}", _STALE, status=400, headers=[done]) from None
        assert tokens.claims is not None
        refusal = self._refuses(self._user(tokens, None)) if self._refuses is not None else None
        if refusal is not None and under_way.anew:
            _log.info("a sign-in was refused: %s", refusal)
            return page(403, message_page("You are not signed in", "This account may not sign in here now.", ""), done)
        if refusal is not None:  # the provider still knows the browser from before: have it ask once more
            return await self._send_away(question, under_way.back, anew=True)
        old = self.cookies.open(session_value(question.header(b"cookie")) or b"")
        if old is not None:
            await self.end(old.session)
        session = await self._start(tokens)
        return redirect(under_way.back, done, self._cookie(session))

    async def _redeem(self, code: str, under_way: UnderWay) -> Tokens:
        if not await self._records.use(f"sign-in:{under_way.state}", under_way.until):
            raise TokenRefused("it was used before")
        return await self._provider.redeem(code, under_way.redirect_uri, under_way.verifier, under_way.nonce)

    async def _start(self, tokens: Tokens) -> Session:
        user = self._user(tokens, None)
        session = session_of(user, now=self._records.now(), renewable=bool(tokens.refresh_token))
        state = self.cookies.keep(Kept(session, tokens.refresh_token, tokens.id_token))
        until = session.created + self._settings.session_max_s
        await self._records.begin(session.id, f"{user.issuer} {user.id}"[:512], state, until)
        return session

    def _user(self, tokens: Tokens, known: User | None) -> User:
        if tokens.claims is None:
            assert known is not None
            return known
        return user_of(
            tokens.claims,
            roles_claim=self._settings.roles_claim,
            tenant_claim=self._settings.tenant_claim,
            now=self._records.now(),
        )

    def _not_signed_in(self, error: str, under_way: UnderWay, done: Header) -> Answer:
        _log.info("a sign-in was not completed: %r", error[:80])
        again = f"{SIGN_IN}?{urlencode({'return': under_way.back})}"
        return page(403, message_page("You are not signed in", "The sign-in was not completed.", again), done)

    async def _ask_to_sign_out(self, question: Question) -> Answer:
        opened = self._session(question)
        if opened is None:
            return page(200, message_page("You are signed out", "Nobody is signed in here.", ""))
        # The form ends at the provider, and a browser holds its redirects to this as well.
        targets = f"'self' {await self._provider.sign_out_origin()}".rstrip()
        return page(200, sign_out_page(opened.user.name or opened.user.id, SIGN_OUT), targets=targets)

    async def _sign_out(self, question: Question) -> Answer:
        opened = self._session(question)
        if opened is None:
            return redirect("/", clear())
        if not self.is_ours(question, opened.session):
            raise Refused("a request to sign out came from elsewhere", _FOREIGN, status=403, principal=opened.user.id)
        record = await self._records.find(opened.session.id)
        kept = self.cookies.kept(record.state) if record is not None else None
        await self.end(opened.session)
        back = question.origin + return_path(question.form.get("return", ""))
        elsewhere = await self._provider.sign_out_url(kept.id_token if kept is not None else "", back)
        if elsewhere is not None and elsewhere.startswith(self._origins.canonical + "/"):
            elsewhere = question.origin + elsewhere.removeprefix(self._origins.canonical)
        return redirect(elsewhere or back, clear())

    async def _tell(self, question: Question) -> Answer:
        opened = self._session(question)
        if opened is None:
            return as_json(200, {"user": None})
        user, session = opened.user, opened.session
        told = {"id": user.id, "name": user.name, "email": user.email, "roles": sorted(user.roles)}
        until = session.created + self._settings.session_max_s
        return as_json(200, {"user": told, "csrf_token": self.cookies.csrf_token(session.id), "expires_at": until})

    def is_ours(self, question: Question, session: Session) -> bool:
        """Whether one of our own pages made the browser send this."""
        assert question.request is not None
        said = self._origins.came_from_here(question.request)
        return self.cookies.is_csrf_token(session.id, question.header(b"x-csrf-token")) if said is None else said

    def _session(self, question: Question) -> Opened | None:
        value = session_value(question.header(b"cookie"))
        return self.opened(value) if value is not None else None


_STALE = "This sign-in cannot be completed: it was not begun in this browser, or too long ago. Please begin again."
_FOREIGN = "This request came from another site, and was not carried out."
