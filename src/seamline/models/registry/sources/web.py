"""What the sources on the web share: streams, redirects without downgrade, a login that stays with its host."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from seamline.models.registry.blobs import CHUNK
from seamline.models.registry.errors import SourceError

_TIMEOUT_S: Final = 30
_REDIRECTS_MAX: Final = 5
_JSON_BYTES_MAX: Final = 16 << 20
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Web:
    """Asks one server, and those that it redirects to.

    Args:
        base: ``https://host``, or ``http://`` for a server that speaks no TLS.
        login: ``user:password``, or a token.
    """

    def __init__(self, base: str, login: str = "") -> None:
        self._base = base.rstrip("/")
        self._login = login
        self.authorization = ""
        """Sent to this host only."""
        if login:
            basic = base64.b64encode(login.encode()).decode()
            self.authorization = f"Basic {basic}" if ":" in login else f"Bearer {login}"

    @property
    def login(self) -> str:
        return self._login

    @property
    def plain(self) -> bool:
        """Whether it is spoken to without TLS."""
        return self._base.startswith("http://")

    @contextmanager
    def get(self, target: str, headers: Mapping[str, str] | None = None) -> Generator[http.client.HTTPResponse]:
        """The answer, whatever its status, after redirects. Raises SourceError."""
        url = urljoin(f"{self._base}/", target)
        for _ in range(_REDIRECTS_MAX):
            connection = self._connect(url)
            try:
                parts = urlsplit(url)
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                sent = {"user-agent": "seamline", "accept-encoding": "identity", **(headers or {})}
                if self.authorization and _origin(url) == _origin(self._base):
                    sent["authorization"] = self.authorization
                connection.request("GET", path, headers=sent)
                answer = connection.getresponse()
                location = answer.headers.get("location")
                if answer.status in _REDIRECTS and location:
                    url = self._onward(url, location)
                    continue
                yield answer
            except (OSError, http.client.HTTPException) as error:
                what = f"{type(error).__name__}: {error}"
                raise SourceError(f"{_origin(url)} does not answer as it should ({what})", "It may pass.") from error
            else:
                return
            finally:
                connection.close()
        raise SourceError(f"{self._base} redirects for ever", "Look at the address.")

    def json(self, target: str, headers: Mapping[str, str] | None = None) -> Any:
        """Raises SourceError, also when the answer is none of 200."""
        with self.get(target, headers) as answer:
            return decoded(self.whole(answer, target), target)

    def whole(self, answer: http.client.HTTPResponse, target: str) -> bytes:
        """A small answer. Raises SourceError for any status but 200."""
        self.check(answer, target)
        content = answer.read(_JSON_BYTES_MAX + 1)
        if len(content) > _JSON_BYTES_MAX:
            raise SourceError(f"{self._base} answers {target} with more than {_JSON_BYTES_MAX >> 20} MB")
        return content

    def stream(self, target: str, offset: int, headers: Mapping[str, str] | None = None) -> Iterator[bytes]:
        """A file from ``offset`` on. Raises SourceError."""
        sent = {**(headers or {}), **({"range": f"bytes={offset}-"} if offset else {})}
        with self.get(target, sent) as answer:
            self.check(answer, target, 206 if offset else 200)
            if offset and answer.status == 200:  # the whole of it, again
                left = offset
                while left and (skipped := answer.read(min(left, CHUNK))):
                    left -= len(skipped)
            while chunk := answer.read(CHUNK):
                yield chunk

    def check(self, answer: http.client.HTTPResponse, target: str, *also: int) -> None:
        """Raises SourceError unless the status is 200 or one of ``also``."""
        if answer.status == 200 or answer.status in also:
            return
        remedy = {
            401: "Give it the login that [models] names.",
            403: "The login may not read that.",
            404: "Look at the address.",
            429: "It is asked too often: try later.",
        }.get(answer.status, "It may pass.")
        raise SourceError(f"{self._base} answers {answer.status} to {target.partition('?')[0]}", remedy)

    def _connect(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        if not parts.hostname:
            raise SourceError(f"{url!r} has no host", "Look at the address.")
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S, context=context)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)

    def _onward(self, url: str, location: str) -> str:
        onward = urljoin(url, location)
        if urlsplit(onward).scheme not in {"https", urlsplit(self._base).scheme} or (
            urlsplit(onward).scheme == "http" and _origin(onward) != _origin(self._base)
        ):
            raise SourceError(f"{_origin(url)} redirects to {_origin(onward)}, without TLS", "Look at the address.")
        return onward


def decoded(content: bytes, target: str) -> Any:
    """JSON. Raises SourceError."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise SourceError(f"the answer to {target.partition('?')[0]} is not JSON", "Look at the address.") from None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
