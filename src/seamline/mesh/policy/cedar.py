"""The functions of ``cedarpy`` that are used here, with whole types: the library's own are partly unknown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import cedarpy

decide = cast(
    "Callable[[Sequence[dict[str, Any]], cedarpy.PolicySet, cedarpy.Entities], list[cedarpy.AuthzResult]]",
    cedarpy.is_authorized_batch,  # pyright: ignore[reportUnknownMemberType]
)
validate = cast(
    "Callable[[str, cedarpy.Schema], cedarpy.ValidationResult]",
    cedarpy.validate_policies,  # pyright: ignore[reportUnknownMemberType]
)
entities = cast(
    "Callable[[str, cedarpy.Schema], cedarpy.Entities]",
    cedarpy.Entities.from_json_str,  # pyright: ignore[reportUnknownMemberType]
)


def with_added(entities: cedarpy.Entities, more: Sequence[dict[str, Any]]) -> cedarpy.Entities:
    """The same entities, and some of one request."""
    if not more:
        return entities
    add = cast(
        "Callable[[str], cedarpy.Entities]",
        entities.with_added_json_str,  # pyright: ignore[reportUnknownMemberType]
    )
    return add(json.dumps(more))
