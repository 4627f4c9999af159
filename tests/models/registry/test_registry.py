"""Models are kept by their content: nothing of them changes unseen, whatever happens to the process or the disk."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models.registry.conftest import safetensors

from seamline.kernel.settings import ModelsSettings
from seamline.models.registry import Card, Lineage, Registry
from seamline.models.registry.blobs import Blobs
from seamline.models.registry.errors import (
    ArtefactDamagedError,
    ArtefactTooLargeError,
    BadReferenceError,
    RegistryConflictError,
    RegistryError,
    UnknownArtefactError,
    UntrustedError,
)
from seamline.models.registry.manifest import read_manifest
from seamline.models.registry.names import Reference, checked_path
from seamline.models.registry.signing import new_key

Folder = Callable[..., str]
_WORDS = ("schemaVersion", "mediaType", "config", "layers", "annotations", "digest", "size", "artifactType")


def blob_of(registry: Registry, reference: str, file: str) -> Path:
    return (registry.open(reference).folder / file).resolve()


def test_what_was_added_is_given(registry: Registry, folder: Folder):
    """Under its name, version and alias, with its card and where it came from."""
    source = folder(readme__md=b"", config__json=b'{"a": 1}')
    (Path(source) / "README.md").write_text("# What it is for")
    card = Card(licence="mit", metrics={"recall": 0.5}, lineage=Lineage(data="sha256:1", code="c0ffee"))
    added = registry.add("minilm", "1", source, card=card, who="ada", why="first")
    assert added.aliases == ["champion"]
    assert added.files["model.safetensors"] == len(safetensors())
    for reference in ("minilm", "minilm:1", "minilm@champion", f"minilm@{added.digest}"):
        found = registry.open(reference)
        assert found.digest == added.digest
        assert found.path("model.safetensors").read_bytes() == safetensors()
    kept = registry.find("minilm").card
    assert (kept.text, kept.licence, kept.lineage.code) == ("# What it is for", "mit", "c0ffee")
    assert kept.lineage.source == f"file:{source}"
    assert [(each.what, each.who, each.why) for each in registry.history("minilm")] == [("add", "ada", "first")]


def test_the_same_is_kept_once(registry: Registry, folder: Folder):
    """Adding it again changes nothing; a file that two versions share takes its space once."""
    source = folder(big__bin=b"x" * 100_000)
    first = registry.add("a", "1", source)
    assert registry.add("a", "1", source) == first
    registry.add("a", "2", folder("other", big__bin=b"x" * 100_000, more__txt=b"more"))
    kept = sum(path.stat().st_size for path in (registry.folder / "blobs").rglob("*") if path.is_file())
    assert kept < 110_000


def test_a_version_never_becomes_another(registry: Registry, folder: Folder):
    """Other files under a version that exists are refused, and the old ones stay."""
    registry.add("a", "1", folder())
    with pytest.raises(RegistryConflictError, match="exists with other files"):
        registry.add("a", "1", folder("other", extra__txt=b"extra"))
    assert list(registry.find("a:1").files) == ["model.safetensors"]


def test_a_changed_file_is_given_to_nobody(registry: Registry, folder: Folder):
    """Of the same length and with the same time: what was opened before does not make it pass."""
    registry.add("a", "1", folder(text__txt=b"as it was"))
    path = blob_of(registry, "a:1", "text.txt")
    times = path.stat()
    path.chmod(0o600)
    path.write_bytes(b"as it is.")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ArtefactDamagedError, match="its content is another"):
        registry.open("a:1")
    with pytest.raises(ArtefactDamagedError):
        Registry(registry.folder).open("a:1")
    assert list(registry.verify()) == ["a:1 text.txt"]
    registry.add("a", "1", folder(text__txt=b"as it was"))
    assert registry.open("a:1").path("text.txt").read_bytes() == b"as it was"


def test_a_file_put_beside_the_others_is_not_given(registry: Registry, folder: Folder):
    """A library that looks into the folder finds what was signed, and nothing else."""
    registry.add("a", "1", folder())
    where = registry.open("a:1").folder
    (where / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (where / "model.safetensors").unlink()
    (where / "model.safetensors").write_bytes(b"another")
    again = registry.open("a:1")
    assert [path.name for path in again.folder.iterdir()] == ["model.safetensors"]
    assert again.path("model.safetensors").read_bytes() == safetensors()


def test_an_exchanged_manifest_is_noticed(registry: Registry, folder: Folder):
    """A good manifest of another version, put where this one's name leads, is refused."""
    registry.add("a", "1", folder())
    other = registry.add("a", "2", folder("other", extra__txt=b"e"))
    with registry.book.change() as book:
        book.remove("a", "1")
        book.add("a", "1", other.digest)
    with pytest.raises(ArtefactDamagedError, match="says that it is a:2"):
        registry.open("a:1")


