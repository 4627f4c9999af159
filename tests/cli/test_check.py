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
ASKS = "from seamline import Module\nfrom shopcheck.cart import Carts\nmodule = Module('web')\n"
WIRED = ASKS + "@module.startup\nasync def begin(carts: Carts) -> None: ...\n"
FACE = (
    "from fastapi import Depends, FastAPI\nimport seamline\nfrom shopcheck import cart\n"
    "app = FastAPI()\n@app.get('/')\nasync def page(carts=Depends(seamline.use(cart.Carts))): ...\n"
)
MOUNTS = (
    "from seamline import Module\nfrom shopcheck.web.face import app\nmodule = Module('web')\n"
    "module.mount(app, at='/web')\n"
)
OPEN = 'permit (principal == Module::"gateway", action == Action::"http", resource == Module::"web");\n'
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


def test_a_contract_that_is_asked_for_needs_a_permit_for_one_of_its_methods_at_least(folder: Path) -> None:
    """Wired by type, or by `Depends(use(...))` of a mounted app; the remedy, put into the policy, heals it."""
    (folder / "shopcheck/web/module.py").write_text(WIRED)
    assert check(folder)[0] == 0
    (folder / "policy/app.cedar").write_text(OPEN)
    for wired in (True, False):
        if not wired:
            (folder / "shopcheck/web/face.py").write_text(FACE)
            (folder / "shopcheck/web/module.py").write_text(MOUNTS)
        status, result = check(folder)
        assert status == 1
        (finding,) = result["findings"]
        assert (finding["code"], finding["fact"]) == (
            "SL4505",
            "module 'web' asks for Carts, but may call nothing of it",
        )
        assert finding["place"].endswith("web/module.py:3" if wired else "web/face.py:6")
    permit = finding["remedy"].split("`")[1]
    (folder / "policy/app.cedar").write_text(OPEN + permit)
    assert check(folder)[0] == 0


def test_a_route_needs_a_permit_of_the_gateway(folder: Path) -> None:
    """That of a mounted app and that of the settings; the remedy, put into the policy, heals it."""
    (folder / "shopcheck/web/face.py").write_text(FACE)
    (folder / "shopcheck/web/module.py").write_text(MOUNTS)
    (folder / "seamline.toml").write_text(f"{TOML}[[gateway.routes]]\nmodule = 'web'\npath = '/old'\n")
    _, result = check(folder)
    mounted, routed = result["findings"]
    assert (mounted["code"], routed["code"]) == ("SL4505", "SL4505")
    assert mounted["fact"].startswith("module 'web' answers at '/web', but 'gateway' may not")
    assert mounted["place"].endswith("web/module.py:3")
    assert "'/old'" in routed["fact"]
    assert routed["place"] == "seamline.toml [gateway] routes"
    permit = mounted["remedy"].split("`")[1]
    (folder / "policy/app.cedar").write_text(POLICY + permit)
    assert check(folder)[0] == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://me:secret@x", "'amqp://x' names no broker"),
        ("nats:me:secret@x", "'x' names no broker"),
        ("nats://me:secret@x?secret=5", "the url ends in"),
        ("redis://me:secret@x:port", "cannot be read"),
        ("kafka://me:secret@x:port", "has the server 'x:port'"),
        ("postgresql:///db", "names no host"),
    ],
)
def test_a_brokers_url_is_read(folder: Path, url: str, said: str) -> None:
    """Its scheme, host and port; no password is told."""
    (folder / "seamline.toml").write_text(f"{TOML}[events]\nbroker = '{url}'\n")
    _, result = check(folder)
    (finding,) = result["findings"]
    assert (finding["code"], finding["place"]) == ("SL7203", "seamline.toml [events] broker")
    assert said in finding["fact"]
    assert finding["remedy"]
    assert "secret@" not in json.dumps(result)


def test_the_url_of_a_broker_that_is_away_is_sound(folder: Path) -> None:
    """Nothing is connected."""
    for url in ("nats://127.0.0.1:1", "redis://127.0.0.1:1", "kafka://127.0.0.1:1", "postgresql://127.0.0.1:1/db"):
        (folder / "seamline.toml").write_text(f"{TOML}[events]\nbroker = '{url}'\n")
        assert check(folder)[0] == 0


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
