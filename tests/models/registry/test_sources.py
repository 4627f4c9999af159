"""Where models come from: what is fetched is what the source has, whole, and nothing is fetched twice."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.models.registry.conftest import safetensors

from seamline.kernel.settings import ModelsSettings
from seamline.models.registry import Registry
from seamline.models.registry.errors import (
    ArtefactDamagedError,
    ArtefactTooLargeError,
    RegistryError,
    SourceError,
    UnsafeFormatError,
)
from seamline.models.registry.manifest import CARD_TYPE, MEDIA_TYPE

Answer = tuple[int, dict[str, str], bytes]


class Server:
    """A web server that says what the test wants, by path, and writes down what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | Callable[[dict[str, str]], Answer]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.cut: dict[str, int] = {}
        """Path to the bytes after which it hangs up, once."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.asked.append((self.path, headers))
                found = server.answers.get(self.path.partition("?")[0], (404, {}, b"no"))
                status, said, body = found(headers) if callable(found) else found
                first, span = 0, headers.get("range", "")
                if span and status == 200:
                    status, first = 206, int(span.removeprefix("bytes=").partition("-")[0])
                self.send_response(status)
                for name, value in {"content-length": str(len(body) - first), **said}.items():
                    self.send_header(name, value)
                self.end_headers()
                end = server.cut.pop(self.path.partition("?")[0], len(body))
                self.wfile.write(body[first:end])

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the signature of the library
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.host = f"127.0.0.1:{self._http.server_port}"

    def json(self, path: str, content: Any) -> None:
        self.answers[path] = (200, {}, json.dumps(content).encode())

    def file(self, path: str, content: bytes) -> None:
        self.answers[path] = (200, {}, content)

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def registry_of(tmp_path: Path, **settings: Any) -> Registry:
    return Registry(tmp_path / "models", ModelsSettings(**settings))


# Folders


def test_links_and_pipes_in_a_folder_are_refused(tmp_path: Path):
    """They may lead to what nobody wanted to publish, or never end."""
    (tmp_path / "secret").write_text("secret")
    for name in ("secret", "nowhere", "", "pipe"):
        source = tmp_path / f"source-{name}"
        source.mkdir()
        if name == "pipe":
            os.mkfifo(source / "file.txt")
        else:
            (source / "file.txt").symlink_to(tmp_path / name)
        with pytest.raises(SourceError, match=r"is a link|is no file"):
            registry_of(tmp_path).add("a", "1", str(source))
    with pytest.raises(SourceError, match="there is no folder"):
        registry_of(tmp_path).add("a", "1", "file:/does/not/exist")


def test_only_the_sources_of_the_settings_are_asked(tmp_path: Path):
    """At a border of the name: what merely begins alike is another's."""
    registry = registry_of(tmp_path, sources=("hf:good/", "s3://bucket/models", "oci://host/team/"))
    for address in (
        "hf:goody/model",
        "s3://bucket/models-evil",
        "oci://host/teammate/x:1",
        str(tmp_path),
        "mlflow:a/1",
    ):
        with pytest.raises(SourceError, match="none of the sources"):
            registry.add("a", "1", address)


# The hub


def hub(server: Server, files: dict[str, bytes], *, lie: str = "") -> str:
    """A model of the hub: large files by their SHA-256, small ones by git's digest."""
    commit = "c" * 40
    siblings: list[dict[str, Any]] = []
    for name, content in files.items():
        digest = "0" * 64 if name == lie else sha256(content)
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        large = {"lfs": {"sha256": digest, "size": len(content)}} if len(content) > 1000 else {}
        siblings.append({"rfilename": name, "size": len(content), "blobId": "0" * 40 if name == lie else blob, **large})
        server.file(f"/org/model/resolve/{commit}/{name}", content)
    server.json(
        "/api/models/org/model/revision/main", {"sha": commit, "siblings": siblings, "cardData": {"license": "mit"}}
    )
    return commit


