"""The application under test is importable."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
for folder in (HERE, HERE / "other_app"):
    sys.path.insert(0, str(folder))
