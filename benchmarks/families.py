"""Every family of rows, in the order of the report."""

from __future__ import annotations

from benchmarks.rows import boutique, events, inprocess, remote, sagas

FAMILIES = (*inprocess.FAMILIES, *remote.FAMILIES, *events.FAMILIES, *sagas.FAMILIES, *boutique.FAMILIES)