def test_a_model_of_the_hub_is_pinned_to_its_commit(tmp_path: Path, server: Server):
    """Large and small files; where there are safetensors, the pickles beside them are left where they are."""
    files = {
        "model.safetensors": safetensors(bytes(5000)),
        "config.json": b"{}",
        "pytorch_model.bin": b"\x80\x04" * 999,
    }
    commit = hub(server, files)
    with pytest.raises(SourceError, match="not said where the hub is"):
        registry_of(tmp_path).add("m", "1", "hf:org/model")
    registry = registry_of(tmp_path, hub_endpoint=server.url, hub_token="hf_x")
    found = registry.add("m", "1", "hf:org/model")
    assert sorted(found.files) == ["config.json", "model.safetensors"]
    assert (found.card.lineage.source, found.card.licence) == (f"hf:org/model@{commit}", "mit")
    assert {headers["authorization"] for _, headers in server.asked} == {"Bearer hf_x"}


def test_what_is_kept_is_not_asked_for(tmp_path: Path, server: Server):
    """Adding the same again works while the hub is away."""
    commit = hub(server, {"config.json": b"{}"})
    registry = registry_of(tmp_path, hub_endpoint=server.url)
    registry.add("m", "1", "hf:org/model")
    server.answers.clear()
    server.asked.clear()
    registry.add("m", "1", "hf:org/model")
    registry.add("m", "1", f"hf:org/model@{commit}")
    assert server.asked == []
    with pytest.raises(SourceError, match="answers 404"):
        registry.add("m", "2", "hf:org/model")


@pytest.mark.parametrize("lie", ["model.safetensors", "config.json"])
def test_a_file_that_came_wrong_is_not_kept(tmp_path: Path, server: Server, lie: str):
    """Large or small, and the wrong beginning is not gone on with."""
    hub(server, {"model.safetensors": safetensors(bytes(5000)), "config.json": b"{}"}, lie=lie)
    registry = registry_of(tmp_path, hub_endpoint=server.url)
    with pytest.raises(ArtefactDamagedError):
        registry.add("m", "1", "hf:org/model")
    assert registry.list() == []
    hub(server, {"model.safetensors": safetensors(bytes(5000)), "config.json": b"{}"})
    registry.add("m", "1", "hf:org/model")


def test_a_broken_download_goes_on_where_it_broke(tmp_path: Path, server: Server):
    """Only the rest is asked for, and the whole is what the hub says it is."""
    content = safetensors(os.urandom(3 << 20))
    commit = hub(server, {"model.safetensors": content})
    path = f"/org/model/resolve/{commit}/model.safetensors"
    server.cut[path] = 2 << 20
    registry = registry_of(tmp_path, hub_endpoint=server.url)
    with pytest.raises(RegistryError):
        registry.add("m", "1", "hf:org/model")
    found = registry.add("m", "1", "hf:org/model")
    spans = [headers.get("range") for asked, headers in server.asked if asked == path]
    assert spans == [None, f"bytes={2 << 20}-"]
    assert registry.open("m").path("model.safetensors").read_bytes() == content
    assert found.size == len(content)


def test_a_login_does_not_follow_to_another_host(tmp_path: Path, server: Server):
    """And a redirect does not lead from TLS to none, or from one plain host to another."""
    other = Server()
    try:
        commit = hub(server, {"config.json": b"{}"})
        path = f"/org/model/resolve/{commit}/config.json"
        server.answers[path] = (302, {"location": f"{other.url}/stolen"}, b"")
        registry = registry_of(tmp_path, hub_endpoint=server.url, hub_token="hf_x")
        with pytest.raises(SourceError, match="without TLS"):
            registry.add("m", "1", "hf:org/model")
        server.answers[path] = (302, {"location": "/elsewhere"}, b"")
        server.file("/elsewhere", b"{}")
        registry.add("m", "1", "hf:org/model")
        assert other.asked == []
    finally:
        other.stop()


