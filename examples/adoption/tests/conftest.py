"""The folder of the application goes onto the import path, as `seamline up` does it."""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from pathlib import Path

APP = Path(__file__).resolve().parents[1]
if str(APP) not in sys.path:
    sys.path.insert(0, str(APP))


# The reviews app reads its own setting when it is imported, by whichever test is first: it gets a file that goes away.
_reviews = tempfile.TemporaryDirectory(prefix="reviews-")
atexit.register(_reviews.cleanup)
os.environ["REVIEWS_DB"] = f"{_reviews.name}/reviews.sqlite3"  # noqa: TID251  # as its operators would set it
