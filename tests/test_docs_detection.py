"""What the page on observability says of detection is so: its settings are read, its numbers are the code's."""

from __future__ import annotations

import json
import re
from math import exp
from pathlib import Path

from tests.observe.trials import RESULTS, table
from tests.pages import read_page

from seamline.kernel.settings import ObserveSettings, Settings
from seamline.observe import notify
from seamline.observe.detect import causes, detector, edges, keeping, level, seasons, series
from seamline.observe.detect.promises import ALARMS, BAD_MIN
from seamline.observe.incidents import EntryKind

PAGE = read_page("observability.md")
_FOUND = re.search(r"^## What is noticed, and when\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
SECTION = _FOUND[1] if _FOUND else ""
SAID = re.sub(r"\s+", " ", SECTION)


def test_the_settings_of_the_page_are_read(tmp_path: Path):
    """Together, as somebody would copy them."""
    examples: list[str] = re.findall(r"^```toml\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    tables = "\n".join(sorted(examples, key=lambda text: "slos" in text))
    (tmp_path / "seamline.toml").write_text(f'[app]\nname = "shop"\nmodules = []\n{tables}', encoding="utf-8")
    observe = Settings.load(tmp_path, {}).observe
    assert observe.slos["checkout"].latency_ms == 300
    assert len(observe.notify) == 2


def test_the_windows_and_rules_of_the_page_are_the_codes():
    """Of what is noticed, and after how long it can be."""
    length_s = ObserveSettings().window_s
    assert length_s == 2
    assert "windows of two seconds" in SAID
    assert f"known after {level.BLOCK * level.BLOCKS_READY * length_s:.0f} seconds" in SAID
    assert level.BLOCK * level.BLOCKS * length_s / 60 > 10
    assert level.ACCEPTED_AFTER * length_s == 1800
    assert f"{exp(edges.LATENCY.step_ratio):.1f} times" in SAID
    assert f"At least {edges.LATENCY.least:g} ms" in SAID
    assert f"three times the usual and {series.EVENT_LAG.least:.0f} more" in SAID
    assert f"lags by {series.LOOP_LAG.least:.0f} ms" in SAID
    assert f"a tenth and {series.MEMORY.least / 1e6:.0f} MB" in SAID
    assert round(exp(series.MEMORY.drift_ratio), 2) == 1.1
    assert f"takes {series.CPU.least} cores more" in SAID
    assert f"says nothing for {detector.SILENT_AFTER * length_s:.0f} seconds" in SAID
    assert f"`{detector.SCORE_PREFIX}*`" in SAID
    assert f"fewer than {seasons.FEW} of those" in SAID
    assert f"{seasons.WEEKS_MIN} weeks must be known" in SAID
    assert seasons.LOOK_S == 300


def test_what_the_page_says_of_incidents_is_the_codes():
    """When they are opened, put together and closed."""
    length_s = ObserveSettings().window_s
    assert keeping.SETTLE == 2
    assert keeping.EXPLAINED_AFTER_NS == 8e9
    assert "about eight seconds after it began" in SAID
    assert f"after {keeping.QUIET * length_s:.0f} seconds without a symptom" in SAID
    assert keeping.REOPENED_WITHIN_NS == keeping.MARKS_BEFORE_NS == 600e9
    assert f"within {causes.AT_ONCE_NS / 1e9:.0f} seconds are one" in SAID
    assert causes.SEVERAL == 3
    assert "reopened" in EntryKind.__args__


def test_the_alarms_of_slos_are_the_codes():
    """Both windows and the burn rate of each."""
    rows = re.findall(r"^\| (\d+) (min|h|d) \| (\d+) (s|min|h) \| ([\d.]+) \|$", SECTION, re.MULTILINE)
    seconds = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
    told = [(int(a) * seconds[b], int(c) * seconds[d], float(burn)) for a, b, c, d, burn in rows]
    assert told == [(alarm.long_s, alarm.short_s, alarm.burn) for alarm in ALARMS]
    assert f"at least {BAD_MIN} answers be bad" in SAID


def test_what_the_page_says_of_notices_is_the_codes():
    """How often it is tried, and how many there may be."""
    assert f"tried {len(notify.PAUSES_S)} times more" in SAID
    assert 45 * 60 < sum(notify.PAUSES_S) < 75 * 60
    assert f"more than {notify.PER_MINUTE_MAX} messages in a minute" in SAID


def test_the_figures_of_the_page_are_those_of_the_last_run():
    """``python -m tests.observe.trials`` writes them, ``table`` draws them."""
    told = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert table(told) in SECTION
    three = sum(each["three_sigma"] for each in told["quiet"])
    assert f"gives {three:,} alarms in {sum(each['hours'] for each in told['quiet']):.0f} hours" in SAID
    assert f"{max(each['us_per_window'] for each in told['quiet'])} µs of CPU" in SAID
    assert f"of 5,000 edges: {told['us_per_5000_edges'] / 1000:.0f} ms" in SAID
