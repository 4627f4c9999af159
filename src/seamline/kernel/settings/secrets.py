"""``[secrets]``, and what of the environment is the supervisor's alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

OF_THE_SUPERVISOR: Final = (
    "SEAMLINE_IDENTITY_PASSPHRASE",
    "SEAMLINE_SECRETS_MASTER_KEY",
    "SEAMLINE_SECRETS_TOKEN",
)
"""Variables that no worker needs, and so none gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsSettings:
    """``[secrets]``: where secrets are kept and for how long what was read is remembered.

    ``master_key`` and ``token`` belong in the environment (``SEAMLINE_SECRETS_MASTER_KEY``,
    ``SEAMLINE_SECRETS_TOKEN``).
    """

    backend: Literal["file", "vault", "kubernetes", "aws", "gcp", "azure"] = "file"
    address: str = ""
    """The url of OpenBao, Vault, an API server or a vault of Azure, a region of AWS, a project of GCP."""
    path: str = ""
    """What stands before every name there: a folder, a prefix, a Kubernetes namespace."""
    mount: str = "secret"
    """Of OpenBao's or Vault's KV engine, version 2."""
    login: Literal["token", "kubernetes", "certificate"] = "token"
    """How OpenBao or Vault knows us."""
    role: str = ""
    """Of the login with Kubernetes or a certificate."""
    certificate: str = ""
    """The client certificate of the login, PEM; relative to the application's folder."""
    certificate_key: str = ""
    authority: str = ""
    """Whom to trust as the backend's certificate authority, PEM; the machine's own when empty."""
    token: str = field(default="", repr=False)
    master: Literal["file", "environment", "aws", "vault"] = "file"
    """What seals the file backend: a key file, a key in the environment, or a key service that never gives it out."""
    master_file: str = ""
    """``<data>/secrets/master.key`` when empty."""
    master_key: str = field(default="", repr=False)
    master_name: str = ""
    """The key's name in the key service."""
    cache_s: float = 300
    """How long what was read is at hand without asking again."""
    stale_s: float = 3600
    """How long what was read is given while the backend does not answer."""
    lease_s: float = 3600
    """The longest a lease runs without renewal."""
    overlap_s: float = 3600
    """How long a value stays valid after a newer one has taken its place."""


def for_workers(variables: Mapping[str, str], *, dynamic_credentials: bool) -> dict[str, str]:
    """The environment without what is the supervisor's alone."""

    def ours(name: str) -> bool:
        if name in OF_THE_SUPERVISOR:
            return True
        is_url = name == "SEAMLINE_DATA_URL" or (name.startswith("SEAMLINE_DATA_MODULES_") and name.endswith("_URL"))
        return dynamic_credentials and is_url

    return {name: value for name, value in variables.items() if not ours(name)}
