"""Where a webhook may be sent: to public addresses only, unless its settings say otherwise.

The name is looked up once and the connection goes to the address that was looked at, so that a name that changes its
mind in between (DNS rebinding) leads nowhere else.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from seamline.events.webhooks.errors import WebhookAddressError, WebhookError

Lookup = Callable[[str, int], Awaitable[list[str]]]
_NAT64 = IPv6Network("64:ff9b::/96")


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def public_address(host: str, port: int, lookup: Lookup) -> str:
    """One of the name's addresses, all of which must be public.

    Raises:
        WebhookAddressError: one is not.
        WebhookError: there is none now.
    """
    addresses = await any_addresses(host, port, lookup)
    inside = [address for address in addresses if not is_public(address)]
    if inside:
        raise WebhookAddressError(
            f"{host!r} leads to {inside[0]}, which is not a public address",
            "If it is meant to, write `private = true` at the webhook in seamline.toml.",
        )
    return addresses[0]


async def any_addresses(host: str, port: int, lookup: Lookup) -> list[str]:
    """The name's addresses, at least one. Raises WebhookError."""
    try:
        addresses = await lookup(host, port)
    except OSError as error:
        raise WebhookError(f"the name {host!r} leads nowhere now: {error}", "It is tried again.") from None
    if not addresses:
        raise WebhookError(f"the name {host!r} has no address now", "It is tried again.")
    return addresses


def is_public(text: str) -> bool:
    """Whether an address belongs to the public Internet, seen through the ways in which IPv6 wraps IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(each.is_global and not each.is_multicast and not each.is_reserved for each in _meant(address))


def _meant(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    if isinstance(address, IPv4Address):
        return [address]
    if address in _NAT64:
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    wrapped = address.sixtofour or (address.teredo[1] if address.teredo else None)
    return [address, wrapped] if wrapped is not None else [address]
