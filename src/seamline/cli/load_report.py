"""What ``seamline load`` shows: a line that moves while shopping, a table when it is over."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from seamline.cli import output

if TYPE_CHECKING:
    from seamline.cli.load_engine import Load, Plan, Tally
    from seamline.cli.load_switch import Switched, Switching

REFRESH_S = 0.25
NO_SCENARIO = "GET /"
"""What stands in place of the scenario's name where the application has none."""


class Report:
    """The progress and the result of one load."""

    def __init__(self, plan: Plan, scenario: str, *, quiet: bool) -> None:
        self._plan = plan
        self._scenario = scenario
        self._quiet = quiet
        self._console = output.console()
        self._live = not quiet and sys.stdout.isatty()

    async def watch(self, load: Load, switching: Switching | None) -> None:
        """Show how it goes until cancelled."""
        if self._quiet:
            return
        plan = self._plan
        pace = f"{plan.rate:g} steps/s" if plan.rate else "as fast as answers come"
        shoppers = f"{plan.users} shoppers" if plan.users > 1 else "1 shopper"
        self._console.print(f"Shopping at [bold]{plan.target.url}[/]: {shoppers}, {pace}, scenario {self._scenario}\n")
        if self._live:
            await self._move(load, switching)
        elif switching is not None:
            await self._tell(switching)

    async def _move(self, load: Load, switching: Switching | None) -> None:
        from rich.live import Live

        with Live(console=self._console, refresh_per_second=4, transient=True) as live:
            seen, then = 0, load.elapsed_s
            while True:
                await asyncio.sleep(REFRESH_S)
                now, requests = load.elapsed_s, load.tally.requests
                live.update(self._line(load, (requests - seen) / max(now - then, 1e-6), switching))
                seen, then = requests, now

    def _line(self, load: Load, rate: float, switching: Switching | None) -> Any:
        from rich.text import Text

        tally = load.tally
        overall = tally.overall()
        failed = tally.failed or tally.failed_steps
        parts = [
            Text(f"{load.elapsed_s:6.1f} s"),
            Text(f"{tally.requests:,} requests", style="bold"),
            Text(f"{rate:,.0f}/s"),
            Text(
                f"p50 {output.milliseconds(overall.quantile_ms(0.5))}"
                f"  p99 {output.milliseconds(overall.quantile_ms(0.99))}"
            ),
            Text(f"{failed} failed", style="bold red" if failed else "green"),
        ]
        if switching is not None:
            parts.append(Text(f"switch {len(switching.done)}/{switching.count} {switching.now}", style="cyan"))
        return Text("   ").join(parts)

    async def _tell(self, switching: Switching) -> None:
        told = 0
        while True:
            await asyncio.sleep(REFRESH_S)
            for each in switching.done[told:]:
                told += 1
                self._console.print(f"switched {each.before} to {each.after} in {each.lasted_s:.1f} s")

    def finish(self, tally: Tally, switching: Switching | None) -> None:
        """Print the tables, the failures and the verdict."""
        self._console.print(self._steps(tally))
        if switching is not None and switching.done:
            self._console.print("\n[bold]Switches under load[/]")
            self._console.print(self._switches(switching.done))
        if tally.failures:
            self._console.print("\n[bold red]What failed[/]")
            for failure in tally.failures.values():
                times = f"{failure.count} times, first" if failure.count > 1 else "once,"
                self._console.print(
                    f"  {failure.step}: {failure.reason} ({times} at {failure.first_s:.2f} s)", markup=False
                )
            if self._scenario == NO_SCENARIO:
                self._console.print("\nThe application has no scenario, so that every step was GET /.", markup=False)
                self._console.print("`seamline load --help` says how it gets one.")
        self._console.print()
        self._verdict(tally, switching)

    def _steps(self, tally: Tally) -> Any:
        sides = dict.fromkeys(("taken", "failed", "p50", "p90", "p99", "max"), "right")
        rows = [(step.name, step.taken, step.failed, step.latencies) for step in tally.steps.values() if step.taken]
        taken = sum(step.taken for step in tally.steps.values())
        total = ("all steps", taken, tally.failed_steps, tally.overall())
        return output.table(
            {"step": "fixed", **sides},
            [
                [
                    name,
                    f"{count:,}",
                    f"[bold red]{failed:,}[/]" if failed else "0",
                    *(output.milliseconds(latencies.quantile_ms(point)) for point in (0.5, 0.9, 0.99)),
                    output.milliseconds(latencies.max_s * 1e3 if latencies.count else None),
                ]
                for name, count, failed, latencies in [*rows, *([total] if len(rows) != 1 else [])]
            ],
        )

    def _switches(self, done: list[Switched]) -> Any:
        return output.table(
            {"": "right", "from": "fixed", "to": "fixed", "took": "right", "requests": "right", "failed": "right"},
            [
                [
                    str(number),
                    each.before,
                    each.after,
                    f"{each.lasted_s:.2f} s",
                    f"{each.requests:,}",
                    f"[bold red]{each.failed:,}[/]" if each.failed else "[green]0[/]",
                ]
                for number, each in enumerate(done, 1)
            ],
        )

    def _verdict(self, tally: Tally, switching: Switching | None) -> None:
        rate = tally.requests / tally.elapsed_s if tally.elapsed_s else 0.0
        resent = f", {tally.resent} resent on a new connection" if tally.resent else ""
        said = f"{tally.requests:,} requests in {output.lasted(tally.elapsed_s)}, {rate:,.0f}/s{resent}"
        failed = tally.failed
        verdict = f"[bold red]{failed:,} failed[/]" if failed else "[bold green]0 failed[/]"
        if not failed and tally.failed_steps:
            verdict += f", [bold red]{tally.failed_steps:,} steps found something wrong[/]"
        if switching is not None:
            verdict = f"{len(switching.done)} of {switching.count} topology switches meanwhile: {verdict}"
        self._console.print(f"{said}; {verdict}")

    def to_json(self, tally: Tally, switching: Switching | None) -> dict[str, Any]:
        plan = self._plan
        return {
            "url": plan.target.url,
            "scenario": self._scenario,
            "users": plan.users,
            "rate": plan.rate,
            **tally.to_json(),
            "switches": [each.to_json() for each in switching.done] if switching is not None else [],
            "error": switching.error.to_json() if switching is not None and switching.error is not None else None,
        }
