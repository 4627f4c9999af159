"""The application with a model can be imported."""

from __future__ import annotations

import sys
from pathlib import Path

folder = str(Path(__file__).parent / "shop_app")
if folder not in sys.path:
    sys.path.insert(0, folder)
