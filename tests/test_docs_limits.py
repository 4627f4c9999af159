"""The pages on limits and on the OWASP list are true: rules are read, numbers are the code's, tests exist."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from tests.pages import read_page

from seamline.gateway.auth import throttle
from seamline.gateway.limits import errors, gcra, sharing
from seamline.gateway.limits.limiter import Limiter
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import LimitsSettings, Settings
from seamline.kernel.settings.limits import Counted
from seamline.kernel.wire.http1_message import HttpLimits
from seamline.module.principal import User

ROOT = Path(__file__).parent.parent
PAGE, OWASP = read_page("limits.md"), read_page("owasp.md")
SAID = re.sub(r"\s+", " ", PAGE)
EXAMPLES: list[str] = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_settings_of_the_page_are_read(text: str, tmp_path: Path):
    """Each by itself."""
    (tmp_path / "seamline.toml").write_text(f'{text}\n[app]\nname = "shop"\nmodules = []\n', encoding="utf-8")
    Settings.load(tmp_path, {})


def test_the_headers_of_the_page_are_what_a_client_gets(tmp_path: Path):
    """From the first rule of the page."""
    (tmp_path / "seamline.toml").write_text(f'{EXAMPLES[0]}\n[app]\nname = "shop"\nmodules = []\n', encoding="utf-8")
    rate = Settings.load(tmp_path, {}).limits.rates[0]
    made = Limiter(LimitsSettings(rates=(rate,)), ManualClock())
    standing = made.after("/api", "GET", "1.1.1.1", User("ada", client="key-1"), "key")
    assert standing is not None
    lines = [f"{name.decode()}: {value.decode()}" for name, value in standing.headers()]
    found = re.search(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    assert found[1].splitlines() == lines


def test_every_kind_of_rule_is_on_the_page():
    """And no other."""
    table = PAGE.partition("| `by` | counts |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(get_args(Counted))


def test_the_numbers_of_the_page_are_the_codes():
    """Of memory, connections, slow clients and guessing."""
    limits, free, most = HttpLimits(), throttle.Throttle.FREE, throttle.Throttle.MOST_S
    assert f"At most {gcra.KEYS_MAX} names" in SAID
    assert f"tells what it let through {1 / sharing._TELL_S:g} times a second" in SAID
    assert f"| {LimitsSettings().connections_per_address_max} (`connections_per_address_max`)" in SAID
    taken = f"| {limits.write_timeout_s:g} s, and one second more per {limits.write_rate_min} bytes that were taken"
    assert taken in SAID
    assert f"| {limits.body_timeout_s:g} s, and one second more per {limits.body_rate_min} bytes that came" in SAID
    names = ("pair", "account", "address")
    assert "After {}, {} and {} wrong ones".format(*(free[name] for name in names)) in SAID
    assert "up to {:g} s, {:g} s and {:g} s".format(*(most[name] for name in names)) in SAID
    assert f"within {throttle._KNOWN_S / 86_400:g} days" in SAID


def test_every_error_of_limits_is_on_the_page():
    """The root of the tree is never raised."""
    assert re.findall(r"^\| (SL\d{4}) ", PAGE, re.MULTILINE) == [errors.SharedStoreError.code]


def test_the_list_is_whole_and_each_point_has_tests_that_exist():
    """Ten, in order, each with what is done, what is not, and files of tests."""
    points = re.split(r"^## API", OWASP, flags=re.MULTILINE)[1:]
    assert [point.partition(":")[0] for point in points] == [str(number) for number in range(1, 11)]
    for point in points:
        assert "**Does.**" in point
        assert "**Does not.**" in point
        files = re.findall(r"`((?:tests|examples)/[\w/]+\.py)`", point.partition("Shown by")[2])
        assert files
        for name in files:
            assert "def test_" in (ROOT / name).read_text(encoding="utf-8"), name
