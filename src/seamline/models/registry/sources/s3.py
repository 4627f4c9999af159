"""Anything that speaks S3, by ``boto3`` with the credentials that it finds by itself."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from seamline.kernel.settings import ModelsSettings
from seamline.models.errors import ExtraMissingError
from seamline.models.registry.errors import SourceError
from seamline.models.registry.sources import Fetched, Intake, in_chunks

_TIMEOUT_S: Final = 30
_REGION: Final = "us-east-1"
"""Where none is set: servers that are not AWS's take any."""


def fetch_s3(address: str, intake: Intake, settings: ModelsSettings) -> Fetched:
    """All objects below ``s3://bucket/prefix``, or the one object of that name."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    if not bucket or not prefix:
        raise SourceError(f"{address!r} names no objects", "Write s3://bucket/prefix.")
    client = _client(settings)
    exceptions = importlib.import_module("botocore.exceptions")
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for each in page.get("Contents", ()):
                key, size, etag = str(each["Key"]), int(each["Size"]), str(each["ETag"])
                path = key.rpartition("/")[2] if key == prefix else key.removeprefix(f"{prefix}/")
                if not path or path.endswith("/") or not (key == prefix or key.startswith(f"{prefix}/")):
                    continue  # what people see as folders, and neighbours whose names begin alike
                intake.take(path, partial(_read, client, bucket, key, etag), size=size, etag=f"{bucket}/{key} {etag}")
    except exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        raise SourceError(f"S3 answers {code} for {address!r}", "Look at the address and at the rights.") from error
    except exceptions.NoCredentialsError as error:
        raise SourceError("there are no credentials for S3", "Set them as boto3 says.") from error
    except exceptions.BotoCoreError as error:
        raise SourceError(f"S3 does not answer ({type(error).__name__})", "It may pass.") from error
    return Fetched(f"s3://{bucket}/{prefix}", intake.files)


def _read(client: Any, bucket: str, key: str, etag: str, offset: int) -> Iterator[bytes]:
    span = {"Range": f"bytes={offset}-"} if offset else {}
    answer = client.get_object(Bucket=bucket, Key=key, IfMatch=etag, **span)
    with answer["Body"] as body:
        yield from in_chunks(body.read)


def _client(settings: ModelsSettings) -> Any:
    try:
        boto3 = importlib.import_module("boto3")
    except ModuleNotFoundError as error:
        raise ExtraMissingError("'boto3' is not installed", 'Run: pip install "seamline[aws]"') from error
    config = importlib.import_module("botocore.config").Config(
        connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, retries={"total_max_attempts": 3, "mode": "standard"}
    )
    session = boto3.session.Session()
    region = session.region_name or (_REGION if settings.s3_endpoint else None)
    return session.client("s3", endpoint_url=settings.s3_endpoint or None, region_name=region, config=config)