@pytest.mark.parametrize("name", ["../evil", "/etc/x", "a/../../b", "a\\b"])
def test_a_source_cannot_write_beside_the_model(tmp_path: Path, server: Server, name: str):
    """Whatever it calls its files."""
    hub(server, {"config.json": b"{}"})
    server.json(
        "/api/models/org/model/revision/main",
        {"sha": "c" * 40, "siblings": [{"rfilename": name, "size": 2, "blobId": ""}]},
    )
    with pytest.raises(RegistryError, match=r"no path of a file|other machines"):
        registry_of(tmp_path, hub_endpoint=server.url).add("m", "1", "hf:org/model")


def test_a_source_that_gives_more_than_it_said_is_stopped(tmp_path: Path, server: Server):
    """The disk is not filled by who lies about sizes."""
    hub(server, {"config.json": b"{}"})
    server.answers[f"/org/model/resolve/{'c' * 40}/config.json"] = (200, {}, b"x" * 1000)
    with pytest.raises(ArtefactTooLargeError):
        registry_of(tmp_path, hub_endpoint=server.url).add("m", "1", "hf:org/model")


def test_an_unsafe_file_of_the_hub_is_refused(tmp_path: Path, server: Server):
    """With no safetensors beside it."""
    hub(server, {"pytorch_model.bin": b"\x80\x04\x95" + bytes(2000)})
    with pytest.raises(UnsafeFormatError):
        registry_of(tmp_path, hub_endpoint=server.url).add("m", "1", "hf:org/model")


def test_a_hub_that_cannot_be_understood_is_a_sentence(tmp_path: Path, server: Server):
    for content in (b"no json", b"[]", b'{"sha": "x", "siblings": []}', b'{"siblings": 3}'):
        server.file("/api/models/org/model/revision/main", content)
        with pytest.raises(SourceError):
            registry_of(tmp_path, hub_endpoint=server.url).add("m", "1", "hf:org/model")


# OCI


def oci(server: Server, files: dict[str, bytes], *, config: bytes = b"{}", media: str = CARD_TYPE) -> str:
    """An artefact at ``team/m:1``; its digest."""
    for content in (*files.values(), config):
        server.file(f"/v2/team/m/blobs/sha256:{sha256(content)}", content)
    layers = [
        {
            "mediaType": "application/octet-stream", "digest": f"sha256:{sha256(content)}", "size": len(content),
            "annotations": {"org.opencontainers.image.title": name},
        }
        for name, content in files.items()
    ]  # fmt: skip
    about = {"mediaType": media, "digest": f"sha256:{sha256(config)}", "size": len(config)}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MEDIA_TYPE, "config": about, "layers": layers}).encode()
    server.file("/v2/team/m/manifests/1", manifest)
    server.file(f"/v2/team/m/manifests/sha256:{sha256(manifest)}", manifest)
    return f"sha256:{sha256(manifest)}"


def test_an_artefact_of_a_registry_of_containers(tmp_path: Path, server: Server):
    """By tag or digest; the card comes along, and the source is the digest."""
    digest = oci(server, {"model.safetensors": safetensors()}, config=b'{"licence": "mit"}')
    registry = registry_of(tmp_path, oci_plain_http=True)
    found = registry.add("m", "1", f"oci://{server.host}/team/m:1")
    assert (found.card.licence, found.card.lineage.source) == ("mit", f"oci://{server.host}/team/m@{digest}")
    assert registry.add("m", "2", f"oci://{server.host}/team/m@{digest}").files == found.files


def test_a_token_is_asked_for_where_the_registry_says(tmp_path: Path, server: Server):
    """With the login, for this repository only; the files are fetched with the token."""
    oci(server, {"model.safetensors": safetensors()})
    manifest = server.answers["/v2/team/m/manifests/1"]
    challenge = f'Bearer realm="{server.url}/token",service="reg",scope="repository:team/m:pull"'

    def guarded(headers: dict[str, str]) -> Answer:
        if headers.get("authorization") == "Bearer t0k":
            assert not callable(manifest)
            return manifest
        return 401, {"www-authenticate": challenge}, b""

    server.answers["/v2/team/m/manifests/1"] = guarded
    server.json("/token", {"token": "t0k"})
    registry_of(tmp_path, oci_plain_http=True, oci_login="ada:pw").add("m", "1", f"oci://{server.host}/team/m:1")
    (target, headers), = [each for each in server.asked if each[0].startswith("/token")]  # fmt: skip
    assert "scope=repository%3Ateam%2Fm%3Apull" in target
    assert "service=reg" in target
    assert headers["authorization"].startswith("Basic ")
    assert {told["authorization"] for path, told in server.asked if "/blobs/" in path} == {"Bearer t0k"}


