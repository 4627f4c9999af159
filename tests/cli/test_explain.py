"""Every error code has one meaning, and the tool knows it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from seamline.cli.app import run
from seamline.cli.explain import ROOM_OF_RANGE, meanings

KNOWN = meanings()


def test_no_two_errors_share_a_code() -> None:
    """A code that people search for leads to one class."""
    assert [code for code, count in Counter(meaning.code for meaning in KNOWN).items() if count > 1] == []


def test_every_code_is_explained() -> None:
    """Each has a line in the tree of its errors.py, or a docstring."""
    assert [meaning.code for meaning in KNOWN if not meaning.summary] == []


def test_every_code_is_in_a_known_range() -> None:
    """Four digits, the first of which names the room."""
    assert [m.code for m in KNOWN if len(m.code) != 6 or m.code[:3] not in ROOM_OF_RANGE] == []


def test_a_code_is_read_from_the_tree_and_the_docstring(tmp_path: Path) -> None:
    """The line of the tree is the meaning; the docstring adds to it; other classes are left alone."""
    (tmp_path / "errors.py").write_text(
        '"""Errors.\n\n    Base        SL7100  things went wrong\n      Worse     SL7101  badly\n"""\n'
        'class Base(Exception):\n    """The whole story of it."""\n    code: ClassVar[str] = "SL7100"\n'
        'class Worse(Base):\n    code = "SL7101"\n'
        'class Other:\n    code = "green"\n'
    )
    found = meanings(tmp_path)
    assert [(m.code, m.name, m.summary, m.text) for m in found] == [
        ("SL7100", "Base", "Things went wrong", "The whole story of it."),
        ("SL7101", "Worse", "Badly", ""),
    ]


@pytest.mark.parametrize("asked", ["SL9001", "9001", "sl9001"])
def test_a_code_is_explained_however_it_is_written(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With or without the letters, in either case."""
    assert run(["explain", asked]) == 0
    out = capsys.readouterr().out
    assert out.startswith("SL9001  NoApplicationError\nabout the command line")
    assert "seamline new shop" in out


def test_json_holds_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """A script gets code, name, meaning, module and exit status of all."""
    assert run(["explain", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == len(KNOWN)
    assert {"code", "name", "summary", "text", "module", "exit_status"} == set(found[0])


def test_an_unknown_code_names_its_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    """A code that does not exist is an error that lists those near it."""
    assert run(["explain", "SL9099"]) == 2
    assert "SL9004: no error carries the code 'SL9099'. Near it are SL9000, SL9001" in capsys.readouterr().err
