"""Sagas of three trivial steps, awaited to their end, beside DBOS and Restate."""

from __future__ import annotations

from benchmarks.figures import Row, compare
from benchmarks.peers import restate_sagas
from benchmarks.processes import Child, all_cores, python
from benchmarks.rows import Family
from benchmarks.session import START_S, Session
from benchmarks.sides import Side, alternate


def _side(session: Session, name: str, module: str, *arguments: str) -> Side:
    child = session.start(Child(python(module, *arguments), cores=all_cores(), name=name))
    child.answer(START_S)
    return Side(name=name, servers=(), driver=child)


def three_steps(session: Session) -> list[Row]:
    effort = session.effort
    ours, dbos, restate = alternate(
        [
            _side(session, "Seamline", "benchmarks.ours.saga_caller", f"sqlite:///{session.folder / 'sagas.sqlite3'}"),
            _side(
                session,
                "DBOS on SQLite",
                "benchmarks.peers.dbos_sagas.caller",
                f"sqlite:///{session.folder / 'dbos.sqlite'}",
            ),
            _side(session, "Restate", "benchmarks.peers.restate_sagas.caller", str(restate_sagas.server(session))),
        ],
        effort.load,
        rounds=effort.rounds,
        warm_up_s=max(effort.warm_up_s, 1.0),
    )
    rates = [measure.per_s for measure in ours]
    tails = [measure.p99_ms for measure in ours]
    unit = "sagas/s, three steps, 64 callers"
    return [
        compare("sagas_per_s_vs_dbos", unit, "higher", rates, "DBOS on SQLite", [m.per_s for m in dbos]),
        compare("sagas_per_s_vs_restate", unit, "higher", rates, "Restate", [m.per_s for m in restate]),
        compare("saga_p99_ms_vs_dbos", "ms, 64 callers", "lower", tails, "DBOS on SQLite", [m.p99_ms for m in dbos]),
    ]


FAMILIES = (
    Family(
        {
            "sagas_per_s_vs_dbos": "≥ 50",
            "sagas_per_s_vs_restate": "≥ 20",
            "saga_p99_ms_vs_dbos": "",
        },
        three_steps,
    ),
)
