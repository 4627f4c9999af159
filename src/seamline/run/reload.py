"""Restart what changed, while the developer edits; a mistake is printed, and what runs goes on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]

from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import Settings
from seamline.kernel.signal import log

if TYPE_CHECKING:
    from seamline.run.supervisor import Supervisor

_log = log.get("seamline.run")
_SOURCES = {".py", ".toml", ".html", ".css", ".js", ".sql"}
_POLICY = ".cedar"


async def watch(supervisor: Supervisor) -> None:
    """Follow changes below the application's folder until cancelled."""
    folder, data = supervisor.settings.folder, supervisor.data.resolve()

    def wanted(_: object, path: str) -> bool:
        found = Path(path)
        hidden = any(part.startswith((".", "__pycache__")) for part in found.relative_to(folder).parts)
        return not hidden and not found.is_relative_to(data) and found.suffix in {*_SOURCES, _POLICY}

    async for changes in awatch(folder, watch_filter=wanted, debounce=200, step=50):
        paths = {Path(path) for _, path in changes}
        names = ", ".join(sorted(str(path.relative_to(folder)) for path in paths)[:3])
        try:
            await _apply(supervisor, paths, names)
        except SeamlineError as error:
            _log.error("%s changed: %s", names, error)


async def _apply(supervisor: Supervisor, paths: set[Path], names: str) -> None:
    sources = {path for path in paths if path.suffix != _POLICY}
    if not sources:
        await supervisor.reload_policy()
        _log.info("%s changed: the new policy is in force", names)
        return
    modules = changed_modules(supervisor.settings, sources)
    change = await supervisor.reload(modules, lambda text: _log.info("%s", text))
    if change is not None:
        _log.info("%s changed: restarted %s in %.1f s", names, ", ".join(change.started), change.seconds)


def changed_modules(settings: Settings, paths: Iterable[Path]) -> set[str]:
    """The modules to start anew. A contract, or a file of no module, concerns all of them."""
    folders = {settings.folder.joinpath(*package.split(".")): name for name, package in settings.modules.items()}
    found: set[str] = set()
    for path in paths:
        if path == settings.folder / "seamline.toml":
            continue  # read anew in any case
        owner = next((name for folder, name in folders.items() if path.is_relative_to(folder)), None)
        if owner is None or path.name == "__init__.py":
            return set(settings.modules)
        found.add(owner)
    return found
