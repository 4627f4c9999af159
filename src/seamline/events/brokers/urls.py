"""Urls of brokers as people may see them."""

from __future__ import annotations

from urllib.parse import SplitResult, quote, urlsplit

from seamline.events.errors import BrokerUrlError


def split(url: str) -> SplitResult:
    """The parts of a url. Raises BrokerUrlError if it has no host, or a port that is not a number."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise BrokerUrlError(f"the url cannot be read ({error})", "Write <broker>://user:password@host:port") from error
    if not parts.hostname:
        raise BrokerUrlError(f"{shown(url)!r} names no host", f"Write {parts.scheme or '<broker>'}://host:port")
    return parts


def shown(url: str) -> str:
    """The url without user and password."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def quoted(text: str) -> str:
    """Text as it may stand in a header."""
    return quote(text, safe="!#$&'()*+,-./:;<=>?@[]^_`{|}~")
