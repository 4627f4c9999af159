"""Which versions of models answer, as the supervisor keeps it: on disk first, then told to every process.

It asks the processes what they see of canaries, and rolls back one that is worse. A process that was told nothing, or
that starts, reads what is on disk; a newer revision always wins, so nobody goes back by mistake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.kernel.signal import log
from seamline.run.replica import State
from seamline.run.rooms import ask_room

if TYPE_CHECKING:
    from seamline.models.registry import Registry
    from seamline.models.rollout.keeper import Keeper
    from seamline.models.rollout.split import Split
    from seamline.run.operations import Answer
    from seamline.run.replica import Replica
    from seamline.run.supervisor import Supervisor

_log = log.get("seamline.run")
_LOOK_EVERY_S: Final = 0.5
_TOLD_S: Final = 5.0
_LOADED_S: Final = 120.0


class Rollouts:
    """Of one application."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._splits: dict[str, Split] = {}
        self._told: dict[int, int] = {}
        """Process to the newest revision that it was told."""
        self._modules: dict[str, str] = {}
        """By contract, as they were said last."""
        self._changed = asyncio.Event()
        self._opened: tuple[Registry, Keeper] | None = None

    async def run(self) -> None:
        """Tell who was not told, and judge canaries, until cancelled."""
        settings = self._supervisor.settings.models
        if (self._supervisor.data / settings.registry).exists():
            _, keeper = self._open()
            self._splits = await asyncio.to_thread(keeper.splits)
        while True:
            if not self._splits:
                await self._changed.wait()
            await self._tell()
            for contract, split in list(self._splits.items()):
                if split.canaries and settings.of(contract).guard.watch:
                    try:
                        await self._judge(contract, split)
                    except Exception:  # nobody hosts it at this moment, or the disk is full: nothing else ends for it
                        _log.exception("the canaries of %s could not be judged; they will be", contract)
            await asyncio.sleep(_LOOK_EVERY_S)

    # What people ask.

    async def show(self, request: dict[str, Any], _: Answer) -> dict[str, Any]:
        """Contracts with their versions and what they did; what the registry keeps; who changed what. Of ``name``."""
        from seamline.models.rollout.report import report

        registry, _keeper = self._open()
        name = str(request.get("name") or "")
        told = await self._all("rollouts")
        kept = await asyncio.to_thread(registry.list, name)
        history = await asyncio.to_thread(registry.history, name, 50)
        contracts = report(each["contracts"] for each in told)
        for each in told:
            for contract, single in each["single"].items():
                contracts.setdefault(contract, _alone(single))
        return {
            "contracts": {key: found for key, found in contracts.items() if name in {"", key}},
            "registry": [msgspec.to_builtins(each) for each in kept],
            "history": [msgspec.to_builtins(each) for each in history],
        }

    async def promote(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """``version`` of ``contract`` answers everything from now on."""
        contract, version = str(request["contract"]), str(request["version"])
        declared = await self.declared(contract)
        if version in declared:
            await self._load(contract, [version], answer)
        return await self._change(
            contract, request, declared, lambda keeper: partial(keeper.promote, contract, version)
        )

    async def weigh(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """``shares`` of versions of ``contract``, 0 to 1; the champion has the rest."""
        contract = str(request["contract"])
        shares = {str(version): float(share) for version, share in request["shares"].items()}
        declared = await self.declared(contract)
        await self._load(contract, [each for each in shares if each in declared and shares[each] > 0], answer)
        return await self._change(contract, request, declared, lambda keeper: partial(keeper.weigh, contract, shares))

    async def shadow(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """``versions`` of ``contract`` are asked, too, for comparison."""
        contract, versions = str(request["contract"]), [str(each) for each in request["versions"]]
        declared = await self.declared(contract)
        await self._load(contract, [each for each in versions if each in declared], answer)
        return await self._change(
            contract, request, declared, lambda keeper: partial(keeper.shadow, contract, versions)
        )

    async def roll_back(self, request: dict[str, Any], _: Answer) -> dict[str, Any]:
        """What held for ``contract`` before the last change holds again, at once."""
        contract = str(request["contract"])
        declared = await self.declared(contract)
        return await self._change(contract, request, declared, lambda keeper: partial(keeper.roll_back, contract))

    # Change.

    async def _change(
        self,
        contract: str,
        request: Mapping[str, Any],
        declared: list[str],
        how: Callable[[Keeper], Callable[..., Split]],
    ) -> dict[str, Any]:
        """On disk first, then in every process; the answer comes when all of them have heard."""
        _, keeper = self._open()
        who, why = str(request.get("who", "admin")), str(request.get("why", ""))
        split = await asyncio.to_thread(how(keeper), declared, who=who, why=why)
        return {"split": split.to_json(), "processes": await self._hold(contract, split, who, why)}

    async def _hold(self, contract: str, split: Split, who: str, why: str) -> int:
        known = self._splits.get(contract)
        if known is None or known.revision < split.revision:  # another change may have been faster
            self._splits[contract] = split
        self._changed.set()
        told = await self._tell()
        shares = ", ".join(f"{version} {share:.0%}" for version, share in split.weights.items())
        _log.info("%s is answered by %s (%s%s)", contract, shares, who, f": {why}" if why else "")
        if self._supervisor.observing is not None:
            modules = [self._modules[contract]] if contract in self._modules else []
            self._supervisor.observing.mark("release", f"{contract} is answered by {shares}", modules, by=who, why=why)
        return told

    async def _judge(self, contract: str, split: Split) -> None:
        """Roll back the canaries of a split if one is worse."""
        from seamline.models.rollout.guard import Seen

        found = await self._all("seen", contract=contract)
        seen = [msgspec.convert(each, Seen) for told in found for each in told]
        _, keeper = self._open()
        verdict = keeper.judged(contract, split, seen)
        if verdict is None:
            return
        await self.declared(contract)
        taken = await asyncio.to_thread(keeper.take_back, contract, split, verdict)
        if taken is None:  # somebody has changed it meanwhile
            self._splits = await asyncio.to_thread(keeper.splits)
            return
        _log.warning("%s: %s; it is rolled back", contract, verdict.said)
        self._supervisor.registrar.audit.write(
            "admin", "allow", principal="guard", action="model_rollback", resource=self._supervisor.settings.app.name,
            reason=verdict.said, contract=contract, version=verdict.canary, always=True,
        )  # fmt: skip
        await self._hold(contract, taken, "guard", verdict.said)

    async def _tell(self) -> int:
        """Every process that has not heard the newest; how many have."""
        newest = max((split.revision for split in self._splits.values()), default=0)
        splits = {contract: split.to_json() for contract, split in self._splits.items()}
        waiting = [each for each in self._serving() if self._told.get(each.pid, 0) < newest]
        pids = [each.pid for each in waiting]
        answers = await asyncio.gather(
            *(self._ask(each, "splits", _TOLD_S, splits=splits) for each in waiting), return_exceptions=True
        )
        for pid, told in zip(pids, answers, strict=True):
            if isinstance(told, BaseException):
                _log.warning("%s", told)
            else:
                self._told[pid] = newest
        serving = {each.pid for each in self._serving()}
        self._told = {pid: revision for pid, revision in self._told.items() if pid in serving}
        return sum(revision >= newest for revision in self._told.values())

    async def _load(self, contract: str, versions: list[str], answer: Answer) -> None:
        """Have versions loaded before calls come to them."""
        if versions:
            answer.say(f"loading {', '.join(versions)}")
            await asyncio.gather(
                *(
                    self._ask(each, "prepare", _LOADED_S, contract=contract, versions=versions)
                    for each in self._serving()
                )
            )

    async def declared(self, contract: str) -> list[str]:
        """The versions of a contract. Raises UnknownVersionError."""
        known: dict[str, list[str]] = {}
        for told in await self._all("rollouts"):
            known |= {name: list(found["versions"]) for name, found in told["contracts"].items()}
            known |= {name: [found["version"]] for name, found in told["single"].items()}
            self._modules |= {name: found["module"] for name, found in (told["contracts"] | told["single"]).items()}
        if contract not in known:
            from seamline.models.rollout.errors import UnknownVersionError

            there = ", ".join(sorted(known)) or "no contract"
            raise UnknownVersionError(f"no model answers {contract!r}", f"Models answer {there}.")
        return known[contract]

    def module_of(self, contract: str) -> str:
        """The module that has a contract which was :meth:`declared`."""
        return self._modules[contract]

    # Ask.

    def _serving(self) -> list[Replica]:
        return [each for each in self._supervisor.fleet.serving if each.reachable and each.state is State.READY]

    async def _all(self, operation: str, **arguments: Any) -> list[Any]:
        """What each process says that hosts models; of those that do not answer, nothing."""
        found = await asyncio.gather(
            *(self._ask(each, operation, _TOLD_S, **arguments) for each in self._serving()), return_exceptions=True
        )
        for each in found:
            if isinstance(each, BaseException) and not isinstance(each, SeamlineError):
                raise each
        return [each for each in found if each is not None and not isinstance(each, BaseException)]

    async def _ask(self, replica: Replica, operation: str, wait_s: float, **arguments: Any) -> Any:
        return await ask_room(replica, "models", operation, arguments, wait_s)

    def _open(self) -> tuple[Registry, Keeper]:
        if self._opened is None:
            from seamline.models.registry import Registry
            from seamline.models.rollout.keeper import Keeper

            supervisor = self._supervisor
            registry = Registry.of(supervisor.settings, supervisor.data, supervisor.clock)
            self._opened = registry, Keeper(registry.book, supervisor.settings.models)
        return self._opened


def _alone(single: Mapping[str, str]) -> dict[str, Any]:
    """A contract of one version, of which nothing is chosen."""
    version = single["version"]
    return {
        "module": single["module"],
        "split": {"champion": version, "weights": {version: 1.0}},
        "key": "call",
        "versions": {version: {"share": 1.0, "role": "champion"}},
        "shadow": {},
        "guard": [],
    }
