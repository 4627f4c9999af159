"""Its inside."""

from __future__ import annotations

from seamline import Batch, Module, Workers
from similar.shaky import Shaky
from similar.shaky.model import ShakyModel

module = Module("shaky", provides=Shaky)
module.model(
    Shaky, version="one", runs_in="process", workers=Workers(count=2, rss_max_mb=200, grace_s=0.2),
    batch=Batch(max=8), warm=[("double", (1,))],
)(ShakyModel)  # fmt: skip
