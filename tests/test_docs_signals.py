"""The page on signals is true: its measures, bounds and attributes are the code's, and its program runs."""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.pages import read_page

from seamline.kernel.settings.observe import TelemetrySettings
from seamline.kernel.signal import stacks, watchdog
from seamline.kernel.signal.gen_ai import GenAi
from seamline.kernel.signal.measures import Measure
from seamline.kernel.signal.runtime import Runtime
from seamline.kernel.signal.trace import Tracer
from seamline.kernel.store import tracing
from seamline.run.otel import metrics, values
from seamline.run.telling import EVERY_S

ROOT = Path(__file__).parent.parent
PAGE = read_page("signals.md")


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def rows(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines[2:]]


async def test_the_measures_are_those_of_the_table():
    """Each with its kind, unit and attributes, and no other."""
    runtime = Runtime()
    runtime.start()
    gc.collect()
    found: list[Measure] = []
    async with asyncio.timeout(20):
        while "seamline.loop.lag" not in {measure.name for measure in found}:
            await asyncio.sleep(0.01)
            found += runtime.take()
    runtime.stop()
    statements = tracing.Statements("shop", "sqlite")
    statements.waited("writer", 0.0)
    found += statements.take()
    table = {name: (kind, unit, text) for name, kind, unit, text in rows("Measures")}
    assert table.keys() == {measure.name for measure in found}
    for measure in found:
        kind, unit, text = table[measure.name]
        assert (measure.kind, measure.unit) == (kind, unit)
        for attribute in measure.attributes.keys() - {"db.system.name"}:
            assert attribute in text or text in {"likewise", "those that needed the disk"}


def test_the_measures_of_models_are_those_of_the_table():
    """With their units; the spans are named as the page says."""
    tracer = Tracer()
    gen_ai = GenAi(tracer)
    with gen_ai.work("chat", provider="own", model="small-1") as doing:
        doing.first_chunk()
        doing.usage(input_tokens=1)
    with gen_ai.work("invoke_agent", provider="own", agent="shopper"):
        pass
    with gen_ai.work("execute_tool", provider="own", tool="search"):
        pass
    assert {(name, unit) for name, unit in rows("Models and agents")} == {(m.name, m.unit) for m in gen_ai.take()}
    for flow in tracer.flows.take():
        assert f"`{flow.method}`" in section("Models and agents")


def test_the_bounds_are_the_codes():
    """Numbers in the text, each where it belongs."""
    assert EVERY_S == 1 / 4
    assert "four times a second" in PAGE
    cpu, loop, sql, own = map(
        section, ("Which module uses the CPU", "What holds up the event loop", "SQL", "Your own OpenTelemetry")
    )
    assert f"`[telemetry] profile_hz` ({TelemetrySettings().profile_hz:g})" in cpu
    assert f"at most {stacks.FRAMES_MAX} frames" in cpu
    assert f"every {watchdog.LOOK_S * 1000:g} ms" in loop
    assert f"for {watchdog.BLOCKED_S * 1000:g} ms" in loop
    assert f"at most {tracing.SUMMARIES_MAX} kinds of statements" in sql
    assert tracing.SHOWN_S == 0.001
    assert "of a millisecond or more" in " ".join(sql.split())
    assert f"at most {values.ATTRIBUTES_MAX}\nattributes" in own
    assert f"{values.CHARACTERS_MAX:,} characters" in own
    assert f"at most {metrics.SERIES_MAX:,} series" in own


def test_the_attributes_of_statements_are_the_codes():
    """Every name on the page stands in the code, and the other way round."""
    source = Path(tracing.__file__).read_text(encoding="utf-8")
    told = set(re.findall(r'"(db\.[a-z_.]+)"', source))
    assert told == set(re.findall(r"`(db\.[a-z_.]+)`", section("SQL")))


def test_the_program_runs_and_is_a_trace():
    """As the page says in its comments."""
    found = re.search(r"```python\n(.*?)```", section("Your own OpenTelemetry"), re.DOTALL)
    assert found
    proof = """
        import asyncio, tempfile
        from pathlib import Path
        from seamline.run.otel import OPENTELEMETRY
        from tests.mesh.rig import StockService, connect, rig

        class Service(StockService):
            async def look(self, sku):
                return await price(self.stock, sku)

        async def main():
            async with rig(Path(tempfile.mkdtemp())) as made:
                service = Service()
                service.stock = await connect(made, "local", service, sample=1.0)
                tracer = made.meshes[0].tracer
                OPENTELEMETRY.join(tracer)
                await service.stock.look("mug")
                spans = {(span.kind, span.name): span for span in tracer.take()}
            look, discount = spans["server", "Stock.look"], spans["internal", "discount"]
            assert look.attributes["sku"] == "mug"
            assert discount.parent_id == look.span_id
            assert spans["client", "Stock.take"].parent_id == discount.span_id
            (measure,) = OPENTELEMETRY.take()
            assert (measure.name, measure.value, measure.attributes) == ("discounts", 1, {"sku": "mug"})

        asyncio.run(main())
    """
    ran = subprocess.run(
        [sys.executable, "-c", found[1] + textwrap.dedent(proof)], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
