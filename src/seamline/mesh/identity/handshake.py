"""Failed handshakes, told in words on both sides.

The event loops swallow a failed handshake on the server, and close the socket before the alert that would tell the
client is sent. The SSL objects here report the reason and let the alert out first.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

from seamline.mesh.errors import IdentityError

# OpenSSL's X509_V_ERR_ numbers, x509_vfy.h. Numbers, because the texts differ between versions.
_VERIFY = {
    7: "its certificate's signature is wrong",
    9: "its certificate is not valid yet (compare the clocks of both machines)",
    10: "its certificate has expired (it was not rotated in time, or the clocks of both machines differ)",
    18: "its certificate is self-signed",
    19: "its certificate comes from an unknown authority",
    20: "its certificate comes from an unknown authority",
    21: "its certificate comes from an unknown authority",
    22: "its certificate chain is too long",
    24: "its certificate was signed by a certificate that is no authority",
    26: "its certificate is not made for this purpose",
    32: "its certificate was signed by a certificate that is no authority",
    79: "its certificate was signed by a certificate that is no authority",
}

# What the peer says of us, as alerts.
_ALERTS = {
    "CERTIFICATE_REQUIRED": "this side showed no certificate",
    "CERTIFICATE_EXPIRED": "this side's certificate has expired, or the clocks of both machines differ",
    "BAD_CERTIFICATE": "this side's certificate is not valid for the peer (not valid yet, or the clocks differ)",
    "UNKNOWN_CA": "this side's certificate comes from an authority the peer does not know",
    "CERTIFICATE_REVOKED": "this side's certificate is revoked",
    "UNSUPPORTED_CERTIFICATE": "this side's certificate is not made for this purpose",
    "CERTIFICATE_UNKNOWN": "the peer could not accept this side's certificate",
    "ACCESS_DENIED": "access is denied",
    "UNRECOGNIZED_NAME": "the peer does not host the module asked for",
    "PROTOCOL_VERSION": "this side does not speak TLS 1.3",
    "HANDSHAKE_FAILURE": "no common TLS parameters",
    "NO_APPLICATION_PROTOCOL": "no common protocol",
    "DECRYPT_ERROR": "a signature did not fit",
    "INTERNAL_ERROR": "the peer failed (it may have no certificate yet)",
}

_NOT_TLS = ("speak TLS", "to a TLS port")

_LOCAL = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
    "UNSUPPORTED_PROTOCOL": "it does not speak TLS 1.3",
    "UNKNOWN_PROTOCOL": "it does not speak TLS 1.3",
    "VERSION_TOO_LOW": "it does not speak TLS 1.3",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it spoke plain HTTP to a TLS port",
    "HTTPS_PROXY_REQUEST": "it spoke plain HTTP to a TLS port",
    "PACKET_LENGTH_TOO_LONG": "it does not speak TLS",
    "BAD_RECORD_TYPE": "it does not speak TLS",
    "CALLBACK_FAILED": "it asked for a module that is not hosted here",
    "NO_SHARED_CIPHER": "no common TLS parameters",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no certificate is installed here",
}


def explain_tls_failure(error: BaseException) -> str:
    """One readable clause for what a failed connection raised, on either side, at connecting or at the first read."""
    if isinstance(error, IdentityError):
        return error.fact
    if isinstance(error.__cause__, ssl.SSLError) and not isinstance(error, ssl.SSLError):
        return explain_tls_failure(error.__cause__)
    if isinstance(error, ssl.SSLCertVerificationError):
        if isinstance(error.__cause__, IdentityError):
            return f"the peer was refused: {error.__cause__.fact}"
        code = getattr(error, "verify_code", 0)  # OpenSSL's errors carry more than those that Python raises
        why = _VERIFY.get(code, f"its certificate does not verify: {getattr(error, 'verify_message', error)}")
        return f"the peer was refused: {why}"
    if isinstance(error, ssl.SSLError):
        reason = _reason(error)
        # OpenSSL 3 calls most alerts TLSV1_ALERT_X and this one TLSV1_UNRECOGNIZED_NAME.
        alert = reason.partition("_ALERT_")[2] or reason.removeprefix("TLSV1_") * reason.startswith("TLSV1_")
        if alert:
            return f"the peer refused: {_ALERTS.get(alert, alert.replace('_', ' ').lower())}"
        if isinstance(error, ssl.SSLEOFError):
            return "the peer closed the connection during the handshake"
        known = _LOCAL.get(reason)
        return f"the peer was refused: {known}" if known else f"TLS failed: {reason.replace('_', ' ').lower() or error}"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens at the peer's address"
    if isinstance(error, (ConnectionResetError, BrokenPipeError, EOFError)):
        return "the peer closed the connection without a word"
    if isinstance(error, ConnectionAbortedError | TimeoutError):
        return "the handshake took too long"
    return f"{type(error).__name__}: {error}"


def _reason(error: ssl.SSLError) -> str:
    return getattr(error, "reason", None) or ""


class _ReportingObject(ssl.SSLObject):
    """Reports the first failure, then claims to want to read, so that the loop sends the alert before it is raised."""

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            self.report(error)
            if _without_alert(error):
                raise
            # The peer reads the alert and closes, which ends the handshake here; the loop's handshake timeout ends
            # it with a peer that does not.
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the alert goes out first") from error

    def report(self, error: ssl.SSLError) -> None: ...


def _without_alert(error: ssl.SSLError) -> bool:
    """Nothing waits to be sent: the peer does not speak TLS, or it was the peer that refused."""
    reason = _reason(error)
    return _LOCAL.get(reason, "").endswith(_NOT_TLS) or "_ALERT_" in reason


def server_object(on_refused: Callable[[str], None]) -> type[ssl.SSLObject]:
    """The class for ``SSLContext.sslobject_class`` of a server; ``on_refused`` hears each reason once."""

    class ServerObject(_ReportingObject):
        def report(self, error: ssl.SSLError) -> None:
            on_refused(explain_tls_failure(error))

    return ServerObject


def client_object(check: Callable[[ssl.SSLObject], None]) -> type[ssl.SSLObject]:
    """The class for a client: ``check`` raises IdentityError for a peer that is not who was asked for."""

    class ClientObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            try:
                check(self)
            except IdentityError as error:
                # The loops hand on nothing but SSLError.
                raise ssl.SSLCertVerificationError(1, str(error)) from error

    return ClientObject
