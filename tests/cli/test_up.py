"""`seamline up` says in one sentence why it cannot start, before or after it tried."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from seamline.cli import connect
from seamline.cli.app import run
from seamline.cli.up import banner, into_a_file, where_options, with_address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "shopup" / "web"
    package.mkdir(parents=True)
    (tmp_path / "shopup" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "module.py").write_text("from seamline import Module\nmodule = Module('web')\n")
    (tmp_path / "seamline.toml").write_text('[app]\nname = "shopup"\nmodules = ["shopup.web"]\n')
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--topology", "service"], 2, "SL9002: there is no topology 'service'. Did you mean 'services'?"),
        (["--replicas", "web=none"], 2, "SL9002: 'web=none' is not MODULE=N"),
        (["--replicas", "wbe=2"], 2, "SL9002: there is no module or workload 'wbe'. There are web"),
        (["--listen", "8080"], 2, "SL9002: --listen is '8080'"),
        (["--listen", "a:1", "--port", "1"], 2, "SL9002: --port and --listen are both given"),
        (["--port", "70000"], 2, "usage: Invalid value for '--port'"),
    ],
)
def test_a_wrong_argument_starts_nothing(
    folder: Path, arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names the argument; no data folder is made."""
    assert run(["up", "--app", str(folder), *arguments]) == status
    assert capsys.readouterr().err.startswith(said)
    assert not (folder / ".seamline").exists()


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_a_taken_port_is_said(folder: Path, detach: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """SL5002 with the address, in the foreground and from the background."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["up", "--app", str(folder), "--port", str(port), *detach]) == (2 if detach else 7)
    said = capfd.readouterr().err
    assert "SL5002" in said
    assert str(port) in said
    assert "Traceback" not in said


def test_an_unusable_data_folder_is_said(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """SL1007, the status of settings, and nothing is started."""
    (folder / "file").write_text("in the way")
    assert run(["up", "--app", str(folder), "--data", str(folder / "file" / "data")]) == 3
    assert "SL1007" in capfd.readouterr().err


def test_the_public_address_is_taken_from_the_command_line(folder: Path) -> None:
    """--port keeps the host of seamline.toml, --listen replaces both."""
    settings = connect.read_settings(folder)
    assert with_address(settings, 0, None).gateway.listen == "127.0.0.1:0"
    assert with_address(settings, None, "[::]:80").gateway.listen == "[::]:80"
    assert with_address(settings, None, None) is settings


def test_the_banner_names_the_folder_only_where_it_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the banner says to type works from where it was typed."""
    settings = connect.read_settings(folder)
    monkeypatch.chdir(folder / "shopup" / "web")
    assert where_options(settings, None) == ""
    monkeypatch.chdir(folder.parent)
    assert where_options(settings, None) == f" --app {folder.name}"
    assert where_options(settings, folder / "data") == f" --app {folder.name} --data {folder.name}/data"
    monkeypatch.chdir("/")
    assert where_options(settings, None) == f" --app {str(folder).removeprefix('/')}"


@pytest.mark.parametrize("public", [True, False])
def test_nobody_is_sent_where_nothing_answers(
    folder: Path, capsys: pytest.CaptureFixture[str], *, public: bool
) -> None:
    """Without a public face there is no page to open, and nothing to put under load."""
    workloads = [{"name": "all", "replicas": [{"gateway": public}, {"gateway": False}]}]
    status = {"url": "http://127.0.0.1:8080", "topology": "monolith", "workloads": workloads}
    banner(connect.read_settings(folder), status, None, stop="Ctrl-C")
    said = capsys.readouterr().out
    assert "2 processes" in said
    assert ("http://127.0.0.1:8080" in said, "load" in said) == (public, public)
    assert "seamline topology switch services" in said


def test_a_token_is_printed_for_people_and_never_into_a_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in a log file is read by others, later."""
    status: dict[str, Any] = {"topology": "monolith", "url": "", "control_url": "http://127.0.0.1:9", "workloads": []}
    banner(connect.read_settings(folder), status, None, stop="Ctrl-C", token="sla_x")
    assert "http://127.0.0.1:9  token sla_x" in capsys.readouterr().out
    banner(connect.read_settings(folder), {**status, "portal": True}, None, stop="Ctrl-C")
    said = capsys.readouterr().out
    assert "see it run   http://127.0.0.1:9  (" in said
    assert "portal --app" in said
    with (tmp_path / "up.log").open("w") as file:
        monkeypatch.setattr("sys.stdout", file)
        assert into_a_file()
        monkeypatch.undo()
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        assert not into_a_file()
        monkeypatch.undo()
