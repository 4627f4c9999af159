"""What the page on models says of encoders, indexes and recommendations is so."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.pages import read_page

from seamline.models import index
from seamline.models.formats import errors, safetensors
from seamline.models.runtimes import encoder

PAGE = read_page("models.md")
ROOT = Path(__file__).parents[1]


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_setting_of_an_encoder_is_on_the_page():
    """With its default."""
    parameters = list(inspect.signature(encoder.Encoder.__init__).parameters.values())[2:]
    shown = re.findall(r"^\| `(\w+)` \| `([^`]*)`", section("Runtimes: encoders"), re.MULTILINE)
    assert shown == [(each.name, repr(each.default).replace("'", '"')) for each in parameters]


def test_limits_errors_and_extras_are_those_of_the_code():
    """By number, by code, by name."""
    text = section("Runtimes: encoders")
    assert f"{encoder.TOKENS_AT_ONCE} tokens in a run" in text
    assert f"Up to {index.EXACT_MAX:,} vectors" in text
    assert safetensors.HEADER_BYTES_MAX == 100_000_000
    assert set(re.findall(r"^\| (SL\d+) \|", text, re.MULTILINE)) == {
        errors.WeightsError.code,
        errors.ArchitectureError.code,
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in re.findall(r"extra `([\w-]+)`", text):
        assert extra in project
    assert any(each.startswith("voyager") for each in project["models-index"])


def test_nothing_heavy_is_imported_before_it_is_needed():
    """An encoder and an index can be named where none of their packages is installed."""

    code = (
        "import sys, seamline.models.index, seamline.models.runtimes.encoder; "
        "print({'numpy', 'onnx', 'onnxruntime', 'tokenizers', 'voyager'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
