"""Models as files: kept by their content, signed, called by versions and aliases, with the history of each change.

    names      how models, versions and files may be called
    blobs      files by their SHA-256
    manifest   the files of a version, its card and its lineage
    formats    what is inside a file; nothing that runs code
    signing    who vouches for a version
    book       versions, aliases, splits and their history, in SQLite
    sources    folders, S3, OCI, MLflow, the Hugging Face hub
    registry   all of it together

Which version answers a call does not belong here: see ``models/rollout``.
"""

from seamline.models.registry.manifest import Card, Lineage
from seamline.models.registry.registry import Registry, Version

__all__ = ["Card", "Lineage", "Registry", "Version"]
