"""Where Cedar files are read from: a folder, with the next policy in ``next`` below it, or signed bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from seamline.mesh.errors import PolicyError

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

NEXT = "next"
"""The folder, below that of the policy, of the policy to come: it decides nothing, and is told where it would."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Cedar files, name to text."""

    current: Mapping[str, str]
    candidate: Mapping[str, str] = field(default_factory=dict[str, str])
    """The policy to come; empty is none."""


Source = Callable[[], Texts]
"""Reads the policy anew. Raises PolicyError."""


def in_folder(folder: Path) -> Source:
    """The ``*.cedar`` files of a folder; one that is not there permits nothing."""
    return lambda: Texts(read_folder(folder), read_folder(folder / NEXT, f"{folder.name}/{NEXT}"))


def policy_source(settings: Settings) -> Source:
    """Where an application's policy is: ``[policy] bundle_key`` says that it comes in bundles."""
    if not settings.policy.bundle_key:
        return in_folder(settings.policy_folder)
    from seamline.mesh.policy.bundles import bundle_store  # needs cryptography, and few have bundles

    store = bundle_store(settings)
    return lambda: Texts(store.current().cedar)


def read_folder(folder: Path, name: str = "") -> dict[str, str]:
    """The ``*.cedar`` files of a folder, each by the name of the folder and its own."""
    try:
        return {
            f"{name or folder.name}/{path.name}": path.read_text(encoding="utf-8")
            for path in sorted(folder.glob("*.cedar"))
        }
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"a policy file cannot be read: {error}", "It must be readable UTF-8 text.") from error
