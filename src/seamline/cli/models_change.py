"""Who answers: changed in the running application, or on disk where none runs."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seamline.cli import connect

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings
    from seamline.models.rollout.split import Split

Say = Callable[[str], None]


def change(
    settings: Settings, operation: str, say: Say | None, *, contract: str, why: str, **more: Any
) -> dict[str, Any]:
    """Do it where the application runs, or to what it will read when it starts."""
    from seamline.run.errors import NotRunningError

    who = getpass.getuser()
    try:
        return connect.ask(settings, operation, say, contract=contract, why=why, who=who, **more)
    except NotRunningError:
        return {"split": _offline(settings, operation, contract, who, why, more).to_json(), "processes": 0}


def _offline(settings: Settings, operation: str, contract: str, who: str, why: str, more: dict[str, Any]) -> Split:
    from seamline.models.registry import Registry
    from seamline.models.rollout.errors import UnknownVersionError
    from seamline.models.rollout.keeper import Keeper

    known = declared(settings)
    if contract not in known:
        raise UnknownVersionError(f"no model answers {contract!r}", f"Models answer {', '.join(known) or 'nothing'}.")
    settings.prepare_data_folder()
    keeper = Keeper(Registry.of(settings).book, settings.models)
    versions = known[contract][1]
    match operation:
        case "model_promote":
            return keeper.promote(contract, more["version"], versions, who=who, why=why)
        case "model_weights":
            return keeper.weigh(contract, more["shares"], versions, who=who, why=why)
        case "model_shadow":
            return keeper.shadow(contract, more["versions"], versions, who=who, why=why)
        case _:
            return keeper.roll_back(contract, versions, who=who, why=why)


def declared(settings: Settings) -> dict[str, tuple[str, list[str]]]:
    """Contract to the module and the versions of the models that answer it, as the code has them."""
    from seamline.run.application import Application

    found: dict[str, tuple[str, list[str]]] = {}
    for module in Application.load(settings.folder, settings=settings).modules.values():
        for model in module.models:
            found.setdefault(model.contract.__name__, (module.name, []))[1].append(model.version)
    return found


def on_disk(settings: Settings, name: str) -> dict[str, Any]:
    """The same as the operation ``models`` says, without what only a running application knows."""
    import msgspec

    from seamline.models.registry import Registry
    from seamline.models.rollout.keeper import Keeper
    from seamline.models.rollout.split import default_split

    registry = Registry.of(settings)
    splits = Keeper(registry.book, settings.models).splits()
    contracts: dict[str, Any] = {}
    for contract, (module, versions) in declared(settings).items():
        split = splits.get(contract) or default_split(settings.models.of(contract), versions)
        roles = {split.champion: "champion"} | dict.fromkeys(split.canaries, "canary")
        contracts[contract] = {
            "module": module,
            "split": split.to_json(),
            "key": settings.models.of(contract).key,
            "versions": {
                version: {"share": split.weights.get(version, 0.0), "role": roles.get(version, "")}
                for version in versions
            },
            "shadow": {},
            "guard": [],
        }
    return {
        "contracts": {key: each for key, each in contracts.items() if name in {"", key}},
        "registry": [msgspec.to_builtins(each) for each in registry.list(name)],
        "history": [msgspec.to_builtins(each) for each in registry.history(name, 50)],
    }