def test_an_artefact_is_what_its_digest_says(tmp_path: Path, server: Server):
    """The manifest, the card and each file."""
    digest = oci(server, {"model.safetensors": safetensors()})
    address = f"oci://{server.host}/team/m@{digest}"
    for path in (f"/v2/team/m/manifests/{digest}", *(path for path in server.answers if "/blobs/" in path)):
        before = server.answers[path]
        assert not callable(before)
        server.answers[path] = (200, {}, before[2].replace(b"0", b"1") if b"0" in before[2] else before[2][:-1] + b" ")
        with pytest.raises(RegistryError):
            registry_of(tmp_path, oci_plain_http=True).add("m", "1", address)
        server.answers[path] = before
    registry_of(tmp_path, oci_plain_http=True).add("m", "1", address)


def test_a_container_is_no_model(tmp_path: Path, server: Server):
    """Nor is an index of several, or what is not there."""
    oci(server, {"": safetensors()})
    registry = registry_of(tmp_path, oci_plain_http=True)
    server.json("/v2/team/m/manifests/2", {"schemaVersion": 2, "manifests": []})
    for path in ("not-there", "1", "2"):
        with pytest.raises(RegistryError):
            registry.add("m", "1", f"oci://{server.host}/team/m:{path}")
    with pytest.raises(SourceError, match="no address"):
        registry.add("m", "1", "oci://host")
    with pytest.raises(SourceError, match="another machine"):
        registry.add("m", "1", "oci://registry.example/team/m:1")


