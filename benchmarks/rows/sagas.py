"""Sagas of three trivial steps, awaited to their end, beside DBOS and Restate."""

from __future__ import annotations

from benchmarks.figures import Row, against_budget, compare
from benchmarks.peers import postgresql, restate_sagas
from benchmarks.processes import Child, all_cores, python
from benchmarks.rows import Family
from benchmarks.session import START_S, Session
from benchmarks.sides import Side, alternate

SLEEPERS = 100_000
SLEEPERS_S = 180


def _side(session: Session, name: str, module: str, *arguments: str) -> Side:
    child = session.start(Child(python(module, *arguments), cores=all_cores(), name=name))
    child.answer(START_S)
    return Side(name=name, servers=(), driver=child)


def three_steps(session: Session) -> list[Row]:
    effort = session.effort
    ours, dbos, restate = alternate(
        [
            _side(session, "Seamline", "benchmarks.ours.saga_caller", _url(session, "sagas")),
            _side(
                session,
                "DBOS on SQLite",
                "benchmarks.peers.dbos_sagas.caller",
                _url(session, "dbos"),
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


def on_postgresql(session: Session) -> list[Row]:
    effort = session.effort
    where = postgresql.server(session)
    ours, dbos = alternate(
        [
            _side(session, "Seamline", "benchmarks.ours.saga_caller", f"postgresql+asyncpg://{where}/postgres"),
            _side(session, "DBOS on PostgreSQL", "benchmarks.peers.dbos_sagas.caller", f"postgresql://{where}/dbos"),
        ],
        effort.load,
        rounds=effort.rounds,
        warm_up_s=max(effort.warm_up_s, 1.0),
    )
    unit = "sagas/s, three steps, 64 callers, both on PostgreSQL"
    rates = [measure.per_s for measure in ours]
    return [compare("sagas_per_s_on_postgresql", unit, "higher", rates, "DBOS on PostgreSQL", [m.per_s for m in dbos])]


def crash(session: Session) -> list[Row]:
    """A process is killed in the middle of a step; how long until another one has done that step."""
    taken = [
        _once(session, "recovery", _url(session, f"recovery-{n}"))["recovery_s"] for n in range(session.effort.rounds)
    ]
    return [against_budget("saga_recovery_s", "s from kill -9 to the step done", "lower", taken, 2)]


def asleep(session: Session) -> list[Row]:
    """The memory of a process whose sagas all sleep."""
    found = _once(session, "sleepers", str(SLEEPERS), _url(session, "sleepers"))
    unit = f"MB with {SLEEPERS:,} sagas asleep"
    return [against_budget("saga_memory_mb", unit, "lower", [found["rss_mb"]], 200)]


def _once(session: Session, *arguments: str) -> dict[str, float]:
    with session.inner() as inner:
        child = Child(python("benchmarks.ours.sagas", *arguments), cores=all_cores(), name=f"sagas {arguments[0]}")
        return inner.start(child).answer(SLEEPERS_S)


def _url(session: Session, name: str) -> str:
    return f"sqlite:///{session.folder / name}.sqlite3"


FAMILIES = (
    Family(
        {
            "sagas_per_s_vs_dbos": "≥ 50",
            "sagas_per_s_vs_restate": "≥ 20",
            "saga_p99_ms_vs_dbos": "",
        },
        three_steps,
    ),
    Family({"sagas_per_s_on_postgresql": "≥ 50"}, on_postgresql),
    Family({"saga_recovery_s": "≤ 2 s"}, crash),
    Family({"saga_memory_mb": "bounded"}, asleep),
)
