"""Backends of others, each against a server or transport that speaks its own protocol to its own library."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeAzure, FakeKubernetes, FakeVault, certificates, serving
from rig import settings_of

from seamline.kernel.settings import SecretsSettings
from seamline.secrets.backends import aws, azure, gcp
from seamline.secrets.backends.file import FileBackend
from seamline.secrets.backends.kubernetes import KubernetesBackend
from seamline.secrets.backends.vault import TransitKey, VaultBackend, VaultClient
from seamline.secrets.errors import (
    BackendDownError,
    BackendRefusedError,
    BadSecretError,
    ReadOnlyBackendError,
    RotationError,
    SdkMissingError,
    SealBrokenError,
    UnknownSecretError,
)
from seamline.secrets.interface import Backend
from seamline.secrets.opening import open_backend

CANARY = "canary-5e11"
HOUR_MS = 3_600_000


@pytest.fixture
def vault() -> FakeVault:
    return FakeVault()


def settings(**more: Any) -> SecretsSettings:
    return SecretsSettings(**more)


# OpenBao and Vault.


@pytest.fixture
def opened(vault: FakeVault, tmp_path: Path) -> Generator[VaultBackend]:
    with serving(vault, "/v1/") as url:
        own = settings(backend="vault", address=url, path="shop", token="root-token")
        backend = VaultBackend(own, VaultClient(own, tmp_path))
        yield backend
        backend.close()


def test_vault_gives_versions_and_the_one_before_for_the_overlap(vault: FakeVault, opened: VaultBackend):
    """KV version 2, below the path of the settings."""
    now_ms = round(vault.now * 1000)
    vault.put("shop/key", value="one")
    vault.now += 10
    vault.put("shop/key", value=CANARY)
    assert (opened.read("key", "", 0).reveal(), opened.read("key", "1", 0).reveal()) == (CANARY, "one")
    assert opened.read("key", "", 0).made_ms == now_ms + 10_123
    assert [(each.version, each.until_ms) for each in opened.valid("key", now_ms + 11_000)] == [
        ("2", 0), ("1", now_ms + 10_123 + HOUR_MS),
    ]  # fmt: skip
    assert [each.version for each in opened.valid("key", now_ms + 2 * HOUR_MS)] == ["2"]
    vault.kv["shop/key"][0] = (vault.kv["shop/key"][0][0], None)
    assert [each.version for each in opened.valid("key", now_ms)] == ["2"]


def test_vault_is_written_with_compare_and_set(vault: FakeVault, opened: VaultBackend):
    """The second of two rotations of one version is refused."""
    put: dict[str, Any] = {"until_ms": 1, "now_ms": 1, "by": "test"}
    assert opened.write("key", b"one", after=None, **put) == "1"
    assert opened.write("key", b"two", after="1", **put) == "2"
    with pytest.raises(RotationError):
        opened.write("key", b"three", after="1", **put)
    assert vault.kv["shop/key"][-1][1] == {"value": "two"}
    vault.put("shop/more/deep", value="x")
    assert [(each.name, each.versions[0].version) for each in opened.facts(0)] == [("key", "2"), ("more/deep", "1")]
    opened.delete("key", 1)
    with pytest.raises(UnknownSecretError):
        opened.read("key", "", 0)


def test_vault_says_what_is_wrong_and_shows_nothing(vault: FakeVault, opened: VaultBackend):
    """Not there, of several fields, not permitted, sealed: each its own error."""
    with pytest.raises(UnknownSecretError):
        opened.read("nothing", "", 0)
    vault.put("shop/two", user="u", password=CANARY)
    with pytest.raises(BadSecretError) as raised:
        opened.read("two", "", 0)
    assert CANARY not in str(raised.value)
    vault.put("shop/one", password="only")
    assert opened.read("one", "", 0).reveal() == "only"
    vault.tokens["root-token"] = 0
    with pytest.raises(BackendRefusedError):
        opened.read("one", "", 0)
    vault.tokens["root-token"] = float("inf")
    vault.sealed = True
    with pytest.raises(BackendDownError):
        opened.read("one", "", 0)


def test_a_vault_that_is_not_there_is_down(tmp_path: Path):
    """A refused connection is no answer."""
    own = settings(backend="vault", address="http://127.0.0.1:1", token="t")
    with pytest.raises(BackendDownError, match="SL4605"):
        VaultBackend(own, VaultClient(own, tmp_path)).read("key", "", 0)


def test_the_login_with_kubernetes_is_renewed_and_made_anew(vault: FakeVault, tmp_path: Path):
    """With the pod's token; at half of its life it is renewed, and one that the server has forgotten is replaced."""
    (tmp_path / "token").write_text("the-pods-jwt\n")
    vault.put("key", value=CANARY)
    with serving(vault, "/v1/") as url:
        own = settings(backend="vault", address=url, login="kubernetes", role="shop")
        client = VaultClient(own, tmp_path, monotonic=lambda: vault.now, service_account=tmp_path / "token")
        backend = VaultBackend(own, client)
        for _ in range(3):
            assert backend.read("key", "", 0).reveal() == CANARY
        assert [each for each in vault.asked if "login" in each] == ["POST auth/kubernetes/login"]
        vault.now += 31
        backend.read("key", "", 0)
        assert vault.renewals == 1
        vault.now += 1
        vault.tokens.clear()
        assert backend.read("key", "", 0).reveal() == CANARY
        assert len([each for each in vault.asked if "login" in each]) == 2
        (tmp_path / "token").write_text("stolen")
        vault.tokens.clear()
        with pytest.raises(BackendRefusedError):
            backend.read("key", "", 0)
        backend.close()


