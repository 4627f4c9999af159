"""``python -m benchmarks [--only row] [--rounds N] [--quick] [--document]``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time

from benchmarks import report
from benchmarks.families import FAMILIES
from benchmarks.figures import Row
from benchmarks.rows import Family
from benchmarks.session import FULL, QUICK, Session


def main() -> int:
    options = _options()
    if options.document:
        report.document({name: goal for family in FAMILIES for name, goal in family.rows.items()})
        return 0
    families = _chosen(options.only)
    effort = QUICK if options.quick else FULL
    if options.rounds:
        effort = dataclasses.replace(effort, rounds=options.rounds)
    rows: list[Row] = []
    failed: list[str] = []
    for family in families:
        names = ", ".join(family.rows)
        started = time.monotonic()
        try:
            with Session(effort) as session:
                measured = list(family.measure(session))
        except Exception as error:
            failed.append(names)
            print(f"failed  {names}: {error}", file=sys.stderr, flush=True)
            continue
        rows += measured
        print(f"{time.monotonic() - started:5.0f} s  {names}", file=sys.stderr, flush=True)
    if rows:
        report.show(rows, {name: goal for family in families for name, goal in family.rows.items()})
        if not options.quick:
            report.write(report.merged(rows) if options.only or failed else rows)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Our figures beside the peers'.")
    parser.add_argument("--only", metavar="ROW", help="measure one row, and those that come with its load")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each side, instead of the usual number")
    parser.add_argument("--quick", action="store_true", help="short rounds, nothing written: does it run at all")
    parser.add_argument(
        "--document", action="store_true", help="measure nothing; put the last report into docs/performance.md"
    )
    return parser.parse_args()


def _chosen(only: str | None) -> list[Family]:
    if only is None:
        return list(FAMILIES)
    chosen = [family for family in FAMILIES if only in family.rows]
    if not chosen:
        known = "\n  ".join(name for family in FAMILIES for name in family.rows)
        raise SystemExit(f"There is no row {only!r}. The rows are:\n  {known}")
    return chosen


if __name__ == "__main__":
    raise SystemExit(main())
