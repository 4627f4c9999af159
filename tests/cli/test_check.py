"""`seamline check` finds what is wrong before anything starts, all of it, each with code, place and remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONTRACT = (
    "from seamline import Contract, Event\nclass Added(Event): ...\n"
    "class Carts(Contract):\n    async def add(self, item: str) -> int: ...\n"
)
SERVICE = (
    "from seamline import Module\nfrom shopcheck.cart import Carts\nmodule = Module('cart', provides=Carts)\n"
    "@module.service\nclass Service(Carts):\n    async def add(self, item: str) -> int:\n        return 1\n"
)
HEARS = (
    "from seamline import Module\nfrom shopcheck.cart import Added\nmodule = Module('web')\n"
    "@module.on(Added)\nasync def hear(event): ...\n"
)
HEARS_STRANGER = HEARS.replace(
    "from shopcheck.cart import Added", "from seamline import Event\nclass Added(Event): ..."
)
TOML = '[app]\nname = "shopcheck"\nmodules = ["shopcheck.web", "shopcheck.cart"]\n'
WEBHOOK = (
    "[[events.webhooks]]\nname = 'partner'\nmodule = 'cart'\nevents = ['Aded']\n"
    "url = 'https://x.example'\nsecret = 'X'\n"
)
POLICY = 'permit (principal == Module::"web", action in Action::"Carts", resource == Module::"cart");\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An application in which nothing is wrong yet."""
    files = {
        "seamline.toml": TOML,
        "policy/app.cedar": POLICY,
        "shopcheck/__init__.py": "",
        "shopcheck/web/__init__.py": "",
        "shopcheck/web/module.py": "from seamline import Module\nmodule = Module('web')\n",
        "shopcheck/cart/__init__.py": CONTRACT,
        "shopcheck/cart/module.py": SERVICE,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def check(folder: Path) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "seamline.cli", "check", "--app", str(folder), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_a_sound_application_passes(folder: Path) -> None:
    """Nothing found, status 0, and the modules that were looked at."""
    status, result = check(folder)
    assert (status, result) == (0, {"ok": True, "modules": ["web", "cart"], "findings": []})


@pytest.mark.parametrize(
    ("file", "text", "code", "said"),
    [
        ("shopcheck/web/module.py", "from seamline import Modul\n", "SL2110", "shopcheck.web"),
        ("shopcheck/web/module.py", "from seamline import Module\n", "SL2110", "has no `module`"),
        ("shopcheck/web/module.py", HEARS, "SL2111", "may not read the events of module 'cart'"),
        ("shopcheck/web/module.py", HEARS.replace("shopcheck.cart", "shopcheck.wb"), "SL2110", "shopcheck.web"),
        ("shopcheck/web/module.py", HEARS_STRANGER, "SL2111", "which no module of the application declares"),
        ("shopcheck/cart/__init__.py", CONTRACT.replace("item: str", "item"), "SL2102", "item"),
        ("shopcheck/cart/__init__.py", CONTRACT.replace("item: str", "item: type"), "SL2103", "item"),
        ("shopcheck/cart/module.py", SERVICE.replace("def add", "def put"), "SL2108", "Carts.add"),
        ("seamline.toml", "[app]\nname = 'shopcheck'\nmodules = ['shopcheck.web', 'shopcheck.carts']\n", "SL2110", ""),
        (
            "seamline.toml",
            TOML + "[mesh.methods.'Carts.ad']\nretries = 0\n",
            "SL1003",
            "[mesh.methods.Carts.ad]",
        ),
        ("seamline.toml", TOML + WEBHOOK, "SL1005", "declares no event 'Aded'"),
        ("policy/app.cedar", POLICY.replace("permit", "permti"), "SL4501", ""),
        ("policy/app.cedar", POLICY.replace('Module::"web"', 'Module::"wbe"'), "SL4502", "wbe"),
    ],
)
def test_a_mistake_is_found_with_its_code(folder: Path, file: str, text: str, code: str, said: str) -> None:
    """Each planted mistake has its own code, a place to look at and a way out."""
    (folder / file).write_text(text)
    status, result = check(folder)
    assert status == 1
    (finding,) = result["findings"]
    assert finding["code"] == code
    assert said in finding["fact"]
    assert finding["remedy"] or finding["place"]


def test_all_findings_are_told_at_once(folder: Path) -> None:
    """Wiring, an import of another's inside, and policy: three rooms, one answer."""
    (folder / "shopcheck/web/module.py").write_text(
        "from seamline import Module\nfrom shopcheck.cart.module import Service\nmodule = Module('web')\n"
        "@module.startup\nasync def begin(numbers: frozenset[int]) -> None: ...\n"
    )
    (folder / "policy/app.cedar").write_text(POLICY.replace('Module::"web"', 'Module::"wbe"'))
    status, result = check(folder)
    assert status == 1
    assert {finding["code"] for finding in result["findings"]} == {"SL2105", "SL2109", "SL4502"}


def test_for_people_each_finding_is_a_sentence(folder: Path) -> None:
    """Code, place, fact and remedy on one line, and no traceback."""
    (folder / "shopcheck/cart/module.py").write_text(SERVICE.replace("def add", "def put"))
    done = subprocess.run(
        [sys.executable, "-m", "seamline.cli", "check"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    first, *rest = done.stderr.splitlines()
    assert first.startswith("SL2108: ")
    assert "module.py:" in first
    assert rest == ["", "1 finding; `seamline explain CODE` says more about each."]