def test_only_what_a_trusted_key_signed_is_opened(registry: Registry, folder: Folder, tmp_path: Path):
    """Not what is unsigned, signed by somebody else, or signed for another version; the error says which."""
    registry.add("a", "1", folder())
    registry.add("a", "2", folder("other", extra__txt=b"e"))
    ours, theirs = new_key(tmp_path / "ours.pem"), new_key(tmp_path / "theirs.pem")
    assert (tmp_path / "ours.pem").stat().st_mode & 0o777 == 0o600
    strict = Registry(registry.folder, ModelsSettings(trusted_keys=(ours,)))
    with pytest.raises(UntrustedError, match="is not signed"):
        strict.open("a:1")
    strict.sign("a:1", tmp_path / "theirs.pem")
    with pytest.raises(UntrustedError, match=theirs.replace("+", r"\+")):
        strict.open("a:1")
    signature = strict.sign("a:1", tmp_path / "ours.pem", who="ada")
    assert strict.open("a:1")
    assert strict.find("a:1").trusted
    second = strict.find("a:2")
    assert not second.trusted
    strict.add_signature(second.digest, signature)
    with pytest.raises(UntrustedError, match="is wrong"):
        strict.open("a:2")


def test_a_signature_is_of_every_bit(registry: Registry, folder: Folder, tmp_path: Path):
    """One bit of it changed, and it does not fit."""
    version = registry.add("a", "1", folder())
    key = new_key(tmp_path / "key.pem")
    signature = registry.sign("a", tmp_path / "key.pem")
    raw = bytearray(base64.b64decode(signature.signature))
    raw[13] ^= 1
    registry.add_signature(version.digest, msgspec.structs.replace(signature, signature=base64.b64encode(raw).decode()))
    with pytest.raises(UntrustedError, match="is wrong"):
        Registry(registry.folder, ModelsSettings(trusted_keys=(key,))).open("a")


def test_aliases_move_and_move_back(registry: Registry, folder: Folder):
    """Each change has who and why; the way back is the last version that was called so."""
    for version in ("1", "2", "3"):
        registry.add("a", version, folder(version, v__txt=version.encode()))
    assert registry.set_alias("a", "champion", "2", who="ada", why="better") == "1"
    registry.set_alias("a", "champion", "3")
    assert registry.undo_alias("a", "champion", who="bob") == "2"
    assert registry.find("a").version == "2"
    with pytest.raises(UnknownArtefactError, match="It has 1, 2, 3"):
        registry.set_alias("a", "champion", "4")
    with pytest.raises(RegistryConflictError, match="was never another"):
        registry.undo_alias("a", "challenger")
    assert [each.who for each in registry.history("a")][:3] == ["bob", "", "ada"]


def test_what_an_alias_means_cannot_go(registry: Registry, folder: Folder):
    """A version goes when nothing is called so; its space is free then, and no other's."""
    registry.add("a", "1", folder(big__txt=b"x" * 50_000))
    registry.add("a", "2", folder("other", big__txt=b"y" * 70_000))
    with pytest.raises(RegistryConflictError, match="is the champion"):
        registry.remove("a:1")
    registry.remove("a:2", who="ada")
    registry.open("a:1")
    assert 70_000 < registry.collect() < 80_000
    assert registry.open("a:1").path("big.txt").read_bytes() == b"x" * 50_000
    assert registry.collect() == 0


def test_nothing_is_collected_while_somebody_adds(registry: Registry, folder: Folder):
    """Files that no version has yet are not taken for waste."""
    registry.add("a", "1", folder())

    def meanwhile(_: str) -> None:
        with pytest.raises(RegistryConflictError, match="just now"):
            registry.collect()
        told.append("")

    told: list[str] = []
    registry.add("a", "2", folder("other", big__txt=b"x" * (20 << 20)), say=meanwhile)
    assert told
    assert registry.open("a:2").path("big.txt").stat().st_size == 20 << 20


def test_collecting_stops_where_a_manifest_is_damaged(registry: Registry, folder: Folder):
    """What cannot be read may need any file: nothing is removed."""
    version = registry.add("a", "1", folder())
    blobs = Blobs(registry.folder / "blobs")
    before = set(blobs)
    path = blobs.path(version.digest)
    path.chmod(0o600)
    path.write_bytes(b"{}")
    with pytest.raises(ArtefactDamagedError):
        registry.collect()
    assert set(blobs) == before


