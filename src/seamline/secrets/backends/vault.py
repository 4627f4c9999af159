"""OpenBao or HashiCorp Vault: the KV engine, version 2, and its transit engine as a key service.

A secret ``stripe-key`` is the field ``value`` of ``<mount>/<path>/stripe-key``, or its only field. The
login is renewed as long as the server allows and made anew after that.
"""

from __future__ import annotations

import base64
import importlib
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from seamline.kernel.settings import SecretsSettings, Settings
from seamline.secrets.backends.outside import imported, joined, only_field
from seamline.secrets.errors import BackendDownError, BackendRefusedError, RotationError, UnknownSecretError
from seamline.secrets.interface import SecretFacts, VersionFacts
from seamline.secrets.secret import Secret

_TIMEOUT_S: Final = 5.0
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class VaultClient:
    """A client of ``hvac`` that stays logged in.

    Args:
        settings: ``[secrets]``: address, login, role, certificate, authority, token.
        folder: the application's, to which the files of the settings are relative.
        monotonic: seconds that never run backwards.
    """

    def __init__(
        self,
        settings: SecretsSettings,
        folder: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        service_account: Path = _SERVICE_ACCOUNT,
    ) -> None:
        self._hvac = imported("hvac", "vault")
        self._settings = settings
        self._folder = folder
        self._monotonic = monotonic
        self._service_account = service_account
        self._lock = threading.Lock()
        self._good_until = 0.0
        self._renewable = False
        self.client: Any = self._hvac.Client(
            url=settings.address,
            timeout=_TIMEOUT_S,
            verify=str(folder / settings.authority) if settings.authority else True,
            cert=self._certificate(),
            allow_redirects=False,
        )
        # The library reads tokens of the person who runs it from the environment and the home folder: not ours.
        self.client.token = settings.token or None

    def _certificate(self) -> tuple[str, str] | None:
        own = self._settings
        if not own.certificate:
            return None
        return str(self._folder / own.certificate), str(self._folder / own.certificate_key)

    def call(self, name: str, function: Callable[[Any], Any]) -> Any:
        """What ``function`` gets of the client; logs in first, and once more where the server has forgotten us."""
        exceptions = importlib.import_module("hvac.exceptions")
        try:
            self._log_in(force=False)
            try:
                return function(self.client)
            except exceptions.Forbidden:
                if self._settings.login == "token":
                    raise
                self._log_in(force=True)
                return function(self.client)
        except exceptions.InvalidPath:
            raise UnknownSecretError(f"there is no secret {name!r} at {self._settings.address}") from None
        except (exceptions.Forbidden, exceptions.Unauthorized) as error:
            raise BackendRefusedError(
                f"{self._settings.address} does not let the application read {name!r}",
                "Give its token or role a policy that permits it.",
            ) from error
        except exceptions.InvalidRequest as error:
            if "check-and-set" in str(error):
                raise RotationError(f"the secret {name!r} has another version by now", "Somebody was faster.") from None
            raise BackendRefusedError(f"{self._settings.address} refuses {name!r}: {error}") from error
        except (exceptions.VaultError, OSError) as error:  # requests' errors are OSErrors
            self._down(error)

    def _down(self, error: Exception) -> NoReturn:
        raise BackendDownError(
            f"{self._settings.address} does not answer ({type(error).__name__})", "See whether it runs and is unsealed."
        ) from error

    def _log_in(self, *, force: bool) -> None:
        if self._settings.login == "token":
            return
        with self._lock:
            now = self._monotonic()
            if not force and now < self._good_until:
                return
            if not force and self._renewable and self.client.token:
                try:
                    self._keep(self.client.auth.token.renew_self()["auth"], now)
                    return
                except importlib.import_module("hvac.exceptions").VaultError:
                    pass  # it may not be renewed for ever
            self._keep(self._fresh()["auth"], now)

    def _fresh(self) -> Any:
        if self._settings.login == "certificate":
            self.client.token = None
            # The connection shows the certificate; the library's own login wants the files once more, and checks
            # them against rules that accept no path to an authority.
            return self.client.adapter.login("/v1/auth/cert/login", use_token=False, json={"name": self._settings.role})
        jwt = self._service_account.read_text(encoding="ascii").strip()
        return self.client.auth.kubernetes.login(role=self._settings.role, jwt=jwt)

    def _keep(self, auth: Any, now: float) -> None:
        self.client.token = auth["client_token"]
        self._renewable = bool(auth["renewable"])
        self._good_until = now + float(auth["lease_duration"]) / 2 if auth["lease_duration"] else float("inf")


