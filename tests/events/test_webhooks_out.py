"""Events are told to receivers outside: signed, again and again until they say yes, and to nobody inside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import MetaData, select
from tests.events.shop import Returned, Sold, running, shop, until
from tests.events.test_embedded import said

from seamline.events.cloudevents import from_headers
from seamline.events.record import Record
from seamline.events.tables import dead_letters
from seamline.events.webhooks.addresses import is_public
from seamline.events.webhooks.egress import PAUSES_S, WebhookSender
from seamline.events.webhooks.errors import WebhookAddressError, WebhookError, WebhookRefusedError
from seamline.events.webhooks.tries import AGE_MAX_S, Tried, Tries
from seamline.kernel.clock import Clock, ManualClock, SystemClock
from seamline.kernel.settings import BadValueError, WebhookSettings
from seamline.kernel.store import Database, sqlite_url
from seamline.kernel.wire.errors import WebhookSecretError
from seamline.kernel.wire.signatures import read_secrets, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VARIABLE = "TEST_PARTNER_SECRET"
ATTEMPTS = 3
RECORD = Record(id="e1", source="shop", type="Sold", data=b'{"sku":"mug","number":1}', time_ms=1000, key="mug")


class Receiver:
    """An HTTP server that answers as it is told and keeps what it was sent."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""

    @contextlib.asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Receiver]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks?for=us"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                pairs = [line.partition(": ") for line in head[1:] if line]
                headers = {name.lower(): value for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.got.append((head[0], headers, body))
                answer = self.answers.pop(0) if self.answers else "204 No Content"
                if answer == "hang up":
                    return
                writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def settings(url: str, **changes: Any) -> WebhookSettings:
    made: dict[str, Any] = {
        "name": "partner", "module": "shop", "events": ("Sold",), "url": url, "secret": VARIABLE, "private": True,
    }  # fmt: skip
    return WebhookSettings(**{**made, **changes})


@contextlib.asynccontextmanager
async def sending(
    url: str, *, clock: Clock | None = None, addresses: list[str] | None = None, **changes: Any
) -> AsyncGenerator[WebhookSender]:
    async def lookup(_: str, __: int) -> list[str]:
        return list(addresses or ["127.0.0.1"])

    sender = WebhookSender(
        settings(url, **changes), "test", read_secrets(SECRET), clock or SystemClock(), lookup=lookup
    )
    try:
        yield sender
    finally:
        await sender.close()


async def failing(sender: WebhookSender, attempt: int = 1) -> WebhookError:
    with pytest.raises(WebhookError) as caught:
        await sender.deliver(RECORD, attempt)
    return caught.value


async def test_a_receiver_gets_a_signed_cloudevent():
    async with Receiver().listening() as receiver, sending(receiver.url) as sender:
        await sender.deliver(RECORD)
        ((line, headers, body),) = receiver.got
        assert line == "POST /hooks?for=us HTTP/1.1"
        assert headers["host"] == receiver.url.split("/")[2]
        assert verify(read_secrets(SECRET), headers, body, SystemClock().now().timestamp()) == "e1"
        assert msgspec.structs.replace(from_headers(headers, body), headers={}) == RECORD


async def test_tries_share_the_id_and_have_their_own_timestamp():
    clock = ManualClock()
    async with Receiver("500 No", "204 Yes").listening() as receiver, sending(receiver.url, clock=clock) as sender:
        await failing(sender)
        clock.advance(7)
        await sender.deliver(RECORD, 2)
        first, second = (headers for _, headers, _ in receiver.got)
        assert first["webhook-id"] == second["webhook-id"]
        assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 7
        assert first["webhook-signature"] != second["webhook-signature"]


async def test_pauses_grow_as_the_specification_recommends_with_jitter():
    async with Receiver(*["503 Later"] * 60).listening() as receiver, sending(receiver.url) as sender:
        for attempt, pause_s in enumerate(PAUSES_S, 1):
            found = {(await failing(sender, attempt)).retry_after_s for _ in range(3)}
            assert all(0.8 * pause_s <= each <= 1.2 * pause_s for each in found)
            assert len(found) > 1
        assert (await failing(sender, 99)).retry_after_s >= 0.8 * PAUSES_S[-1]


async def test_a_receiver_says_when_to_come_again_but_not_in_a_year():
    slow = "429 Slow\r\nRetry-After: {}"
    answers = [slow.format(when) for when in (600, 31_536_000, "x")]
    async with Receiver(*answers).listening() as receiver, sending(receiver.url) as sender:
        assert (await failing(sender)).retry_after_s == 600
        assert (await failing(sender)).retry_after_s == PAUSES_S[-1]
        assert (await failing(sender)).retry_after_s <= 6


@pytest.mark.parametrize("answer", ["410 Gone", "301 Moved\r\nLocation: http://169.254.169.254/", "302 Found"])
async def test_gone_and_redirections_end_it_and_are_not_followed(answer: str):
    async with Receiver(answer).listening() as receiver, sending(receiver.url) as sender:
        error = await failing(sender)
        assert isinstance(error, WebhookRefusedError)
        assert error.hopeless
        assert len(receiver.got) == 1


async def test_who_hangs_up_or_is_not_there_is_tried_again_later():
    async with Receiver("hang up").listening() as receiver, sending(receiver.url) as sender:
        error = await failing(sender)
        assert "did not answer" in str(error)
        assert not error.hopeless
        await sender.deliver(RECORD)
    async with sending(receiver.url) as sender:
        assert (await failing(sender)).retry_after_s >= 4


async def test_an_answer_without_end_is_not_read():
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"x" * 65_536)
                await writer.drain()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    async with server, sending(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as sender:
        assert "larger than 65536 bytes" in str(await failing(sender))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:db8::1", "nonsense",
    ],
)  # fmt: skip
async def test_private_addresses_are_refused_however_they_are_written(address: str):
    """Also where only one of a name's addresses is private; no connection is made."""
    assert not is_public(address)
    async with sending("https://partner.example/", private=False, addresses=["93.184.216.34", address]) as sender:
        error = await failing(sender)
        assert isinstance(error, WebhookAddressError)
        assert "private = true" in str(error)
        assert error.retry_after_s >= 4


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::6810:84e5", "::ffff:93.184.216.34"])
def test_public_addresses_are_known(address: str):
    assert is_public(address)


