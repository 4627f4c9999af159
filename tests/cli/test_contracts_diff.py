"""`seamline contracts diff` and `lock`, and what `seamline check` makes of them, on small repositories."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STOCK = (
    "from seamline import Contract, Event, idempotent\n"
    "class Moved(Event, key='sku'):\n    sku: str\n    pieces: int\n"
    "class Stock(Contract):\n    @idempotent\n    async def take(self, sku: str, pieces: int) -> int: ...\n"
)
MODULE = "from seamline import Module\nmodule = Module('stock')\n"
TOML = '[app]\nname = "diffshop"\nmodules = ["diffshop.stock"]\n'
BROKEN = STOCK.replace("pieces: int\nclass", "count: int\nclass")
GROWN = STOCK.replace("pieces: int)", "pieces: int, note: str = '')")


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(params=["", "apps/shop"], ids=["whole repository", "in a subfolder"])
def app(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An application in a repository, committed as v1."""
    folder = tmp_path / "repository" / request.param
    write(
        folder,
        {
            "seamline.toml": TOML,
            "diffshop/__init__.py": "",
            "diffshop/stock/__init__.py": STOCK,
            "diffshop/stock/module.py": MODULE,
        },
    )
    top = tmp_path / "repository"
    git(top, "init", "-q")
    git(top, "add", ".")
    git(top, "commit", "-q", "-m", "first")
    git(top, "tag", "v1")
    return folder


WITHOUT_GIT = pytest.mark.parametrize("app", ["apps/shop"], indirect=True, ids=["in a subfolder"])
"""What asks only the lock file does the same wherever the repository begins."""


def seamline(folder: Path, *words: str, path: str = "") -> tuple[int, str, str]:
    code = "import sys; sys.path[:0] = sys.argv.pop(1).split(); from seamline.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, path, *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


def found(folder: Path, *words: str) -> tuple[int, list[tuple[str, str, str]]]:
    status, out, err = seamline(folder, "contracts", "diff", *words, "--json")
    assert out, err
    result: dict[str, Any] = json.loads(out)
    assert result["breaking"] == (status == 1)
    return status, [(each["verdict"], each["name"], each["path"]) for each in result["changes"]]


def test_nothing_changed_is_status_0(app: Path) -> None:
    assert seamline(app, "contracts", "diff", "v1") == (0, "Nothing changed since v1.\n", "")


def test_what_breaks_is_found_with_status_1_and_what_does_not_with_0(app: Path) -> None:
    """The working tree is compared, committed or not, with the tag; other commits are other answers."""
    write(app, {"diffshop/stock/__init__.py": GROWN})
    assert found(app, "v1") == (0, [("compatible", "Stock.take", "note")])
    git(app, "commit", "-q", "-a", "-m", "grown")
    write(app, {"diffshop/stock/__init__.py": BROKEN})
    breaking = [("breaking", "Moved", "count"), ("breaking", "Moved", "pieces")]
    assert found(app, "v1") == (1, breaking)
    assert found(app, "HEAD") == (1, [*breaking, ("breaking", "Stock.take", "note")])
    assert git(app, "status", "--porcelain").split("\n")[0].startswith("M")
    assert git(app, "worktree", "list").count("\n") == 0


def test_the_picture_names_the_change_whom_it_breaks_and_the_remedy(app: Path) -> None:
    write(app, {"diffshop/stock/__init__.py": BROKEN})
    status, out, _ = seamline(app, "contracts", "diff", "v1")
    assert status == 1
    assert out == (
        "Since v1: 2 breaking, 0 to take care of, 0 compatible.\n"
        "\n"
        "stock\n"
        "  event Moved\n"
        "    ✗ count: new, and required\n"
        "        breaks: old event, new reader\n"
        "        Raise it to `version=2` with `@Moved.upcast(1)`, or leave it as it was, and add what is new beside "
        "it: a field with a default, or another method.\n"
        "    ✗ pieces: removed; renamed to 'count'?\n"
        "        breaks: new event, old reader\n"
        "        Raise it to `version=2` with `@Moved.upcast(1)`, or leave it as it was, and add what is new beside "
        "it: a field with a default, or another method.\n"
    )


@WITHOUT_GIT
def test_a_lock_file_holds_the_check_to_what_was_promised(app: Path) -> None:
    """Without it the check says nothing of changes; with it what breaks is found, with the remedy."""
    write(app, {"diffshop/stock/__init__.py": BROKEN})
    assert seamline(app, "check")[0] == 0
    write(app, {"diffshop/stock/__init__.py": STOCK})
    status, out, _ = seamline(app, "contracts", "lock")
    assert (status, out) == (0, "Wrote contracts.lock.json.\n")
    assert seamline(app, "check")[0] == 0
    assert found(app) == (0, [])
    write(app, {"diffshop/stock/__init__.py": GROWN})
    assert seamline(app, "check")[0] == 0
    write(app, {"diffshop/stock/__init__.py": BROKEN})
    status, _, err = seamline(app, "check")
    assert status == 1
    assert "SL2113: contracts.lock.json stock: event Moved count: new, and required" in err
    assert "@Moved.upcast(1)" in err
    assert "contracts lock --break" in err


