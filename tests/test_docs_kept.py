"""What docs/observability.md says of what is kept is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest
from tests.observe.stored import NOW, S, add, clock, opened, trace
from tests.pages import read_page

from seamline.kernel.settings import Settings
from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.store import child, keeping, parquet, pieces, query, rollups, schema, writer

PAGE = re.sub(r"\s+", " ", read_page("observability.md").partition("## What is kept")[2].partition("\n## ")[0])
RAW = read_page("observability.md").partition("## What is kept")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    "said",
    [
        f"`hot_s`: {ObserveSettings().hot_s:,} s",
        f"`history_days`: {ObserveSettings().history_days}",
        f"windows of `window_s` ({ObserveSettings().window_s} s) for {schema.FINEST_KEPT_NS // schema.HOUR_NS} hours",
        f"`keep_traces` ({ObserveSettings().keep_traces})",
        f"`size_max_mb` ({ObserveSettings().size_max_mb})",
        f"at {writer.COMMIT_ROWS:,} rows",
        f"({writer.QUEUE_MAX:,} spans and lines wait at most)",
        f"`{schema.HOT}.aside`",
        f"up to {pieces.TEXT_MAX:,} characters, {pieces.ATTRIBUTES_MAX} attributes",
        f"`{pieces.CUT}`",
        f"{rollups.EDGES_MAX:,} edges, {rollups.METRICS_MAX:,} metrics, {rollups.MINE_MAX:,} of each",
        f"at most {query.ROWS_MAX:,} rows a page",
        "with 256 MB",
    ],
)
def test_the_page_says_what_the_code_does(said: str) -> None:
    """Each number and name as it is in the code."""
    assert said in PAGE


def test_what_the_page_says_in_words_is_so() -> None:
    """A quarter of a second, nine tenths, a second, half a minute, five seconds."""
    assert (writer.COMMIT_S, keeping.FULL, keeping.SLOW_NS, child.IDLE_S) == (0.25, 0.9, S, 30)
    assert parquet.CONFIG["memory_limit"] == "256MB"
    assert "duckdb" in (Path(__file__).parent.parent / "pyproject.toml").read_text().partition("history = ")[2][:20]


def test_the_settings_of_the_page_are_read(tmp_path: Path) -> None:
    """The example is a settings file."""
    example = re.search(r"^```toml\n(.*?)^```", RAW, re.MULTILINE | re.DOTALL)
    assert example
    (tmp_path / "seamline.toml").write_text(f'{example[1]}\n[app]\nname = "shop"\nmodules = []\n', encoding="utf-8")
    assert Settings.load(tmp_path, {}).observe.history_days == 30


async def test_the_query_of_the_page_is_answered_by_plain_duckdb(tmp_path: Path) -> None:
    """With the attribute of a real trace in place of the page's."""
    example = re.search(r"^```sql\n(.*?)^```", RAW, re.MULTILINE | re.DOTALL)
    assert example
    time = clock()
    with opened(tmp_path / "telemetry", ObserveSettings(), time) as (store, _):
        given = trace(3, NOW, failed=True)
        add(store, given)
        time.advance(7 * 3600)
        await store.tend()
    sql = example[1].replace("'telemetry/", f"'{tmp_path}/telemetry/").replace("user.id", "user").replace("u77", "u3")
    with duckdb.connect() as connection:
        rows = connection.execute(sql).fetchall()
    assert rows == [(given[0].name, 1, given[0].duration_ns / 1e6)]
