"""Signatures agree with Standard Webhooks' published vector and its own library, and nothing else passes."""

from __future__ import annotations

import base64
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from seamline.kernel.wire.errors import WebhookSecretError, WebhookSignatureError
from seamline.kernel.wire.signatures import Secret, read_secrets, sign, verify

# From the test suite of the libraries that the specification's authors publish.
TEXT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
SEED = bytes(range(32))
PAIR = Ed25519PrivateKey.from_private_bytes(SEED)
PRIVATE = "whsk_" + base64.b64encode(SEED).decode()
PUBLIC = "whpk_" + base64.b64encode(PAIR.public_key().public_bytes_raw()).decode()


def headers(**changes: Any) -> dict[str, str]:
    made = {"webhook-id": ID, "webhook-timestamp": str(TIMESTAMP), "webhook-signature": SIGNATURE}
    return {**made, **{name.replace("_", "-"): value for name, value in changes.items()}}


def test_the_published_vector_is_made_and_accepted():
    assert sign(read_secrets(TEXT), ID, TIMESTAMP, BODY) == headers()
    assert verify(read_secrets(TEXT), headers(), BODY, TIMESTAMP) == ID
    assert verify(read_secrets(TEXT.removeprefix("whsec_")), headers(), BODY, TIMESTAMP) == ID


@given(st.binary(min_size=24, max_size=64), st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True), st.text())
def test_the_official_library_accepts_ours_and_we_accept_its(key: bytes, message_id: str, text: str):
    secret, now = "whsec_" + base64.b64encode(key).decode(), datetime.now(UTC)
    ours = sign(read_secrets(secret), message_id, int(now.timestamp()), text.encode())
    Webhook(secret).verify(text, ours, json_parse=False)
    theirs = Webhook(secret).sign(message_id, now, text)
    given_headers = headers(
        webhook_id=message_id, webhook_timestamp=str(int(now.timestamp())), webhook_signature=theirs
    )
    assert verify(read_secrets(secret), given_headers, text.encode(), now.timestamp()) == message_id


def test_asymmetric_signatures_are_made_with_one_half_and_checked_with_the_other():
    made = sign(read_secrets(PRIVATE), ID, TIMESTAMP, BODY)
    version, _, encoded = made["webhook-signature"].partition(",")
    assert version == "v1a"
    PAIR.public_key().verify(base64.b64decode(encoded), f"{ID}.{TIMESTAMP}.".encode() + BODY)
    for text in (PUBLIC, PRIVATE):
        assert verify(read_secrets(text), made, BODY, TIMESTAMP) == ID
    with pytest.raises(WebhookSignatureError):
        verify(read_secrets(PUBLIC), made, BODY + b" ", TIMESTAMP)
    whole = "whsk_" + base64.b64encode(SEED + PAIR.public_key().public_bytes_raw()).decode()
    assert sign(read_secrets(whole), ID, TIMESTAMP, BODY) == made


def test_while_a_secret_changes_either_is_enough():
    made = sign(read_secrets(f"{OTHER} {TEXT}"), ID, TIMESTAMP, BODY)
    assert made["webhook-signature"].split(" ")[1] == SIGNATURE
    for text in (TEXT, OTHER, f"{OTHER} {TEXT}"):
        assert verify(read_secrets(text), made, BODY, TIMESTAMP) == ID
    assert verify(read_secrets(f"{PUBLIC} {TEXT}"), headers(), BODY, TIMESTAMP) == ID


@pytest.mark.parametrize(
    "changed",
    [
        headers(webhook_id="msg_other"),
        headers(webhook_timestamp=str(TIMESTAMP + 1)),
        headers(webhook_signature=SIGNATURE.replace("v1,g", "v1,h")),
        headers(webhook_signature=SIGNATURE.replace("v1,", "v1a,")),
        headers(webhook_signature=SIGNATURE.replace("v1,", "v2,")),
        headers(webhook_signature=SIGNATURE.removeprefix("v1,")),
        headers(webhook_signature="v1,!!!"),
        headers(webhook_signature="v1,"),
        headers(webhook_signature=""),
        headers(webhook_signature=" ".join(["v1,AAAA"] * 16 + [SIGNATURE])),
        headers(webhook_id=""),
        headers(webhook_id="with space"),
        headers(webhook_id="x" * 300),
        headers(webhook_timestamp="soon"),
        headers(webhook_timestamp="-1614265330"),
        headers(webhook_timestamp="1e9"),
        headers(webhook_timestamp="9" * 400),
        headers(webhook_timestamp="١٦١٤٢٦٥٣٣٠"),
        {},
    ],
)
def test_whatever_is_changed_is_refused(changed: dict[str, str]):
    with pytest.raises(WebhookSignatureError):
        verify(read_secrets(TEXT), changed, BODY, TIMESTAMP)


@pytest.mark.parametrize(("off_s", "passes"), [(300, True), (-300, True), (301, False), (-301, False)])
def test_old_and_future_timestamps_are_refused(off_s: int, passes: bool):
    if passes:
        assert verify(read_secrets(TEXT), headers(), BODY, TIMESTAMP + off_s) == ID
        return
    with pytest.raises(WebhookSignatureError, match="too old, or from the future"):
        verify(read_secrets(TEXT), headers(), BODY, TIMESTAMP + off_s)


def test_another_secret_is_refused():
    with pytest.raises(WebhookSignatureError, match="no signature is ours"):
        verify(read_secrets(OTHER), headers(), BODY, TIMESTAMP)


@pytest.mark.parametrize(
    "text",
    ["", "  ", "whsec_", "whsec_c2hvcnQ=", "whsec_!!", "whpk_AAAA", "whsk_AAAA", "what_AAAA", "whsec_" + "A" * 400],
)
def test_a_secret_that_cannot_be_used_is_an_error_that_does_not_show_it(text: str):
    with pytest.raises(WebhookSecretError) as caught:
        read_secrets(text)
    hidden = text.partition("_")[2]
    assert not hidden or hidden not in str(caught.value)


def test_a_public_half_cannot_sign():
    with pytest.raises(WebhookSecretError, match="cannot sign"):
        sign(read_secrets(PUBLIC), ID, TIMESTAMP, BODY)


def test_a_secret_is_nowhere_in_what_people_see(caplog: pytest.LogCaptureFixture):
    secret = Secret(TEXT)
    logging.getLogger("seamline").warning("secret %r %s", secret, secret)
    assert TEXT.removeprefix("whsec_") not in caplog.text
    assert not hasattr(secret, "__dict__")
