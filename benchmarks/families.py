"""Every family of rows, in the order of the report."""

from __future__ import annotations

from benchmarks.rows import boutique, inprocess, remote

FAMILIES = (*inprocess.FAMILIES, *remote.FAMILIES, *boutique.FAMILIES)
