"""Marks as charts want them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from seamline.observe.records import Mark


def chart_marks(marks: Iterable[Mark]) -> list[dict[str, Any]]:
    """What ``static/charts.js`` draws on every chart."""
    return [{"at": each.at_ns / 1e9, "title": each.title, "kind": each.kind} for each in marks]
