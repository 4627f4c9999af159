"""Certificates, WSGI, and the pure parts of the gateway."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask, request
from hypothesis import given
from hypothesis import strategies as st

from seamline.gateway.compression import accepts_gzip
from seamline.gateway.errors import CertificateError, RouteError, WsgiMissingError
from seamline.gateway.gateway import Gateway
from seamline.gateway.headers import for_app, request_id, vary
from seamline.gateway.pages import error_page
from seamline.gateway.routes import Route, RouteTable
from seamline.gateway.tls import CertificateFiles
from seamline.gateway.wsgi import wsgi_app
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import GatewaySettings
from seamline.kernel.wire.http1_client import HttpClientError, HttpPool


def write_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


async def test_https_by_certificate_files_that_are_followed(tmp_path: Path):
    """The scheme is told to the app; a renewed certificate is served without a restart; plain HTTP is not."""
    schemes: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        schemes.append(scope["scheme"])
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    certificate, key = write_certificate(tmp_path, "one.test")
    settings = GatewaySettings(tls_certificate=str(certificate), tls_key=str(key))
    clock = ManualClock()
    gateway = Gateway(settings, [Route(module="shop")], lambda _: app, clock=clock)
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    await gateway.serve(sock)

    async def visit(name: str) -> bytes | None:
        pool = HttpPool("127.0.0.1", port, ssl.create_default_context(cafile=certificate), name)
        try:
            response = await pool.request("GET", "/", timeout_s=10)
            return response.header(b"strict-transport-security")
        finally:
            await pool.close()

    assert await visit("one.test")
    assert schemes == ["https"]
    write_certificate(tmp_path, "two.test")
    clock.advance(6)
    gateway.sweep()
    assert await visit("two.test")
    plain = HttpPool("127.0.0.1", port)
    with pytest.raises(HttpClientError):
        await plain.request("GET", "/", timeout_s=10)
    await plain.close()
    await gateway.stop()


def test_a_broken_renewal_leaves_the_old_certificate(tmp_path: Path):
    """A half-written file is no reason to stop serving; a missing one at the start is."""
    certificate, key = write_certificate(tmp_path, "one.test")
    files = CertificateFiles(certificate, key)
    assert files.refresh() is False
    good = certificate.read_bytes()
    certificate.write_bytes(good[:100])
    os.utime(certificate, (1, 1))
    assert files.refresh() is False
    certificate.write_bytes(good)
    assert files.refresh() is True
    certificate.unlink()
    assert files.refresh() is False
    with pytest.raises(CertificateError, match="SL6002"):
        CertificateFiles(certificate, key)


async def test_a_flask_app_is_served_under_its_mount():
    """Form, query, and the prefix as SCRIPT_NAME."""
    flask = Flask("shop")

    @flask.post("/order/<name>")
    def order(name: str) -> str:  # pyright: ignore[reportUnusedFunction]
        return f"{request.script_root}|{name}|{request.form['x']}|{request.args['q']}|{request.remote_addr}"

    gateway = Gateway(GatewaySettings(), [Route(module="shop", path="/old")], lambda _: app)
    app = wsgi_app(flask)
    sock = socket.create_server(("127.0.0.1", 0))
    pool = HttpPool("127.0.0.1", sock.getsockname()[1])
    await gateway.serve(sock)
    form = [(b"content-type", b"application/x-www-form-urlencoded")]
    response = await pool.request("POST", "/old/order/mug?q=2", form, b"x=1", timeout_s=20)
    assert await response.read_all() == b"/old|mug|1|2|127.0.0.1"
    assert await gateway.drain(10)  # the app's thread has a last word to say after the body
    await pool.close()
    await gateway.stop()


def test_a_missing_adapter_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "a2wsgi", None)
    with pytest.raises(WsgiMissingError, match=r"SL6003: .*seamline\[wsgi\]"):
        wsgi_app(object())


def test_two_modules_cannot_claim_one_place():
    """The error names both, and where to choose."""
    with pytest.raises(RouteError, match=r"'a' and 'b'.*\[gateway\] routes"):
        RouteTable([Route(module="a", path="/x"), Route(module="b", path="/x")])
    for path in ("x", "/x/"):
        with pytest.raises(RouteError, match="prefix"):
            RouteTable([Route(module="a", path=path)])


prefixes = st.lists(st.sampled_from(["/", "/a", "/a/b", "/ab", "/a/b/c", "/b"]), min_size=1, unique=True)


@given(prefixes, st.lists(st.sampled_from(["a", "b", "ab", "c", ""]), max_size=4))
def test_a_match_is_the_longest_prefix_by_segment(paths: list[str], segments: list[str]):
    """Compared with a plain search over segments."""
    path = "/" + "/".join(segments)
    found = RouteTable([Route(module=prefix, path=prefix) for prefix in paths]).match("h", path)
    fitting = [p for p in paths if p in ("/", path) or path.startswith(f"{p}/")]
    assert (found.path if found else None) == (max(fitting, key=len) if fitting else None)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [(b"abc-1.2_3", True), (b"", False), (b"a b", False), (b"x" * 129, False), (b"a\r\nb", False), (b"\xff", False)],
)
def test_a_request_id_is_kept_only_if_it_is_plain(sent: bytes, kept: bool):
    """What is echoed into headers, pages and logs cannot carry anything else."""
    assert request_id(sent, 0xABC) == (sent if kept else b"%032x" % 0xABC)


def test_headers_named_by_connection_stay_with_the_hop():
    """All of them, however they are written."""
    sent = [(b"connection", b"X-A , close"), (b"connection", b"x-b"), (b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3")]
    kept = dict(for_app(sent, b"id", b"ip", b"http", b"host"))
    assert not {b"x-a", b"x-b", b"connection"} & set(kept)
    assert kept[b"x-c"] == b"3"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False), (b"", False), (b"gzip", True), (b"GZIP", True), (b"br, gzip;q=0.5", True), (b"gzip;q=0", False),
        (b"gzip; q=0.000", False), (b"*", True), (b"*;q=0", False), (b"gzip;q=0, *;q=1", False), (b"identity", False),
    ],
)  # fmt: skip
def test_accept_encoding_is_read_as_the_rfc_says(header: bytes | None, expected: bool):
    """RFC 9110, 12.5.3."""
    assert accepts_gzip(header) is expected


def test_vary_is_added_once():
    """To what the app says, without repeating it."""
    headers = [(b"vary", b"Cookie")]
    for _ in range(2):
        vary(headers, b"origin")
    assert headers == [(b"vary", b"Cookie, origin")]
    star = [(b"vary", b"*")]
    vary(star, b"origin")
    assert star == [(b"vary", b"*")]


def test_an_error_page_shows_nothing_as_markup():
    """Message and id are escaped."""
    _, body = error_page(404, "<script>", "<i>", b"text/html")
    assert b"<script>" not in body
    assert b"<i>" not in body


def test_who_is_signed_in_finds_the_way_out():
    """A page that refuses somebody says how to go on as somebody else, and only then."""
    assert b"sign-out" in error_page(403, "No.", "1", b"text/html", leave=True)[1]
    assert b"sign-out" not in error_page(403, "No.", "1", b"text/html")[1]