class VaultBackend:
    """Secrets in the KV engine. The version before the newest counts as valid for as long as the engine keeps it and
    ``overlap_s`` says."""

    local = False

    def __init__(self, settings: SecretsSettings, client: VaultClient) -> None:
        self.label = f"vault at {settings.address}"
        self._settings = settings
        self._client = client

    def _path(self, name: str) -> str:
        return joined(self._settings.path, name)

    def close(self) -> None:
        self._client.client.adapter.close()

    def read(self, name: str, version: str, now_ms: int) -> Secret:  # noqa: ARG002  # the protocol's signature
        number = int(version) if version.isdigit() else None
        answer = self._client.call(
            name,
            lambda client: client.secrets.kv.v2.read_secret_version(
                path=self._path(name),
                version=number,
                mount_point=self._settings.mount,
                raise_on_deleted_version=True,
            ),
        )
        data, facts = answer["data"]["data"], answer["data"]["metadata"]
        return Secret(name, str(facts["version"]), only_field(name, data), made_ms=_ms(facts["created_time"]))

    def valid(self, name: str, now_ms: int) -> list[Secret]:
        newest = self.read(name, "", now_ms)
        until_ms = newest.made_ms + round(self._settings.overlap_s * 1000)
        if newest.version == "1" or now_ms >= until_ms:
            return [newest]
        try:
            last = self.read(name, str(int(newest.version) - 1), now_ms)
        except UnknownSecretError:
            return [newest]
        return [
            newest,
            Secret(name, last.version, last.reveal_bytes(), made_ms=last.made_ms, until_ms=until_ms),
        ]

    def facts(self, now_ms: int) -> list[SecretFacts]:  # noqa: ARG002  # likewise
        return [self._facts(name) for name in self._names("")]

    def _names(self, folder: str) -> list[str]:
        try:
            answer = self._client.call(
                folder or "(all)",
                lambda client: client.secrets.kv.v2.list_secrets(
                    path=joined(self._settings.path, folder), mount_point=self._settings.mount
                ),
            )
        except UnknownSecretError:
            return []
        found: list[str] = []
        for key in answer["data"]["keys"]:
            found += self._names(f"{folder}{key}") if key.endswith("/") else [f"{folder}{key}"]
        return found

    def _facts(self, name: str) -> SecretFacts:
        answer = self._client.call(
            name,
            lambda client: client.secrets.kv.v2.read_secret_metadata(
                path=self._path(name), mount_point=self._settings.mount
            ),
        )
        newest = str(answer["data"]["current_version"])
        versions = [
            VersionFacts(
                number,
                _ms(each["created_time"]),
                0 if number == newest else _ms(answer["data"]["updated_time"]),
                gone=each["destroyed"] or bool(each["deletion_time"]),
            )
            for number, each in answer["data"]["versions"].items()
        ]
        return SecretFacts(name, tuple(sorted(versions, key=lambda each: -int(each.version))))

    def write(self, name: str, value: bytes, *, after: str | None, until_ms: int, now_ms: int, by: str) -> str:  # noqa: ARG002
        answer = self._client.call(
            name,
            lambda client: client.secrets.kv.v2.create_or_update_secret(
                path=self._path(name),
                secret={"value": value.decode()},
                cas=int(after or 0) if after is not None else None,
                mount_point=self._settings.mount,
            ),
        )
        return str(answer["data"]["version"])

    def delete(self, name: str, now_ms: int) -> None:  # noqa: ARG002
        self._client.call(
            name,
            lambda client: client.secrets.kv.v2.delete_metadata_and_all_versions(
                path=self._path(name), mount_point=self._settings.mount
            ),
        )


class TransitKey:
    """A master key that never leaves the server: the transit engine wraps and unwraps data keys."""

    def __init__(self, settings: SecretsSettings, client: VaultClient) -> None:
        self._name = settings.master_name
        self._client = client

    @property
    def newest(self) -> str:
        answer = self._client.call(self._name, lambda client: client.secrets.transit.read_key(name=self._name))
        return f"{self._name}:v{answer['data']['latest_version']}"

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        answer = self._client.call(
            self._name,
            lambda client: client.secrets.transit.encrypt_data(
                name=self._name, plaintext=base64.b64encode(key).decode(), associated_data=_b64(context)
            ),
        )
        wrapped: str = answer["data"]["ciphertext"]
        return f"{self._name}:{wrapped.split(':')[1]}", wrapped.encode()

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:  # noqa: ARG002
        answer = self._client.call(
            self._name,
            lambda client: client.secrets.transit.decrypt_data(
                name=self._name, ciphertext=wrapped.decode(), associated_data=_b64(context)
            ),
        )
        return base64.b64decode(answer["data"]["plaintext"])

    def begin_rotation(self) -> None:
        self._client.call(self._name, lambda client: client.secrets.transit.rotate_key(name=self._name))

    def finish_rotation(self) -> None:
        """The server keeps older versions until somebody raises its min_decryption_version."""


def _b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


def _ms(moment: str) -> int:
    """RFC 3339 with nanoseconds, as Go writes it."""
    head, _, tail = moment.partition(".")
    fraction = tail.rstrip("Z")[:6]
    return round(datetime.fromisoformat(f"{head.rstrip('Z')}.{fraction or '0'}+00:00").timestamp() * 1000)


def open_backend(settings: Settings) -> VaultBackend:
    return VaultBackend(settings.secrets, VaultClient(settings.secrets, settings.folder))


def open_master(settings: Settings) -> TransitKey:
    return TransitKey(settings.secrets, VaultClient(settings.secrets, settings.folder))
