"""The page on the wire is true: its commands run against the boutique, its tables are the code's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest

from seamline.kernel.codec import codec
from seamline.kernel.settings import MeshSettings
from seamline.kernel.wire import frames
from seamline.mesh.connect import END_STREAM, HTTP_STATUS, EnvelopeReader
from seamline.mesh.limits import PRIORITIES
from seamline.mesh.outcome import FAULT_CODE
from seamline.module.errors import CALL_ERRORS
from seamline.run.admin import AdminClient

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
APP = ROOT / "examples" / "boutique"


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def cells(title: str) -> list[list[str]]:
    """The rows of a section's tables, without heads and rules."""
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in section(title).splitlines()
        if line.startswith("|")
    ]
    return [row for row in rows[2:] if row[0]]


class Shop(NamedTuple):
    """A running boutique, and the folder where the page's commands are typed."""

    folder: Path
    start: str

    def type(self, commands: str) -> bytes:
        """Run a block as a person would, after the first one."""
        return shell(self.folder, self.start.partition("\n")[2] + commands)


def shell(folder: Path, script: str) -> bytes:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # noqa: TID251  # handed on, with our commands first
    done = subprocess.run(
        ["/bin/sh", "-e", "-c", script],
        cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, timeout=120, check=False,  # noqa: TID251
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop]:
    """Started by the page's own first block, on a data folder and a port of the test's."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    folder = tmp_path_factory.mktemp("wire")
    program = re.search(r"^`certificate.py`\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    first = re.search(r"^```sh\n(.*?)^```", section("curl"), re.MULTILINE | re.DOTALL)
    assert program
    assert first
    (folder / "certificate.py").write_text(program[1], encoding="utf-8")
    start = first[1].replace("examples/boutique/.seamline", f"{folder}/data")
    start = start.replace("--app examples/boutique", f"--app {APP} --data {folder}/data")
    start = start.replace("--detach", "--detach --port 0")
    try:
        shell(folder, start)
        yield Shop(folder, start)
    finally:
        subprocess.run(
            [sys.executable, "-m", "seamline.cli", "down", "--app", str(APP), "--data", f"{folder}/data"],
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.mark.needs_server
def test_the_commands_of_the_page_answer_what_it_shows(shop: Shop):
    """POST, GET and a fault; the key is for its owner only."""
    blocks = re.findall(r"^```sh\n(call .*?)^```\n```json\n(.*?)\n```", section("curl"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for commands, answer in blocks:
        assert shop.type(commands).decode() == answer
    assert (shop.folder / "key.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.needs_server
def test_the_stream_of_the_page_is_a_sequence_of_envelopes(shop: Shop):
    """Items, and one last message with flag 2."""
    commands = re.search(r"^```sh\n(printf .*?)^```", section("curl"), re.MULTILINE | re.DOTALL)
    assert commands
    shop.type(commands[1])
    messages = EnvelopeReader(65_536).feed((shop.folder / "route.bin").read_bytes())
    assert len(messages) > 2
    assert {flags for flags, _ in messages[:-1]} == {0}
    assert messages[-1] == (END_STREAM, b"{}")


@pytest.mark.needs_server
def test_health_is_asked_with_a_certificate(shop: Shop):
    """And is what the page says."""
    assert '200 `{"ready":true}`' in PAGE
    assert shop.type("call https://catalog.boutique.seamline/healthz") == b'{"ready":true}'


@pytest.mark.needs_server
async def test_the_lines_for_the_admin_socket_do_what_the_page_on_security_says(shop: Shop):
    """Rotate the root and read the policy again, with no call refused; a client with the old bundle stays welcome."""
    operations = re.findall(r'\{"op": "(\w+)"\}', SECURITY)
    assert operations == ["rotate"]
    assert "`<data>/run/admin.sock`" in SECURITY
    assert "`seamline policy reload`" in SECURITY
    await AdminClient(shop.folder / "data").ask("policy")
    for operation in operations:
        await AdminClient(shop.folder / "data").ask(operation)
    assert shop.type("call https://catalog.boutique.seamline/healthz") == b'{"ready":true}'
    bundle = (shop.folder / "data" / "identity" / "bundle.pem").read_text(encoding="utf-8")
    assert bundle.count("BEGIN CERTIFICATE") == 2


def test_every_value_is_written_as_the_page_says():
    """By the codec of its type."""
    names: dict[str, Any] = {
        "Decimal": Decimal, "UUID": UUID, "date": date, "datetime": datetime, "timedelta": timedelta, "UTC": UTC,
    }  # fmt: skip
    rows = cells("Values")
    assert len(rows) == 8
    for python, in_json in rows:
        value = eval(python.strip("`"), names)
        kind = dict[int, str] if isinstance(value, dict) else type(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        assert codec(kind).encode(value).decode() == in_json.strip("` |")
    assert codec(datetime | str).encode(datetime(2026, 1, 1, tzinfo=UTC)).startswith(b'{"type":"datetime","value":')


def test_every_error_is_on_the_page_with_its_status():
    """Class, code, Connect's code, HTTP status, and whether the handler may have run."""
    *errors, fault = [[cell.strip("` |") for cell in row] for row in cells("Errors")]
    assert errors == [
        [cls.__name__, code, cls.connect, str(HTTP_STATUS[cls.connect]), "yes" if cls.started else "no"]
        for code, cls in CALL_ERRORS.items()
    ]
    assert fault[2:4] == [FAULT_CODE, str(HTTP_STATUS[FAULT_CODE])]


def test_every_frame_is_on_the_page():
    """Number and name; head and error by their fields; header and credit by their sizes."""
    names = ("CALL", "ITEM", "END", "RESULT", "FAULT", "CANCEL", "CREDIT", "PING", "PONG", "GOAWAY")
    told = section("Frames: `seamline/1`")
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", told, re.MULTILINE)
    assert rows == [(str(getattr(frames, name)), name) for name in names]
    assert "12 bytes: three times 4" in PAGE
    assert frames.AHEAD.size == 12
    assert frames.ALPN == "seamline/1"
    assert frames.frame(frames.ITEM, 7, b"xy") == b"\0\0\0\2" + b"\2" + b"\0\0\0\7" + b"xy"
    head = re.search(r"MessagePack array:(.*?)\. The JSON of a FAULT has (.*?);", told, re.DOTALL)
    assert head
    fields = [name for name in re.findall(r"`(\w+)`", head[1]) if name != "traceparent"]
    assert fields == list(frames.CallHead.__struct_fields__)
    assert re.findall(r"`(\w+)`", head[2]) == list(frames.ErrorBody.__struct_fields__)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(frames.CallHead("A.b"))) == ["A.b", 0, 1, None, None, None]
    assert [f"{number} {name}" in head[1] for name, number in PRIORITIES.items()] == [True] * 3
    credit = MeshSettings().stream_credit_bytes
    assert f"begins with a credit of {credit} bytes per stream" in told
    assert credit == frames.STREAM_CREDIT
    assert f"length and {frames.HEADER_BYTES} more" in told
