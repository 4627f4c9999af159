"""Signatures of Standard Webhooks: HMAC-SHA256 (``v1``) and Ed25519 (``v1a``), with several secrets during a change.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from seamline.kernel.wire.errors import WebhookSecretError, WebhookSignatureError

TOLERANCE_S = 300
_SIGNATURES_MAX = 16
_KEY_BYTES = range(24, 65)
_ID = re.compile(r"[!-~]{1,256}")
_SECONDS = re.compile(r"\d{1,11}", re.ASCII)


class Secret:
    """One secret: symmetric (``whsec_``), or the private (``whsk_``) or public (``whpk_``) half of a pair.

    Its text stands nowhere in it, so that it cannot get into a log.
    """

    __slots__ = ("_sign", "_verify", "version")

    def __init__(self, text: str) -> None:
        kind, _, encoded = text.rpartition("_")
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise _unusable("it is not base64") from None
        self._sign: Callable[[bytes], bytes] | None = None
        self._verify: Callable[[bytes, bytes], bool] | None = None
        if kind in ("", "whsec"):
            if len(key) not in _KEY_BYTES:
                raise _unusable(f"it has {len(key)} bytes")
            self.version = "v1"
            self._sign = lambda content: hmac.digest(key, content, hashlib.sha256)
            self._verify = lambda content, given: hmac.compare_digest(hmac.digest(key, content, hashlib.sha256), given)
            return
        self.version = "v1a"
        try:
            if kind == "whsk":
                private = Ed25519PrivateKey.from_private_bytes(key[:32])  # a seed, or a seed and its public half
                self._sign = private.sign
                self._verify = _verifier(private.public_key())
            elif kind == "whpk":
                self._verify = _verifier(Ed25519PublicKey.from_public_bytes(key))
            else:
                raise _unusable("it begins with something else")
        except ValueError:
            raise _unusable(f"it has {len(key)} bytes") from None

    def sign(self, content: bytes) -> str:
        if self._sign is None:
            raise _unusable("it is the public half of a pair, which cannot sign")
        return f"{self.version},{base64.b64encode(self._sign(content)).decode()}"

    def verify(self, content: bytes, given: bytes) -> bool:
        assert self._verify is not None
        return self._verify(content, given)


def _verifier(public: Ed25519PublicKey) -> Callable[[bytes, bytes], bool]:
    def verify(content: bytes, given: bytes) -> bool:
        try:
            public.verify(given, content)
        except InvalidSignature:
            return False
        return True

    return verify


def _unusable(why: str) -> WebhookSecretError:
    return WebhookSecretError(
        f"a webhook's secret cannot be used: {why}",
        "Take whsec_ and the base64 of 24 to 64 random bytes; or whsk_ (whpk_ to verify) and an Ed25519 key.",
    )


def read_secrets(text: str) -> tuple[Secret, ...]:
    """The secrets in a variable's text, between spaces; what is sent is signed with each. Raises WebhookSecretError."""
    found = tuple(Secret(part) for part in text.split())
    if not found:
        raise _unusable("it is empty")
    return found


def sign(secrets: Iterable[Secret], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that go with a message."""
    content = _content(message_id, str(timestamp), body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(secret.sign(content) for secret in secrets),
    }


def verify(
    secrets: Iterable[Secret], headers: Mapping[str, str], body: bytes, now: float, tolerance_s: float = TOLERANCE_S
) -> str:
    """The message's id, if it was signed with one of the secrets and not long ago.

    Args:
        headers: their names in lower case.
        now: seconds since the epoch.

    Raises:
        WebhookSignatureError: it was not.
    """
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    signatures = headers.get("webhook-signature", "").split(" ")[:_SIGNATURES_MAX]
    if not _ID.fullmatch(message_id) or not _SECONDS.fullmatch(timestamp) or not signatures[0]:
        raise _refused("webhook-id, webhook-timestamp or webhook-signature is missing or malformed")
    if not abs(now - int(timestamp)) <= tolerance_s:
        raise _refused("webhook-timestamp is too old, or from the future")
    content = _content(message_id, timestamp, body)
    known = tuple(secrets)
    for each in signatures:
        version, _, encoded = each.partition(",")
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        if any(secret.version == version and secret.verify(content, given) for secret in known):
            return message_id
    raise _refused("no signature is ours")


def _refused(why: str) -> WebhookSignatureError:
    return WebhookSignatureError(
        f"a webhook was refused: {why}", "Sign it with the secret that both sides know, and look at the clocks."
    )


def _content(message_id: str, timestamp: str, body: bytes) -> bytes:
    return b"%b.%b.%b" % (message_id.encode(), timestamp.encode(), body)
