"""The way to the card gateway. Here it is the gateway's sandbox: it knows its keys, asks nobody, and moves no money."""

from __future__ import annotations

from datetime import datetime
from secrets import token_urlsafe

from boutique.payments import CardToken
from boutique.payments.cards import authorise
from seamline import Secret, Secrets

KEY = "card-gateway-key"
_SANDBOX = "sandbox_"


def sandbox_key() -> str:
    """A key as the sandbox has them; whoever sells for real sets the one that the gateway handed out."""
    return _SANDBOX + token_urlsafe(24)


class CardGateway:
    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    async def authorise(self, card: CardToken, now: datetime) -> None:
        """Ask the issuer of the card. Raises ``CardDeclined``."""
        check(await self._secrets.get_or_make(KEY, sandbox_key))
        authorise(card, now)


def check(key: Secret) -> None:
    """The sandbox lets nobody in with a key that is worth money elsewhere. Raises ``ValueError``."""
    if not key.reveal().startswith(_SANDBOX):
        raise ValueError(f"the sandbox of the card gateway does not know {key}: its keys begin with {_SANDBOX!r}")
