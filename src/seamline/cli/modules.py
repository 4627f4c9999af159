"""What the application's modules say about one another, loaded but not started."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seamline.cli import connect

if TYPE_CHECKING:
    from seamline.module import Contract, Module
    from seamline.run.application import Application


def load_application(app: Path | None) -> Application:
    """Import the application's modules. Raises what is wrong with them."""
    from seamline.run.application import Application

    return Application.load(connect.find_folder(app))


def providers(modules: Mapping[str, Module]) -> dict[type[Contract], Module]:
    """Each contract and the module that provides it."""
    return {contract: module for module in modules.values() for contract in module.provides}


def calls(modules: Mapping[str, Module]) -> dict[str, list[type[Contract]]]:
    """The contracts that each module asks for by type, by name."""
    from seamline.module.wiring import Wiring

    provided = providers(modules)
    return {
        name: sorted(Wiring(module, provided, Everything()).check(), key=lambda contract: contract.__name__)
        for name, module in modules.items()
    }


class Everything(Mapping[type[Any], Callable[[Any], Any]]):
    """A platform that has every type: for asking what is called, not whether it can be made."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: type[Any]) -> Callable[[Any], Any]:
        raise KeyError(key)

    def __iter__(self) -> Iterator[type[Any]]:
        return iter(())

    def __len__(self) -> int:
        return 0
