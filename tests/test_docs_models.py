"""The page on models is true: its application is checked and tested as it stands, its tables are the code's."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from tests.pages import read_page, run_module, run_test, write_files

from seamline import Batch, Cache, Module, SemanticCache, Workers
from seamline.mesh import server
from seamline.mesh.balance import Replica
from seamline.models import errors as shared
from seamline.models import runtime
from seamline.models.serving import errors, pool, process, streaming, telling, tokens, worker

PAGE = read_page("models.md")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The files of the page."""
    assert write_files(PAGE, tmp_path) == 5
    return tmp_path


def test_the_application_passes_the_checks(shop: Path):
    """``seamline check`` finds nothing."""
    assert "nothing found" in run_module(shop, "seamline.cli", "check")


def test_the_test_of_the_page_passes(shop: Path):
    """In one process and in many."""
    said = run_test(PAGE, shop)
    assert "4 passed" in said, said


def rows(title: str) -> dict[str, str]:
    """The rows of the table with this heading: name and default."""
    table = PAGE.partition(f"\n| {title} |")[2].partition("\n\n")[0]
    return {
        name.strip("` "): default.strip("` ")
        for name, default in re.findall(r"^\| (`\w+`) \| ([^|]*)\|", table, re.MULTILINE)
    }


def test_every_setting_of_a_model_is_on_the_page():
    """With its default."""
    parameters = list(inspect.signature(Module.model).parameters.values())[2:]
    shown = rows("of `@module.model(contract, ...)`")
    assert list(shown) == [each.name for each in parameters]
    for parameter in parameters:
        if shown[parameter.name] and parameter.name != "batch":
            assert ast.literal_eval(shown[parameter.name]) == parameter.default
    assert shown["batch"] == f"Batch(max={Batch().max}, wait_ms={Batch().wait_ms})"


@pytest.mark.parametrize("cls", [Workers, Cache, SemanticCache])
def test_every_field_is_on_the_page(cls: Any):
    """With its default."""
    shown = rows(f"of `{cls.__name__}`")
    assert list(shown) == [field.name for field in dataclasses.fields(cls)]
    for field in dataclasses.fields(cls):
        if shown[field.name]:
            assert str(field.default) == shown[field.name]


def test_figures_and_limits_are_those_of_the_code():
    """Measures by name, limits by number."""
    source = inspect.getsource(telling)
    names = set(re.findall(r'PREFIX \+ "(\w+)"|_grown\("(\w+)"|\("(first_item)"|\("(between_items)"', source))
    told = {name for found in names for name in found if name}
    assert set(re.findall(rf"^\| `{re.escape(telling.PREFIX)}(\w+)`", PAGE, re.MULTILINE)) == told
    assert f"at most {streaming.AHEAD_MAX} items ahead" in PAGE
    assert process.AHEAD_MAX == streaming.AHEAD_MAX
    assert f"(nice {worker._NICENESS})" in PAGE  # pyright: ignore[reportPrivateUsage]
    assert f"at most {runtime._SHADOWS_MAX} at once" in PAGE  # pyright: ignore[reportPrivateUsage]
    assert f"for at most {Replica.BUSY_S_MAX:g}\nseconds" in PAGE
    assert f"every {server.TELL_S * 1000:g} ms" in PAGE
    assert f"holds for {Replica.OTHERS_S:g} seconds" in PAGE
    assert f"more than {Replica.AHEAD_S_MAX:g} seconds are taken for {Replica.AHEAD_S_MAX:g}" in PAGE
    assert f"an answer of {tokens._USUAL_TOKENS:g} tokens" in PAGE  # pyright: ignore[reportPrivateUsage]
    assert Replica.BELIEVED == 4
    assert "a quarter of what" in PAGE
    assert f"up to {pool._BACKOFF_MAX_S:g} s" in PAGE  # pyright: ignore[reportPrivateUsage]


def test_every_error_of_serving_is_on_the_page():
    """By its code."""
    classes: list[Any] = [*vars(shared).values(), *vars(errors).values()]
    codes = {str(getattr(each, "code", "")) for each in classes}
    found = {code for code in codes if code.startswith(("SL770", "SL771"))}
    assert set(re.findall(r"^\| (SL77[01]\d) ", PAGE, re.MULTILINE)) >= found - {"SL7700"}
