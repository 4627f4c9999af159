"""The model registry of an MLflow server, over its REST API.

https://mlflow.org/docs/latest/api_reference/rest-api.html. Its library is not needed, which tells its makers when it
is imported.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from seamline.kernel.settings import ModelsSettings
from seamline.models.registry.errors import SourceError
from seamline.models.registry.manifest import Card, Lineage
from seamline.models.registry.sources import Fetched, Intake
from seamline.models.registry.sources.web import Web

_ADDRESS: Final = re.compile(r"mlflow:(?P<model>[^@/]+)(?:/(?P<version>\d+)|@(?P<alias>[\w.-]+))")
_ARTEFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts"
_DEPTH_MAX: Final = 16


def fetch_mlflow(address: str, intake: Intake, settings: ModelsSettings) -> Fetched:
    """``mlflow:model/version`` or ``mlflow:model@alias``, of a server that gives out its artefacts itself."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise SourceError(f"{address!r} is no model of MLflow", "Write mlflow:model/version or mlflow:model@alias.")
    if not settings.mlflow.startswith(("http://", "https://")):
        raise SourceError("no MLflow server is known", 'Say mlflow = "https://..." under [models].')
    web = Web(settings.mlflow)
    if found["version"]:
        query = {"name": found["model"], "version": found["version"]}
        about = web.json(f"/api/2.0/mlflow/model-versions/get?{urlencode(query)}")
    else:
        query = {"name": found["model"], "alias": found["alias"]}
        about = web.json(f"/api/2.0/mlflow/registered-models/alias?{urlencode(query)}")
    try:
        version = about["model_version"]
        number = str(version["version"])
        place: Any = web.json(
            f"/api/2.0/mlflow/model-versions/get-download-uri?{urlencode({'name': found['model'], 'version': number})}"
        )
        where = urlsplit(_stored(web, str(place["artifact_uri"])))
    except (KeyError, TypeError):
        raise SourceError(f"MLflow's answer about {address!r} cannot be understood", "Look at mlflow.") from None
    if where.scheme != "mlflow-artifacts":
        raise SourceError(
            f"MLflow keeps {address!r} at {where.scheme}://, and does not give it out itself",
            "Add it from there, or start the server with --serve-artifacts.",
        )
    root = where.path.strip("/")
    _take_folder(web, root, "", intake, 0)
    tags: dict[str, str] = {str(tag["key"]): str(tag["value"]) for tag in version.get("tags", ())}
    card = Card(
        text=str(version.get("description") or ""),
        lineage=Lineage(code=tags.get("mlflow.source.git.commit", ""), source=f"mlflow:{found['model']}/{number}"),
        extra={"mlflow.run": str(version.get("run_id") or "")},
    )
    return Fetched(f"mlflow:{found['model']}/{number}", intake.files, card)


def _stored(web: Web, address: str) -> str:
    """Where the files of a run or of a logged model are."""
    kind, _, rest = address.partition(":")
    name, _, path = rest.lstrip("/").partition("/")
    if kind == "runs":
        about = web.json(f"/api/2.0/mlflow/runs/get?{urlencode({'run_id': name})}")
        return f"{about['run']['info']['artifact_uri']}/{path}".rstrip("/")
    if kind == "models":
        about = web.json(f"/api/2.0/mlflow/logged-models/{quote(name, safe='')}")
        return str(about["model"]["info"]["artifact_uri"])
    return address


def _take_folder(web: Web, root: str, folder: str, intake: Intake, depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise SourceError(f"{root!r} has folders in folders without end", "Look at it.")
    listed: Any = web.json(f"{_ARTEFACTS}?{urlencode({'path': f'{root}/{folder}'.rstrip('/')})}")
    for each in listed.get("files") or ():
        # The server gives either the last part or the whole path below the folder that was asked for.
        name = str(each["path"]).rpartition("/")[2]
        path = f"{folder}/{name}".lstrip("/")
        if each.get("is_dir"):
            _take_folder(web, root, path, intake, depth + 1)
        else:
            target = f"{_ARTEFACTS}/{quote(f'{root}/{path}')}"
            intake.take(path, partial(web.stream, target), size=int(each.get("file_size", -1)))
