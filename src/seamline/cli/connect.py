"""Where the application is, what its file says, and how to reach the one that runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seamline.cli.errors import ArgumentError, NoApplicationError

Say = Callable[[str], None]

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

FILE = "seamline.toml"


def find_folder(app: Path | None) -> Path:
    """The folder with seamline.toml: the one named, or the nearest one upward from the current folder."""
    if app is not None:
        folder = app.parent if app.name == FILE else app
        if not folder.is_dir():
            raise NoApplicationError(f"there is no folder {str(app)!r}", "Name one that exists with --app")
        if not (folder / FILE).is_file():
            raise NoApplicationError(f"there is no {FILE} in {str(app)!r}", "Name the folder that has it with --app")
        return folder.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder
    raise NoApplicationError(
        f"there is no {FILE} in {str(here)!r} or above it",
        "Go to the application's folder, name it with --app DIR, or begin with `seamline new shop`",
    )


def read_settings(app: Path | None, data: Path | None = None) -> Settings:
    """The settings of the application; ``data`` takes the place of its data folder."""
    from seamline.kernel.settings import Settings

    settings = Settings.load(find_folder(app))
    if data is None:
        return settings
    return replace(settings, app=replace(settings.app, data=str(data.resolve())))


def parse_counts(given: list[str], known: list[str]) -> dict[str, int]:
    """``["orders=3"]`` to ``{"orders": 3}``, each name one of the modules."""
    counts: dict[str, int] = {}
    for text in given:
        name, equals, number = text.partition("=")
        if not equals or not number.isdigit() or int(number) < 1:
            raise ArgumentError(f"{text!r} is not MODULE=N", "Write a module's name and a number, orders=3")
        if name not in known:
            raise ArgumentError(f"there is no module or workload {name!r}", f"There are {', '.join(known)}")
        counts[name] = int(number)
    return counts


def public_url(status: dict[str, Any], settings: Settings) -> str:
    """Where the running application answers the public."""
    return str(status.get("url") or f"http://{settings.gateway.listen}")


def ask(settings: Settings, op: str, say: Say | None = None, **arguments: Any) -> dict[str, Any]:
    """Ask the running application, and wait for the answer. Raises what it raised."""
    import asyncio

    return asyncio.run(ask_async(settings, op, say, **arguments))


async def ask_async(settings: Settings, op: str, say: Say | None = None, **arguments: Any) -> dict[str, Any]:
    """Like ``ask``, on a running event loop. ``say`` hears the progress."""
    from seamline.run.admin import AdminClient

    return await AdminClient(settings.data_folder).ask(op, say, **arguments)


def running_topology(settings: Settings) -> str | None:
    """The topology in force; ``None`` if nothing runs."""
    from seamline.run.errors import NotRunningError

    try:
        return str(ask(settings, "status")["topology"])
    except NotRunningError:
        return None


def known_names(settings: Settings) -> list[str]:
    """Modules, and the workloads of every topology."""
    workloads = [name for groups in settings.topologies.values() for name in groups]
    return list(dict.fromkeys([*settings.modules, *workloads]))
