"""On whose behalf: proofs made for the calls that leave this process, and checked on those that enter it.

Inside a process a :class:`~seamline.module.principal.Subject` goes by reference, and nothing is signed. A proof is made
when a call first crosses to another process, and kept for as long as it is good; the callee checks it once. What a
call costs then is a look-up on both sides.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

from seamline.kernel.clock import Clock, SystemClock, now_ms
from seamline.mesh.errors import ExpiredTokenError, NoSvidError, UntrustedSignerError, WrongAudienceError
from seamline.mesh.identity.keyring import PublicKeys, Signers
from seamline.mesh.identity.links import (
    EVENT,
    LINK_S,
    SAGA,
    WORK,
    Names,
    Proof,
    check_first,
    check_next,
    cut,
    first_link,
    next_link,
)
from seamline.module.principal import Subject, User

INTRODUCED_S = 30
"""How long the requests of one user share a sign-in's proof."""
_MARGIN_S = 10
"""A proof is renewed when less of its life is left."""
_KEPT_MAX = 8192


class Delegation:
    """Makes and checks the proofs of one process.

    Args:
        signers: the keys of its modules; None where nothing leaves the process and nothing waits in it.
        gateway: the module that may say who the user is.
        clock: what proofs begin and end by.
        may_read: whether a module may read another's events.
    """

    def __init__(
        self, signers: Signers | None, gateway: str, clock: Clock | None = None,
        may_read: Callable[[str, str], bool] | None = None,
    ) -> None:  # fmt: skip
        self._given = signers
        self._gateway = gateway
        self._clock = clock or SystemClock()
        self._may_read = may_read or _nobody
        self._names = Names(signers.trust_domain, signers.app) if signers is not None else Names("", "")
        self._introduced: dict[tuple[User | None, str], tuple[int, Subject]] = {}
        self._accepted: dict[str, Subject] = {}
        self._checked: dict[str, Proof] = {}

    def introduce(self, user: User | None, agent: str = "") -> Subject:
        """The subject of a request that the gateway has authenticated."""
        now = self._now()
        known = self._introduced.get((user, agent))
        if known is not None and now - known[0] < INTRODUCED_S:
            return known[1]
        name = os.urandom(16).hex()
        proof = Proof("", name, "", "", user, agent, (), now, now + LINK_S)
        subject = Subject(user, agent, (), proof, now + LINK_S)
        self._introduced.pop((user, agent), None)
        _keep(self._introduced, (user, agent), (now, subject))
        return subject

    def token(self, subject: Subject, callee: str) -> str:
        """The proof for a call to ``callee``, whose last link is that of ``subject.chain[-1]``."""
        return self._proof(subject, callee, self._now()).text

    def accept(self, text: str, peer: str, module: str) -> Subject:
        """The subject that a call of ``peer`` to ``module`` proves. Raises DelegationError."""
        now = self._now()
        subject = self._accepted.get(text)
        if subject is None:
            proof = self._check(text, now)
            if proof.deferred:
                raise WrongAudienceError("the token waits for an event or a saga and makes no call", "Sign in again.")
            subject = Subject(proof.user, proof.agent, proof.chain, proof, proof.expires_at, via=proof.via)
            _keep(self._accepted, text, subject)
        proof = cast("Proof", subject.token)
        if proof.signer != peer:
            raise WrongAudienceError(
                f"module {peer!r} shows a token that {proof.signer!r} made", "A token is good for who was given it."
            )
        if proof.audience != module:
            raise WrongAudienceError(
                f"the token is for module {proof.audience!r}, not for {module!r}", "Each call has its own."
            )
        if proof.expires_at <= now:
            raise ExpiredTokenError("the token's time is over", "Compare the machines' clocks, or sign in again.")
        return subject

    def defer(self, subject: Subject, module: str, via: str) -> tuple[str, Subject]:
        """The proof that waits in an event or a saga (``via``) of ``module``, and the subject it will be taken for."""
        now = self._now()
        before = self._proof(subject, module, now)
        after = next_link(
            self._names, self._signers.signer(module), before, module, module, now, user=subject.user,
            agent=subject.agent, via=via,
        )  # fmt: skip
        _keep(self._checked, after.text, after)
        return after.text, _waiting(after, via)

    def resume(self, text: str, module: str, via: str) -> Subject:
        """The subject that waited in ``via``, for ``module`` to act on. Raises DelegationError."""
        now = self._now()
        proof = self._check(text, now)
        if not proof.deferred or proof.via != via:
            raise WrongAudienceError(f"the token does not belong to {via}", "It was moved, or damaged.")
        if proof.audience != module and not (proof.of_events and self._may_read(module, proof.audience)):
            raise UntrustedSignerError(f"module {module!r} may not act on {via}", "Its policy has changed since.")
        if proof.expires_at <= now:
            raise ExpiredTokenError(f"what waits in {via} is too old to act on", "A person must decide.")
        return _waiting(proof, via)

    def _proof(self, subject: Subject, audience: str, now: int) -> Proof:
        sent = subject.sent.get(audience)
        if sent is not None and sent.expires_at - now > _MARGIN_S:
            return sent
        if subject.wider is not None:
            return self._proof(subject.wider, audience, now)
        if subject.parent is not None:
            module = subject.chain[-1]
            made = next_link(
                self._names, self._signers.signer(module), self._proof(subject.parent, module, now), module, audience,
                now, user=subject.user, agent=subject.agent,
            )  # fmt: skip
        else:
            made = self._origin(subject, audience, now)
        subject.sent[audience] = made
        return made

    def _origin(self, subject: Subject, audience: str, now: int) -> Proof:
        proof = cast("Proof", subject.token)
        if not proof.text:
            signer = self._signers.signer(self._gateway)
            made = first_link(
                self._names, signer, self._gateway, audience, subject.user, subject.agent, proof.jti, now
            )  # fmt: skip
            _keep(self._checked, made.text, made)
            return made
        if proof.expires_at - now > _MARGIN_S:
            return proof
        # The call under way takes longer than the proof it came with: whoever was given it says so, and goes on.
        return next_link(
            self._names, self._signers.signer(audience), proof, audience, audience, now, via=f"{WORK}{proof.jti}"
        )

    def _check(self, text: str, now: int) -> Proof:
        found = self._checked.get(text)
        if found is not None:
            return found
        before, link = cut(text)
        keys = self._signers.keys
        if before:
            proof = check_next(self._names, keys, self._check(before, now), link, now, self._may_read)
        else:
            proof = check_first(self._names, keys, link, self._gateway, now)
        _keep(self._checked, text, proof)
        return proof

    @property
    def keys(self) -> PublicKeys:
        """What this process has been told of everybody's keys."""
        return self._signers.keys

    @property
    def _signers(self) -> Signers:
        if self._given is None:
            raise NoSvidError("this process has no key to prove with on whose behalf it acts", "Give it an identity.")
        return self._given

    def _now(self) -> int:
        return now_ms(self._clock) // 1000


def _waiting(proof: Proof, via: str) -> Subject:
    return Subject(proof.user, proof.agent, proof.chain, proof, proof.expires_at, via=via)


def in_event(name: str) -> str:
    """What a proof that waits in an event is bound to."""
    return f"{EVENT}{name}"


def in_saga(name: str) -> str:
    """What a proof that waits in a saga is bound to."""
    return f"{SAGA}{name}"


def _keep(table: dict[Any, Any], key: Any, value: Any) -> None:
    """Remember, and forget the oldest eighth when there are too many."""
    if len(table) >= _KEPT_MAX:
        for old in list(table)[: _KEPT_MAX // 8]:
            del table[old]
    table[key] = value


def _nobody(module: str, publisher: str) -> bool:
    del module, publisher
    return False
