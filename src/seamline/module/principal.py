"""Who is asking: the user, the modules and the agent on whose behalf a handler runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from seamline.module.context import CURRENT
from seamline.module.errors import Unauthenticated


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    """A person or a client that has signed in, as the gateway established it.

    ``id`` is unique within ``issuer``. ``authenticated_at`` is in seconds since the epoch, ``level`` says how well
    (``acr``), ``client`` names an API key, an OAuth client or the holder of a certificate. ``scopes`` are what the
    sign-in was limited to; None is no limit.
    """

    id: str
    issuer: str = ""
    roles: frozenset[str] = frozenset()
    tenant: str = ""
    name: str = ""
    email: str = ""
    session: str = ""
    authenticated_at: int = 0
    level: str = ""
    client: str = ""
    scopes: frozenset[str] | None = None
    attributes: Mapping[str, str | int | bool] = dataclasses.field(
        default_factory=dict[str, str | int | bool], hash=False
    )


class Subject:
    """On whose behalf a call is made; it travels with the call.

    ``chain`` names the modules that have acted since the gateway, oldest first, the caller last. ``token`` is the
    proof it came with, which only the mesh reads; what never left this process has none. ``expires_at`` is in seconds
    since the epoch. ``checked`` is the epoch of the revocations at which it was last found good. ``via`` names the
    event or the saga in which it waited, and is empty on a call that goes straight through.
    """

    __slots__ = ("_next", "agent", "chain", "checked", "expires_at", "parent", "sent", "token", "user", "via", "wider")

    def __init__(
        self,
        user: User | None,
        agent: str = "",
        chain: tuple[str, ...] = (),
        token: object = None,
        expires_at: float = float("inf"),
        checked: int = -1,
        *,
        via: str = "",
        parent: Subject | None = None,
        wider: Subject | None = None,
    ) -> None:
        self.user = user
        self.agent = agent
        self.chain = chain
        self.token = token
        self.expires_at = expires_at
        self.checked = checked
        self.via = via
        self.parent = parent
        """The subject of the call in whose course this one's call is made."""
        self.wider = wider
        """What this one was narrowed from."""
        self.sent: dict[str, Any] = {}
        """What the mesh has made to prove it, by the module that it goes to."""
        self._next: dict[str, Subject] = {}

    def acting(self, module: str) -> Subject:
        """The subject of the calls that ``module`` makes while it acts for this one."""
        found = self._next.get(module)
        if found is None:
            found = self._next[module] = Subject(
                self.user, self.agent, (*self.chain, module), None, self.expires_at, self.checked, via=self.via,
                parent=self,
            )  # fmt: skip
        return found

    def narrowed(self, scopes: frozenset[str] | None = None, agent: str = "") -> Subject:
        """The same, limited to those of ``scopes`` that it has, or with an agent that acts in its name."""
        user = self.user
        if scopes is not None and user is not None:
            user = dataclasses.replace(user, scopes=scopes if user.scopes is None else user.scopes & scopes)
        return Subject(
            user, self.agent or agent, self.chain, self.token, self.expires_at, self.checked, via=self.via,
            parent=self.parent, wider=self.wider or self,
        )  # fmt: skip

    def __repr__(self) -> str:
        who = f"user {self.user.id!r}" if self.user is not None else "nobody"
        return f"<Subject {who} through {' > '.join(self.chain) or 'the gateway'}>"


class Proofs(Protocol):
    """Keeps what proves on whose behalf something is done while it waits, in an event (``event:<id>``) or a saga."""

    def defer(self, subject: Subject, module: str, via: str) -> tuple[str, Subject]:
        """The proof that waits in ``via``, made by ``module``, and what it will be taken for.

        Raises Unauthenticated when ``subject`` is revoked.
        """
        ...

    async def resume(self, text: str, module: str, via: str) -> Subject:
        """On whose behalf ``module`` acts on what waited; it may be revoked meanwhile.

        Raises Unauthenticated for a proof that is not good, Unavailable while it cannot be told.
        """
        ...

    def refuses(self, subject: Subject) -> str | None:
        """Why nothing is done for ``subject`` any more."""
        ...

    def check(self, subject: Subject) -> None:
        """Raise Unauthenticated when ``subject`` is revoked."""
        ...

    def bound(self, subject: Subject | None) -> AbstractContextManager[None]:
        """What is done in this block ends with Unauthenticated when ``subject`` is revoked."""
        ...


class Principal:
    """Who is asking, in the call under way. Ask for it by type::

    @module.service
    class DeskService(Desk):
        def __init__(self, who: Principal) -> None: ...

        async def refund(self, order_id: str) -> None:
            by = self.who.require_user().id

    It is a view: each look is at the call in whose course it is taken. Who may call what is said in policy, and asked
    before the handler runs; this is for what a handler does differently for different people.
    """

    __slots__ = ()

    @property
    def user(self) -> User | None:
        """The user on whose behalf the call is made; None for a public request, a timer, a module by itself."""
        subject = self._subject()
        return subject.user if subject is not None else None

    @property
    def module(self) -> str:
        """The module at work; empty outside of a call."""
        context = CURRENT.get(None)
        return context.module if context is not None else ""

    @property
    def agent(self) -> str:
        """The agent that acts in the user's name; empty when none does."""
        subject = self._subject()
        return subject.agent if subject is not None else ""

    @property
    def chain(self) -> tuple[str, ...]:
        """The modules that have acted since the gateway, oldest first, the caller last."""
        subject = self._subject()
        return subject.chain if subject is not None else ()

    def require_user(self) -> User:
        """The user. Raises Unauthenticated when there is none: a browser is sent to sign in, an API answers 401."""
        user = self.user
        if user is None:
            raise Unauthenticated("this needs a user, and nobody is signed in", "Sign in, and try again.")
        return user

    def has_role(self, name: str) -> bool:
        """Whether a user is there and has the role."""
        user = self.user
        return user is not None and name in user.roles

    def _subject(self) -> Subject | None:
        context = CURRENT.get(None)
        return context.subject if context is not None else None
