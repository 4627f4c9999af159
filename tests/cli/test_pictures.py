"""What is drawn in the terminal is what is meant, to the column."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from seamline.cli import doctor, output, picture
from seamline.cli.app import run


def test_a_topology_is_boxes_that_fit_the_width() -> None:
    """Workloads stand side by side while they fit; boxes of a row are equally high."""
    drawn = picture.topology({"front": ["frontend", "ads"], "cart": ["cart"]}, {"cart": 3}, "frontend", 80)
    assert drawn.splitlines() == [
        "╭─ front ───────────╮  ╭─ cart ×3 ──╮",  # noqa: RUF001
        "│ frontend ◂ public │  │ cart       │",
        "│ ads               │  │            │",
        "╰───────────────────╯  ╰────────────╯",
    ]


def test_boxes_break_into_rows_and_stay_rectangular() -> None:
    """No line is wider than asked, whatever the number of boxes, and each row is a rectangle."""
    drawn = picture.topology({f"workload{n}": [f"m{n}"] * (n % 3 + 1) for n in range(9)}, {}, None, 50)
    lines = drawn.splitlines()
    assert max(map(len, lines)) <= 50
    assert sum(line.count("╭") for line in lines) == sum(line.count("╯") for line in lines) == 9
    assert all(line.count("│") % 2 == 0 for line in lines)


def test_a_tree_ends_each_branch() -> None:
    """The last twig of a trunk has the corner."""
    assert picture.tree({"web": ["Cart", "Ads"], "cart": ["Ads"]}) == "web\n├─ Cart\n└─ Ads\ncart\n└─ Ads"


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.25, "4.2 s"), (59, "59 s"), (190, "3 min 10 s"), (7500, "2 h 5 min"), (273600, "3 d 4 h")]
)
def test_spans_are_said_as_people_say_them(seconds: float, said: str) -> None:
    """Two units at most."""
    assert output.lasted(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"), [(0.0031, "3 µs"), (0.3146, "0.31 ms"), (12.44, "12.4 ms"), (1520, "1.52 s"), (None, "-")]
)
def test_latencies_have_three_figures(value: float | None, said: str) -> None:
    """Microseconds below a tenth of a millisecond, then milliseconds, then seconds."""
    assert output.milliseconds(value) == said


def test_the_doctor_finds_a_taken_port_and_an_unwritable_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What would keep `up` from working is found before it: status 1 and a remedy."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "seamline.toml").write_text(
            f'[app]\nname = "shop"\nmodules = ["shop.web"]\ndata = "file/data"\n'
            f'[gateway]\nlisten = "127.0.0.1:{port}"\n'
        )
        (tmp_path / "file").write_text("in the way")
        assert run(["doctor", "--app", str(tmp_path), "--json"]) == 1
        found = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert found["Data folder"]["verdict"] == "bad"
    assert found["Public port"]["verdict"] == "note"
    assert "--port" in found["Public port"]["remedy"]
    assert found["Python"]["verdict"] == "good"


def test_the_doctor_is_content_with_a_free_port() -> None:
    """A port nobody holds is good."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert doctor.port(f"127.0.0.1:{port}").verdict == "good"
