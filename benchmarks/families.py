"""Every family of rows, in the order of the report."""

from __future__ import annotations

from benchmarks.rows import (
    ai_gateway,
    authentication,
    boutique,
    embeddings,
    events,
    explanation,
    inprocess,
    language,
    otlp,
    policy,
    principal,
    remote,
    revocation,
    sagas,
    serving,
    telemetry,
    topology,
)

FAMILIES = (
    *inprocess.FAMILIES,
    *remote.FAMILIES,
    *authentication.FAMILIES,
    *principal.FAMILIES,
    *policy.FAMILIES,
    *revocation.FAMILIES,
    *events.FAMILIES,
    *sagas.FAMILIES,
    *telemetry.FAMILIES,
    *explanation.FAMILIES,
    *otlp.FAMILIES,
    *serving.FAMILIES,
    *embeddings.FAMILIES,
    *language.FAMILIES,
    *ai_gateway.FAMILIES,
    *boutique.FAMILIES,
    *topology.FAMILIES,
)