@WITHOUT_GIT
def test_a_lock_is_not_broken_unasked(app: Path) -> None:
    seamline(app, "contracts", "lock")
    before = (app / "contracts.lock.json").read_bytes()
    write(app, {"diffshop/stock/__init__.py": BROKEN})
    status, _, err = seamline(app, "contracts", "lock")
    assert status == 2
    assert "2 changes would break what contracts.lock.json promises, the first Moved count" in err
    assert (app / "contracts.lock.json").read_bytes() == before
    assert seamline(app, "contracts", "lock", "--break")[0] == 0
    assert seamline(app, "check")[0] == 0


@WITHOUT_GIT
def test_a_lock_is_written_so_that_a_change_is_a_short_diff(app: Path) -> None:
    seamline(app, "contracts", "lock")
    before = (app / "contracts.lock.json").read_text().splitlines()
    assert max(map(len, before)) <= 130
    write(app, {"diffshop/stock/__init__.py": GROWN})
    seamline(app, "contracts", "lock")
    after = (app / "contracts.lock.json").read_text().splitlines()
    assert len([line for line in after if line not in before]) <= 4


@WITHOUT_GIT
@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "cannot be read"), ("[]", "cannot be read"), ("{}", "cannot be read"),
     ('{"format": 99, "modules": {}, "types": {}}', "written by a newer Seamline")],
)  # fmt: skip
def test_a_damaged_lock_is_an_error_and_not_silence(app: Path, text: str, said: str) -> None:
    write(app, {"contracts.lock.json": text})
    for words in (("contracts", "diff"), ("check",)):
        status, _, err = seamline(app, *words)
        assert status in (1, 2)
        assert "SL9007" in err
        assert said in err


def test_what_cannot_be_compared_is_one_sentence(app: Path, tmp_path: Path) -> None:
    def refused(folder: Path, *words: str) -> str:
        status, out, err = seamline(folder, "contracts", "diff", *words)
        assert (status, out) == (2, "")
        assert err.startswith("SL9007: ")
        assert "Traceback" not in err
        return err

    assert "git does not know 'nonsense'" in refused(app, "nonsense")
    assert "git does not know '--help'" in refused(app, "--", "--help")
    assert "nothing to compare with" in refused(app)
    write(app, {"diffshop/stock/__init__.py": "import gone_by_now\n"})
    git(app, "commit", "-q", "-a", "-m", "broken")
    write(app, {"diffshop/stock/__init__.py": STOCK})
    assert "as it was at 'HEAD' cannot be loaded" in refused(app, "HEAD")
    outside = tmp_path / "outside"
    write(outside, {"seamline.toml": TOML, "diffshop/__init__.py": "", "diffshop/stock/__init__.py": STOCK,
                    "diffshop/stock/module.py": MODULE})  # fmt: skip
    assert "not a git repository" in refused(outside, "v1")


def test_an_application_that_was_not_there_yet_is_said(app: Path) -> None:
    top = Path(git(app, "rev-parse", "--show-toplevel"))
    git(top, "checkout", "-q", "--orphan", "before")
    git(top, "rm", "-rqf", "--cached", ".")
    git(top, "commit", "-q", "--allow-empty", "-m", "nothing yet")
    _, _, err = seamline(app, "contracts", "diff", "before")
    assert "there was no seamline.toml" in err


def test_packages_elsewhere_in_the_repository_are_those_of_the_commit(app: Path) -> None:
    """A source folder that is on the import path is taken from the commit too, not from the working tree."""
    source = app / "src"
    write(source, {"sharedtypes.py": "Pieces = int\n"})
    write(app, {"diffshop/stock/__init__.py": "from sharedtypes import Pieces\n" + STOCK.replace("int", "Pieces")})
    git(app, "add", ".")
    git(app, "commit", "-q", "-m", "shared")
    write(source, {"sharedtypes.py": "Pieces = str\n"})
    status, out, err = seamline(app, "contracts", "diff", "HEAD", "--json", path=str(source))
    assert status == 1, err
    assert {each["fact"] for each in json.loads(out)["changes"]} == {"int → text"}


def test_a_contract_that_would_come_from_the_working_tree_is_refused(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing the working tree with itself would find nothing; it is an error."""
    (app / "elsewhere").mkdir()
    (app / "diffshop").rename(app / "elsewhere" / "diffshop")
    git(app, "commit", "-q", "-a", "-m", "the packages are not kept here any more")
    monkeypatch.setenv("PYTHONPATH", str(app / "elsewhere"))
    status, _, err = seamline(app, "contracts", "diff", "HEAD")
    assert status == 2
    assert "diffshop.stock was imported from" in err
