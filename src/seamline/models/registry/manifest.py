"""What a version of a model consists of, as an image manifest of OCI, so that any OCI registry keeps it as it is.

https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from seamline.models.registry.errors import ArtefactDamagedError
from seamline.models.registry.names import checked_digest, checked_path

MEDIA_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE: Final = "application/vnd.seamline.model.v1"
CARD_TYPE: Final = "application/vnd.seamline.model.card.v1+json"
FILE_TYPE: Final = "application/octet-stream"
TITLE: Final = "org.opencontainers.image.title"
NAME: Final = "org.opencontainers.image.ref.name"
VERSION: Final = "org.opencontainers.image.version"


class Lineage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a model comes from."""

    source: str = ""
    """The address that it was fetched from, with its revision."""
    data: str = ""
    """The digest of what it learned from."""
    code: str = ""
    """The commit of what trained it."""
    parent: str = ""
    """The digest of the manifest that it was made from."""


class Card(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What people should know of a model before they use it (M. Mitchell et al., Model Cards, FAT* 2019)."""

    text: str = ""
    """Markdown."""
    licence: str = ""
    intended: str = ""
    """What it is for."""
    limits: str = ""
    """What it is not for."""
    metrics: dict[str, float] = {}
    lineage: Lineage = Lineage()
    extra: dict[str, str] = {}


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A blob, as a manifest speaks of it."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}

    @property
    def title(self) -> str:
        return self.annotations.get(TITLE, "")


class Manifest(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """The files of one version, and its card as ``config``."""

    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: list[Descriptor] = []
    annotations: dict[str, str] = {}

    @property
    def files(self) -> dict[str, Descriptor]:
        """By their paths."""
        return {each.title: each for each in self.layers}

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(each.size for each in self.layers)

    @property
    def digests(self) -> set[str]:
        """Of all blobs that it speaks of."""
        return {self.config.digest, *(each.digest for each in self.layers)}

    def encode(self) -> bytes:
        """Always the same bytes for the same content."""
        return msgspec.json.encode(self, order="sorted")


def manifest_of(name: str, version: str, card: Descriptor, files: dict[str, Descriptor]) -> Manifest:
    """A manifest of ours. The name and the version are part of it, and so of what is signed."""
    layers = [Descriptor(each.media_type, each.digest, each.size, {TITLE: path}) for path, each in files.items()]
    return Manifest(
        schema_version=2,
        media_type=MEDIA_TYPE,
        artifact_type=ARTIFACT_TYPE,
        config=card,
        layers=sorted(layers, key=lambda each: each.title),
        annotations={NAME: name, VERSION: version},
    )


def read_manifest(content: bytes) -> Manifest:
    """Raises ArtefactDamagedError for what is none, BadReferenceError for paths that lead outside."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ArtefactDamagedError(f"this is no manifest: {error}") from None
    if manifest.schema_version != 2:
        raise ArtefactDamagedError(f"a manifest of schema version {manifest.schema_version}", "2 is understood.")
    for each in (manifest.config, *manifest.layers):
        checked_digest(each.digest)
        if each.size < 0:
            raise ArtefactDamagedError(f"a file of {each.size} bytes")
    for each in manifest.layers:
        checked_path(each.title)
    if len(manifest.files) != len(manifest.layers):
        raise ArtefactDamagedError("two files of a manifest have the same path")
    return manifest


def read_card(content: bytes) -> Card:
    """A card; an empty one for what is none of ours."""
    try:
        return msgspec.json.decode(content, type=Card)
    except msgspec.MsgspecError:
        return Card()


def digest_of_bytes(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
