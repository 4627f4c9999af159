"""``[identity.federation."other.domain"]``: other trust domains, whose modules may be let in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationSettings:
    """Another trust domain: where its bundle is, how the answer is proven, and who of it policy may speak of."""

    url: str
    """Of its bundle endpoint, https."""
    profile: Literal["https_web", "https_spiffe"] = "https_web"
    """Whether the endpoint has a certificate of the web, or one of its own trust domain."""
    endpoint_id: str = ""
    """The endpoint's SPIFFE ID, with ``https_spiffe``."""
    bundle: str = ""
    """A file with its bundle to begin with, as its endpoint gives it; needed with ``https_spiffe``."""
    authority: str = ""
    """Whom to trust with ``https_web``, PEM; the machine's own authorities when empty."""
    modules: tuple[str, ...] = ()
    """``<application>/<module>``; policy calls it ``Module::"other.domain/<application>/<module>"``."""
