"""Kubernetes secrets, by the API server's HTTP API and the pod's service account.

A secret ``stripe-key`` is the key ``value`` of the Secret ``stripe-key`` in the namespace ``path`` (the pod's own when
empty), or its only key; ``shop/stripe-key`` is the key ``stripe-key`` of the Secret ``shop``. They are written with the
cluster's own tools.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit

from seamline.kernel.settings import SecretsSettings, Settings
from seamline.secrets.backends.outside import only_field, read_only
from seamline.secrets.errors import BackendDownError, BackendRefusedError, UnknownSecretError
from seamline.secrets.interface import SecretFacts, VersionFacts
from seamline.secrets.secret import Secret

_TIMEOUT_S: Final = 5.0
_ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_IN_A_POD: Final = "https://kubernetes.default.svc"


class KubernetesBackend:
    """Reads Secrets of one namespace.

    Args:
        settings: ``[secrets]``: address, path, authority.
        folder: the application's.
        service_account: the folder with ``token``, ``ca.crt`` and ``namespace`` that a pod has.
    """

    local = False

    def __init__(self, settings: SecretsSettings, folder: Path, *, service_account: Path = _SERVICE_ACCOUNT) -> None:
        self._url = urlsplit(settings.address or _IN_A_POD)
        self._account = service_account
        self._namespace = settings.path or _text(service_account / "namespace")
        authority = folder / settings.authority if settings.authority else service_account / "ca.crt"
        self._tls = ssl.create_default_context(cafile=str(authority)) if self._url.scheme == "https" else None
        self.label = f"kubernetes namespace {self._namespace}"

    def close(self) -> None:
        """Each question has a connection of its own."""

    def _get(self, name: str, suffix: str) -> Any:
        host, port = self._url.hostname or "", self._url.port
        connection = (
            http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=self._tls)
            if self._tls is not None
            else http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        )
        try:
            # The token is read each time: the kubelet replaces it every hour.
            headers = {"Authorization": f"Bearer {_text(self._account / 'token')}", "Accept": "application/json"}
            connection.request(
                "GET", f"/api/v1/namespaces/{quote(self._namespace, safe='')}/secrets{suffix}", headers=headers
            )
            answer = connection.getresponse()
            body = answer.read(_ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise BackendDownError(
                f"the API server at {self._url.netloc} does not answer ({type(error).__name__})", "See whether it runs."
            ) from error
        finally:
            connection.close()
        if answer.status == 404:
            raise UnknownSecretError(f"there is no secret {name!r} in the namespace {self._namespace!r}")
        if answer.status in {401, 403}:
            raise BackendRefusedError(
                f"the API server does not let the service account read {name!r} ({answer.status})",
                "Give it a Role with the verb get on secrets in this namespace.",
            )
        if answer.status != 200:
            raise BackendDownError(f"the API server answers {answer.status} for {name!r}", "See its log.")
        return json.loads(body)

    def read(self, name: str, version: str, now_ms: int) -> Secret:  # noqa: ARG002
        owner, _, key = name.partition("/")
        found = self._get(name, f"/{quote(owner, safe='')}")
        facts = cast("dict[str, Any]", found["metadata"])
        if version and version != facts["resourceVersion"]:
            raise UnknownSecretError(f"there is no version {version} of {name!r}", "Kubernetes keeps the newest only.")
        sealed = cast("dict[str, str]", found.get("data") or {})
        data = {part: base64.b64decode(value) for part, value in sealed.items()}
        if key:
            if key not in data:
                raise UnknownSecretError(f"the Secret {owner!r} has no key {key!r}", "Name one that it has.")
            value = data[key]
        else:
            value = only_field(name, data)
        return Secret(name, facts["resourceVersion"], value, made_ms=_ms(facts))

    def valid(self, name: str, now_ms: int) -> list[Secret]:
        return [self.read(name, "", now_ms)]

    def facts(self, now_ms: int) -> list[SecretFacts]:  # noqa: ARG002
        return [
            SecretFacts(
                each["metadata"]["name"], (VersionFacts(each["metadata"]["resourceVersion"], _ms(each["metadata"])),)
            )
            for each in self._get("(all)", "")["items"]
        ]

    def write(self, name: str, value: bytes, *, after: str | None, until_ms: int, now_ms: int, by: str) -> str:  # noqa: ARG002
        read_only(self.label)

    def delete(self, name: str, now_ms: int) -> None:  # noqa: ARG002
        read_only(self.label)


def _ms(metadata: dict[str, Any]) -> int:
    return round(datetime.fromisoformat(metadata["creationTimestamp"]).timestamp() * 1000)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise BackendRefusedError(
            f"there is no service account at {str(path.parent)!r} ({error.strerror})",
            "Run in a pod with a service account, or use another backend.",
        ) from error


def open_backend(settings: Settings) -> KubernetesBackend:
    return KubernetesBackend(settings.secrets, settings.folder)
