"""A bundle endpoint with a certificate of the web, as ``https_web`` wants it, and an authority of the web for it."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LOOPBACK = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
_PEM = serialization.Encoding.PEM


class WebAuthority:
    """Vouches for host names, and for no SPIFFE ID."""

    def __init__(self, folder: Path, name: str = "web") -> None:
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        root = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(self._identifier, critical=False)
        )
        self.pem = self._folder / "root.pem"
        self.pem.write_bytes(root.sign(self._key, hashes.SHA256()).public_bytes(_PEM))

    def context(self, host: x509.GeneralName = LOOPBACK) -> ssl.SSLContext:
        """A server's, with a certificate for the host."""
        key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier)
        leaf = (
            _builder(x509.Name([]), self._name, key)
            .add_extension(x509.SubjectAlternativeName([host]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(authority, critical=False)
        )
        plain = serialization.NoEncryption()
        path = self._folder / "server.pem"
        path.write_bytes(
            key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, plain)
            + leaf.sign(self._key, hashes.SHA256()).public_bytes(_PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


class WebEndpoint:
    """Answers every request with ``status``, ``headers`` and ``body``, on a free port of the loopback."""

    def __init__(self, context: ssl.SSLContext, body: bytes = b"", status: int = 200, **headers: str) -> None:
        self.body = body
        self.asked = 0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                endpoint.asked += 1
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(endpoint.body)))
                self.end_headers()
                self.wfile.write(endpoint.body)

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  # its name there

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"https://127.0.0.1:{self._server.server_port}/bundle"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
