"""Which addresses are our own, and which requests another site made a browser send."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from seamline.kernel.settings.auth import loopback
from seamline.kernel.wire.http1 import HttpRequest

_RETURN_CHARACTERS_MAX = 2000
_PATH = re.compile(r"/(?![/\\])[!#-;=?-\[\]_a-z~%]*")
"""One slash, then what may stand in a path and query; no control, space, quote, backslash or angle bracket."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
OWN_PATHS = "/.seamline/"


class Origins:
    """The scheme and hosts by which browsers know this gateway.

    A ``host`` header is believed only if it names one of them: with ``public_url`` that one, else this machine's own
    names with the port that the gateway listens on.
    """

    def __init__(self, public_url: str, scheme: str, address: tuple[str, int]) -> None:
        if public_url:
            parts = urlsplit(public_url)
            self.scheme, hosts = parts.scheme, [parts.netloc.lower()]
        else:
            host, port = address
            names = ["127.0.0.1", "localhost", "[::1]"] if loopback(host) else [f"[{host}]" if ":" in host else host]
            self.scheme, hosts = scheme, [f"{name}:{port}" for name in names]
            if port == (443 if scheme == "https" else 80):
                hosts += names
        self._hosts = frozenset(hosts)
        self.canonical = f"{self.scheme}://{hosts[0]}"

    def of(self, host: bytes) -> str:
        """The origin that a browser with this ``host`` header is at; the canonical one if it is not ours."""
        name = host.decode("latin-1").lower()
        return f"{self.scheme}://{name}" if name in self._hosts else self.canonical

    def known(self, host: bytes) -> bool:
        return host.decode("latin-1").lower() in self._hosts

    def came_from_here(self, request: HttpRequest) -> bool | None:
        """Whether one of our own pages sent this; None where the browser does not say.

        ``same-site`` is not enough: a neighbour's subdomain is somebody else.
        """
        site = request.header(b"sec-fetch-site")
        if site is not None and site not in (b"same-origin", b"none"):
            return False
        origin = request.header(b"origin")
        if origin == b"null" and site == b"same-origin":
            origin = None  # a page of ours whose referrer policy keeps its origin to itself
        if origin is not None:
            host = request.header(b"host") or b""
            return self.known(host) and origin.decode("latin-1").lower() == self.of(host)
        return True if site is not None else None


def return_path(given: str, otherwise: str = "/") -> str:
    """``given`` if it is a path of this origin, else ``otherwise``: nobody is sent elsewhere from here."""
    if len(given) > _RETURN_CHARACTERS_MAX or not _PATH.fullmatch(given) or given.startswith(OWN_PATHS):
        return otherwise
    return given