async def test_a_refused_address_is_a_line_of_audit_and_a_deaf_receiver_is_none():
    """Who would have been made to call what, and where it led."""
    lines: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def audit(*decision: str, **more: str) -> None:
        lines.append((decision, more))

    for addresses in ([], ["169.254.169.254"]):

        async def lookup(_: str, __: int, found: list[str] = addresses) -> list[str]:
            return found

        hook = settings("https://partner.example/", private=False)
        sender = WebhookSender(hook, "test", read_secrets(SECRET), SystemClock(), lookup=lookup, audit=audit)
        await failing(sender)
    ((decision, told),) = lines
    assert decision == ("refuse",)
    assert told == {
        "principal": "shop", "action": "webhook", "resource": "partner",
        "reason": "SL7503: 'partner.example' leads to 169.254.169.254, which is not a public address",
    }  # fmt: skip


async def test_a_name_is_looked_up_again_and_cannot_turn_inside():
    """The name led to a public address first; half a minute later it leads inside, and is refused."""
    clock, addresses = ManualClock(), ["93.184.216.34"]
    async with sending("https://partner.example/", private=False, addresses=addresses, clock=clock) as sender:
        await sender.connected()
        addresses[:] = ["127.0.0.1"]
        await sender.connected()
        clock.advance(31)
        with pytest.raises(WebhookAddressError):
            await sender.connected()


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS with a certificate for ``name``, and the file that it is trusted by."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = SystemClock().now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*plain))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, private)
    return server, chain


