"""Azure Key Vault, by its own library with the identity that it finds by itself.

A secret ``stripe-key`` is the secret ``<path>stripe-key`` of the vault at ``address``; '/', '_' and '.' become '-'.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

from seamline.kernel.settings import SecretsSettings, Settings
from seamline.secrets.backends.outside import imported
from seamline.secrets.errors import BackendDownError, BackendRefusedError, UnknownSecretError
from seamline.secrets.interface import SecretFacts, VersionFacts
from seamline.secrets.secret import Secret

_TIMEOUT_S: Final = 5.0


class AzureBackend:
    """Key Vault; the version before the newest is valid for ``overlap_s``.

    Args:
        settings: ``[secrets]``: the vault's url as address, a prefix as path.
        client: of the library.
    """

    local = False

    def __init__(self, settings: SecretsSettings, client: Any) -> None:
        self.label = f"azure {settings.address}"
        self._settings = settings
        self._client = client

    def _own(self, name: str) -> str:
        own = self._settings.path + name
        for part in "/_.":
            own = own.replace(part, "-")
        return own

    def close(self) -> None:
        self._client.close()

    def _call(self, name: str, function: Callable[[], Any]) -> Any:
        exceptions = importlib.import_module("azure.core.exceptions")
        try:
            return function()
        except exceptions.ResourceNotFoundError:
            raise UnknownSecretError(f"{self.label} has no secret {name!r}") from None
        except exceptions.ClientAuthenticationError as error:
            raise self._refused(name) from error
        except exceptions.HttpResponseError as error:
            if error.status_code == 403:
                raise self._refused(name) from error
            raise BackendDownError(f"{self.label} answers {error.status_code} for {name!r}", "It may pass.") from error
        except exceptions.AzureError as error:
            raise BackendDownError(f"{self.label} does not answer ({type(error).__name__})", "It may pass.") from error

    def _refused(self, name: str) -> BackendRefusedError:
        return BackendRefusedError(
            f"{self.label} does not let the application read {name!r}",
            "Give its identity the role Key Vault Secrets User.",
        )

    def read(self, name: str, version: str, now_ms: int) -> Secret:  # noqa: ARG002
        answer = self._call(name, lambda: self._client.get_secret(self._own(name), version or None))
        facts = answer.properties
        return Secret(name, facts.version, answer.value.encode(), made_ms=_ms(facts.created_on))

    def valid(self, name: str, now_ms: int) -> list[Secret]:
        newest = self.read(name, "", now_ms)
        until_ms = newest.made_ms + round(self._settings.overlap_s * 1000)
        if now_ms >= until_ms:
            return [newest]
        listed = self._call(name, lambda: list(self._client.list_properties_of_secret_versions(self._own(name))))
        older = [each for each in listed if each.enabled and _ms(each.created_on) < newest.made_ms]
        if not older:
            return [newest]
        last = self.read(name, max(older, key=lambda each: each.created_on).version, now_ms)
        return [newest, Secret(name, last.version, last.reveal_bytes(), made_ms=last.made_ms, until_ms=until_ms)]

    def facts(self, now_ms: int) -> list[SecretFacts]:  # noqa: ARG002
        prefix = self._own("")
        listed = self._call("(all)", lambda: list(self._client.list_properties_of_secrets()))
        return [
            SecretFacts(
                each.name.removeprefix(prefix),
                (VersionFacts(each.version or "newest", _ms(each.updated_on or each.created_on)),),
            )
            for each in listed
            if each.name.startswith(prefix)
        ]

    def write(self, name: str, value: bytes, *, after: str | None, until_ms: int, now_ms: int, by: str) -> str:  # noqa: ARG002
        answer = self._call(name, lambda: self._client.set_secret(self._own(name), value.decode()))
        return str(answer.properties.version)

    def delete(self, name: str, now_ms: int) -> None:  # noqa: ARG002
        self._call(name, lambda: self._client.begin_delete_secret(self._own(name)))


def _ms(moment: Any) -> int:
    return round(moment.timestamp() * 1000)


def open_backend(settings: Settings) -> AzureBackend:
    library, identity = imported("azure.keyvault.secrets", "azure"), imported("azure.identity", "azure")
    client = library.SecretClient(
        settings.secrets.address,
        identity.DefaultAzureCredential(),
        connection_timeout=_TIMEOUT_S,
        read_timeout=_TIMEOUT_S,
        retry_total=1,
    )
    return AzureBackend(settings.secrets, client)
