"""Servers that speak the HTTP APIs of OpenBao (or Vault) and of Kubernetes, as far as they are used."""

from __future__ import annotations

import base64
import ipaddress
import json
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID

Reply = tuple[int, Any]


class FakeVault:
    """KV version 2, transit, and logins with tokens that end."""

    def __init__(self) -> None:
        self.now = 1_767_225_600.0
        self.tokens: dict[str, float] = {"root-token": float("inf")}
        self.kv: dict[str, list[tuple[str, dict[str, str] | None]]] = {}
        self.keys: dict[str, list[bytes]] = {"seamline": [b"k" * 32]}
        self.asked: list[str] = []
        self.sealed = False
        self.renewals = 0
        self.lease_s = 60
        self.service_account = "the-pods-jwt"

    def put(self, path: str, **fields: str) -> None:
        self.kv.setdefault(path, []).append((_go_time(self.now), fields))

    def answer(self, method: str, path: str, headers: Any, body: dict[str, Any], certified: bool) -> Reply:
        self.asked.append(f"{method} {path}")
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if path == "auth/kubernetes/login":
            good = body == {"role": "shop", "jwt": self.service_account}
            return self._logged_in() if good else (403, {"errors": ["permission denied"]})
        if path == "auth/cert/login":
            return self._logged_in() if certified else (400, {"errors": ["client certificate must be supplied"]})
        token = headers.get("X-Vault-Token", "")
        if self.tokens.get(token, 0) <= self.now:
            return 403, {"errors": ["permission denied"]}
        if path == "auth/token/renew-self":
            self.renewals += 1
            self.tokens[token] = self.now + self.lease_s
            return 200, {"auth": self._auth(token)}
        mount, kind, *rest = path.split("/")
        name = "/".join(rest)
        if (mount, kind) == ("secret", "data"):
            return self._data(method, name, body)
        if (mount, kind) == ("secret", "metadata"):
            return self._metadata(method, name)
        if mount == "transit":
            return self._transit(kind, name, body)
        return 404, {"errors": [f"no handler for {path}"]}

    def _logged_in(self) -> Reply:
        token = f"token-{len(self.tokens)}"
        self.tokens[token] = self.now + self.lease_s
        return 200, {"auth": self._auth(token)}

    def _auth(self, token: str) -> dict[str, Any]:
        return {"client_token": token, "renewable": True, "lease_duration": self.lease_s, "policies": ["shop"]}

    def _data(self, method: str, name: str, body: dict[str, Any]) -> Reply:
        path, _, query = name.partition("?")
        versions = self.kv.get(path, [])
        if method in {"POST", "PUT"}:
            cas = body.get("options", {}).get("cas")
            if cas is not None and cas != len(versions):
                return 400, {"errors": ["check-and-set parameter did not match the current version"]}
            self.put(path, **body["data"])
            return 200, {"data": {"version": len(self.kv[path])}}
        number = int(query.removeprefix("version=") or 0) or len(versions)
        if not versions or number > len(versions):
            return 404, {"errors": []}
        made, fields = versions[number - 1]
        facts = {"version": number, "created_time": made, "deletion_time": "", "destroyed": fields is None}
        return (404 if fields is None else 200), {"data": {"data": fields, "metadata": facts}}

    def _metadata(self, method: str, name: str) -> Reply:
        path, _, query = name.partition("?")
        if method == "LIST" or query == "list=true":
            folder = f"{path.strip('/')}/" if path.strip("/") else ""
            keys = {each.removeprefix(folder).partition("/") for each in self.kv if each.startswith(folder)}
            found = sorted({head + slash for head, slash, _ in keys})
            return (200, {"data": {"keys": found}}) if found else (404, {"errors": []})
        if method == "DELETE":
            self.kv.pop(path, None)
            return 204, None
        versions = self.kv.get(path)
        if not versions:
            return 404, {"errors": []}
        listed = {
            str(number): {"created_time": made, "deletion_time": "", "destroyed": fields is None}
            for number, (made, fields) in enumerate(versions, 1)
        }
        return 200, {"data": {"current_version": len(versions), "updated_time": versions[-1][0], "versions": listed}}

    def _transit(self, kind: str, name: str, body: dict[str, Any]) -> Reply:
        if kind == "keys" and name.endswith("/rotate"):
            self.keys[name.removesuffix("/rotate")].append(bytes([len(self.keys[name.removesuffix("/rotate")])] * 32))
            return 204, None
        if kind == "keys":
            return 200, {"data": {"latest_version": len(self.keys[name]), "name": name}}
        bound = base64.b64decode(body.get("associated_data", ""))
        if kind == "encrypt":
            sealed = AESGCM(self.keys[name][-1]).encrypt(b"n" * 12, base64.b64decode(body["plaintext"]), bound)
            return 200, {"data": {"ciphertext": f"vault:v{len(self.keys[name])}:{base64.b64encode(sealed).decode()}"}}
        _, version, text = body["ciphertext"].split(":")
        try:
            plain = AESGCM(self.keys[name][int(version[1:]) - 1]).decrypt(b"n" * 12, base64.b64decode(text), bound)
        except Exception:
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": base64.b64encode(plain).decode()}}


