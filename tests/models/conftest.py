"""The applications with models can be imported."""

from __future__ import annotations

import sys
from pathlib import Path

for app in ("shop_app", "talk_app", "watch/clerk_app"):
    folder = str(Path(__file__).parent / app)
    if folder not in sys.path:
        sys.path.insert(0, folder)
