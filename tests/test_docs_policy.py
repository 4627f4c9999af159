"""The page on policy is true: its application, its commands, its settings and its errors."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.pages import read_page, run_module, write_files

from seamline.kernel.settings import Settings
from seamline.mesh import errors
from seamline.mesh.errors import PolicyError
from seamline.mesh.policy.facts import USER_ATTRIBUTES

PAGE = read_page("policy.md")
APP = '\n[app]\nname = "shop"\nmodules = []\n'
SETTINGS = [text for text in re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "[policy]\n" in text]

PROOF = """
import asyncio
from pathlib import Path
from seamline import PermissionDenied, Unauthenticated, User
from seamline.module.context import CURRENT, CallContext
from seamline.run.application import Application
from seamline.run.host import Host
from shop.payments import Money

async def asked(host, contract, user, cents):
    subject = host.mesh.introduce(user) if user is not None else None
    CURRENT.set(CallContext("desk", "gateway", "http", subject=subject))
    try:
        return await host.stub(contract, "desk").refund("o-1", Money(cents, "EUR"))
    except (PermissionDenied, Unauthenticated) as error:
        return type(error).__name__

async def main():
    application = Application.load(Path())
    (contract,) = application.contracts
    ann, bob = (User(name, roles=frozenset({role})) for name, role in (("ann", "support"), ("bob", "supervisor")))
    async with Host(application) as host:
        for user, cents in ((ann, 5000), (ann, 5001), (bob, 900000), (User("eve"), 1), (None, 1)):
            print(await asked(host, contract, user, cents))

asyncio.run(main())
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The files of the page."""
    assert write_files(PAGE, tmp_path) == 5
    return tmp_path


def test_the_application_passes_the_checks(shop: Path):
    assert "nothing found" in run_module(shop, "seamline.cli", "check")


def test_the_example_gives_back_what_the_page_says(shop: Path):
    (shop / "proof.py").write_text(PROOF, encoding="utf-8")
    said = run_module(shop, "proof").splitlines()
    assert said[-5:] == [
        "5000 back for o-1, says ann",
        "PermissionDenied",
        "900000 back for o-1, says bob",
        "PermissionDenied",
        "Unauthenticated",
    ]


def test_the_commands_print_what_the_page_shows(shop: Path):
    block = re.search(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert block
    pairs = re.findall(r"^\$ seamline (.*)\n((?:[^$].*\n)+)", block[1], re.MULTILINE)
    assert len(pairs) == 3
    for words, shown in pairs:
        said = " ".join(run_module(shop, "seamline.cli", *shlex.split(words)).split())
        pattern = re.escape(" ".join(shown.split())).replace(r"\.\.\.", ".*")
        assert re.fullmatch(pattern.replace(r".*\ ", ".*").replace(r"\ .*", ".*"), said), (words, said)


@pytest.mark.parametrize("text", SETTINGS)
def test_every_example_of_settings_is_read(text: str, tmp_path: Path):
    (tmp_path / "seamline.toml").write_text(text if "[app]" in text else text + APP, encoding="utf-8")
    Settings.load(tmp_path, {})


def test_every_attribute_of_a_user_is_on_the_page():
    row = next(line for line in PAGE.splitlines() if line.startswith("| `context.user`"))
    assert set(USER_ATTRIBUTES) <= set(re.findall(r"`(\w+)`", row))


def test_every_error_is_on_the_page():
    """By its code, each once; the root of the tree is never raised."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PolicyError)]
    codes = sorted(kind.code for kind in kinds if kind is not PolicyError)
    assert re.findall(r"^\| (SL45\d\d) ", PAGE, re.MULTILINE) == codes
