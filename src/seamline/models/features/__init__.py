"""Features: what a model is told of somebody's past, declared once over events and computed by one code everywhere.

Online it is a look-up at this moment, offline a point-in-time join: for each row of training data the features as they
stood when it was decided, and nothing that was known later. Windows that many look at are views (``events.streams``).
"""

from seamline.models.features.definition import (
    Case,
    Feature,
    FeatureSet,
    Vector,
    count,
    distinct,
    largest,
    last,
    mean,
    since_first,
    since_last,
    smallest,
    total,
)
from seamline.models.features.table import FeatureTable, keep

__all__ = [
    "Case",
    "Feature",
    "FeatureSet",
    "FeatureTable",
    "Vector",
    "count",
    "distinct",
    "keep",
    "largest",
    "last",
    "mean",
    "since_first",
    "since_last",
    "smallest",
    "total",
]
