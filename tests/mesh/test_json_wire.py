"""The JSON wire as others see it: Node's fetch, and plain HTTP by hand."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.mesh.rig import APP, TRUST_DOMAIN, Rig, StockService, rig

from seamline.mesh.balance import Endpoint
from seamline.mesh.connect import EnvelopeReader, envelope
from seamline.mesh.identity import new_key_and_csr
from seamline.mesh.outcome import Refusal
from seamline.module.errors import Overloaded

NODE = shutil.which("node")


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as it:
        yield it


@pytest.mark.needs_server
@pytest.mark.skipif(NODE is None, reason="node is not installed")
async def test_node_calls_a_contract_with_fetch(made: Rig, tmp_path: Path):
    """Unary, GET, fault, deadline, refusal and stream, from a language that knows nothing of Seamline."""
    assert NODE is not None
    _, endpoint = await made.serve(StockService())
    key, request = new_key_and_csr()
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "chain.pem").write_bytes(made.authority.issue(request, "orders", 600))
    (tmp_path / "bundle.pem").write_bytes(made.authority.bundle_pem)
    node = await asyncio.create_subprocess_exec(
        NODE, str(Path(__file__).with_name("node_client.mjs")), f"https://127.0.0.1:{endpoint.port}", str(tmp_path),
        f"spiffe://{TRUST_DOMAIN}/{APP}/stock", "stock.shop.seamline",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        output, errors = await node.communicate()
    assert node.returncode == 0, errors.decode()
    answers: dict[str, Any] = json.loads(output)
    assert answers["take"] == {"status": 200, "body": "mugx2"}
    assert answers["get"] == {"status": 200, "body": "mug"}
    assert answers["fault"]["status"] == 409
    assert answers["fault"]["body"]["code"] == "aborted"
    detail = answers["fault"]["body"]["details"][0]
    assert detail["debug"]["error"] == "OutOfStock"
    assert detail["debug"]["detail"] == {"sku": "mug", "left": 2}
    assert json.loads(base64.b64decode(detail["value"] + "==")) == detail["debug"]
    assert (answers["late"]["status"], answers["late"]["body"]["code"]) == (504, "deadline_exceeded")
    assert (answers["wrong"]["status"], answers["wrong"]["body"]["code"]) == (400, "invalid_argument")
    assert (answers["unknown"]["status"], answers["unknown"]["body"]["code"]) == (501, "unimplemented")
    assert [item["message"] for item in answers["stream"]] == [0, 1, 2, {}]
    assert answers["stream"][-1]["flags"] == 2
    assert answers["broken"][0]["message"] == 0
    assert answers["broken"][-1]["message"]["error"]["code"] == "aborted"


async def exchange(made: Rig, endpoint: Endpoint, request: bytes, *, alpn: str = "http/1.1") -> tuple[int, bytes]:
    """One request as the module ``orders``, connection closed by the server; status and body."""
    head, _, body = (await answer_to(made, endpoint, request, alpn=alpn)).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def answer_to(made: Rig, endpoint: Endpoint, request: bytes, *, alpn: str = "http/1.1") -> bytes:
    """All that comes back."""
    identity = made.identity("orders")
    reader, writer = await asyncio.open_connection(
        endpoint.host, endpoint.port, ssl=identity.client_context("orders", alpn),
        server_hostname=identity.server_name("stock"),
    )  # fmt: skip
    writer.write(request)
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.transport.abort()
    return answer


def post(path: str, body: bytes, content_type: str = "application/json", more: str = "") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {content_type}\r\n{more}"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (post("/shop.Stock/take", b"{"), 400, "invalid_argument"),
        (post("/shop.Stock/take", b'{"sku":"a","count":"many"}'), 400, "invalid_argument"),
        (post("/elsewhere", b"{}"), 501, "unimplemented"),
        (post("/shop.Nothing/at", b"{}"), 501, "unimplemented"),
        (post("/shop.Stock/count", b'{"upto":1}'), 415, "invalid_argument"),
        (post("/shop.Stock/take", b"{}", "application/connect+json"), 415, "invalid_argument"),
        (post("/shop.Stock/take", b'{"sku":"a"}', more="connect-timeout-ms: soon\r\n"), 400, "invalid_argument"),
        (b"GET /shop.Stock/take?message={} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 400, "invalid_argument"),
        (post("/shop.Stock/fail", b'{"how":"x"}'), 500, "internal"),
    ],
)
async def test_bad_requests_are_answered_in_connects_words(made: Rig, request_bytes: bytes, status: int, code: str):
    """Each mistake has its status and code."""
    _, endpoint = await made.serve(StockService())
    got, body = await exchange(made, endpoint, request_bytes)
    assert (got, json.loads(body)["code"]) == (status, code)


async def test_who_comes_too_early_is_told_when_to_come_again(made: Rig):
    """By HTTP's own header, in whole seconds and never too few."""

    class Busy(StockService):
        async def take(self, sku: str, count: int = 1) -> str:
            error = Overloaded(f"no room for {count} of {sku}")
            error.retry_after_s = 2.2
            raise Refusal(error)

    _, endpoint = await made.serve(Busy())
    answer = await answer_to(made, endpoint, post("/shop.Stock/take", b'{"sku":"a"}'))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"429"
    assert b"\r\nretry-after: 3\r\n" in head + b"\r\n"
    assert json.loads(body)["code"] == "resource_exhausted"


@pytest.mark.parametrize(
    "body", [b"\x00\x00\x00\x00\x09{}", b"\x01\x00\x00\x00\x02{}", b"\x00\xff\xff\xff\xff{}", b"\x00"]
)
async def test_broken_envelopes_are_refused(made: Rig, body: bytes):
    """Cut off, compressed, absurdly long."""
    _, endpoint = await made.serve(StockService())
    status, answer = await exchange(made, endpoint, post("/shop.Stock/count", body, "application/connect+json"))
    assert (status, json.loads(answer)["code"]) == (400, "invalid_argument")


async def test_health_needs_no_permission(made: Rig):
    """A mesh's probe may ask; an unknown ALPN falls to HTTP."""
    _, endpoint = await made.serve(StockService(), text="forbid(principal, action, resource);")
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    assert await exchange(made, endpoint, request) == (200, b'{"ready":true}')
    assert await exchange(made, endpoint, request, alpn="istio-http/1.1") == (200, b'{"ready":true}')


def test_envelopes_survive_any_cut():
    """Byte by byte, the same messages."""
    reader = EnvelopeReader(100)
    seen = [m for b in envelope(b"one") + envelope(b"") + envelope(b"two", 2) for m in reader.feed(bytes([b]))]
    assert seen == [(0, b"one"), (0, b""), (2, b"two")]
    assert not reader.partial
