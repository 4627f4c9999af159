"""``[sidecars.<module>]``: modules that a service in another language answers for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarSettings:
    """A service that answers for a module behind a sidecar: started with it, or listening already."""

    command: tuple[str, ...] = ()
    """Starts the service, in the application's folder."""
    port: int = 0
    """Of the loopback, where a service listens that somebody else has started."""
    topologies: tuple[str, ...] = ()
    """In which it takes the place of the Python inside; in all when empty."""
