"""What the tests of the registry share."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from seamline.models.registry import Registry


def safetensors(values: bytes = b"\0" * 8) -> bytes:
    """A file with one tensor of bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return struct.pack("<Q", len(header)) + header + values


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., str]:
    """Makes a folder with files, by their names without ``.`` but with ``__``."""

    def make(name: str = "source", /, **contents: bytes) -> str:
        for file, content in ({"model__safetensors": safetensors()} | contents).items():
            path = tmp_path / name / file.replace("__", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return str(tmp_path / name)

    return make
