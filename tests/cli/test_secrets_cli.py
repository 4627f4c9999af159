"""``seamline secrets``: values in by stdin, out only when asked for, and everything in the audit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CANARY = "canary-77aa-value"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop" / "pay").mkdir(parents=True)
    (tmp_path / "policy").mkdir()
    (tmp_path / "seamline.toml").write_text('[app]\nname = "shop"\nmodules = ["shop.pay", "shop.cart"]\n')
    (tmp_path / "policy" / "p.cedar").write_text(
        'permit(principal == Module::"pay", action == Action::"secret", resource == Secret::"key");\n'
        "permit(principal, action, resource);\n"
    )
    return tmp_path


def secrets(folder: Path, *words: str, stdin: str = "", status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "seamline.cli", "secrets", *words],
        cwd=folder, input=stdin, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_value_is_shown_only_where_it_is_asked_for(shop: Path):
    """Not by set, list, get, audit or an error; and the line end of echo is no part of it."""
    said = [
        secrets(shop, "set", "key", stdin=f"{CANARY}\n"),
        secrets(shop, "list"),
        secrets(shop, "list", "--json"),
        secrets(shop, "get", "key"),
        secrets(shop, "audit"),
        secrets(shop, "rotate", "--master"),
    ]
    assert CANARY not in "".join(said)
    assert secrets(shop, "get", "key", "--reveal") == CANARY
    assert json.loads(secrets(shop, "get", "key", "--reveal", "--json"))["value"] == CANARY
    trail = json.loads(secrets(shop, "audit", "key", "--json"))
    assert [(each["decision"], each["action"]) for each in trail] == [("allow", "set"), *[("allow", "reveal")] * 2]
    assert all(each["principal"].startswith("user ") for each in trail)


def test_who_may_read_is_who_is_named(shop: Path):
    """A general permit for calls gives no secrets away."""
    secrets(shop, "set", "key", stdin="one")
    secrets(shop, "set", "other", stdin="two")
    found = json.loads(secrets(shop, "list", "--json"))["secrets"]
    assert {each["name"]: each["readers"] for each in found} == {"key": ["pay"], "other": []}


def test_an_argument_that_would_be_a_value_is_refused(shop: Path):
    """Arguments are seen by every user of the machine."""
    said = secrets(shop, "set", "key", CANARY, status=2)
    assert "Got unexpected extra argument" in said


def test_many_come_from_a_file_of_lines_or_from_json(shop: Path):
    """All or none of a file with a wrong name; no error repeats a value."""
    assert "pay/db-pass" in secrets(
        shop, "import", "--prefix", "pay/", stdin=f"# x\nexport DB_PASS='{CANARY}'\nA=b=c\n"
    )
    assert secrets(shop, "get", "pay/db-pass", "--reveal") == CANARY
    assert secrets(shop, "get", "pay/a", "--reveal") == "b=c"
    assert "2 secrets" in secrets(shop, "import", stdin=json.dumps({"x": "1", "y": "multi\nline"}))
    assert secrets(shop, "get", "y", "--reveal") == "multi\nline"
    for wrong in (
        f"good=1\nBAD NAME={CANARY}\n",
        f"good=1\n{CANARY}\n",
        json.dumps({"good": "1", "x": [CANARY]}),
        "{x",
    ):
        status = 6 if "BAD" in wrong else 2
        assert CANARY not in secrets(shop, "import", stdin=wrong, status=status)
    assert "SL4603" in secrets(shop, "get", "good", status=6)


def test_what_is_wrong_is_one_sentence_with_its_code(shop: Path):
    """Nothing there, nothing given, nobody to rotate it, a key that is open to others."""
    assert "SL4603" in secrets(shop, "get", "none", "--reveal", status=6)
    assert "SL4607" in secrets(shop, "set", "key", stdin="", status=6)
    assert "SL4607" in secrets(shop, "set", "../key", stdin="x", status=6)
    assert "SL9002" in secrets(shop, "rotate", status=2)
    secrets(shop, "set", "key", stdin="x")
    assert "SL5007" in secrets(shop, "rotate", "key", status=7)
    secrets(shop, "delete", "key")
    assert "destroyed" in secrets(shop, "list")
    secrets(shop, "set", "key", stdin="x")
    (shop / ".seamline" / "secrets" / "master.key").chmod(0o644)
    assert "SL4601" in secrets(shop, "list", status=6)


def test_the_list_warns_where_the_key_lies_beside(shop: Path):
    """And no longer when it lies elsewhere."""
    secrets(shop, "set", "key", stdin="x")
    assert "whoever copies the folder" in secrets(shop, "list")
    (shop / ".seamline" / "secrets" / "master.key").rename(shop / "elsewhere.key")
    with (shop / "seamline.toml").open("a") as file:
        file.write('[secrets]\nmaster_file = "elsewhere.key"\n')
    assert "whoever copies" not in secrets(shop, "list")
    assert secrets(shop, "get", "key", "--reveal") == "x"
