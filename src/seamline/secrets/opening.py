"""From ``[secrets]`` to a keeper: which backend, sealed by what."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from seamline.kernel.clock import Clock
from seamline.kernel.settings import Settings
from seamline.secrets.backends.file import FileBackend
from seamline.secrets.errors import MasterKeyError
from seamline.secrets.interface import Backend
from seamline.secrets.keeper import Denial, Keeper, Recorder
from seamline.secrets.keys import LocalKeys, MasterKey, key_file, keys_from_text
from seamline.secrets.postgresql import Logins

FOLDER: Final = "secrets"
KEY_FILE: Final = "master.key"
_VARIABLE: Final = "SEAMLINE_SECRETS_MASTER_KEY"


def open_keeper(settings: Settings, data: Path, denial: Denial, record: Recorder, clock: Clock) -> Keeper:
    """The keeper of an application. In a thread: it loads cryptography and may ask a key service.

    Raises SecretsError with what is in the way.
    """
    logins = None
    if settings.data.credentials == "dynamic":
        logins = Logins(settings.data.url_of, settings.data.credentials_s)
    return Keeper(open_backend(settings, data), denial, record, clock, settings.secrets, logins)


def open_backend(settings: Settings, data: Path) -> Backend:
    name = settings.secrets.backend
    if name == "file":
        return FileBackend(data / FOLDER, settings.app.name, lambda make: open_master(settings, data, make=make))
    # Each brings a library of its own, which only its users install.
    opening: Callable[[Settings], Backend] = importlib.import_module(f"seamline.secrets.backends.{name}").open_backend
    return opening(settings)


def open_master(settings: Settings, data: Path, *, make: bool) -> MasterKey:
    """What seals the file backend."""
    own = settings.secrets
    match own.master:
        case "file":
            return key_file(master_file(settings, data), make=make)
        case "environment":
            return LocalKeys(lambda: keys_from_text(own.master_key, f"environment {_VARIABLE}"))
        case service:
            if not own.master_name:
                raise MasterKeyError(
                    f"the key service {service!r} is to seal the secrets, and the key has no name",
                    "Write master_name = ... under [secrets].",
                )
            opening: Callable[[Settings], MasterKey] = importlib.import_module(
                f"seamline.secrets.backends.{service}"
            ).open_master
            return opening(settings)


def master_file(settings: Settings, data: Path) -> Path:
    own = settings.secrets.master_file
    return settings.folder / own if own else data / FOLDER / KEY_FILE