@pytest.mark.parametrize("certificate_for", ["partner.example", "other.example"])
async def test_the_receiver_proves_its_name_though_its_address_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate_for: str
):
    server, chain = certified(tmp_path, certificate_for)
    trusting = ssl.create_default_context(cafile=str(chain))
    monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
    async with Receiver().listening(server) as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        async with sending(f"https://partner.example:{port}/hooks") as sender:
            if certificate_for == "partner.example":
                await sender.deliver(RECORD)
                assert receiver.got[0][1]["host"] == f"partner.example:{port}"
            else:
                assert "did not answer" in str(await failing(sender))
                assert receiver.got == []


async def test_a_name_that_leads_nowhere_is_tried_again():
    async def lookup(_: str, __: int) -> list[str]:
        raise OSError("no such name")

    sender = WebhookSender(settings("https://x.example/"), "test", read_secrets(SECRET), SystemClock(), lookup=lookup)
    assert "leads nowhere now" in str(await failing(sender))


async def test_published_events_reach_the_receiver_and_others_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Through log, consumer group and HTTP; what was published before the webhook was there is not sent."""
    monkeypatch.setenv(VARIABLE, SECRET)
    async with running(tmp_path, shop()) as process:
        await process.events.publish(Sold(sku="old", number=0))
    async with Receiver().listening() as receiver:
        async with running(tmp_path, shop(), webhooks=(settings(receiver.url),)) as process:
            await until(process.joined)
            await process.events.publish(Returned(sku="cup"))
            event_id = await process.events.publish(Sold(sku="mug", number=2), headers={"tenant": "north"})
            await until(lambda: receiver.got)
        ((_, headers, body),) = receiver.got
        assert (headers["webhook-id"], headers["ce-id"], headers["ce-type"]) == (event_id, event_id, "test.shop.Sold")
        assert (headers["ce-partitionkey"], headers["ce-tenant"], body) == ("mug", "north", b'{"sku":"mug","number":2}')


async def test_what_a_receiver_refuses_for_good_is_with_the_dead_letters_and_can_be_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(VARIABLE, SECRET)
    async with (
        Receiver("410 Gone").listening() as receiver,
        running(tmp_path, shop(), webhooks=(settings(receiver.url),)) as process,
    ):
        await until(process.joined)
        await process.events.publish(Sold(sku="mug", number=2))

        async def dead() -> list[Any]:
            async with process.databases["shop"].read() as r:
                return list(await r.execute(select(dead_letters)))

        await until(dead)
        ((group, number),) = [(row.consumer_group, row.id) for row in await dead()]
        assert group == "shop.webhook-partner"
        assert len(receiver.got) == 1
        await process.runtime.admin("dead retry", {"module": "shop", "number": number})
        await until(lambda: len(receiver.got) == 2)
        assert receiver.got[0][1]["webhook-id"] == receiver.got[1][1]["webhook-id"]


@pytest.mark.parametrize(
    ("variable", "changes", "error"),
    [
        ("", {}, BadValueError),
        ("whsec_short", {}, WebhookSecretError),
        (SECRET, {"events": ("Sould",)}, BadValueError),
    ],
)
async def test_what_cannot_work_is_said_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, changes: dict[str, Any], error: type[Exception]
):
    monkeypatch.setenv(VARIABLE, variable)
    with pytest.raises(error) as caught:
        async with running(tmp_path, shop(), webhooks=(settings("https://partner.example/", **changes),)):
            pass
    assert "Sould" in str(caught.value) or "short" not in str(caught.value)


LATER = "503 Later\r\nRetry-After: 3600"


@contextlib.asynccontextmanager
async def killed_at_the_end(folder: Path, url: str, *words: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process that sends, until SIGKILL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.events.webhook_process", str(folder), url, *words,
        cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE,
        env={**os.environ, VARIABLE: SECRET},  # noqa: TID251  # for the child
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        await process.communicate()


async def test_a_process_that_is_killed_between_two_tries_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Who comes after it keeps the pause and the count: as many tries in all as the settings say, then a dead letter
    that knows of all of them."""
    async with Receiver(*[LATER] * 3).listening() as receiver:
        for ahead_s, sent in ((0, 1), (0, 1), (3_700, 2)):
            words = [str(ahead_s), *(["publish"] if not receiver.got else [])]
            async with killed_at_the_end(tmp_path, receiver.url, *words) as process:
                await said(process, "resting")
                assert len(receiver.got) == sent
        monkeypatch.setenv(VARIABLE, SECRET)
        clock = SystemClock()
        clock.offset_s = 7_500
        webhook = settings(receiver.url, attempts=ATTEMPTS)
        async with running(tmp_path, shop(), webhooks=(webhook,), clock=clock) as process:
            await until(lambda: process.runtime.stats()["consumers"][0]["dead"])
            (letter,) = await process.runtime.admin("dead list", {"module": "shop"})
            assert (letter["attempts"], len(receiver.got)) == (ATTEMPTS, ATTEMPTS)
            (done,) = await process.runtime.admin("dead retry", {"module": "shop", "number": letter["number"]})
            assert done["done"]
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1
    assert len(receiver.got) == ATTEMPTS + 1


