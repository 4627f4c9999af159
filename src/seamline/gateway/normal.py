"""One form for what a request is addressed to, so that routing, policy and the app speak of the same thing.

What could be read in two ways is not put right but refused: browsers and libraries send the one form by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from seamline.gateway.routes import bare_host
from seamline.kernel.wire.http1 import HttpRefusal

_PLAIN = re.compile(rb"(?:/[!$&-+\-0-9:;=@-Z_a-z~][!$&-+\-.0-9:;=@-Z_a-z~]*)*/?")
"""What wants no second look: no escape, no segment that begins with a dot, none that is empty."""
_SENT = re.compile(rb"/(?:[!\"$&-\[\]-~]|%[0-9A-Fa-f]{2})*")
"""Visible ASCII without ``#`` and the backslash, and escapes that are whole."""
_HIDDEN = re.compile(rb"%(?:2[Ff]|5[Cc]|[01][0-9A-Fa-f]|7[Ff])")
"""A slash, a backslash or a control character in disguise."""
_STEPS = re.compile(r"/(?:/|\.{1,2}(?:;[^/]*)?(?:/|\Z))")
"""An empty segment, ``.`` or ``..``, also with parameters behind a semicolon."""
_HOST = re.compile(rb"(?:[0-9A-Za-z_][0-9A-Za-z_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_LOOPBACK = ("localhost", "*.localhost", "127.0.0.1", "[::1]")


def path_of(sent: bytes) -> str:
    """The path as routes, policy and apps see it: decoded once. Raises HttpRefusal (400)."""
    if _PLAIN.fullmatch(sent) and sent:
        return sent.decode("ascii")
    if not _SENT.fullmatch(sent):
        raise _bad("The path holds what must be percent-encoded.")
    if _HIDDEN.search(sent):
        raise _bad("The path hides a slash, a backslash or a control character.")
    try:
        path = unquote_to_bytes(sent).decode()
    except UnicodeDecodeError:
        raise _bad("The path is not UTF-8.") from None
    if _STEPS.search(path):
        raise _bad("The path holds an empty segment, '.' or '..'.")
    return path


class Hosts:
    """The names that the gateway answers to.

    ``*`` is every name, ``*.example.com`` each below it; loopback names and the address that a connection came to
    are always among them. A page of a stranger whose name leads here (DNS rebinding) is not.
    """

    def __init__(self, names: Iterable[str]) -> None:
        known = {bare_host(name) for name in (*_LOOPBACK, *names)}
        self._any = "*" in known
        self._exact = frozenset(name for name in known if not name.startswith("*"))
        self._below = tuple(name[1:] for name in known if name.startswith("*."))

    def check(self, sent: bytes, arrived_at: str) -> str:
        """The ``host`` header as text. Raises HttpRefusal: 400 for what is no host, 421 for one that is not ours."""
        if not sent:  # of HTTP/1.0: whoever knows no names
            return ""
        if not _HOST.fullmatch(sent):
            raise _bad("The host header is not a host.")
        host = sent.decode("ascii")
        name = bare_host(host)
        if self._any or name in self._exact or name.endswith(self._below) or name.strip("[]") == arrived_at:
            return host
        raise HttpRefusal(421, "misdirected_request", "This address is not known here.")


def _bad(message: str) -> HttpRefusal:
    return HttpRefusal(400, "bad_request", message)
