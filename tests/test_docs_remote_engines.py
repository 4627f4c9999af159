"""What the page on models says of remote engines is true: lines name engines, limits and errors are the code's."""

from __future__ import annotations

import dataclasses
import re
import tomllib

import pytest
from tests.pages import read_page

from seamline.models import errors
from seamline.models.chat import Chat
from seamline.models.errors import EngineError, EngineRefused
from seamline.models.members import call_error
from seamline.models.remote.client import EngineClient, Patience
from seamline.models.remote.elsewhere import model_elsewhere
from seamline.models.remote.engines import WIRES, engine_of
from seamline.models.remote.sse import EVENT_BYTES_MAX
from seamline.module.errors import CALL_ERRORS

SECTION = read_page("models.md").partition("\n## Remote engines\n")[2].partition("\n## ")[0]


class ShopTalk(Chat): ...


def table(title: str) -> list[list[str]]:
    """The cells of the table with this first heading."""
    rows = SECTION.partition(f"\n| {title} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_line_of_the_page_is_a_model():
    """As settings have it."""
    (text,) = re.findall(r"^```toml\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    told = tomllib.loads(text)["models"]["ShopTalk"]
    model = model_elsewhere(ShopTalk, told["engine"], model=told["engine_model"], key=told["engine_key"])
    assert engine_of(model.cls.engine).provider == "openai"


def test_every_wire_is_on_the_page():
    """In the order in which a mistake names them."""
    assert [row[0].strip("`") for row in table("begins with")] == list(WIRES)
    for wire in WIRES:
        assert engine_of(f"{wire}https://host")


def test_limits_are_those_of_the_code():
    """Patience with its defaults, and sizes."""
    assert [(row[0].strip("`"), float(row[1].strip("`"))) for row in table("of `Patience`")] == [
        (field.name, field.default) for field in dataclasses.fields(Patience)
    ]
    assert f"one event of a stream {EVENT_BYTES_MAX // 2**20} MiB" in SECTION
    assert f"may have {EngineClient('http://host').answer_bytes_max // 2**20} MiB" in SECTION


@pytest.mark.parametrize("row", table("the engine"), ids=lambda row: row[0][:30])
def test_callers_hear_what_the_page_says(row: list[str]):
    """Of each status that is named, and each other error."""
    said, code, heard = row
    by_code: dict[str, type[EngineError]] = {
        each.code: each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, EngineError)
    }
    statuses = [int(each) for each in re.findall(r"\d{3}", said)] or [0]
    for status in statuses:
        error = by_code[code]("it happened")
        if isinstance(error, EngineRefused):
            error.status = status
        told = call_error(error)
        expected = heard.partition("`")[2].partition("`")[0]
        assert (type(told).__name__ if told is not None else "InternalError") == expected
        assert any(each.__name__ == expected for each in CALL_ERRORS.values())