class FakeKubernetes:
    """Secrets of namespaces, for who shows the token."""

    def __init__(self) -> None:
        self.token = "pod-token"
        self.secrets: dict[tuple[str, str], tuple[int, dict[str, bytes]]] = {}
        self.status = 0

    def answer(self, method: str, path: str, headers: Any, body: dict[str, Any], certified: bool) -> Reply:
        if self.status:
            return self.status, {"kind": "Status", "code": self.status}
        if headers.get("Authorization") != f"Bearer {self.token}":
            return 401, {"kind": "Status", "code": 401}
        _, namespace, _, *name = path.split("/")
        if namespace != "shop":
            return 403, {"kind": "Status", "reason": "Forbidden"}
        if not name:
            return 200, {"items": [self._shown(*each) for each in self.secrets if each[0] == namespace]}
        found = (namespace, name[0])
        return (200, self._shown(*found)) if found in self.secrets else (404, {"kind": "Status", "code": 404})

    def _shown(self, namespace: str, name: str) -> dict[str, Any]:
        version, data = self.secrets[namespace, name]
        return {
            "metadata": {"name": name, "resourceVersion": str(version), "creationTimestamp": "2026-01-01T00:00:00Z"},
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }


class FakeAzure:
    """A Key Vault, which sends who shows no token to the identity provider."""

    def __init__(self) -> None:
        self.kept: dict[str, list[str]] = {}
        self.status = 0

    def answer(self, method: str, path: str, headers: Any, body: dict[str, Any], certified: bool) -> Reply:
        if self.status:
            return self.status, {"error": {"code": "Trouble", "message": "no"}}
        if headers.get("Authorization") != "Bearer the-token":
            return 401, {"error": {"code": "Unauthorized", "message": "no"}}
        name, _, version = path.partition("?")[0].strip("/").partition("/")
        if method == "PUT":
            self.kept.setdefault(name, []).append(body["value"])
        if not name:
            return 200, {"value": [self._shown(each, len(self.kept[each])) for each in self.kept]}
        if name not in self.kept:
            return 404, {"error": {"code": "SecretNotFound", "message": "no"}}
        if method == "DELETE":
            del self.kept[name]
            return 200, {**self._shown(name, 1), "recoveryId": "https://v/deletedsecrets/x"}
        if version == "versions":
            return 200, {"value": [self._shown(name, number) for number in range(1, len(self.kept[name]) + 1)]}
        number = int(version or len(self.kept[name]))
        return 200, {"value": self.kept[name][number - 1], **self._shown(name, number)}

    def _shown(self, name: str, number: int) -> dict[str, Any]:
        made = 1_767_225_600 + number
        attributes = {"enabled": True, "created": made, "updated": made}
        return {"id": f"https://v.example/secrets/{name}/{number}", "attributes": attributes}


@contextmanager
def serving(
    fake: FakeVault | FakeKubernetes | FakeAzure, prefix: str, tls: ssl.SSLContext | None = None
) -> Generator[str]:
    """The fake behind HTTP, or behind HTTPS; its url."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        lock = threading.Lock()

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body: Any = json.loads(self.rfile.read(length) or b"{}")
            certified = isinstance(self.connection, ssl.SSLSocket) and bool(self.connection.getpeercert())
            with self.lock:
                status, reply = fake.answer(
                    self.command, self.path.removeprefix(prefix), self.headers, body or {}, certified
                )
            content = b"" if reply is None else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status == 401:
                told = 'Bearer authorization="https://login.example/tenant", resource="https://vault.example"'
                self.send_header("WWW-Authenticate", told)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_LIST = do_DELETE = _answer

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def certificates(folder: Path) -> ssl.SSLContext:
    """``ca.crt``, ``client.crt`` and ``client.key`` in the folder; the context of a server that asks for them."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("test authority", authority_key, None, authority_key)
    (folder / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(name, key, authority, authority_key)
        (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _go_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
