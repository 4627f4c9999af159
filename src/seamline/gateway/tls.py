"""The public certificate: read from files, and again when they change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from seamline.gateway.errors import CertificateError

_log = logging.getLogger("seamline.gateway")


class CertificateFiles:
    """An SSLContext that follows two files; connections that stand keep their certificate."""

    def __init__(self, certificate: str | Path, key: str | Path, client_ca: str | Path = "") -> None:
        self._certificate = Path(certificate)
        self._key = Path(key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        if client_ca:  # clients may show a certificate; one from elsewhere ends the handshake
            self._trust(client_ca)
        self._seen = self._stamp()
        self._load()

    def refresh(self) -> bool:
        """Load the files again if they changed. A broken pair is logged, and the old one stays."""
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return False
            self._seen = stamp
            # Into a context of its own first: a failed load would leave the live one without a key.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
            self._load()
        except (CertificateError, ssl.SSLError, OSError) as error:
            _log.error("the changed certificate is not used: %s", error)  # no trace: not our fault
            return False
        _log.info("the certificate %s was read again", self._certificate)
        return True

    def _stamp(self) -> tuple[int, int]:
        try:
            return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns
        except OSError as error:
            raise CertificateError(
                f"the certificate files cannot be read: {error}",
                "Correct tls_certificate and tls_key in [gateway], or leave both empty.",
            ) from error

    def _trust(self, client_ca: str | Path) -> None:
        try:
            self.context.load_verify_locations(client_ca)
        except (ssl.SSLError, OSError) as error:
            raise CertificateError(
                f"{client_ca} holds no certificates: {error}", "client_ca in [auth] is a PEM file."
            ) from error
        self.context.verify_mode = ssl.CERT_OPTIONAL

    def _load(self) -> None:
        try:
            self.context.load_cert_chain(self._certificate, self._key)
        except (ssl.SSLError, OSError) as error:
            raise CertificateError(
                f"{self._certificate} and {self._key} are not a certificate and its key: {error}",
                "tls_certificate is a PEM chain, tls_key its unencrypted PEM key.",
            ) from error
