"""The page on testing is true: its code is a test file that passes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from seamline.testing import errors

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "testing.md"


def test_the_code_of_the_page_passes_as_written(tmp_path: Path):
    """In one process and in two."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (tmp_path / "conftest.py").write_text((ROOT / "examples/boutique/tests/conftest.py").read_text().replace(
        "Path(__file__).resolve().parents[1]", f"Path({str(ROOT / 'examples/boutique')!r})"
    ))  # fmt: skip
    page = "\n\n".join(blocks).replace("examples/boutique", str(ROOT / "examples/boutique"))
    (tmp_path / "test_page.py").write_text(page)
    options = ["asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function", "filterwarnings=error"]
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--topologies", "local,duo",
            *(word for option in options for word in ("-o", option)),
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    tests = len(re.findall(r"^async def test_", page, re.MULTILINE))
    assert tests == 7
    assert f"{2 * tests} passed" in done.stdout, done.stdout + done.stderr


def test_every_error_of_the_kit_is_on_the_page():
    """By its code."""
    codes = {
        each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.TestingError)
    }
    told = set(re.findall(r"^\| (SL8\d{3}) ", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert told == codes - {"SL8000"}
