"""The registry on disk: blobs, what they are called, who vouches for them.

::

  <data>/models/blobs/sha256/ab/...   files, manifests and cards, by their content
  <data>/models/signatures/...        who vouches for a manifest
  <data>/models/views/...             hard links with names, for libraries that want a folder
  <data>/models/models.db             versions, aliases, splits, and the history of them
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.settings import ModelsSettings, Settings
from seamline.models.registry import signing
from seamline.models.registry.blobs import Blobs, digest_of, sync_folder
from seamline.models.registry.book import Book, Change
from seamline.models.registry.errors import (
    ArtefactDamagedError,
    BadReferenceError,
    RegistryConflictError,
    UnknownArtefactError,
    UntrustedError,
)
from seamline.models.registry.formats import inspect
from seamline.models.registry.manifest import (
    CARD_TYPE,
    NAME,
    VERSION,
    Card,
    Descriptor,
    Manifest,
    manifest_of,
    read_card,
    read_manifest,
)
from seamline.models.registry.names import Reference, checked_name
from seamline.models.registry.signing import Signature
from seamline.models.registry.sources import Intake, Say, fetch
from seamline.module.models import Artefacts

CHAMPION: Final = "champion"
_CARD_FILES: Final = ("README.md", "card.md", "MODEL_CARD.md")
_MIB: Final = 1 << 20


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model, as it is kept."""

    name: str
    version: str
    digest: str
    added_ms: int
    size: int
    files: dict[str, int]
    card: Card
    aliases: list[str]
    signed_by: list[str]
    """Public keys, trusted or not."""
    trusted: bool
    """Whether it may be loaded as ``trusted_keys`` stands."""
    damaged: str = ""
    """Why nothing more is known of it."""


