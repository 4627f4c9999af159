"""The load engine counts what really happened: it neither hides failures nor invents them."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from seamline.cli.app import run
from seamline.cli.load_client import Browser, ExchangeError, Target
from seamline.cli.load_engine import Latencies, Load, Plan, RequestFailedError, Scenario, Shopper, Tally

Answer = Callable[["Request"], bytes | None]


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: str
    nth_on_connection: int


def answer(status: str = "200 OK", body: str = "", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", *headers, "", body]
    return "\r\n".join(lines).encode()


@dataclass
class Shop:
    """Answers by a function of the request; ``None`` closes the connection without a word."""

    respond: Answer
    requests: list[Request] = field(default_factory=list[Request])
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        count = 0
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = first.split(" ")
                count += 1
                request = Request(method, path, headers, body.decode(), count)
                self.requests.append(request)
                out = self.respond(request)
                if out is None:
                    break
                writer.write(out)
                await writer.drain()
                if b"Connection: close" in out or b"Content-Length" not in out:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def open_shop(respond: Answer, context: ssl.SSLContext | None = None) -> AsyncGenerator[Shop]:
    shop = Shop(respond)
    server = await asyncio.start_server(shop.serve, "127.0.0.1", 0, ssl=context)
    shop.port = server.sockets[0].getsockname()[1]
    try:
        yield shop
    finally:
        server.close()


def shopper_at(shop: Shop, timeout_s: float = 5) -> tuple[Shopper, Tally, Browser]:
    tally = Tally(["step"])
    browser = Browser(Target.parse(shop.url), timeout_s=timeout_s)
    return Shopper(browser, tally, 0, 1), tally, browser


async def shop_for(shop: Shop, scenario: Scenario, **settings: Any) -> Tally:
    return await Load(Plan(Target.parse(shop.url), scenario, timeout_s=5, **settings)).run()


async def test_a_connection_is_kept_and_cookies_come_back() -> None:
    """Requests of one shopper share a connection, and carry the cookies that were set."""

    def respond(request: Request) -> bytes:
        return answer("200 OK", "hello", f"Set-Cookie: seen={request.nth_on_connection}; Path=/; HttpOnly")

    async with open_shop(respond) as shop:
        shopper, tally, _ = shopper_at(shop)
        first = await shopper.get("/")
        await shopper.get("/again?a=b c")
        assert (first.status, first.text, tally.requests, tally.failed) == (200, "hello", 2, 0)
        assert shop.connections == 1
        assert "cookie" not in shop.requests[0].headers
        assert shop.requests[1].headers["cookie"] == "seen=1"
        assert shop.requests[1].path == "/again?a=b%20c"


async def test_a_deleted_cookie_is_not_sent_again() -> None:
    """Max-Age=0 takes a cookie away."""

    def respond(request: Request) -> bytes:
        age = "; Max-Age=0" if request.path == "/bye" else ""
        return answer("200 OK", "", f"Set-Cookie: session=s{age}")

    async with open_shop(respond) as shop:
        shopper, _, _ = shopper_at(shop)
        for path in ("/", "/bye", "/"):
            await shopper.get(path)
        assert "cookie" not in shop.requests[2].headers


async def test_a_form_is_posted_and_its_redirect_followed_as_get() -> None:
    """POST, 303, GET: three things a browser does, two requests counted."""

    def respond(request: Request) -> bytes:
        if request.method == "POST":
            return answer("303 See Other", "", "Location: ../cart?added=1")
        return answer("200 OK", "the cart")

    async with open_shop(respond) as shop:
        shopper, tally, _ = shopper_at(shop)
        page = await shopper.post("/cart/add", {"product": "a&b", "n": 2})
        assert (page.path, page.text, tally.requests) == ("/cart?added=1", "the cart", 2)
        assert shop.requests[0].body == "product=a%26b&n=2"
        assert shop.requests[1].method == "GET"
        assert shop.requests[1].body == ""


async def test_redirects_without_end_fail() -> None:
    """A circle of redirects is a failed request, not an endless loop."""
    async with open_shop(lambda _: answer("302 Found", "", "Location: /")) as shop:
        shopper, tally, _ = shopper_at(shop)
        with pytest.raises(RequestFailedError, match="more than 10 redirects"):
            await shopper.get("/")
        assert (tally.requests, tally.failed) == (11, 1)


async def test_bodies_in_chunks_and_bodies_until_close_are_whole() -> None:
    """All three ways to frame a body are read to their end."""

    def respond(request: Request) -> bytes:
        if request.path == "/chunks":
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length-Not: 1\r\n\r\n"
            return head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        return b"HTTP/1.0 200 OK\r\n\r\nuntil the end"

    async with open_shop(respond) as shop:
        shopper, tally, _ = shopper_at(shop)
        assert (await shopper.get("/chunks")).text == "abcde"
        assert (await shopper.get("/old")).text == "until the end"
        assert (await shopper.get("/chunks")).text == "abcde"
        assert (tally.failed, shop.connections) == (0, 2)


async def test_a_get_on_a_stale_connection_is_resent_once_and_counted() -> None:
    """The server closed a kept connection: a GET goes again on a new one and is no failure."""

    def respond(request: Request) -> bytes | None:
        return answer() if request.nth_on_connection == 1 else None

    async with open_shop(respond) as shop:
        shopper, tally, _ = shopper_at(shop)
        await shopper.get("/")
        await shopper.get("/")
        assert (tally.requests, tally.failed, tally.resent) == (2, 0, 1)


async def test_a_post_is_never_sent_twice() -> None:
    """Nobody knows whether the server acted on it, so a POST without an answer is a failure."""

    def respond(request: Request) -> bytes | None:
        return answer() if request.method == "GET" else None

    async with open_shop(respond) as shop:
        shopper, tally, _ = shopper_at(shop)
        await shopper.get("/")
        with pytest.raises(RequestFailedError, match="POST /buy: the kept connection was closed"):
            await shopper.post("/buy")
        assert [request.method for request in shop.requests] == ["GET", "POST"]
        assert (tally.failed, tally.resent) == (1, 0)


async def test_a_get_on_a_new_connection_is_not_resent() -> None:
    """Only a kept connection may have been closed by chance; a new one that answers nothing is a failure."""
    async with open_shop(lambda _: None) as shop:
        shopper, tally, _ = shopper_at(shop)
        with pytest.raises(RequestFailedError, match="closed before any answer"):
            await shopper.get("/")
        assert (len(shop.requests), tally.failed, tally.resent) == (1, 1, 0)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhalf", "cut in the middle"),
        (b"220 mail ready\r\nContent-Length\r\n\r\n", "not HTTP"),
    ],
)
async def test_half_an_answer_is_a_failure(sent: bytes, said: str) -> None:
    """A truncated answer or no HTTP at all fails with what happened."""
    async with open_shop(lambda _: sent) as shop:
        shopper, _, _ = shopper_at(shop)
        with pytest.raises(RequestFailedError, match=said):
            await shopper.get("/")


async def test_a_connection_close_is_obeyed() -> None:
    """After `Connection: close` the next request takes a new connection, and nothing is resent."""
    async with open_shop(lambda _: answer("200 OK", "", "Connection: close")) as shop:
        shopper, tally, _ = shopper_at(shop)
        for _ in range(3):
            await shopper.post("/buy")
        assert (shop.connections, tally.failed, tally.resent) == (3, 0, 0)


async def test_a_silent_server_fails_in_time() -> None:
    """No answer within the time-out is a failure that names the time."""
    silent = socket.create_server(("127.0.0.1", 0))
    try:
        browser = Browser(Target.parse(f"http://127.0.0.1:{silent.getsockname()[1]}"), timeout_s=0.05)
        with pytest.raises(ExchangeError, match=r"no answer within 0\.05 s"):
            await browser.send("GET", "/")
    finally:
        silent.close()


async def test_a_refused_connection_is_explained() -> None:
    """Nobody listening reads as such."""
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    browser = Browser(Target.parse(f"http://127.0.0.1:{port}"))
    with pytest.raises(ExchangeError, match="could not connect"):
        await browser.send("GET", "/")


def own_certificate(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate that nobody else trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    begin = datetime.now(UTC) - timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


async def test_a_certificate_is_checked_unless_told_otherwise(tmp_path: Path) -> None:
    """An unknown certificate is a failure with the reason; --trust-any goes on and keeps the connection."""
    async with open_shop(lambda _: answer(), own_certificate(tmp_path)) as shop:
        url = shop.url.replace("http:", "https:")
        with pytest.raises(ExchangeError, match=r"could not connect .*certificate"):
            await Browser(Target.parse(url)).send("GET", "/")
        browser = Browser(Target.parse(url, trust_any=True))
        assert [(await browser.send("GET", "/")).status for _ in range(3)] == [200, 200, 200]
        assert browser.connections == 1
        browser.close()


async def test_an_unexpected_status_fails_and_an_expected_one_does_not() -> None:
    """A 402 fails unless the step says that it is what should come; then a 200 would."""

    def respond(request: Request) -> bytes:
        return answer("402 Payment Required", "card\n declined") if request.path == "/buy" else answer()

    async with open_shop(respond) as shop:
        shopper, tally, _ = shopper_at(shop)
        with pytest.raises(RequestFailedError, match="POST /buy: 402 Payment Required: card declined"):
            await shopper.post("/buy")
        assert (await shopper.post("/buy", expect=402)).status == 402
        with pytest.raises(RequestFailedError):
            await shopper.get("/", expect=(402, 404))
        assert (tally.requests, tally.failed) == (3, 2)


async def test_a_run_ends_at_its_count_and_counts_every_step() -> None:
    """Steps are chosen by weight; requests, steps and latencies agree with what the server saw."""

    async def twice(shopper: Shopper) -> None:
        await shopper.get("/a")
        await shopper.get("/b")

    async def once(shopper: Shopper) -> None:
        await shopper.get("/c")

    async with open_shop(lambda _: answer()) as shop:
        tally = await shop_for(shop, [(3, "twice", twice), (1, "once", once)], users=4, requests=400)
        assert 400 <= tally.requests <= 408
        assert tally.requests == len(shop.requests) == sum(tally.statuses.values())
        both, one = tally.steps["twice"], tally.steps["once"]
        assert both.taken * 2 + one.taken == tally.requests
        assert 1.5 < both.taken / one.taken < 6
        assert both.latencies.count == both.taken
        assert tally.failed == tally.failed_steps == 0


async def test_failures_are_grouped_and_explained() -> None:
    """The same failure a hundred times is one line with a count; errors of the scenario are told apart."""

    async def broken(shopper: Shopper) -> None:
        await shopper.get("/missing")

    async def wrong(shopper: Shopper) -> None:
        page = await shopper.get("/")
        assert "welcome" in page.text, "the home page does not welcome"

    async def careless(shopper: Shopper) -> None:
        await shopper.get("/")
        shopper.notes["basket"].append(1)

    def respond(request: Request) -> bytes:
        return answer("404 Not Found", "no such page") if request.path == "/missing" else answer()

    async with open_shop(respond) as shop:
        scenario: Scenario = [(1, "broken", broken), (1, "wrong", wrong), (1, "careless", careless)]
        tally = await shop_for(shop, scenario, users=3, requests=30)
    reasons = {failure.step: failure.reason for failure in tally.failures.values()}
    assert reasons == {
        "broken": "GET /missing: 404 Not Found: no such page",
        "wrong": "the home page does not welcome",
        "careless": "the scenario raised KeyError: 'basket'",
    }
    assert tally.failed == tally.steps["broken"].failed == tally.statuses[404]
    assert tally.failed_steps == sum(step.taken for step in tally.steps.values())


async def test_a_timetable_is_kept_and_lateness_is_measured() -> None:
    """With a rate, latency counts from when a step should have begun: one stall shows in the steps behind it.

    One shopper, 100 steps a second; the first answer comes only when 0.2 s have passed. The steps that waited
    in line must report it, though each of their own requests was quick.
    """
    gate = asyncio.Event()

    async def stall(shopper: Shopper) -> None:
        if not gate.is_set():
            asyncio.get_running_loop().call_later(0.2, gate.set)
            await gate.wait()
        await shopper.get("/")

    async with open_shop(lambda _: answer()) as shop:
        tally = await shop_for(shop, [(1, "stall", stall)], users=1, rate=100, requests=30)
    median = tally.steps["stall"].latencies.quantile_ms(0.5)
    assert median is not None
    assert median > 20
    assert tally.elapsed_s > 0.25


async def test_stopping_finishes_what_has_begun() -> None:
    """Stop during an answer: the answer is still awaited, and nothing fails."""

    async def home(shopper: Shopper) -> None:
        load.stop()
        await shopper.get("/")

    async with open_shop(lambda _: answer()) as shop:
        load = Load(Plan(Target.parse(shop.url), [(1, "home", home)], users=5))
        tally = await load.run()
    assert tally.requests == len(shop.requests)
    assert (tally.failed, tally.failed_steps) == (0, 0)
    assert tally.requests >= 1


def test_quantiles_are_within_a_percent() -> None:
    """The histogram's quantiles differ from the exact ones by no more than 1.1 %, and never exceed the maximum."""
    chance = random.Random(7)
    values = sorted(chance.lognormvariate(-6, 1.2) for _ in range(20_000))
    latencies = Latencies()
    for value in values:
        latencies.record(value)
    for fraction in (0.5, 0.9, 0.99, 0.999, 1.0):
        exact = values[max(int(fraction * len(values)) - 1, 0)] * 1e3
        found = latencies.quantile_ms(fraction)
        assert found is not None
        assert abs(found - exact) / exact < 0.011
        assert found <= values[-1] * 1e3
    assert Latencies().quantile_ms(0.5) is None


