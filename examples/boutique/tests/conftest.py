"""The boutique's tests run from any folder: its own folder goes onto the import path, as `seamline up` does it."""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import sys
from pathlib import Path

APP = Path(__file__).resolve().parents[1]
if str(APP) not in sys.path:
    sys.path.insert(0, str(APP))
