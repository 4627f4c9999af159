"""AWS Secrets Manager, and AWS KMS as a key service, by ``boto3`` with the credentials that it finds by itself."""

from __future__ import annotations

import importlib
from datetime import datetime
from typing import Any, Final

from seamline.kernel.settings import SecretsSettings, Settings
from seamline.secrets.backends.outside import imported, joined
from seamline.secrets.errors import BackendDownError, BackendRefusedError, UnknownSecretError
from seamline.secrets.interface import SecretFacts, VersionFacts
from seamline.secrets.secret import Secret

_TIMEOUT_S: Final = 5
_UNKNOWN: Final = frozenset({"ResourceNotFoundException", "NotFoundException"})
_REFUSED: Final = frozenset(
    {"AccessDeniedException", "UnrecognizedClientException", "InvalidClientTokenId", "ExpiredTokenException"}
)
_DELETED: Final = "InvalidRequestException"


class Calls:
    """One client of the library, and what its errors mean."""

    def __init__(self, settings: SecretsSettings, service: str) -> None:
        boto3 = imported("boto3", "aws")
        config = importlib.import_module("botocore.config").Config(
            connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, retries={"total_max_attempts": 2, "mode": "standard"}
        )
        self.client: Any = boto3.client(service, region_name=settings.address or None, config=config)

    def call(self, name: str, method: str, **arguments: Any) -> Any:
        exceptions = importlib.import_module("botocore.exceptions")
        try:
            return getattr(self.client, method)(**arguments)
        except exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            if code in _UNKNOWN or code == _DELETED:
                raise UnknownSecretError(f"AWS has no secret {name!r} ({code})") from None
            if code in _REFUSED:
                raise BackendRefusedError(
                    f"AWS does not let the application read {name!r} ({code})", "Give its role the permission."
                ) from error
            raise BackendDownError(f"AWS answers {code} for {name!r}", "It may pass.") from error
        except exceptions.NoCredentialsError as error:
            raise BackendRefusedError(
                "there are no credentials for AWS", "Give the machine or the pod a role, or set them as boto3 says."
            ) from error
        except exceptions.BotoCoreError as error:
            raise BackendDownError(f"AWS does not answer ({type(error).__name__})", "It may pass.") from error


class AwsBackend:
    """Secrets Manager. Its ``AWSPREVIOUS`` version is the one that is still valid for ``overlap_s``."""

    local = False

    def __init__(self, settings: SecretsSettings, calls: Calls) -> None:
        self.label = f"aws {calls.client.meta.region_name}"
        self._settings = settings
        self._calls = calls

    def _id(self, name: str) -> str:
        return joined(self._settings.path, name)

    def close(self) -> None:
        self._calls.client.close()

    def read(self, name: str, version: str, now_ms: int) -> Secret:  # noqa: ARG002
        return self._read(name, {"VersionId": version} if version else {"VersionStage": "AWSCURRENT"})

    def _read(self, name: str, which: dict[str, str], until_ms: int = 0) -> Secret:
        answer = self._calls.call(name, "get_secret_value", SecretId=self._id(name), **which)
        value: bytes = answer["SecretBinary"] if "SecretBinary" in answer else answer["SecretString"].encode()
        return Secret(name, answer["VersionId"], value, made_ms=_ms(answer["CreatedDate"]), until_ms=until_ms)

    def valid(self, name: str, now_ms: int) -> list[Secret]:
        newest = self.read(name, "", now_ms)
        until_ms = newest.made_ms + round(self._settings.overlap_s * 1000)
        if now_ms >= until_ms:
            return [newest]
        try:
            return [newest, self._read(name, {"VersionStage": "AWSPREVIOUS"}, until_ms)]
        except UnknownSecretError:
            return [newest]

    def facts(self, now_ms: int) -> list[SecretFacts]:  # noqa: ARG002
        prefix = joined(self._settings.path, "") if self._settings.path.strip("/") else ""
        found: list[SecretFacts] = []
        filters = {"Filters": [{"Key": "name", "Values": [prefix]}]} if prefix else {}
        token: dict[str, str] = {}
        while True:
            page = self._calls.call("(all)", "list_secrets", **filters, **token)
            for each in page["SecretList"]:
                stages: dict[str, list[str]] = each.get("SecretVersionsToStages", {})
                newest = next((number for number, names in stages.items() if "AWSCURRENT" in names), "")
                made = _ms(each.get("LastChangedDate") or each["CreatedDate"])
                found.append(SecretFacts(each["Name"].removeprefix(prefix), (VersionFacts(newest, made),)))
            if "NextToken" not in page:
                return found
            token = {"NextToken": page["NextToken"]}

    def write(self, name: str, value: bytes, *, after: str | None, until_ms: int, now_ms: int, by: str) -> str:  # noqa: ARG002
        try:
            answer = self._calls.call(name, "put_secret_value", SecretId=self._id(name), SecretString=value.decode())
        except UnknownSecretError:
            answer = self._calls.call(name, "create_secret", Name=self._id(name), SecretString=value.decode())
        return str(answer["VersionId"])

    def delete(self, name: str, now_ms: int) -> None:  # noqa: ARG002
        self._calls.call(name, "delete_secret", SecretId=self._id(name), ForceDeleteWithoutRecovery=True)


class KmsKey:
    """A master key in AWS KMS: it wraps and unwraps data keys and is never given out. KMS rotates what is behind it."""

    def __init__(self, settings: SecretsSettings, calls: Calls) -> None:
        self.newest = settings.master_name
        self._calls = calls

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        answer = self._calls.call(
            self.newest, "encrypt", KeyId=self.newest, Plaintext=key, EncryptionContext=_context(context)
        )
        return self.newest, answer["CiphertextBlob"]

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        answer = self._calls.call(
            key_id, "decrypt", KeyId=key_id, CiphertextBlob=wrapped, EncryptionContext=_context(context)
        )
        return answer["Plaintext"]

    def begin_rotation(self) -> None:
        """KMS replaces what is behind a key's name by itself; another name stands in the settings."""

    def finish_rotation(self) -> None:
        """Likewise."""


def _context(context: bytes) -> dict[str, str]:
    return {"seamline": context.decode()}


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def open_backend(settings: Settings) -> AwsBackend:
    return AwsBackend(settings.secrets, Calls(settings.secrets, "secretsmanager"))


def open_master(settings: Settings) -> KmsKey:
    return KmsKey(settings.secrets, Calls(settings.secrets, "kms"))
