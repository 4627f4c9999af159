"""Where a request comes from: an address that cannot be made up, and the network that it stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_HOPS_MAX = 32


class TrustedProxies:
    """Proxies whose word counts. Without any, nobody's does.

    Args:
        networks: addresses and networks in CIDR notation.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [ip_network(each, strict=False) for each in networks]
        self.trusts = lru_cache(maxsize=4096)(self._trusts)

    def _trusts(self, address: str) -> bool:
        known = _parsed(address)
        return known is not None and any(known in network for network in self._networks)

    def client(self, peer: str, forwarded: Sequence[bytes]) -> str:
        """The client of a request that ``peer`` brought: the right-most address that no trusted proxy has.

        What stands to the left of it was written by the client itself, and is not looked at. Raises nothing: what is
        no address ends the search.
        """
        if not self._networks:
            return peer
        told = b",".join(forwarded).rsplit(b",", _HOPS_MAX)[-_HOPS_MAX:] if forwarded else []
        client = peer
        while told and self.trusts(client):
            found = _parsed(_without_port(told.pop().strip().decode("latin-1")))
            if found is None:
                break
            client = str(found)
        return client


@lru_cache(maxsize=16_384)
def host_of(address: str) -> str:
    """What one customer of a provider has: an IPv4 address, or a /64 of IPv6."""
    known = _parsed(address)
    return str(ip_network((known, 64), strict=False)) if isinstance(known, IPv6Address) else address


@lru_cache(maxsize=16_384)
def network_of(address: str) -> str:
    """The /24 of an IPv4 address, or the /64 of an IPv6 one."""
    known = _parsed(address)
    if known is None:
        return address
    return str(ip_network((known, 64 if known.version == 6 else 24), strict=False))


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """The address; one of IPv4 that IPv6 wraps is what it stands for."""
    try:
        known = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (known.ipv4_mapped or known) if isinstance(known, IPv6Address) else known


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
