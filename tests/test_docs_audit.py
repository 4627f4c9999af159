"""The pages on the audit and the control API are true: kinds, operations, roles, settings and examples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast, get_args
from unittest.mock import Mock

import pytest
from tests.pages import read_page

from seamline.kernel.audit import Kind
from seamline.kernel.settings import Settings
from seamline.run.operations import AdminServer
from seamline.run.roles import needed

AUDIT, API = read_page("audit.md"), read_page("admin-api.md")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_kind_of_line_is_on_the_page():
    heading, *kinds = re.findall(r"^\| `(\w+)` \| ", AUDIT, re.MULTILINE)
    assert heading == "kind"
    assert tuple(kinds) == get_args(Kind)


@pytest.mark.parametrize("text", re.findall(r"^```toml\n(.*?)^```", AUDIT + API, re.MULTILINE | re.DOTALL))
def test_the_settings_are_read(text: str, tmp_path: Path):
    (tmp_path / "seamline.toml").write_text(f'[app]\nname = "shop"\nmodules = []\n{text}')
    Settings.load(tmp_path, {})


def test_every_operation_is_on_the_page_with_its_role():
    """None is left out, none is made up."""
    rows = re.findall(r"^\| (`[^|]+) \| (viewer|operator|admin)(.*?) \|", API, re.MULTILINE)
    written = {name: role for names, role, _ in rows for name in re.findall(r"`([\w-]+)`", names)}
    server = AdminServer(cast("Any", Mock()))
    assert set(written) == set(server._operations)  # pyright: ignore[reportPrivateUsage]
    for name, role in written.items():
        request = {"events": {"operation": "lag"}, "sagas": {"operation": "show"}}.get(name, {})
        assert needed(name, request) == role, name


def test_the_example_writes_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found = PYTHON.search(AUDIT)
    assert found is not None
    exec(found[1], {})  # the page's own
    (line,) = (tmp_path / "audit" / "orders.jsonl").read_text().splitlines()
    assert json.loads(line)["decision"] == "deny"
