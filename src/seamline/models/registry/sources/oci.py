"""Any registry that speaks the OCI distribution specification.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md and, for tokens,
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from seamline.kernel.settings import ModelsSettings
from seamline.kernel.settings.auth import loopback
from seamline.models.registry.errors import ArtefactDamagedError, BadReferenceError, SourceError
from seamline.models.registry.manifest import (
    CARD_TYPE,
    MEDIA_TYPE,
    Card,
    digest_of_bytes,
    read_card,
    read_manifest,
)
from seamline.models.registry.sources import Fetched, Intake
from seamline.models.registry.sources.web import Web, decoded

_ADDRESS: Final = re.compile(
    r"oci://(?P<host>[\w.-]+(?::\d+)?)/(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_PARAMETER: Final = re.compile(r'(\w+)="([^"]*)"')
_ACCEPT: Final = f"{MEDIA_TYPE}, application/vnd.docker.distribution.manifest.v2+json"
_CARD_BYTES_MAX: Final = 4 << 20


def fetch_oci(address: str, intake: Intake, settings: ModelsSettings) -> Fetched:
    """An artefact whose layers are files with names, as ``oras push`` and our own manifests have them."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise SourceError(f"{address!r} is no address of an artefact", "Write oci://host/name:tag or @sha256:digest.")
    here = loopback(found["host"].partition(":")[0])
    if settings.oci_plain_http and not here:
        raise SourceError(
            f"{found['host']!r} is another machine, and oci_plain_http is for this one", "Speak TLS to it."
        )
    scheme = "http" if settings.oci_plain_http else "https"
    web = Web(f"{scheme}://{found['host']}", settings.oci_login)
    name, reference = found["name"], found["digest"] or found["tag"] or "latest"
    content = _manifest(web, name, reference)
    digest = digest_of_bytes(content)
    if found["digest"] and digest != found["digest"]:
        raise ArtefactDamagedError(f"{found['host']} gave {digest} where {found['digest']} was asked for")
    if "manifests" in decoded(content, address):
        raise SourceError(f"{address!r} is an index of several", "Name one of them by its digest.")
    try:
        manifest = read_manifest(content)
    except BadReferenceError as error:
        raise SourceError(f"{address!r} is no artefact of files with names ({error.fact})", "Push it as one.") from None
    for each in manifest.layers:
        blob = f"/v2/{name}/blobs/{each.digest}"
        intake.take(each.title, partial(web.stream, blob), size=each.size, digest=each.digest)
    card = Card()
    if manifest.config.media_type == CARD_TYPE and manifest.config.size <= _CARD_BYTES_MAX:
        with web.get(f"/v2/{name}/blobs/{manifest.config.digest}") as answer:
            found_card = web.whole(answer, "the card")
        if digest_of_bytes(found_card) != manifest.config.digest:
            raise ArtefactDamagedError(f"the card of {address} is another than its digest says")
        card = read_card(found_card)
    return Fetched(f"oci://{found['host']}/{name}@{digest}", intake.files, card)


def _manifest(web: Web, name: str, reference: str) -> bytes:
    target = f"/v2/{name}/manifests/{reference}"
    with web.get(target, {"accept": _ACCEPT}) as answer:
        if answer.status != 401:
            return web.whole(answer, target)
        challenge = answer.headers.get("www-authenticate", "")
    web.authorization = _authorize(web, challenge, name)
    with web.get(target, {"accept": _ACCEPT}) as answer:
        return web.whole(answer, target)


def _authorize(web: Web, challenge: str, name: str) -> str:
    """What the registry wants to be shown: a token of the server that it names."""
    kind, _, rest = challenge.partition(" ")
    wanted: dict[str, str] = dict(_PARAMETER.findall(rest))
    realm = urlsplit(wanted.get("realm", ""))
    if kind.lower() != "bearer" or not realm.hostname or realm.scheme not in {"http", "https"}:
        raise SourceError(f"the registry wants {challenge[:100]!r}", "Give oci_login under [models].")
    query = {"scope": f"repository:{name}:pull"} | ({"service": wanted["service"]} if "service" in wanted else {})
    if realm.scheme == "http" and not web.plain:
        raise SourceError(f"the registry has tokens given out at {realm.netloc}, without TLS", "Do not use it.")
    answer: Any = Web(f"{realm.scheme}://{realm.netloc}", web.login).json(f"{realm.path}?{urlencode(query)}")
    token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(token, str) or not token.isprintable():
        raise SourceError(f"{realm.netloc} gives no token", "Give oci_login under [models].")
    return f"Bearer {token}"
