"""Help reads like a manual, mistakes are one sentence, and each kind has its own exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer

from seamline.cli import manual, output
from seamline.cli.app import VERBS, run
from seamline.kernel.errors import SeamlineError

HELP = Path(__file__).with_name("help.txt")


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of a known width."""
    monkeypatch.setenv("COLUMNS", str(manual.WIDTH_MAX))


def seamline(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "seamline.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_is_the_manual_that_was_reviewed(tmp_path: Path) -> None:
    """The page a newcomer sees first changes only together with the file beside this test."""
    for arguments in (["--help"], []):
        shown = seamline(*arguments, cwd=tmp_path)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert shown.stdout == HELP.read_text("utf-8")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_page_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Usage, text, examples and options, none of which is wider than a terminal."""
    assert run([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: seamline {verb}")
    assert "\nExamples\n" in out
    assert f"  seamline {verb}" in out or verb == "stop"
    assert max(map(len, out.splitlines())) <= manual.WIDTH_MAX


def test_help_of_the_root_imports_no_heavy_room() -> None:
    """`seamline --help` answers at once because neither rich nor SQL nor policy nor a verb is imported."""
    code = (
        "import sys; from seamline.cli.app import run; run(['--help']); "
        "print([m for m in ('rich', 'sqlalchemy', 'cedarpy', 'pydantic', 'uvloop', 'seamline.cli.load') "
        "if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_a_misspelt_verb_is_answered_with_the_nearest(tmp_path: Path) -> None:
    """A typing mistake names the verb that was meant, and ends with the status of wrong usage."""
    shown = seamline("topologie", cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == "SL9002: there is no verb 'topologie'. Did you mean `seamline topology`?\n"


def test_a_wrong_option_is_one_sentence(tmp_path: Path) -> None:
    """What the parser refuses is said in one line that says where to read on."""
    shown = seamline("load", "--users", "0", cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr.startswith("usage: Invalid value for '--users'")
    assert shown.stderr.endswith("Read `seamline load --help`.\n")
    assert shown.stderr.count("\n") == 1


def test_without_an_application_every_verb_says_so(tmp_path: Path) -> None:
    """Outside of an application: code, fact and remedy, no traceback."""
    shown = seamline("graph", cwd=tmp_path)
    assert shown.returncode == 2
    assert shown.stderr == (
        f"SL9001: there is no seamline.toml in {str(tmp_path)!r} or above it. Go to the application's folder, "
        "name it with --app DIR, or begin with `seamline new shop`\n"
    )


def test_with_json_an_error_is_json_on_stdout(tmp_path: Path) -> None:
    """A script that asked for JSON gets the error as JSON, too."""
    shown = seamline("graph", "--app", "nowhere", "--json", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (2, "")
    assert json.loads(shown.stdout)["error"] == {
        "code": "SL9001",
        "fact": "there is no folder 'nowhere'",
        "remedy": "Name one that exists with --app",
        "place": None,
    }


def test_a_wrong_file_has_the_status_of_settings(tmp_path: Path) -> None:
    """An error of the settings keeps its code, place and remedy, and ends with 3."""
    (tmp_path / "seamline.toml").write_text('[app]\nname = "shop"\nmodule = []\n')
    shown = seamline("graph", cwd=tmp_path)
    assert shown.returncode == 3
    assert shown.stderr.startswith("SL1003: seamline.toml")
    assert "'module'" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_the_application_is_found_upward(tmp_path: Path) -> None:
    """From a folder deep inside, the nearest seamline.toml above is taken."""
    (tmp_path / "seamline.toml").write_text("not toml")
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    shown = seamline("graph", cwd=inside)
    assert shown.stderr.startswith("SL1002: seamline.toml:1:")


@pytest.mark.parametrize(
    ("code", "status"), [("SL1003", 3), ("SL2104", 4), ("SL5007", 7), ("SL8001", 10), ("SL9001", 2), ("SL0000", 1)]
)
def test_each_range_has_its_own_status(code: str, status: int) -> None:
    """A script tells settings from modules from running by the exit status."""
    assert output.status_of(code) == status


def test_a_defect_is_not_a_traceback_unless_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unforeseen error is one line and status 70; --traceback shows where it was raised."""
    from seamline.cli import version

    def broken() -> str:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(version, "seamline_version", broken)
    assert run(["version"]) == 70
    short = capsys.readouterr().err
    assert short.startswith("SL0000: ZeroDivisionError: of all things.")
    assert short.count("\n") == 1
    assert run(["--traceback", "version"]) == 70
    assert "raise ZeroDivisionError" in capsys.readouterr().err


def test_errors_of_a_group_are_told_one_by_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several errors at once are several sentences, not the traceback of a group."""
    from seamline.cli import version

    def broken() -> str:
        raise ExceptionGroup("two", [SeamlineError("one"), ExceptionGroup("in", [SeamlineError("two")])])

    monkeypatch.setattr(version, "seamline_version", broken)
    assert run(["version"]) == 1
    assert capsys.readouterr().err == "SL0000: one.\nSL0000: two.\n"


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`seamline explain | head -1` ends quietly."""
    command = f"{sys.executable} -m seamline.cli explain | head -1"
    shown = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert shown.stderr == ""
    assert shown.stdout.count("\n") == 1


def test_every_verb_of_the_table_exists() -> None:
    """A verb in the table has its module, and the module its `app`."""
    for entry in VERBS.values():
        assert isinstance(import_module(f"seamline.cli.{entry.module}").app, typer.Typer)
