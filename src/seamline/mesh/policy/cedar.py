"""The three functions of ``cedarpy`` that are used here, with whole types: the library's own are partly unknown."""

from __future__ import annotations

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
