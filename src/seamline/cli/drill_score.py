"""``seamline drill score``: each fault planted under load, in each topology; was it noticed, and rightly explained?

What is scored is the whole way, as people meet it: the observer's incidents as they stand in the store. Between drills
the incidents are closed by hand, so that the next one begins its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.kernel.wire.http1_client import HttpClientError, HttpPool
from seamline.observe.drills import baselines
from seamline.observe.drills.catalog import FAULTS, Fault
from seamline.observe.drills.errors import DrillScoreError
from seamline.observe.drills.scoring import Quiet, Round, guesses_of
from seamline.observe.errors import ObserveError
from seamline.observe.incidents import Incident
from seamline.observe.store import TelemetryReader
from seamline.observe.windows import Window
from seamline.run.admin import AdminClient
from seamline.run.sockets import unix_address

if TYPE_CHECKING:
    from seamline.cli.load_engine import Plan
    from seamline.kernel.settings import Settings

Say = Callable[[str], None]

HOLD_S: Final = 40.0
"""As long as a fault is held up at most."""
LOOK_S: Final = 0.5
AGAIN_S: Final = 7.0
"""After the first explanation; the second, which knows more, is scored."""
REST_S: Final = 6.0
LONG_REST_S: Final = 16.0
_LINGERS: Final = frozenset({"poison", "release", "leak"})
BEFORE_MAX: Final = 60
"""Windows of quiet that plain methods compare with."""
_COMMITTED_S: Final = 4.0
_RATE_MIN: Final = 0.5
"""Calls a second of a module, below which nothing is planted in it."""
_TRIES: Final = 6
STEADY_NS: Final = 20 * 10**9


@dataclass(frozen=True)
class Wanted:
    """What is to be scored."""

    settings: Settings
    folder: Path
    plan: Callable[[str], Plan]
    """The load, for an address."""
    topologies: Sequence[str]
    faults: Sequence[str]
    rounds: int = 1
    warm_s: float = 50.0
    quiet_s: float = 45.0
    seed: int = 1


@dataclass
class Results:
    """Kept line by line, so that what was done is not done again."""

    path: Path
    rounds: list[Round] = field(default_factory=list[Round])
    quiets: list[Quiet] = field(default_factory=list[Quiet])

    @classmethod
    def at(cls, path: Path) -> Results:
        found = cls(path)
        if path.exists():
            written, _, broken = path.read_bytes().rpartition(b"\n")
            if broken:  # cut off in the middle of a line
                path.write_bytes(written + b"\n" if written else b"")
            for line in written.splitlines():
                kind, _, body = line.partition(b" ")
                if kind == b"round":
                    found.rounds.append(msgspec.json.decode(body, type=Round))
                elif kind == b"quiet":
                    found.quiets.append(msgspec.json.decode(body, type=Quiet))
        return found

    def add(self, each: Round | Quiet) -> None:
        kind = b"round" if isinstance(each, Round) else b"quiet"
        (self.rounds if isinstance(each, Round) else self.quiets).append(each)  # pyright: ignore[reportArgumentType]
        with self.path.open("ab") as file:
            file.write(kind + b" " + msgspec.json.encode(each) + b"\n")

    def has(self, topology: str, fault: str, number: int) -> bool:
        return any((each.topology, each.fault, each.number) == (topology, fault, number) for each in self.rounds)


def suits(fault: Fault, topology: str) -> bool:
    """Whether it can be planted there at all; ``monolith`` has no network within."""
    return fault.where != "score" and (fault.one_process if topology == "monolith" else fault.many_processes)


async def score_all(wanted: Wanted, results: Results, say: Say) -> None:
    """Everything that was not done yet."""
    for topology in wanted.topologies:
        todo = [
            (number, FAULTS[name])
            for number in range(1, wanted.rounds + 1)
            for name in wanted.faults
            if suits(FAULTS[name], topology) and not results.has(topology, name, number)
        ]
        quiet = wanted.quiet_s > 0 and not any(each.topology == topology for each in results.quiets)
        if not todo and not quiet:
            continue
        say(f"{topology}: starting")
        async with running(wanted, topology) as site:
            say(f"{topology}: {wanted.warm_s:g} s of load, to learn what is usual")
            await asyncio.sleep(wanted.warm_s)
            await site.close_incidents(0)
            if quiet:
                results.add(await site.quiet(wanted.quiet_s, say))
            for place, (number, fault) in enumerate(todo, 1):
                said = await site.round(fault, number)
                results.add(said)
                say(f"{topology} {place}/{len(todo)}: {told(said)}")


def told(each: Round) -> str:
    if each.refused or not each.struck:
        return f"{each.fault}: {each.refused or 'it never struck'}"
    where = f"{each.fault} on {each.method or each.module}"
    if each.detected_s is None:
        return f"{where}: not noticed"
    guess = f"{each.guesses[0].module or 'all'} ({each.guesses[0].kind})" if each.guesses else "nobody"
    unsure = ", unsure" if each.abstained else ""
    return (
        f"{where}: noticed after {each.detected_s:.0f} s, suspected {guess}{unsure}{'' if each.right() else ', WRONG'}"
    )


@asynccontextmanager
async def running(wanted: Wanted, topology: str) -> AsyncGenerator[Site]:
    """The application with its load; one that was left behind by an attempt before is used again."""
    from seamline.cli.load_engine import Load
    from seamline.cli.up import start_detached
    from seamline.run.errors import NotRunningError

    data = wanted.folder / topology
    settings = replace(
        wanted.settings,
        app=replace(wanted.settings.app, data=str(data.resolve())),
        gateway=replace(wanted.settings.gateway, listen="127.0.0.1:0"),
    )
    admin = AdminClient(settings.data_folder)
    try:
        status = await admin.ask("status")
    except NotRunningError:
        status = await asyncio.to_thread(start_detached, settings, topology, [], data, reload=False)
    if not status.get("observer"):
        raise DrillScoreError("nothing watches the application", "Set store = true under [observe].")
    load = Load(wanted.plan(str(status["url"])), open_ended=True)
    reader = TelemetryReader(settings.data_folder / "telemetry")
    try:
        async with asyncio.TaskGroup() as group:
            shopping = group.create_task(load.run(), name="shoppers")
            try:
                yield Site(topology, admin, reader, settings.data_folder, random.Random(f"{wanted.seed}{topology}"))
            finally:
                load.stop()
                await shopping
    finally:
        reader.close()
        with contextlib.suppress(SeamlineError):
            await admin.ask("stop")


class Site:
    """A running application in which faults are planted."""

    def __init__(
        self, topology: str, admin: AdminClient, reader: TelemetryReader, data: Path, dice: random.Random
    ) -> None:
        self.topology = topology
        self._admin = admin
        self._reader = reader
        self._portal = data / "run" / "portal.sock"
        self._dice = dice
        self._steady_ns = time.time_ns() + STEADY_NS
        self._faulty: list[tuple[int, int]] = []
        """When something was planted, and the rest after it."""

    async def quiet(self, seconds: float, say: Say) -> Quiet:
        """Let it be, and count what is cried."""
        began = time.time_ns()
        say(f"{self.topology}: {seconds:g} s of quiet, to count false alarms")
        await asyncio.sleep(seconds + _COMMITTED_S)
        found = await self._incidents(began)
        await self.close_incidents(began)
        return Quiet(topology=self.topology, seconds=seconds, incidents=[each.title for each in found])

    async def round(self, fault: Fault, number: int) -> Round:
        """Plant one fault, and see."""
        refused = "no module has enough calls"
        for target in (await self._targets(fault))[:_TRIES]:
            try:
                began = await self._admin.ask(
                    "drill", operation="run", fault=fault.name, module=target, for_s=HOLD_S, yes=True
                )
            except SeamlineError as error:
                refused = error.fact
                continue
            return await self._watch(fault, number, target, str(began["id"]))
        return Round(topology=self.topology, number=number, fault=fault.name, refused=refused)

    async def _watch(self, fault: Fault, number: int, module: str, name: str) -> Round:
        planted = time.time_ns()
        detected_s, explained_s, incident = await self._first_incident(planted)
        struck = 0
        with contextlib.suppress(SeamlineError):
            struck = int((await self._admin.ask("drill", operation="end", id=name))["struck"])
        ended = time.time_ns()
        opened = await self._incidents(planted)
        windows = await self._windows(ended)
        await self._rest(fault, planted)
        self._faulty.append((planted, time.time_ns()))
        await self.close_incidents(0)
        before = [each for each in windows if each.end_ns <= planted][-BEFORE_MAX:]
        after = [each for each in windows if each.at_ns >= planted]
        modules = baselines.modules_of(before)
        rankings = {each: rank(before, after)[:3] for each, rank in baselines.METHODS.items()} if after else {}
        rankings["by lot"] = baselines.by_lot(modules, planted)[:3]
        return Round(
            topology=self.topology,
            number=number,
            fault=fault.name,
            module=module,
            struck=struck,
            detected_s=detected_s,
            explained_s=explained_s,
            abstained=incident is None or incident.abstained,
            guesses=guesses_of(incident) if incident is not None else [],
            others=rankings,
            modules=len(modules),
            incidents=len(opened),
        )

    async def _rest(self, fault: Fault, planted: int) -> None:
        """Until what was noticed is as before, and a little longer."""
        await asyncio.sleep(LONG_REST_S if fault.name in _LINGERS else REST_S)
        until = time.monotonic() + LONG_REST_S
        while time.monotonic() < until and not all(map(_is_over, await self._incidents(planted))):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)

    async def _first_incident(self, planted: int) -> tuple[float | None, float | None, Incident | None]:
        """When it was noticed and explained, and the incident as it stood soon after."""
        detected_s = explained_s = None
        incident: Incident | None = None
        until_s = HOLD_S - 2.0
        while (past_s := (time.time_ns() - planted) / 1e9) < until_s:
            await asyncio.sleep(LOOK_S)
            found = await self._incidents(planted)
            if not found:
                continue
            incident = min(found, key=lambda each: each.number)
            if detected_s is None:
                detected_s = past_s
            if explained_s is None and incident.explained_ns:
                explained_s = past_s
                until_s = min(until_s, past_s + AGAIN_S)
        return detected_s, explained_s, incident

    async def _targets(self, fault: Fault) -> list[str]:
        """Modules in which the fault makes sense, in an order by lot."""
        now = time.time_ns()
        graph = await asyncio.to_thread(self._reader.graph, now - 30 * 10**9, now)
        if fault.where == "events":
            busy = {each.callee for each in graph if each.side == "event" and each.calls}
        else:
            rates: dict[str, float] = {}
            for each in graph:
                if each.side == "client" and each.caller != each.callee:
                    rates[each.callee] = rates.get(each.callee, 0.0) + each.rate
            busy = {module for module, rate in rates.items() if rate >= _RATE_MIN}
        return self._dice.sample(sorted(busy), len(busy))

    async def _windows(self, until: int) -> list[Window]:
        """All since the load is steady, without those in which something else was planted."""
        await asyncio.sleep(_COMMITTED_S)
        found = await asyncio.to_thread(self._reader.windows, self._steady_ns, until)
        return [
            each for each in found if not any(begin < each.end_ns and each.at_ns < end for begin, end in self._faulty)
        ]

    async def _incidents(self, since: int) -> list[Incident]:
        with contextlib.suppress(ObserveError):
            found = await asyncio.to_thread(self._reader.incidents)
            return [each for each in found if each.detected_ns >= since]
        return []

    async def close_incidents(self, since: int) -> None:
        """As an operator would on their page."""
        open_ones = [each for each in await self._incidents(since) if each.status == "open"]
        if open_ones:
            with unix_address(self._portal) as address:
                await _close(Path(address), open_ones)


def _is_over(incident: Incident) -> bool:
    recovered = sum(each.kind == "recovered" for each in incident.timeline)
    return incident.status == "closed" or recovered >= len(incident.symptoms)


async def _close(portal: Path, incidents: Iterable[Incident]) -> None:
    pool = HttpPool("portal", 0, connections_max=1, host_header="portal", path=portal)
    headers = [
        (b"x-seamline-caller", b"drill score"), (b"x-seamline-role", b"operator"),
        (b"content-type", b"application/x-www-form-urlencoded"),
    ]  # fmt: skip
    try:
        for each in incidents:
            with contextlib.suppress(HttpClientError, OSError, TimeoutError):
                answer = await pool.request("POST", f"/incidents/{each.id}/close", headers, b"", 5.0)
                await answer.read_all()
    finally:
        await pool.close()
