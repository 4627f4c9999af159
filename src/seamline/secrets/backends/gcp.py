"""Google Cloud Secret Manager, by its own library with the credentials that it finds by itself.

A secret ``stripe-key`` is the secret ``<path>stripe-key`` of the project ``address``; '/' becomes '_', '.' likewise.
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


class GcpBackend:
    """Secret Manager; the version before the newest is valid for ``overlap_s``.

    Args:
        settings: ``[secrets]``: the project as address, a prefix as path.
        client: of the library.
    """

    local = False

    def __init__(self, settings: SecretsSettings, client: Any) -> None:
        self.label = f"gcp project {settings.address}"
        self._settings = settings
        self._client = client
        self._project = f"projects/{settings.address}"

    def _secret(self, name: str) -> str:
        own = (self._settings.path + name).replace("/", "_").replace(".", "_")
        return f"{self._project}/secrets/{own}"

    def close(self) -> None:
        self._client.transport.close()

    def _call(self, name: str, function: Callable[[], Any]) -> Any:
        exceptions = importlib.import_module("google.api_core.exceptions")
        try:
            return function()
        except exceptions.NotFound:
            raise UnknownSecretError(f"{self.label} has no secret {name!r}") from None
        except exceptions.FailedPrecondition:
            raise UnknownSecretError(f"the version of {name!r} is disabled or destroyed") from None
        except (exceptions.PermissionDenied, exceptions.Unauthenticated) as error:
            raise BackendRefusedError(
                f"{self.label} does not let the application read {name!r}",
                "Give its service account the role Secret Manager Secret Accessor.",
            ) from error
        except exceptions.GoogleAPIError as error:
            raise BackendDownError(f"{self.label} does not answer ({type(error).__name__})", "It may pass.") from error

    def read(self, name: str, version: str, now_ms: int) -> Secret:  # noqa: ARG002
        path = f"{self._secret(name)}/versions/{version or 'latest'}"
        answer = self._call(
            name, lambda: self._client.access_secret_version(request={"name": path}, timeout=_TIMEOUT_S)
        )
        number = answer.name.rpartition("/")[2]
        facts = self._call(
            name, lambda: self._client.get_secret_version(request={"name": answer.name}, timeout=_TIMEOUT_S)
        )
        return Secret(name, number, bytes(answer.payload.data), made_ms=round(facts.create_time.timestamp() * 1000))

    def valid(self, name: str, now_ms: int) -> list[Secret]:
        newest = self.read(name, "", now_ms)
        until_ms = newest.made_ms + round(self._settings.overlap_s * 1000)
        if newest.version == "1" or now_ms >= until_ms:
            return [newest]
        try:
            last = self.read(name, str(int(newest.version) - 1), now_ms)
        except UnknownSecretError:
            return [newest]
        return [newest, Secret(name, last.version, last.reveal_bytes(), made_ms=last.made_ms, until_ms=until_ms)]

    def facts(self, now_ms: int) -> list[SecretFacts]:  # noqa: ARG002
        pages = self._call("(all)", lambda: list(self._client.list_secrets(request={"parent": self._project})))
        prefix = self._settings.path.replace("/", "_").replace(".", "_")
        return [
            SecretFacts(own.removeprefix(prefix), (VersionFacts("latest", round(each.create_time.timestamp() * 1000)),))
            for each in pages
            if (own := each.name.rpartition("/")[2]).startswith(prefix)
        ]

    def write(self, name: str, value: bytes, *, after: str | None, until_ms: int, now_ms: int, by: str) -> str:  # noqa: ARG002
        def add() -> Any:
            return self._client.add_secret_version(
                request={"parent": self._secret(name), "payload": {"data": value}}, timeout=_TIMEOUT_S
            )

        def create() -> Any:
            own = self._secret(name).rpartition("/")[2]
            secret: dict[str, Any] = {"replication": {"automatic": {}}}
            return self._client.create_secret(
                request={"parent": self._project, "secret_id": own, "secret": secret}, timeout=_TIMEOUT_S
            )

        try:
            answer = self._call(name, add)
        except UnknownSecretError:
            self._call(name, create)
            answer = self._call(name, add)
        return str(answer.name.rpartition("/")[2])

    def delete(self, name: str, now_ms: int) -> None:  # noqa: ARG002
        self._call(name, lambda: self._client.delete_secret(request={"name": self._secret(name)}, timeout=_TIMEOUT_S))


def open_backend(settings: Settings) -> GcpBackend:
    library = imported("google.cloud.secretmanager", "gcp")
    return GcpBackend(settings.secrets, library.SecretManagerServiceClient())