# S3


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket called ``bucket``."""
    moto = pytest.importorskip("moto")
    boto3 = pytest.importorskip("boto3")
    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        yield client


def test_the_objects_below_a_prefix(tmp_path: Path, bucket: Any):
    """Not its neighbours that begin alike, and not what stands for a folder."""
    for key, content in {
        "m/1/model.safetensors": safetensors(), "m/1/onnx/config.json": b"{}", "m/1/": b"", "m/10/other.txt": b"x",
    }.items():  # fmt: skip
        bucket.put_object(Bucket="bucket", Key=key, Body=content)
    registry = registry_of(tmp_path)
    assert sorted(registry.add("m", "1", "s3://bucket/m/1").files) == ["model.safetensors", "onnx/config.json"]
    assert list(registry.add("m", "2", "s3://bucket/m/10/other.txt").files) == ["other.txt"]
    with pytest.raises(RegistryError, match="has no files"):
        registry.add("m", "3", "s3://bucket/nothing")
    with pytest.raises(SourceError, match="NoSuchBucket"):
        registry.add("m", "3", "s3://other-bucket/m/1")


def test_a_key_cannot_lead_outside(tmp_path: Path, bucket: Any):
    bucket.put_object(Bucket="bucket", Key="m/1/../../evil.txt", Body=b"x")
    with pytest.raises(RegistryError, match="no path of a file"):
        registry_of(tmp_path).add("m", "1", "s3://bucket/m/1")


# MLflow


def mlflow(server: Server, files: dict[str, bytes], where: str = "mlflow-artifacts:/1/models/m-1/artifacts") -> None:
    """A version of ``churn``, as a server that gives out its artefacts describes it."""
    about = {"model_version": {
        "name": "churn", "version": "3", "run_id": "r1", "description": "Who leaves.",
        "tags": [{"key": "mlflow.source.git.commit", "value": "c0ffee"}],
    }}  # fmt: skip
    server.json("/api/2.0/mlflow/model-versions/get", about)
    server.json("/api/2.0/mlflow/registered-models/alias", about)
    server.json("/api/2.0/mlflow/model-versions/get-download-uri", {"artifact_uri": where})
    kept = {"info": {"artifact_uri": "mlflow-artifacts:/1/models"}}
    server.json("/api/2.0/mlflow/runs/get", {"run": kept})
    server.json(
        "/api/2.0/mlflow/logged-models/m-1",
        {"model": {"info": {"artifact_uri": f"{kept['info']['artifact_uri']}/m-1/artifacts"}}},
    )

    def listed(_: dict[str, str]) -> Answer:
        asked = (
            server.asked[-1][0]
            .partition("path=")[2]
            .replace("%2F", "/")
            .removeprefix("1/models/m-1/artifacts")
            .strip("/")
        )
        inside = {name.removeprefix(f"{asked}/" if asked else "") for name in files if name.startswith(asked)}
        shown = [
            {"path": each.partition("/")[0], "is_dir": "/" in each}
            | ({} if "/" in each else {"file_size": len(files[f"{asked}/{each}".lstrip("/")])})
            for each in sorted(inside)
        ]
        return 200, {}, json.dumps({"files": shown}).encode()

    server.answers["/api/2.0/mlflow-artifacts/artifacts"] = listed
    for name, content in files.items():
        server.file(f"/api/2.0/mlflow-artifacts/artifacts/1/models/m-1/artifacts/{name}", content)


@pytest.mark.parametrize("address", ["mlflow:churn/3", "mlflow:churn@champion"])
def test_a_version_of_mlflow(tmp_path: Path, server: Server, address: str):
    """By number or alias, with folders, and what trained it."""
    mlflow(server, {"MLmodel": b"flavors: {}", "data/model.safetensors": safetensors()})
    found = registry_of(tmp_path, mlflow=server.url).add("churn", "3", address)
    assert sorted(found.files) == ["MLmodel", "data/model.safetensors"]
    assert (found.card.lineage.source, found.card.lineage.code, found.card.text) == (
        "mlflow:churn/3",
        "c0ffee",
        "Who leaves.",
    )


@pytest.mark.parametrize("where", ["runs:/r1/m-1/artifacts", "models:/m-1"])
def test_a_version_of_mlflow_that_is_a_run_or_a_logged_model(tmp_path: Path, server: Server, where: str):
    """Which is what a server names, and the files are found behind it."""
    mlflow(server, {"data/model.safetensors": safetensors()}, where)
    assert list(registry_of(tmp_path, mlflow=server.url).add("churn", "3", "mlflow:churn/3").files) == [
        "data/model.safetensors"
    ]


def test_files_that_mlflow_does_not_give_out_are_a_sentence(tmp_path: Path, server: Server):
    mlflow(server, {}, "s3://bucket/x")
    with pytest.raises(SourceError, match="serve-artifacts"):
        registry_of(tmp_path, mlflow=server.url).add("churn", "3", "mlflow:churn/3")


def test_the_pickle_of_an_mlflow_model_is_refused(tmp_path: Path, server: Server):
    """Which is what its scikit-learn flavour writes."""
    mlflow(server, {"MLmodel": b"flavors: {}", "model.pkl": b"\x80\x04."})
    with pytest.raises(UnsafeFormatError):
        registry_of(tmp_path, mlflow=server.url).add("churn", "3", "mlflow:churn/3")


def test_mlflow_without_a_server_is_a_sentence(tmp_path: Path):
    with pytest.raises(SourceError, match="no MLflow server is known"):
        registry_of(tmp_path).add("churn", "3", "mlflow:churn/3")
    with pytest.raises(SourceError, match="does not answer"):
        registry_of(tmp_path, mlflow="http://127.0.0.1:1").add("churn", "3", "mlflow:churn/3")


@pytest.mark.parametrize(
    "address", ["hf:", "hf:a/b/c", "s3://bucket", "mlflow:a", "mlflow:a/b", "ftp://x", "oci://h/UPPER:1"]
)
def test_an_address_that_is_none_is_a_sentence(tmp_path: Path, address: str):
    with pytest.raises(SourceError):
        registry_of(tmp_path, mlflow="http://127.0.0.1:1").add("a", "1", address)
