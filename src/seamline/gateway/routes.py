"""Which module answers: the longest path prefix wins, a route for the host before one for all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from seamline.gateway.errors import RouteError


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Requests to ``host`` (any when empty) under ``path`` go to ``module``; 0 means the gateway's value."""

    module: str
    path: str = "/"
    host: str = ""
    timeout_s: float = 0
    body_bytes_max: int = 0

    @property
    def root_path(self) -> str:
        """The prefix as ASGI's ``root_path``."""
        return "" if self.path == "/" else self.path


class RouteTable:
    """Matches by segment: ``/cart`` is not a prefix of ``/cartoon``."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self.routes = tuple(routes)
        taken: dict[tuple[str, str], Route] = {}
        for route in self.routes:
            place = (route.host.lower(), route.path)
            other = taken.setdefault(place, route)
            if not route.path.startswith("/") or (route.path != "/" and route.path.endswith("/")):
                raise RouteError(
                    f"the path {route.path!r} of module {route.module!r} cannot be a prefix",
                    "Begin it with '/' and do not end it with one.",
                )
            if other.module != route.module:
                raise RouteError(
                    f"modules {other.module!r} and {route.module!r} are both mounted at {route.host}{route.path!r}",
                    "Mount one of them elsewhere, or choose by [gateway] routes in seamline.toml.",
                )
        by_length = sorted(taken.values(), key=lambda route: len(route.path), reverse=True)
        self._any = [(route.path, f"{route.root_path}/", route) for route in by_length if not route.host]
        self._hosts: dict[str, list[tuple[str, str, Route]]] = {}
        for route in by_length:
            if route.host:
                entry = (route.path, f"{route.root_path}/", route)
                self._hosts.setdefault(route.host.lower(), []).append(entry)

    def match(self, host: str, path: str) -> Route | None:
        """The route for a ``host`` header (port and case do not matter) and a decoded path."""
        if self._hosts:
            for exact, prefix, route in self._hosts.get(bare_host(host), ()):
                if path.startswith(prefix) or path == exact:
                    return route
        for exact, prefix, route in self._any:
            if path.startswith(prefix) or path == exact:
                return route
        return None


def bare_host(host: str) -> str:
    """A host without its port, in lower case."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower().rstrip(".")