@pytest.fixture
def served() -> Iterator[Shop]:
    """A shop in a thread of its own, for commands that run their own event loop."""
    ready, ends = threading.Event(), threading.Event()
    found: list[Shop] = []

    def respond(request: Request) -> bytes:
        return answer("500 Internal Server Error", "boom") if request.path == "/boom" else answer()

    async def serve() -> None:
        async with open_shop(respond) as shop:
            found.append(shop)
            ready.set()
            await asyncio.to_thread(ends.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    yield found[0]
    ends.set()
    thread.join(10)


def test_the_command_reports_and_succeeds(served: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """`seamline load --url` needs no application; it prints the table and the verdict."""
    assert run(["load", "--url", served.url, "--requests", "50", "--users", "2"]) == 0
    out = capsys.readouterr().out
    assert f"Shopping at {served.url}: 2 shoppers, as fast as answers come, scenario GET /" in out
    assert "; 0 failed" in out
    assert out.splitlines()[2].split() == ["step", "taken", "failed", "p50", "p90", "p99", "max"]


def write_application(folder: Path, scenario: str) -> Path:
    package = folder / "shopload"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "load.py").write_text(scenario)
    (folder / "seamline.toml").write_text('[app]\nname = "shopload"\nmodules = ["shopload.web"]\n')
    return folder


def test_the_application_s_scenario_is_used_and_failures_give_status_1(
    served: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`<package>.load.scenario` is imported; failed requests are explained and the exit status is 1."""
    monkeypatch.delitem(__import__("sys").modules, "shopload.load", raising=False)
    monkeypatch.delitem(__import__("sys").modules, "shopload", raising=False)
    folder = write_application(
        tmp_path,
        """
async def home(shopper):
    await shopper.get("/")

async def boom(shopper):
    await shopper.get("/boom")

scenario = [(9, "home", home), (1, "boom", boom)]
""",
    )
    command = ["load", "--url", served.url, "--app", str(folder), "--requests", "60", "--json"]
    assert run(command) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["scenario"] == "shopload.load"
    assert result["failed"] == result["statuses"]["500"] == result["failures"][0]["count"]
    assert result["failures"][0]["reason"] == "GET /boom: 500 Internal Server Error: boom"


def test_an_application_of_one_file_has_the_scenario_of_every_server(
    served: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module that is no package holds no `load`: GET / is asked for."""
    (tmp_path / "kiosk_of_one_file.py").write_text("")
    (tmp_path / "seamline.toml").write_text('[app]\nname = "kiosk"\nmodules = ["kiosk_of_one_file"]\n')
    assert run(["load", "--url", served.url, "--app", str(tmp_path), "--requests", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scenario"] == "GET /"


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("", "scenario is None"),
        ("scenario = [(1, 'a')]", "the entry (1, 'a') does not fit"),
        ("scenario = [(0, 'a', print)]", "does not fit"),
        ("scenario = [(1, 'a', print), (1, 'a', print)]", "two steps of the scenario have one name"),
        ("import nothing_of_the_kind", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_bad_scenario_is_one_sentence(
    scenario: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is wrong about a scenario is said with code and place, before a single request."""
    monkeypatch.delitem(__import__("sys").modules, "shopload.load", raising=False)
    monkeypatch.delitem(__import__("sys").modules, "shopload", raising=False)
    folder = write_application(tmp_path, scenario)
    assert run(["load", "--url", "http://127.0.0.1:1", "--app", str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("SL9006: shopload.load: ")
    assert said in captured.err
    assert captured.out == ""
