"""Each state of an incident reaches each receiver once, however badly it answers."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest
from standardwebhooks import Webhook  # pyright: ignore[reportMissingTypeStubs]
from tests.observe.receiver import Receiver, receiving

from seamline.kernel.clock import ManualClock
from seamline.kernel.wire.errors import WebhookSecretError
from seamline.observe import notify
from seamline.observe.errors import NotifyError
from seamline.observe.incidents import Claim, Evidence, Incident, State, Summary, Suspect
from seamline.observe.notify import PAUSES_S, PER_MINUTE_MAX, Message, Notifier, WebhookWay

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
APPRISE_IMPORTS = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
NS = 1_790_000_000_000_000_000


def incident(number: int = 1, **more: Any) -> Incident:
    return Incident(f"INC-{number}", "Payments.charge fails: 60 % of its calls", severity="critical", began_ns=NS,
                    detected_ns=NS + 6_000_000_000, **more)  # fmt: skip


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


@contextlib.asynccontextmanager
async def telling(*urls: str, clock: ManualClock | None = None, **more: Any) -> AsyncGenerator[Notifier]:
    notifier = Notifier(urls, app="boutique", secret=SECRET, portal="http://127.0.0.1:8099/", clock=clock, **more)
    notifier.start()
    try:
        yield notifier
    finally:
        await notifier.stop()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  # what another side does is waited for
            await asyncio.sleep(0.005)


async def test_a_webhook_is_what_standard_webhooks_own_library_verifies(receiver: Receiver):
    """Signed, with a timestamp, an id, and all that a person or program needs."""
    explained = incident(
        suspects=[Suspect("payments", "errors", "Payments.charge", 8.0, [Evidence("errors", "it raises CardDown")])],
        abstained=False, summary=Summary([Claim("Payments fails by itself.", ["e1"])]),
    )  # fmt: skip
    async with telling(receiver.url) as notifier:
        notifier.tell(explained, "explained")
        await until(lambda: len(receiver.got) == 1)
    headers, body = receiver.got[0]
    told: Any = Webhook(SECRET).verify(body, headers)
    assert told["type"] == "incident.explained"
    assert told["data"]["suspects"][0]["module"] == "payments"
    assert told["data"]["summary"] == "Payments fails by itself."
    assert "http://127.0.0.1:8099/incidents/INC-1" in told["data"]["text"]
    assert told["data"]["began"].endswith("+00:00")


async def test_no_state_is_sent_twice_and_none_is_left_out(receiver: Receiver):
    """Opened, explained and closed once each; opened again is a state of its own, and so is another suspect."""
    async with telling(receiver.url) as notifier:
        for state in ("opened", "opened", "explained", "explained", "closed", "closed"):
            notifier.tell(incident(), state)
            await notifier.idle()
        again = incident(reopened=1)
        for state in ("reopened", "reopened", "closed"):
            notifier.tell(again, state)
            await notifier.idle()
        notifier.tell(incident(reopened=1, suspects=[Suspect("ads", "cpu")]), "explained")
        await notifier.idle()
    assert [kind for _, kind in receiver.told()] == [
        "incident.opened", "incident.explained", "incident.closed", "incident.reopened", "incident.closed",
        "incident.explained",
    ]  # fmt: skip
    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert len(set(ids)) == len(ids)


async def test_what_fails_is_tried_again_with_the_same_id(receiver: Receiver):
    """A server that hangs up, breaks down and comes back gets it in the end, signed anew."""
    clock = ManualClock()
    receiver.answers = ["hang up", "500 Oh", "429 Later"]
    async with telling(receiver.url, clock=clock) as notifier:
        notifier.tell(incident(), "opened")
        for tries, pause_s in enumerate(PAUSES_S[:3], start=1):
            await until(lambda tries=tries: len(receiver.got) == tries and bool(clock._sleepers))
            clock.advance(pause_s * 1.3)
        await notifier.idle()
    assert len(receiver.got) == 4
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({headers["webhook-timestamp"] for headers, _ in receiver.got}) > 1
    assert not notifier.failed


async def test_a_newer_state_takes_the_place_of_one_that_could_not_be_sent(receiver: Receiver):
    """Who was not told that it was opened is told how it stands, not how it stood."""
    clock = ManualClock()
    receiver.answers = ["503 Down"]
    async with telling(receiver.url, clock=clock) as notifier:
        notifier.tell(incident(), "opened")
        await until(lambda: bool(clock._sleepers))
        notifier.tell(incident(), "explained")
        notifier.tell(incident(status="closed", ended_ns=NS + 1), "closed")
        notifier.tell(incident(2), "opened")
        clock.advance(10)
        await notifier.idle()
    assert receiver.told()[1:] == [("INC-1", "incident.closed"), ("INC-2", "incident.opened")]


async def test_one_that_never_answers_holds_up_nobody_and_is_given_up(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
):
    """The other receiver has it long before; and that it was given up is said, without the token in its address."""
    clock = ManualClock()
    async with telling("http://127.0.0.1:1/gone?token=hidden", receiver.url, clock=clock) as notifier:
        notifier.tell(incident(), "opened")
        await until(lambda: len(receiver.got) == 1)
        for pause_s in PAUSES_S:
            await until(lambda: bool(clock._sleepers))
            clock.advance(pause_s * 1.3)
        with caplog.at_level(logging.ERROR):
            await notifier.idle()
    assert notifier.failed == {"http://127.0.0.1": 1}
    assert "INC-1 is opened" in caplog.text
    assert "hidden" not in caplog.text


async def test_a_flood_of_incidents_is_held_back_and_nothing_of_it_is_lost(receiver: Receiver):
    """Ten in a minute, the rest after it."""
    clock = ManualClock()
    async with telling(receiver.url, clock=clock) as notifier:
        for number in range(1, PER_MINUTE_MAX + 6):
            notifier.tell(incident(number), "opened")
        await until(lambda: len(receiver.got) == PER_MINUTE_MAX and bool(clock._sleepers))
        clock.advance(61)
        await notifier.idle()
    assert [each for each, _ in receiver.told()] == [f"INC-{number}" for number in range(1, PER_MINUTE_MAX + 6)]


class Sink:
    """An SMTP server that keeps what it gets."""

    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        self.mails.append(envelope.content.decode())
        return "250 OK"


@APPRISE_IMPORTS
async def test_mail_goes_through_apprise_to_an_smtp_server():
    """With the incident in its subject."""
    from aiosmtpd.smtp import SMTP  # pyright: ignore[reportMissingTypeStubs]

    sink = Sink()
    made: Any = SMTP
    server = await asyncio.get_running_loop().create_server(lambda: made(sink), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with telling(
        f"mailto://127.0.0.1:{port}?from=seamline@example.org&to=ops@example.org&mode=insecure"
    ) as notifier:
        notifier.tell(incident(), "opened")
        await notifier.idle()
    server.close()
    assert not notifier.failed
    assert len(sink.mails) == 1
    mail = " ".join(sink.mails[0].split())
    assert "INC-1 opened" in mail
    assert "ops@example.org" in mail


async def test_an_apprise_receiver_that_says_no_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    """And one that raises as well."""
    clock, answers, bodies = ManualClock(), [False, RuntimeError("no"), True], list[str]()

    class Fake:
        def add(self, servers: str) -> bool:
            return True

        def notify(self, *, body: str, title: str) -> object:
            bodies.append(body)
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    def make(url: str, scheme: str) -> Fake:
        return Fake()

    monkeypatch.setattr(notify, "_apprise", make)
    async with telling("slack://a/b/c", clock=clock) as notifier:
        notifier.tell(incident(), "opened")
        for _ in range(2):
            await until(lambda: bool(clock._sleepers))
            clock.advance(20)
        await notifier.idle()
    assert len(bodies) == 3
    assert not notifier.failed


@APPRISE_IMPORTS
@pytest.mark.parametrize(
    ("url", "secret", "error", "said"),
    [
        ("https://hooks.example.org/x", "", NotifyError, "notify_secret"),
        ("https://hooks.example.org/x", "whsec_short", WebhookSecretError, "whsec_"),
        ("https:///x", SECRET, NotifyError, "names no host"),
        ("nonsense://token-of-mine", SECRET, NotifyError, "appriseit"),
    ],
)
def test_a_receiver_that_cannot_be_used_is_said_when_it_starts(
    url: str, secret: str, error: type[Exception], said: str
):
    """And its address, which may be a secret, is not repeated."""
    with pytest.raises(error, match=said) as caught:
        Notifier([url], app="boutique", secret=secret)
    assert "token-of-mine" not in str(caught.value)


def test_apprise_is_loaded_only_for_whom_needs_it(monkeypatch: pytest.MonkeyPatch):
    """And that it is missing is said with what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "apprise", None)
    Notifier(["http://127.0.0.1:1/"], app="boutique", secret=SECRET)
    with pytest.raises(NotifyError, match=r"seamline\[notify\]"):
        Notifier(["mailto://me@example.org"], app="boutique")


@pytest.mark.parametrize("state", ["opened", "explained", "closed", "reopened"])
def test_every_state_says_what_since_when_and_where_to_look(state: State):
    """Also with nothing but what every incident has, and with text that would break a header."""
    message = Message(incident(status="closed", ended_ns=NS + 9), state, "boutique\r\nX: y", "http://portal")
    assert "Payments.charge fails" in message.body
    assert message.body.endswith("http://portal/incidents/INC-1")
    assert "UTC" in message.body


def test_a_webhooks_name_in_the_log_has_no_path():
    """Which is often the secret."""
    way = WebhookWay("https://hooks.example.org/services/T0/B0/verysecret", (), ManualClock())
    assert way.name == "https://hooks.example.org"
