"""What the page on models says of language models is what the code has."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from tests.pages import read_page

from seamline.models.formats.ggml import FORMS
from seamline.models.runtimes.chat_model import ChatModel, LlamaChat
from seamline.models.runtimes.ctranslate2 import CTranslate2Chat
from seamline.models.runtimes.genai import GenAiChat
from seamline.models.runtimes.llama.shape import ARCHITECTURES
from seamline.models.runtimes.llamacpp import LlamaCppChat
from seamline.models.runtimes.transformers import TransformersChat

ROOT = Path(__file__).resolve().parents[1]
SECTION = re.split(r"^## ", read_page("models.md").split("## Language models\n")[1], flags=re.MULTILINE)[0]
CLASSES = {each.__name__: each for each in (LlamaChat, GenAiChat, CTranslate2Chat, TransformersChat, LlamaCppChat)}


def table(head: str) -> list[list[str]]:
    rows = SECTION.split(head)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_attributes_and_what_they_are_by_default():
    """Each that can be set is told, with its value."""
    told: dict[str, str] = {}
    for names, values, _ in table("| of `LlamaChat` |"):
        found = re.findall(r"`(\w+)`", names)
        told.update(zip(found, re.findall(r"`(.+?)`", values) or [""] * len(found), strict=True))
    public = {name for cls in (ChatModel, LlamaChat) for name in cls.__annotations__ if not name.startswith("_")}
    assert set(told) == public
    for name, value in told.items():
        assert getattr(LlamaChat, name) == (json.loads(value) if value else ""), name


def test_each_library_has_a_class_and_an_extra():
    """The extras are those of the package."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = table("| class | runs |")
    assert [row[0].strip("`") for row in rows] == list(CLASSES)
    assert all(row[2].strip("`") in extras for row in rows)


def test_forms_and_architectures():
    """Each form of weights that is read is named, and each architecture."""
    for form in FORMS.values():
        assert form.name == "F32" or form.name in SECTION
    for architecture in ARCHITECTURES:
        assert f"`{architecture}`" in SECTION


@pytest.mark.parametrize("name", ["tiny-1", "tiny-2"])
def test_the_tiny_models_are_as_small_as_is_said(name: str):
    """Parameters and file, of those that are here."""
    (row,) = [row for row in table("| | parameters |") if row[0] == f"`{name}`"]
    size = (ROOT / "examples/boutique/boutique/assistant/weights" / name / "model.safetensors").stat().st_size
    assert row[2] == f"{size / 1e6:.1f} MB, float16"
    assert row[1] == f"{size / 2e6:.1f} million"