def test_one_that_is_damaged_hides_no_other(registry: Registry, folder: Folder):
    """It is listed as what it is; adding it again mends it."""
    source = folder()
    version = registry.add("a", "1", source)
    registry.add("b", "1", source)
    path = Blobs(registry.folder / "blobs").path(version.digest)
    path.unlink()
    assert [(each.name, bool(each.damaged)) for each in registry.list()] == [("a", True), ("b", False)]
    registry.add("a", "1", source)
    assert registry.find("a") == version


def test_many_add_at_the_same_time(registry: Registry, folder: Folder):
    """Sixteen times the same files and sixteen different ones: all whole, none twice."""
    same = folder(shared__txt=b"s" * 200_000)
    others = [folder(f"f{number}", own__txt=str(number).encode() * 1000) for number in range(16)]

    def add(number: int) -> None:
        one = Registry(registry.folder)
        one.add("same", "1", same)
        one.add("other", str(number), others[number])

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(add, range(16)))
    assert registry.verify() == {}
    assert len(registry.list("other")) == 16
    assert [each.what for each in registry.history("same")] == ["add"]
    assert not list((registry.folder / "blobs" / "incoming").iterdir())


_ADDS = """
import sys
from pathlib import Path
from seamline.models.registry import Registry
registry = Registry(Path(sys.argv[1]))
for number in range(10_000):
    registry.add("a", str(number), sys.argv[2])
    print(number, flush=True)
"""


def test_a_kill_at_any_moment_leaves_whole_versions(tmp_path: Path, folder: Folder):
    """Whatever was being written: what was told to be added is there, all files are whole, and it goes on."""
    source = folder(text__txt=b"t" * 300_000)
    where = tmp_path / "models"
    last = -1
    for patience in (1, 3, 5):
        where_to_begin = f"range({last + 1}, 10_000)"
        script = _ADDS.replace("range(10_000)", where_to_begin)
        with subprocess.Popen(
            [sys.executable, "-c", script, where, source], stdout=subprocess.PIPE, text=True
        ) as adding:
            assert adding.stdout
            for _ in range(patience):
                last = int(adding.stdout.readline())
            adding.send_signal(signal.SIGKILL)
        registry = Registry(where)
        assert registry.verify() == {}
        known = {int(each.version) for each in registry.list("a")}
        assert known >= set(range(last + 1))
        last = max(known)
    Registry(where).collect()
    assert Registry(where).open("a:0").path("text.txt").stat().st_size == 300_000


def test_a_model_has_a_size_that_it_may_have(registry: Registry, folder: Folder):
    """All files of it together; nothing of it stays."""
    small = Registry(registry.folder, ModelsSettings(size_max_mb=1))
    with pytest.raises(ArtefactTooLargeError):
        small.add("a", "1", folder(one__txt=b"x" * 700_000, two__txt=b"y" * 700_000))
    assert small.list() == []
    small.collect()
    assert not [path for path in (registry.folder / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "./a",
        "a/",
        "a\\..\\b",
        "C:x",
        "a\0b",
        "a\nb",
        "x" * 301,
        "..",
        "a/.",
    ],
)
def test_a_path_never_leaves_its_model(path: str):
    """Nor does it mean another file on another machine."""
    with pytest.raises(BadReferenceError):
        checked_path(path)


@pytest.mark.parametrize("text", ["", "a b", "../a", "a:", "a@", "a@sha256:12", "-a", "a:b/c", "é", "a" * 129])
def test_a_reference_is_what_it_looks_like(text: str):
    """Nothing that could be taken for a path, an option or two things at once."""
    with pytest.raises(BadReferenceError):
        Reference.parse(text)


def test_what_is_not_there_is_named(registry: Registry, folder: Folder):
    """With what there is."""
    with pytest.raises(UnknownArtefactError, match="seamline models add"):
        registry.open("a:1")
    registry.add("a", "1", folder())
    with pytest.raises(UnknownArtefactError, match="Known: a"):
        registry.open("b:1")
    with pytest.raises(UnknownArtefactError, match="Known: champion"):
        registry.open("a@challenger")


@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=6),
        ).map(msgspec.json.encode),
    )
)
def test_no_manifest_makes_it_stumble(content: bytes):
    """What is read from elsewhere is a manifest with good paths and digests, or an error that says what it is not."""
    try:
        manifest = read_manifest(content)
    except RegistryError:
        return
    assert all(checked_path(path) for path in manifest.files)
    assert read_manifest(manifest.encode()) == manifest