def test_the_login_with_a_certificate_needs_the_certificate(vault: FakeVault, tmp_path: Path):
    """Mutual TLS against the authority of the settings; without the certificate the login fails."""
    vault.put("key", value=CANARY)
    with serving(vault, "/v1/", certificates(tmp_path)) as url:
        own = settings(
            backend="vault", address=url, login="certificate", role="shop", authority="ca.crt",
            certificate="client.crt", certificate_key="client.key",
        )  # fmt: skip
        backend = VaultBackend(own, VaultClient(own, tmp_path))
        assert backend.read("key", "", 0).reveal() == CANARY
        backend.close()
        bare = replace(own, certificate="", certificate_key="")
        with pytest.raises(BackendRefusedError):
            VaultBackend(bare, VaultClient(bare, tmp_path)).read("key", "", 0)
        trusting = replace(own, authority="")
        with pytest.raises(BackendDownError):
            VaultBackend(trusting, VaultClient(trusting, tmp_path)).read("key", "", 0)


def test_the_persons_own_token_is_not_used(vault: FakeVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The library would take it from the environment or the home folder."""
    monkeypatch.setenv("VAULT_TOKEN", "root-token")
    vault.put("key", value=CANARY)
    with serving(vault, "/v1/") as url:
        own = settings(backend="vault", address=url)
        with pytest.raises(BackendRefusedError):
            VaultBackend(own, VaultClient(own, tmp_path)).read("key", "", 0)


def test_transit_seals_our_own_store_and_is_rotated(vault: FakeVault, tmp_path: Path):
    """The master key never leaves the server; a wrapped key that was moved does not open there."""
    with serving(vault, "/v1/") as url:
        own = settings(address=url, token="root-token", master="vault", master_name="seamline")
        store = FileBackend(tmp_path, "shop", lambda _: TransitKey(own, VaultClient(own, tmp_path)))
        for name in ("a", "b"):
            store.write(name, CANARY.encode(), after=None, until_ms=2, now_ms=1, by="test")
        assert store.rotate_master() == 2
        assert store.read("a", "", 1).reveal() == CANARY
        assert len(vault.keys["seamline"]) == 2
        with sqlite3.connect(store.path) as file:
            file.execute("UPDATE versions SET wrapped = (SELECT wrapped FROM versions WHERE name = 'b')")
        with pytest.raises((SealBrokenError, BackendRefusedError)):
            store.read("a", "", 1)
        store.close()


# Kubernetes.


@pytest.fixture
def account(tmp_path: Path) -> Path:
    for name, text in (("token", "pod-token"), ("namespace", "shop"), ("ca.crt", "")):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_kubernetes_gives_secrets_of_its_namespace(account: Path):
    """By the service account, over TLS; a key of a Secret by its path; a token that the kubelet replaced is read."""
    fake = FakeKubernetes()
    fake.secrets["shop", "key"] = (7, {"value": CANARY.encode()})
    fake.secrets["shop", "pay"] = (9, {"stripe": b"\xff\x00", "other": b"x"})
    tls = certificates(account)
    with serving(fake, "/api/v1/", tls) as url:
        backend = KubernetesBackend(settings(address=url), account, service_account=account)
        (found,) = backend.valid("key", 0)
        assert (found.reveal(), found.version) == (CANARY, "7")
        assert backend.read("pay/stripe", "", 0).reveal_bytes() == b"\xff\x00"
        assert [each.name for each in backend.facts(0)] == ["key", "pay"]
        fake.token = "next-token"
        with pytest.raises(BackendRefusedError, match="401"):
            backend.read("key", "", 0)
        (account / "token").write_text("next-token")
        assert backend.read("key", "", 0).reveal() == CANARY
        for name in ("pay/none", "nothing"):
            with pytest.raises(UnknownSecretError):
                backend.read(name, "", 0)
        with pytest.raises(UnknownSecretError):
            backend.read("key", "6", 0)
        with pytest.raises(BadSecretError):
            backend.read("pay", "", 0)
        with pytest.raises(ReadOnlyBackendError):
            backend.write("key", b"x", after=None, until_ms=0, now_ms=0, by="")
        with pytest.raises(ReadOnlyBackendError):
            backend.delete("key", 0)
        foreign = KubernetesBackend(settings(address=url, path="kube-system"), account, service_account=account)
        with pytest.raises(BackendRefusedError, match="403"):
            foreign.read("key", "", 0)
        fake.status = 500
        with pytest.raises(BackendDownError):
            backend.read("key", "", 0)
    with pytest.raises(BackendDownError):
        backend.read("key", "", 0)


def test_outside_of_a_pod_there_is_no_service_account(tmp_path: Path):
    """And that is said, with what to do."""
    with pytest.raises(BackendRefusedError, match="service account"):
        KubernetesBackend(settings(), tmp_path, service_account=tmp_path / "none")


# AWS, by moto, which answers what boto3 sends.


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    moto = pytest.importorskip("moto")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        yield


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.usefixtures("cloud")
def test_aws_gives_current_and_previous(tmp_path: Path):
    """Secrets Manager, below the path; written, listed, deleted."""
    found = settings_of(tmp_path, '[secrets]\nbackend = "aws"\naddress = "eu-central-1"\npath = "shop"\n')
    backend = open_backend(found, tmp_path)
    first = put(backend, "key", b"one")
    second = put(backend, "key", CANARY.encode())
    now_ms = round(datetime.now(UTC).timestamp() * 1000)
    assert [each.version for each in backend.valid("key", now_ms)] == [second, first]
    assert [each.reveal() for each in backend.valid("key", now_ms + HOUR_MS * 2)] == [CANARY]
    assert backend.read("key", first, 0).reveal() == "one"
    assert [(each.name, each.versions[0].version) for each in backend.facts(0)] == [("key", second)]
    backend.delete("key", 0)
    for name in ("key", "nothing"):
        with pytest.raises(UnknownSecretError):
            backend.read(name, "", 0)
    backend.close()


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.usefixtures("cloud")
def test_aws_kms_seals_our_own_store(tmp_path: Path):
    """The key never leaves KMS, and what it wrapped is bound to its place."""
    own = settings(address="eu-central-1", master="aws")
    calls = aws.Calls(own, "kms")
    key = calls.client.create_key()["KeyMetadata"]["KeyId"]
    sealing = aws.KmsKey(replace(own, master_name=key), calls)
    store = FileBackend(tmp_path, "shop", lambda _: sealing)
    put(store, "a", CANARY.encode())
    assert store.read("a", "", 1).reveal() == CANARY
    _, wrapped = sealing.wrap(b"k" * 32, b"here")
    assert sealing.unwrap(key, wrapped, b"here") == b"k" * 32
    with pytest.raises(BackendDownError):
        sealing.unwrap(key, wrapped, b"there")
    store.close()


def test_aws_without_credentials_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It says so instead of failing somewhere inside."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    own = settings(address="eu-central-1")
    with pytest.raises(BackendRefusedError, match="credentials"):
        aws.AwsBackend(own, aws.Calls(own, "secretsmanager")).read("key", "", 0)


# Google, by its own client over a channel of gRPC that is answered here.


@pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:DeprecationWarning")
def test_gcp_gives_versions(monkeypatch: pytest.MonkeyPatch):
    """The library's own requests and answers, on a transport whose calls are answered from a table."""
    library = pytest.importorskip("google.cloud.secretmanager")
    exceptions = pytest.importorskip("google.api_core.exceptions")
    grpc_transport = pytest.importorskip("google.cloud.secretmanager_v1.services.secret_manager_service.transports")
    credentials = pytest.importorskip("google.auth.credentials").AnonymousCredentials()
    client = library.SecretManagerServiceClient(
        transport=grpc_transport.SecretManagerServiceRestTransport(credentials=credentials, host="localhost")
    )
    kept: dict[str, list[bytes]] = {}
    began = datetime(2026, 1, 1, tzinfo=UTC)

    def one(name: str) -> tuple[str, int]:
        secret, _, version = name.partition("/versions/")
        if secret not in kept:
            raise exceptions.NotFound(name)
        number = len(kept[secret]) if version == "latest" else int(version)
        if number > len(kept[secret]):
            raise exceptions.NotFound(name)
        return secret, number

    def access(request: Any, **_: Any) -> Any:
        secret, number = one(request["name"])
        return library.AccessSecretVersionResponse(
            name=f"{secret}/versions/{number}", payload={"data": kept[secret][number - 1]}
        )

    def describe(request: Any, **_: Any) -> Any:
        secret, number = one(request["name"])
        return library.SecretVersion(name=f"{secret}/versions/{number}", create_time=began + timedelta(hours=number))

    def add(request: Any, **_: Any) -> Any:
        if request["parent"] not in kept:
            raise exceptions.NotFound("no secret")
        library.AddSecretVersionRequest(request)
        kept[request["parent"]].append(request["payload"]["data"])
        return library.SecretVersion(name=f"{request['parent']}/versions/{len(kept[request['parent']])}")

    def create(request: Any, **_: Any) -> Any:
        library.CreateSecretRequest(request)
        kept[f"{request['parent']}/secrets/{request['secret_id']}"] = []

    def listed(request: Any, **_: Any) -> Any:
        library.ListSecretsRequest(request)
        return [library.Secret(name=name, create_time=began) for name in kept]

    def delete(request: Any, **_: Any) -> Any:
        kept.pop(request["name"])

    answers: dict[str, Any] = {
        "access_secret_version": access, "get_secret_version": describe, "add_secret_version": add,
        "create_secret": create, "list_secrets": listed,
        "delete_secret": delete,
    }  # fmt: skip
    for name, function in answers.items():
        monkeypatch.setattr(client, name, function)
    backend = gcp.GcpBackend(settings(address="shop-1", path="shop-"), client)
    assert [put(backend, "a/key", value) for value in (b"one", CANARY.encode())] == ["1", "2"]
    made_ms = round((began + timedelta(hours=2)).timestamp() * 1000)
    assert [(each.reveal(), each.until_ms) for each in backend.valid("a/key", made_ms)] == [
        (CANARY, 0), ("one", made_ms + HOUR_MS),
    ]  # fmt: skip
    assert list(kept) == ["projects/shop-1/secrets/shop-a_key"]
    assert [each.name for each in backend.facts(0)] == ["a_key"]
    monkeypatch.setattr(client, "access_secret_version", raising(exceptions.PermissionDenied("no")))
    with pytest.raises(BackendRefusedError):
        backend.read("a/key", "", 0)
    monkeypatch.setattr(client, "access_secret_version", raising(exceptions.ServiceUnavailable("no")))
    with pytest.raises(BackendDownError):
        backend.read("a/key", "", 0)
    backend.delete("a/key", 0)
    with pytest.raises(UnknownSecretError):
        gcp.GcpBackend(settings(address="shop-1"), SimpleNamespace(access_secret_version=access)).read("key", "", 0)


def raising(error: Exception) -> Any:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


# Azure, by its own client against a server that speaks its API.


def test_azure_gives_versions(tmp_path: Path):
    """Key Vault, by its challenge and its tokens; written, listed, deleted, refused, away."""
    library = pytest.importorskip("azure.keyvault.secrets")
    fake = FakeAzure()
    token = SimpleNamespace(token="the-token", expires_on=4_000_000_000)
    credential = SimpleNamespace(get_token=lambda *_, **__: token)  # pyright: ignore[reportUnknownLambdaType]
    with serving(fake, "/secrets", certificates(tmp_path)) as url:
        client = library.SecretClient(
            url, credential, verify_challenge_resource=False, connection_verify=str(tmp_path / "ca.crt"), retry_total=0
        )
        backend = azure.AzureBackend(settings(address=url, path="shop-"), client)
        assert [put(backend, "a/key", value) for value in (b"one", CANARY.encode())] == ["1", "2"]
        made_ms = 1_767_225_602_000
        assert [(each.reveal(), each.until_ms) for each in backend.valid("a/key", made_ms)] == [
            (CANARY, 0), ("one", made_ms + HOUR_MS),
        ]  # fmt: skip
        assert [each.version for each in backend.valid("a/key", made_ms + HOUR_MS)] == ["2"]
        assert backend.read("a/key", "1", 0).reveal() == "one"
        assert list(fake.kept) == ["shop-a-key"]
        assert [each.name for each in backend.facts(0)] == ["a-key"]
        fake.status = 403
        with pytest.raises(BackendRefusedError):
            backend.read("a/key", "", 0)
        fake.status = 500
        with pytest.raises(BackendDownError):
            backend.read("a/key", "", 0)
        fake.status = 0
        backend.delete("a/key", 0)
        with pytest.raises(UnknownSecretError):
            backend.read("a/key", "", 0)
    backend.close()


def put(backend: Backend, name: str, value: bytes) -> str:
    return backend.write(name, value, after=None, until_ms=2, now_ms=1, by="test")


def test_a_library_that_is_missing_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What to install, instead of a traceback."""
    monkeypatch.setitem(sys.modules, "hvac", None)
    with pytest.raises(SdkMissingError, match=r'pip install "seamline\[vault\]"'):
        open_backend(settings_of(tmp_path, '[secrets]\nbackend = "vault"\naddress = "http://x"\n'), tmp_path)


@pytest.mark.skipif(not (shutil.which("bao") or shutil.which("vault")), reason="neither bao nor vault is on the PATH")
def test_a_real_openbao_or_vault(tmp_path: Path):
    """The same reads, writes, versions and transit as against the server that speaks its API."""
    program = shutil.which("bao") or shutil.which("vault") or ""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    server = subprocess.Popen(
        [program, "server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root-token",
         f"-dev-listen-address={address}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    try:
        own = settings(address=f"http://{address}", token="root-token", path="shop", master_name="seamline")
        client = VaultClient(own, tmp_path)
        end = time.monotonic() + 30
        while True:
            try:
                client.call("transit", lambda found: found.sys.enable_secrets_engine("transit"))
                break
            except BackendDownError:
                assert time.monotonic() < end
                time.sleep(0.1)
        client.call("seamline", lambda found: found.secrets.transit.create_key("seamline"))
        backend = VaultBackend(own, client)
        assert [put(backend, "key", value) for value in (b"one", CANARY.encode())] == ["1", "2"]
        now_ms = backend.read("key", "", 0).made_ms
        assert [each.reveal() for each in backend.valid("key", now_ms)] == [CANARY, "one"]
        with pytest.raises(RotationError):
            backend.write("key", b"x", after="1", until_ms=1, now_ms=1, by="test")
        with pytest.raises(UnknownSecretError):
            backend.read("nothing", "", 0)
        store = FileBackend(tmp_path / "store", "shop", lambda _: TransitKey(own, client))
        put(store, "a", CANARY.encode())
        assert store.rotate_master() == 1
        assert store.read("a", "", 1).reveal() == CANARY
        store.close()
        backend.delete("key", 1)
        assert backend.facts(0) == []
        backend.close()
    finally:
        server.terminate()
        server.wait(20)
