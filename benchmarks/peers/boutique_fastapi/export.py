"""``python -m benchmarks.peers.boutique_fastapi.export <example> <target.json>``: the shop's tables as plain JSON.

The peer's services read this file, so that they sell the same things and import nothing of Seamline.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any


def tables() -> dict[str, Any]:
    from boutique.ads.module import _ADS
    from boutique.catalog.shelf import SHELF
    from boutique.currency.rates import PER_EURO
    from boutique.shipping.module import _COUNTRIES

    return {
        "shelf": [asdict(product) for product in SHELF],
        "per_euro": dict(PER_EURO),
        "ads": {category: [asdict(ad) for ad in ads] for category, ads in _ADS.items()},
        "countries": {code: {"name": name} | asdict(zone) for code, (name, zone) in _COUNTRIES.items()},
    }


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    Path(sys.argv[2]).write_text(json.dumps(tables(), default=str))
