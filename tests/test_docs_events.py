"""The page on events is true: its modules run in every topology, and its tables say what the code says."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from pathlib import Path

import pytest
from tests.pages import read_page, run_module, write_files

from seamline.events import errors
from seamline.events.bridges import faststream
from seamline.events.brokers.kafka.transport import PROMISES as KAFKA
from seamline.events.brokers.partitioned import ORDER, REDELIVERY, REPLAY
from seamline.events.embedded import EmbeddedTransport
from seamline.events.events import EVENT_BYTES_MAX
from seamline.events.runtime import UPKEEP_S
from seamline.events.session import HELD_BYTES_MAX, HELD_MAX
from seamline.module.module import EventHandler

PAGE = read_page("events.md")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The files of the page."""
    assert write_files(PAGE, tmp_path) == 6
    return tmp_path


def test_the_modules_pass_the_checks_and_each_permit_that_is_missing_is_named(shop: Path):
    """With the very line."""
    assert "nothing found" in run_module(shop, "seamline.cli", "check")
    permits = (shop / "policy" / "shop.cedar").read_text().splitlines()
    (shop / "policy" / "shop.cedar").write_text("")
    said = run_module(shop, "seamline.cli", "check")
    assert len(permits) == 3
    assert [permit for permit in permits if permit not in said] == []


def test_the_test_of_the_page_passes_in_one_process_and_in_many(shop: Path):
    """As it stands."""
    found = re.search(r"^## In a test\n.*?^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    (shop / "test_shop.py").write_text(found[1], encoding="utf-8")
    (shop / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\npythonpath = .\n")
    said = run_module(shop, "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py")
    assert "3 passed" in said, said


def test_the_table_of_brokers_says_what_their_transports_promise():
    """Word for word."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE.split("## Brokers")[1], re.MULTILINE)
    embedded = EmbeddedTransport.promises
    assert rows == [
        ("none: embedded", embedded.order, embedded.redelivery, embedded.replay),
        *((name, ORDER, REDELIVERY, REPLAY) for name in ("PostgreSQL", "NATS JetStream", "Redis Streams")),
        (KAFKA.name, KAFKA.order, KAFKA.redelivery, KAFKA.replay),
    ]


def test_the_arguments_of_a_handler_have_the_defaults_of_the_page():
    """Each of them is there."""
    table = PAGE.split("## Handling")[1].split("## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)`[^|]*\| ([^|]+) \|", table, re.MULTILINE))
    fields = {each.name: each.default for each in dataclasses.fields(EventHandler)}
    assert set(rows) == set(fields) - {"event", "function", "batch_wait_s"}
    assert rows["concurrency"] == str(fields["concurrency"])
    assert rows["batch"] == f"{fields['batch']}, {fields['batch_wait_s']}"
    assert rows["start"] == f'`"{fields["start"]}"`'
    assert rows["attempts"] == str(fields["attempts"])
    assert (rows["backoff_s"], rows["timeout_s"]) == (str(fields["backoff_s"]), f"{fields['timeout_s']:g}")
    assert (rows["where"], rows["outside"], rows["group"]) == ("all", "no", "the function's name")
    assert (fields["where"], fields["outside"]) == (None, False)


def test_the_other_blocks_of_code_work_beside_the_modules(shop: Path):
    """A batch handler, and an event that is compacted."""
    blocks = re.findall(r"(?<!`)\n\n```python\n((?:@module\.on|class Priced).*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    handlers, events = shop / "shop" / "billing" / "module.py", shop / "shop" / "orders" / "__init__.py"
    handlers.write_text(f"{handlers.read_text()}\n\n{blocks[0]}")
    events.write_text(f"{events.read_text()}\n\n{blocks[1]}")
    assert "nothing found" in run_module(shop, "seamline.cli", "check")
    assert (
        '"compacted": true'
        in run_module(shop, "seamline.cli", "contracts", "lock") + (shop / "contracts.lock.json").read_text()
    )


def test_the_bridge_is_shown_as_its_own_documentation_shows_it():
    """Which is run by its tests."""
    shown = textwrap.dedent((faststream.__doc__ or "").split("::\n", 1)[1].split("\nMessages are", 1)[0]).strip()
    assert f"```python\n{shown}\n```" in PAGE


def test_the_pause_between_compactions_is_that_of_the_page():
    assert UPKEEP_S == 5 * 60
    assert "Every five minutes" in PAGE


def test_the_limits_are_those_of_the_page():
    """What waits in memory, and how large an event may be."""
    assert f"more than {HELD_MAX:,} events (or {HELD_BYTES_MAX // 2**20} MiB)" in PAGE
    assert "at most a mebibyte of data" in PAGE
    assert EVENT_BYTES_MAX == 2**20


def test_every_error_of_the_room_is_on_the_page():
    """By its code."""
    codes = {
        each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.EventsError)
    }
    assert set(re.findall(r"^\| (SL7\d{3}) ", PAGE, re.MULTILINE)) == codes - {"SL7200"}
