"""The pages on sidecars, SPIRE and federation are true: their example, settings, policy and errors."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest
from tests.pages import read_page, run_module, write_files

from seamline.deploy.sidecar import errors
from seamline.deploy.sidecar.errors import SidecarError
from seamline.kernel.settings import Settings
from seamline.run.application import Application
from seamline.run.federation import ENDPOINT
from seamline.testing.app import TopologyApp

SIDECAR, SPIRE = read_page("sidecar.md"), read_page("spire.md")
APP = '\n[app]\nname = "shop"\nmodules = ["shop.orders"]\n'
SETTINGS = re.findall(r"^```toml\n(.*?)^```", SPIRE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The files of the page."""
    assert write_files(SIDECAR, tmp_path) == 3
    return tmp_path


def test_the_example_passes_the_checks(shop: Path):
    """Its inside in Python, too."""
    assert "nothing found" in run_module(shop, "seamline.cli", "check")


@pytest.mark.needs_server
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.skipif(importlib.util.find_spec("envoy") is None, reason="Envoy is not installed")
async def test_the_example_is_answered_by_node(shop: Path, monkeypatch: pytest.MonkeyPatch):
    """Which knows a language that Python does not, and tells of the others by the declared fault."""
    monkeypatch.setattr(sys, "path", [str(shop), *sys.path])
    for name in [each for each in sys.modules if each.partition(".")[0] == "shop"]:
        monkeypatch.delitem(sys.modules, name)
    application = Application.load(shop)
    face = importlib.import_module("shop.greetings")
    with TopologyApp(application, "polyglot", shop / "data") as app:
        greetings = app.stub(face.Greetings)
        assert await greetings.greet("Ada", "nl") == "Dag, Ada"
        with pytest.raises(face.Speechless) as caught:
            await greetings.greet("Ada", "xx")
        assert caught.value.language == "xx"
    for name in [each for each in sys.modules if each.partition(".")[0] == "shop"]:
        del sys.modules[name]


@pytest.mark.parametrize("text", SETTINGS)
def test_the_settings_can_be_read(text: str, tmp_path: Path):
    """As they stand on the page."""
    (tmp_path / "seamline.toml").write_text(APP + text)
    settings = Settings.load(tmp_path, {})
    assert settings.identity.source == "spire" or settings.foreign_modules == ("other.example/billing/invoices",)


def test_the_policy_is_one(tmp_path: Path):
    """About a contract such as the page's, and a principal that the settings of the page name."""
    (tmp_path / "seamline.toml").write_text(APP + SETTINGS[1])
    (block,) = re.findall(r"^```cedar\n(.*?)^```", SPIRE, re.MULTILINE | re.DOTALL)
    for file, content in {
        "policy/p.cedar": block,
        "shop/__init__.py": "",
        "shop/orders/__init__.py": "from seamline import Contract\nclass Orders(Contract):\n"
        "    async def total(self) -> int: ...\n",
        "shop/orders/module.py": "from seamline import Module\nfrom shop.orders import Orders\n"
        "module = Module('orders', provides=Orders)\n@module.service\nclass Service(Orders):\n"
        "    async def total(self) -> int:\n        return 1\n",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert "nothing found" in run_module(tmp_path, "seamline.cli", "check")
    (tmp_path / "policy" / "p.cedar").write_text(block.replace("invoices", "invoicez"))
    assert "invoicez" in run_module(tmp_path, "seamline.cli", "check")


def test_every_error_is_on_the_page():
    """With its code."""
    codes = {each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SidecarError)}
    assert codes == set(re.findall(r"^\| (SL\d{4}) \|", SIDECAR, re.MULTILINE))


def test_the_endpoint_is_called_as_the_page_says():
    """The other side writes it into its settings."""
    assert f"/<app>/{ENDPOINT}" in SPIRE
