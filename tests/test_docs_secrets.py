"""The page on secrets is true: its module, its commands, its settings and its errors."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.pages import read_page, run_module, write_files

from seamline.kernel.settings import Settings
from seamline.secrets import errors
from seamline.secrets.errors import SecretsError

PAGE = read_page("secrets.md")
APP = '\n[app]\nname = "shop"\nmodules = []\n'
SETTINGS = [text for text in re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "[app]" not in text]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The files of the page."""
    assert write_files(PAGE, tmp_path) == 3
    return tmp_path


def test_the_module_passes_the_checks(shop: Path):
    """Its policy, too."""
    assert "nothing found" in run_module(shop, "seamline.cli", "check")


def test_the_commands_print_what_the_page_shows(shop: Path):
    """One after another; what stands before a pipe goes to stdin."""
    block = re.search(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert block
    pairs = re.findall(r"^\$ (?:.* \| )?seamline (.*)\n([^$].*)\n", block[1], re.MULTILINE)
    assert len(pairs) == 5
    for words, shown in pairs:
        said = run_module(shop, "seamline.cli", *shlex.split(words), stdin="c2VjcmV0IG9mIHRoZSBwYWdl\n")
        pattern = re.escape(shown).replace(r"\.\.\.", ".*").replace(r"\ ", r"\s+")
        assert re.fullmatch(pattern, " ".join(said.split()), re.DOTALL), (words, said)


PROOF = """
import asyncio
from pathlib import Path
from seamline.run.application import Application
from seamline.run.host import Host

async def main():
    application = Application.load(Path())
    (contract,) = application.contracts
    async with Host(application) as host:
        payments = host.stub(contract, "payments")
        signed = await payments.sign("o-1")
        print("rotated to", await host.ask("secrets", "rotate", {"name": "signing-key"}))
        print("other", await payments.sign("o-1") != signed)
        print("proven", await payments.proves("o-1", signed), await payments.proves("o-2", signed))

asyncio.run(main())
"""


def test_the_module_signs_and_still_proves_after_a_rotation(shop: Path):
    """What was signed with the value before is proven for the overlap."""
    run_module(shop, "seamline.cli", "secrets", "set", "signing-key", stdin="first\n")
    (shop / "proof.py").write_text(PROOF, encoding="utf-8")
    said = run_module(shop, "proof")
    assert "rotated to 2\nother True\nproven True False\n" in said, said


@pytest.mark.parametrize("text", SETTINGS, ids=lambda text: text.splitlines()[1].partition("#")[0].strip())
def test_every_example_of_settings_is_read(text: str, tmp_path: Path):
    """None names a key that nothing reads."""
    (tmp_path / "seamline.toml").write_text(text + APP, encoding="utf-8")
    Settings.load(tmp_path, {})


def test_every_error_is_on_the_page():
    """By its code."""
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SecretsError)]
    codes = {each.code for each in kinds}
    assert set(re.findall(r"^\| (SL46\d\d) ", PAGE, re.MULTILINE)) == codes - {"SL4600"}
