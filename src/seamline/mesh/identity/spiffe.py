"""SPIFFE IDs of modules: ``spiffe://<trust domain>/<app>/<module>`` (github.com/spiffe/spiffe, SPIFFE-ID.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from seamline.mesh.errors import NotSpiffeError, SvidError

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
# A module is also a DNS label of its server name, and a label holds 63 characters.
_SEGMENT = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,63}", re.ASCII)
_ID_CHARACTERS_MAX = 2048


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """The identity of one module of one application."""

    trust_domain: str
    app: str
    module: str

    def __post_init__(self) -> None:
        if not _TRUST_DOMAIN.fullmatch(self.trust_domain):
            raise SvidError(
                f"{self.trust_domain!r} is not a trust domain",
                "Use lower-case letters, digits, dots, dashes and underscores.",
            )
        for kind, value in (("an application", self.app), ("a module", self.module)):
            if not _SEGMENT.fullmatch(value):
                raise SvidError(
                    f"{value!r} cannot be the name of {kind} in a SPIFFE ID",
                    "Use at most 63 letters, digits, dots, dashes and underscores.",
                )

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/{self.app}/{self.module}"

    @property
    def server_name(self) -> str:
        """The TLS server name under which the module's certificate is asked for."""
        return f"{self.module}.{self.app}.seamline"

    @classmethod
    def parse(cls, uri: str) -> SpiffeId:
        """Read an ID; raises NotSpiffeError for anything else, a query, a port or an empty segment included."""
        scheme, _, rest = uri.partition("://")
        parts = rest.split("/")
        if scheme.lower() != "spiffe" or len(parts) != 3 or len(uri) > _ID_CHARACTERS_MAX:
            raise _not_a_module(uri)
        try:
            return cls(*parts)
        except SvidError:
            raise _not_a_module(uri) from None


def _not_a_module(uri: str) -> NotSpiffeError:
    return NotSpiffeError(
        f"{uri[:200]!r} is not the SPIFFE ID of a module",
        "It must read spiffe://<trust domain>/<app>/<module>.",
    )