class Registry:
    """Keeps models.

    Args:
        folder: where; it is made when something is added.
        settings: what is trusted and how large it may be.
    """

    def __init__(self, folder: Path, settings: ModelsSettings | None = None, clock: Clock | None = None) -> None:
        self.folder = folder
        self.book = Book(folder, clock or SystemClock())
        self._settings = settings or ModelsSettings()
        self._blobs = Blobs(folder / "blobs")
        self._inspected: set[str] = set()

    @staticmethod
    def of(settings: Settings, data: Path | None = None, clock: Clock | None = None) -> Registry:
        """That of an application."""
        return Registry((data or settings.data_folder) / settings.models.registry, settings.models, clock)

    # Looking.

    def list(self, name: str = "") -> list[Version]:
        """All versions, or those of one model, in the order in which they were added."""
        aliases = self.book.aliases(name)
        found: list[Version] = []
        for row in self.book.versions(name):
            try:
                found.append(self._version(*row, aliases))
            except (ArtefactDamagedError, UnknownArtefactError) as error:  # the others are to be seen all the same
                found.append(_damaged(*row, error.fact))
        return found

    def find(self, reference: str) -> Version:
        """Raises UnknownArtefactError, BadReferenceError."""
        wanted = self._resolved(Reference.parse(reference))
        rows = self.book.versions(wanted.name)
        row = next(each for each in rows if each[1] == wanted.version)
        return self._version(*row, self.book.aliases(wanted.name))

    def history(self, subject: str = "", most: int = 100) -> list[Change]:
        """Who changed what and why, the newest first."""
        return self.book.history(subject, most)

    def open(self, reference: str) -> Artefacts:
        """The files of a version, each compared with its digest since it was changed last.

        Raises:
            UnknownArtefactError: there is none.
            UntrustedError: it is not signed as ``trusted_keys`` wants.
            UnsafeFormatError: a file may run code.
            ArtefactDamagedError: a file is not what it was.
        """
        wanted = self._resolved(Reference.parse(reference))
        manifest = self._manifest(wanted)
        signing.check(wanted.digest, self._signatures(wanted.digest), self._settings.trusted_keys, str(wanted))
        return Artefacts(self._view(manifest, wanted.digest), wanted.digest)

    # Changing.

    def add(
        self, name: str, version: str, address: str, *, card: Card | None = None, who: str = "", why: str = "",
        say: Say | None = None,
    ) -> Version:  # fmt: skip
        """Fetch a model from a folder, ``s3://``, ``oci://``, ``mlflow:`` or ``hf:``, and keep it.

        What is the same already is not fetched again. The first version of a model is its champion.

        Raises:
            SourceError: it cannot be had from there.
            UnsafeFormatError: a file may run code.
            RegistryConflictError: the version exists with other files.
            ArtefactTooLargeError: see ``size_max_mb``.
        """
        checked_name(name)
        checked_name(version, "version")
        known = self._known(name, version, address)
        if known is not None:
            return known
        with self._lock(fcntl.LOCK_SH):
            intake = Intake(self._blobs, int(self._settings.size_max_mb * _MIB), say)
            fetched = fetch(address, intake, self._settings)
            if not fetched.files:
                raise UnknownArtefactError(f"{address!r} has no files", "Look at the address.")
            for path, each in fetched.files.items():
                self._inspect(path, each.digest, tuple(fetched.files))
            digest = self._keep(
                name, version, fetched.files, self._card(card or fetched.card, fetched.files, fetched.source)
            )
            self._enter(name, version, digest, who, why or f"added from {fetched.source}")
        return self.find(f"{name}:{version}")

    def _known(self, name: str, version: str, address: str) -> Version | None:
        """A version that was fetched from there already; a folder may have changed, and is looked at again."""
        if ":" not in address or address.startswith("file:"):
            return None
        found = next((each for each in self.list(name) if each.version == version), None)
        source = found.card.lineage.source if found is not None else ""
        return found if source == address or source.startswith(f"{address}@") else None

    def _card(self, card: Card, files: Mapping[str, Descriptor], source: str) -> Card:
        lineage = card.lineage
        if not lineage.source:
            lineage = msgspec.structs.replace(lineage, source=source)
        text = card.text
        readme = next((files[each] for each in _CARD_FILES if each in files), None)
        if not text and readme is not None:
            text = self._blobs.read(readme.digest).decode(errors="replace")
        return msgspec.structs.replace(card, lineage=lineage, text=text)

    def _keep(self, name: str, version: str, files: Mapping[str, Descriptor], card: Card) -> str:
        content = msgspec.json.encode(card, order="sorted")
        digest, size = self._blobs.add([content])
        manifest = manifest_of(name, version, Descriptor(CARD_TYPE, digest, size), dict(files))
        return self._blobs.add([manifest.encode()])[0]

    def _enter(self, name: str, version: str, digest: str, who: str, why: str) -> None:
        with self.book.change() as book:
            known = book.manifest(name, version)
            if known == digest:
                return
            if known is not None:
                raise RegistryConflictError(
                    f"{name}:{version} exists with other files ({known})", "Give the new files another version."
                )
            book.add(name, version, digest)
            if book.alias(name, CHAMPION) is None:
                book.set_alias(name, CHAMPION, version)
            book.note("add", name, None, {"version": version, "manifest": digest}, who=who, why=why)

    def set_alias(self, name: str, alias: str, version: str, *, who: str = "", why: str = "") -> str | None:
        """Call a version so from now on; what was called so before. Raises UnknownArtefactError."""
        checked_name(alias, "alias")
        with self.book.change() as book:
            if book.manifest(name, version) is None:
                raise self._unknown(name, version)
            before = book.alias(name, alias)
            if before != version:
                book.set_alias(name, alias, version)
                book.note("alias", name, {alias: before}, {alias: version}, who=who, why=why)
        return before

    def undo_alias(self, name: str, alias: str, *, who: str = "", why: str = "") -> str:
        """Call so what was called so before its last change; that version. Raises RegistryConflictError."""
        with self.book.change() as book:
            now = book.alias(name, alias)
            for _, _, before, after in book.past(name, ("alias",)):
                earlier = before.get(alias) if after.get(alias) == now else None
                if earlier and book.manifest(name, earlier) is not None:
                    book.set_alias(name, alias, earlier)
                    book.note("alias", name, {alias: now}, {alias: earlier}, who=who, why=why or "taken back")
                    return str(earlier)
        raise RegistryConflictError(f"{name}@{alias} was never another version", "`seamline models show` has its past.")

    def sign(self, reference: str, key: Path, *, who: str = "") -> Signature:
        """Vouch for a version with a private key. Raises RegistryError."""
        wanted = self._resolved(Reference.parse(reference))
        self._manifest(wanted)
        signature = signing.sign(wanted.digest, key)
        self.add_signature(wanted.digest, signature)
        with self.book.change() as book:
            book.note("sign", wanted.name, None, {"version": wanted.version, "key": signature.key}, who=who, why="")
        return signature

    def add_signature(self, digest: str, signature: Signature) -> None:
        """Keep what somebody signed; whether it fits is looked at when the model is opened."""
        with self._lock(fcntl.LOCK_EX, "signatures.lock"):
            signatures = [each for each in self._signatures(digest) if each.key != signature.key]
            path = self._signature_path(digest)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = path.with_suffix(".new")
            with new.open("wb") as file:
                file.write(msgspec.json.encode([*signatures, signature]))
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
            sync_folder(path.parent)

    def remove(self, reference: str, *, who: str = "", why: str = "") -> None:
        """Forget a version; :meth:`collect` frees its space. Raises RegistryConflictError if an alias means it."""
        wanted = self._resolved(Reference.parse(reference))
        with self.book.change() as book:
            aliases = book.aliases_of(wanted.name, wanted.version)
            if aliases:
                raise RegistryConflictError(
                    f"{wanted} is the {' and '.join(aliases)}", "Give that name to another version first."
                )
            book.remove(wanted.name, wanted.version)
            book.note(
                "remove", wanted.name, {"version": wanted.version, "manifest": wanted.digest}, None, who=who, why=why
            )

    def collect(self) -> int:
        """Remove what no version needs; how many bytes are free again.

        Raises:
            RegistryConflictError: somebody adds a model just now.
            ArtefactDamagedError: a manifest cannot be read; nothing was removed.
        """
        with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            needed: set[str] = set()
            manifests = {row[2] for row in self.book.versions()}
            for digest in manifests:
                needed |= {digest, *read_manifest(self._blobs.read(digest)).digests}
            self._blobs.remove_incoming()
            for view in (self.folder / "views").glob("*"):
                if f"sha256:{view.name}" not in manifests:
                    shutil.rmtree(view)
            for path in (self.folder / "signatures").glob("*.json"):
                if f"sha256:{path.stem}" not in manifests:
                    path.unlink()
            return sum(self._blobs.remove(digest) for digest in list(self._blobs) if digest not in needed)

    def verify(self) -> dict[str, str]:
        """Compare every file of every version with its digest: what is damaged, and how."""
        damaged: dict[str, str] = {}
        for name, version, digest, _ in self.book.versions():
            try:
                manifest = self._manifest(Reference(name, version, digest=digest))
            except (ArtefactDamagedError, UnknownArtefactError, BadReferenceError) as error:
                damaged[f"{name}:{version}"] = error.fact
                continue
            for path, each in {**manifest.files, "card": manifest.config}.items():
                blob = self._blobs.path(each.digest)
                if not blob.is_file() or digest_of(blob) != each.digest:
                    damaged[f"{name}:{version} {path}"] = f"{each.digest} is missing or another"
        return damaged

    # Inside.

    def _resolved(self, wanted: Reference) -> Reference:
        """With its version and digest."""
        rows = self.book.versions(wanted.name)
        version = wanted.version
        if wanted.alias:
            version = self.book.aliases(wanted.name).get((wanted.name, wanted.alias), "")
            if not version:
                known = ", ".join(sorted(alias for _, alias in self.book.aliases(wanted.name))) or "none"
                raise UnknownArtefactError(
                    f"no version of {wanted.name!r} is called {wanted.alias!r}", f"Known: {known}."
                )
        for _, each, digest, _ in rows:
            if each == version or digest == wanted.digest:
                return Reference(wanted.name, each, digest=digest)
        raise self._unknown(wanted.name, version or wanted.digest)

    def _unknown(self, name: str, version: str) -> UnknownArtefactError:
        known = [row[1] for row in self.book.versions(name)]
        if known:
            return UnknownArtefactError(f"{name!r} has no version {version!r}", f"It has {', '.join(known)}.")
        names = sorted({row[0] for row in self.book.versions()})
        remedy = f"Known: {', '.join(names)}." if names else "`seamline models add` adds one."
        return UnknownArtefactError(f"there is no model {name!r}", remedy)

    def _manifest(self, wanted: Reference) -> Manifest:
        manifest = read_manifest(self._blobs.read(wanted.digest))
        said = manifest.annotations.get(NAME), manifest.annotations.get(VERSION)
        if said != (wanted.name, wanted.version):
            raise ArtefactDamagedError(
                f"the manifest of {wanted.name}:{wanted.version} says that it is {said[0]}:{said[1]}",
                "Somebody has exchanged it: add the model again.",
            )
        return manifest

    def _version(
        self, name: str, version: str, digest: str, added_ms: int, aliases: Mapping[tuple[str, str], str]
    ) -> Version:
        manifest = self._manifest(Reference(name, version, digest=digest))
        signatures = self._signatures(digest)
        try:
            signing.check(digest, signatures, self._settings.trusted_keys, name)
            trusted = True
        except UntrustedError:
            trusted = False
        return Version(
            name=name,
            version=version,
            digest=digest,
            added_ms=added_ms,
            size=manifest.size,
            files={path: each.size for path, each in manifest.files.items()},
            card=read_card(self._blobs.read(manifest.config.digest)),
            aliases=sorted(alias for (owner, alias), each in aliases.items() if (owner, each) == (name, version)),
            signed_by=[each.key for each in signatures],
            trusted=trusted,
        )

    def _inspect(self, path: str, digest: str, siblings: Sequence[str]) -> None:
        if not self._settings.allow_pickle and f"{digest} {path}" not in self._inspected:
            inspect(self._blobs.path(digest), path, siblings)
            self._inspected.add(f"{digest} {path}")

    def _view(self, manifest: Manifest, digest: str) -> Path:
        """A folder with hard links to the verified files of a version."""
        view = self.folder / "views" / digest.removeprefix("sha256:")
        blobs = {path: self._blobs.path(each.digest) for path, each in manifest.files.items()}
        if not _is_view(view, blobs):
            view.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = view.parent / f".{secrets.token_hex(8)}"
            for path, each in manifest.files.items():
                link = new / path
                link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.link(self._blobs.verified(each.digest), link)
            shutil.rmtree(view, ignore_errors=True)
            with suppress(OSError):  # another process was faster, with the same
                new.rename(view)
            shutil.rmtree(new, ignore_errors=True)
        for path, each in manifest.files.items():
            self._blobs.verified(each.digest)
            self._inspect(path, each.digest, tuple(manifest.files))
        return view

    def _signature_path(self, digest: str) -> Path:
        return self.folder / "signatures" / f"{digest.removeprefix('sha256:')}.json"

    def _signatures(self, digest: str) -> list[Signature]:
        try:
            return msgspec.json.decode(self._signature_path(digest).read_bytes(), type=list[Signature])
        except (FileNotFoundError, msgspec.MsgspecError):
            return []

    @contextmanager
    def _lock(self, how: int, name: str = "registry.lock") -> Generator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        except BlockingIOError:
            raise RegistryConflictError("somebody adds a model just now", "Try again when that has ended.") from None
        finally:
            os.close(descriptor)


def _damaged(name: str, version: str, digest: str, added_ms: int, why: str) -> Version:
    return Version(
        name=name, version=version, digest=digest, added_ms=added_ms, size=0, files={}, card=Card(), aliases=[],
        signed_by=[], trusted=False, damaged=why,
    )  # fmt: skip


def _is_view(view: Path, blobs: Mapping[str, Path]) -> bool:
    """Whether a folder has just these files, and no other that a library might find there."""
    try:
        found = {path.relative_to(view).as_posix() for path in view.rglob("*") if not path.is_dir()}
        return found == set(blobs) and all((view / path).samefile(blob) for path, blob in blobs.items())
    except OSError:
        return False
