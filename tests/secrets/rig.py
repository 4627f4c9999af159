"""A keeper on a folder, with a clock that is moved, rules that are a set, and an audit that is a list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import SecretsSettings, Settings
from seamline.secrets import Secrets
from seamline.secrets.errors import BackendDownError, ReadOnlyBackendError, UnknownSecretError
from seamline.secrets.interface import Backend, SecretFacts, VersionFacts
from seamline.secrets.keeper import Keeper, LocalSource
from seamline.secrets.opening import open_backend
from seamline.secrets.secret import Secret


def settings_of(folder: Path, more: str = "", **environment: str) -> Settings:
    (folder / "seamline.toml").write_text(f'[app]\nname = "shop"\nmodules = []\n{more}', encoding="utf-8")
    return Settings.load(folder, {f"SEAMLINE_{name}": value for name, value in environment.items()})


class Rig:
    """A keeper, and what it wrote."""

    def __init__(self, folder: Path, backend: Backend | None = None, settings: SecretsSettings | None = None) -> None:
        self.folder = folder
        own = settings_of(folder)
        self.settings = settings or replace(own.secrets, cache_s=300)
        self.clock = ManualClock()
        self.permits: set[tuple[str, str, str]] = set()
        self.lines: list[dict[str, Any]] = []
        self.backend = backend or open_backend(own, folder)
        self.keeper = Keeper(self.backend, self.denial, self.record, self.clock, self.settings)

    def denial(self, module: str, action: str, name: str) -> tuple[str, str] | None:
        if (module, action, name) in self.permits:
            return None
        return f"module {module!r} may not {action} {name!r}", "Permit it."

    def record(self, decision: str, **more: Any) -> None:
        self.lines.append({"decision": decision, **more})

    def secrets(self, module: str, *names: str, rotate: bool = False) -> Secrets:
        """The secrets of a module that may read (and rotate) these."""
        self.permits |= {(module, "secret", name) for name in names}
        if rotate:
            self.permits |= {(module, "rotate", name) for name in names}
        found = Secrets(module, LocalSource(self.keeper), self.clock, self.settings.cache_s)
        self.keeper.on_change.append(found.changed)
        return found


class Far:
    """A backend of somebody else, that can be down."""

    local = False
    label = "far"

    def __init__(self) -> None:
        self.values: dict[str, tuple[str, bytes]] = {}
        self.down = False
        self.reads = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def read(self, name: str, version: str, now_ms: int) -> Secret:
        self.reads += 1
        self.meanwhile()
        if self.down:
            raise BackendDownError("far does not answer")
        if name not in self.values or version not in ("", self.values[name][0]):
            raise UnknownSecretError(f"there is no {name!r}")
        number, value = self.values[name]
        return Secret(name, number, value)

    def valid(self, name: str, now_ms: int) -> list[Secret]:
        return [self.read(name, "", now_ms)]

    def facts(self, now_ms: int) -> list[SecretFacts]:
        return [SecretFacts(name, (VersionFacts(number, 0),)) for name, (number, _) in self.values.items()]

    def write(self, name: str, value: bytes, *, after: str | None, until_ms: int, now_ms: int, by: str) -> str:
        raise ReadOnlyBackendError("far is not written to")

    def delete(self, name: str, now_ms: int) -> None:
        raise ReadOnlyBackendError("far is not written to")

    def close(self) -> None:
        return
