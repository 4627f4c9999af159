"""``seamline events`` against a real application, started by the command line itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.cli.kiosk import Asked, running

FILES = {
    "kioskevents/__init__.py": "",
    "kioskevents/stall/__init__.py": """
from seamline import Event

class Sold(Event, key="sku"):
    sku: str
    number: int
""",
    "kioskevents/stall/module.py": """
from seamline import Module
from seamline.events.events import Events
from kioskevents.stall import Sold

module = Module("stall")

@module.startup
async def sell(events: Events) -> None:
    await events.publish_all([Sold(sku="mug", number=number) for number in range(4)])
""",
    "kioskevents/books/__init__.py": "",
    "kioskevents/books/module.py": """
from pathlib import Path
from seamline import Module
from kioskevents.stall import Sold

module = Module("books")
broken = Path(__file__).parent / "broken"

@module.on(Sold, attempts=2, backoff_s=0.01)
async def enter(event: Sold) -> None:
    if event.number == 2 and broken.exists():
        raise ValueError("cannot enter [this]")
""",
    "kioskevents/books/broken": "",
    "policy/events.cedar": """
permit (principal == Module::"books", action == Action::"events", resource == Module::"stall");
""",
    "seamline.toml": """
[app]
name = "kioskevents"
modules = ["kioskevents.stall", "kioskevents.books"]
""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running(tmp_path_factory.mktemp("kiosk"), FILES) as root:
        yield root


@pytest.fixture
def ask(folder: Path, capsys: pytest.CaptureFixture[str]) -> Asked:
    return Asked("events", folder, capsys)


def test_topics_and_the_last_events_are_shown(ask: Asked) -> None:
    """As a table, as lines, as JSON."""
    (topic,) = ask.json("topics")
    assert topic.pop("durable_when").startswith("it is on disk in the publishing module's database")
    assert topic == {
        "module": "stall", "events": ["Sold"], "first": 1, "last": 4, "delayed": 0, "transport": "embedded",
    }  # fmt: skip
    assert "stall    Sold" in ask.text("topics")
    assert "\nembedded, when an event is acknowledged: it is on disk" in ask.text("topics")
    assert [each["data"] for each in ask.json("tail", "stall", "-n", "2")] == [
        '{"sku":"mug","number":2}',
        '{"sku":"mug","number":3}',
    ]
    assert ask.text("tail", "stall", "-n", "1").split()[-3:] == ["Sold", "mug", '{"sku":"mug","number":3}']
    assert ask.text("verify") == "every record is as it was written\n"
    assert ask.text("repair", "stall") == "nothing was damaged\n"


def test_a_dead_letter_is_shown_retried_and_dropped(ask: Asked) -> None:
    """Retrying fails while the handler does, with status 1, and then works."""
    (letter,) = ask.until(lambda found: len(found) == 1, "dead", "list")
    number = str(letter["number"])
    assert (letter["group"], letter["reason"]) == ("books.enter", "ValueError: cannot enter [this]")
    assert "cannot enter [this]" in ask.text("dead", "list")
    shown = ask.text("dead", "show", "books", number)
    assert 'event data  {"sku":"mug","number":2}' in shown
    assert f"event time  {datetime.now(UTC):%Y}-" in shown
    assert "_ms" not in shown
    (row,) = ask.until(lambda found: found[0]["events"] == 0, "lag")
    assert (row["group"], row["topic"], row["handled"], row["dead"]) == ("books.enter", "stall", 3, 1)
    assert "books.enter   stall        0" in ask.text("lag", "books")
    assert "not done" in ask.text("dead", "retry", "books", number, status=1)
    broken = ask.folder / "kioskevents" / "books" / "broken"
    broken.unlink()
    assert ask.json("dead", "retry", "books", "--all") == [{"number": letter["number"], "done": True, "reason": ""}]
    assert ask.text("dead", "list") == "no dead letters\n"
    broken.touch()
    assert ask.text("replay", "books", "enter", "--from", "2") == (
        "books.enter begins again with the events of stall from 2.\n"
    )
    ask.until(lambda found: len(found) == 1, "dead", "list")
    assert len(ask.json("dead", "drop", "books", "--group", "enter")) == 1
    assert ask.json("dead", "list", "books") == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["tail", "books"], 9, "SL7208: module 'books' declares no events"),
        (
            ["tail", "stall", "--type", "Other"],
            9,
            "module 'stall' declares no event 'Other', and its log has none. Known",
        ),
        (["dead", "show", "books", "77"], 9, "SL7208: module 'books' has no dead letter 77"),
        (["dead", "drop", "books"], 2, "SL9002: it is not clear which dead letters are meant"),
        (["replay", "books", "enter", "--from", "yesterday"], 2, "SL9002: 'yesterday' is no place in a log"),
        (["replay", "books", "enter", "--from", "9" * 20], 2, "is no place in a log"),
        (["replay", "books", "other", "--from", "1"], 9, "SL7208: there is no consumer group 'books.other'"),
        (["lag", "nobody"], 7, "there is no module 'nobody'"),
        (["dead", "drop", "books", "--group", "nobody"], 0, "no dead letters"),
        (["dead", "show", "books"], 2, "usage: Missing argument 'NUMBER'. Read `seamline events dead show --help`."),
        (["tail", "stall", "-n", "0"], 2, "greater than or equal to 1. Read `seamline events tail --help`."),
    ],
)
def test_what_is_not_there_is_said(ask: Asked, words: list[str], status: int, said: str) -> None:
    """In one sentence, with the status of its range."""
    assert said in ask.text(*words, status=status)