async def test_what_was_given_up_is_sent_at_once_when_somebody_asks_and_counted_anew_in_a_replay(tmp_path: Path):
    """By hand there is no pause between two tries; a replay has as many as there may be."""
    clock = ManualClock()
    database = Database(sqlite_url(tmp_path, "shop"), "shop", MetaData())
    await database.start()
    tries = Tries(database, "partner")
    await tries.open(0)
    async with (
        Receiver("410 Gone", *["500 No"] * 4).listening() as receiver,
        sending(receiver.url, clock=clock, attempts=2) as sender,
    ):

        async def tried(*, replayed: bool = False) -> WebhookError:
            with pytest.raises(WebhookError) as caught:
                await sender.deliver_in_time(RECORD, tries, replayed=replayed)
            return caught.value

        assert (await tried()).hopeless
        assert (await tried()).hopeless
        assert len(receiver.got) == 2, "at once"
        first = await tried(replayed=True)
        assert not first.hopeless
        resting = await tried(replayed=True)
        assert "has been tried 1 time" in str(resting)
        assert (len(receiver.got), resting.retry_after_s) == (3, pytest.approx(first.retry_after_s, abs=0.001))
        clock.advance(7)
        assert (await tried(replayed=True)).hopeless
        assert len(receiver.got) == 4
        receiver.answers.clear()
        await sender.deliver_in_time(RECORD, tries)
        assert await tries.of(RECORD) == Tried()
    await database.close()


async def test_what_was_due_a_month_ago_is_forgotten(tmp_path: Path):
    """A webhook that was taken out of the settings leaves nothing for ever."""
    database = Database(sqlite_url(tmp_path, "shop"), "shop", MetaData())
    await database.start()
    tries = Tries(database, "partner")
    await tries.open(0)
    await tries.note(RECORD, Tried(1, 1_000))
    await tries.open(AGE_MAX_S * 1000)
    assert await tries.of(RECORD) == Tried(1, 1_000)
    await tries.open(AGE_MAX_S * 1000 + 1_001)
    assert await tries.of(RECORD) == Tried()
    await database.close()


async def test_a_stretch_of_the_past_is_sent_again_with_its_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`seamline events replay` of a webhook's group: from the offset on, and what came before it is not."""
    monkeypatch.setenv(VARIABLE, SECRET)
    async with (
        Receiver().listening() as receiver,
        running(tmp_path, shop(), webhooks=(settings(receiver.url),)) as process,
    ):
        await until(process.joined)
        ids = [await process.events.publish(Sold(sku="mug", number=number)) for number in range(4)]

        def sent() -> list[str]:
            return [headers["webhook-id"] for _, headers, _ in receiver.got]

        await until(lambda: len(sent()) == 4 and process.handled() == 4)
        (offset,) = [
            each["offset"]
            for each in (await process.runtime.admin("tail", {"module": "shop"}))["records"]
            if each["id"] == ids[2]
        ]
        await process.runtime.admin("replay", {"module": "shop", "group": "webhook-partner", "start": str(offset)})
        await until(lambda: len(sent()) == 6)
        assert sent() == [*ids, *ids[2:]]
