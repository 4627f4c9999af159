"""The Hugging Face hub, or a mirror: the files of one commit, each compared with the digest that the hub gives."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final, cast
from urllib.parse import quote

from seamline.kernel.settings import ModelsSettings
from seamline.models.registry.errors import SourceError
from seamline.models.registry.manifest import Card
from seamline.models.registry.sources import Fetched, Intake
from seamline.models.registry.sources.web import Web

_ADDRESS: Final = re.compile(r"hf:(?://)?(?P<model>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SKIPPED: Final = (".gitattributes", ".gitignore")
_OTHER_COPIES: Final = re.compile(
    r"(?i)(^|/)(pytorch_model.*\.bin|tf_model\.h5|flax_model\.msgpack|rust_model\.ot|.*\.pt|.*\.pth)$"
)
"""The same weights in formats that may run code, or that nobody here reads; left out where safetensors are."""


def fetch_hub(address: str, intake: Intake, settings: ModelsSettings) -> Fetched:
    """``hf:owner/model`` at a branch, a tag or a commit; ``main`` if none is named."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise SourceError(f"{address!r} is no model of the hub", "Write hf:owner/model, or hf:owner/model@revision.")
    if not settings.hub_endpoint:
        raise SourceError("it is not said where the hub is", 'Write hub_endpoint = "https://..." under [models].')
    model, revision = found["model"], found["revision"] or "main"
    web = Web(settings.hub_endpoint, settings.hub_token)
    about: Any = web.json(f"/api/models/{model}/revision/{quote(revision, safe='')}?blobs=true")
    try:
        commit = str(about["sha"])
        files = {str(each["rfilename"]): cast("dict[str, Any]", each) for each in about["siblings"]}
    except (KeyError, TypeError):
        raise SourceError(f"the hub's answer about {model!r} cannot be understood", "Look at hub_endpoint.") from None
    if not _COMMIT.fullmatch(commit):
        raise SourceError(f"the hub names the commit {commit[:50]!r}", "Look at hub_endpoint.")
    safe = any(name.endswith(".safetensors") for name in files)
    for name, each in files.items():
        if name in _SKIPPED or (safe and _OTHER_COPIES.search(name)):
            continue
        large = cast("dict[str, Any]", each.get("lfs") or {})
        digest = f"sha256:{large['sha256']}" if large.get("sha256") else ""
        intake.take(
            name,
            partial(web.stream, f"/{model}/resolve/{commit}/{quote(name)}"),
            size=int(large.get("size", each.get("size", -1))),
            digest=digest,
            sha1="" if digest else str(each.get("blobId") or ""),
            etag=f"{commit} {name}",
        )
    data: Any = about.get("cardData") or {}
    licence = data.get("license") if isinstance(data, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return Fetched(f"hf:{model}@{commit}", intake.files, Card(licence=licence if isinstance(licence, str) else ""))
