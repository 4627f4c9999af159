"""What a test adds to an application, in files that its workers read too: a principal, a policy and a clock.

They lie in ``<data>/test`` and exist only there: the application's own folder is not touched, and what it permits
outside of tests does not change.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from seamline.testing.errors import TestingError

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings
    from seamline.mesh.policy import Policy
    from seamline.run.application import Application

TEST = "test"
"""The principal that a test acts as, unless it says otherwise."""
START = datetime(2026, 1, 1, tzinfo=UTC)
"""When every test begins."""
MAY_ALL = f'@id("a test may call everything") permit (principal == Module::"{TEST}", action, resource);\n'
_FOLDER = "test"
_OFFSET = struct.Struct("=d")
_LOOK_EVERY_S = 0.002


def prepare(settings: Settings, data: Path, policy: str) -> None:
    """Write the test's policy and clock into ``data``. Raises TestingError."""
    if TEST in settings.modules:
        raise TestingError(
            f"the application has a module called {TEST!r}, which is what tests act as", "Rename the module."
        )
    folder = data / _FOLDER / "policy"
    folder.mkdir(parents=True)
    for file in settings.policy_folder.glob("*.cedar"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "of-the-test.cedar").write_text(MAY_ALL + policy, encoding="utf-8")
    (data / _FOLDER / "clock").write_bytes(_OFFSET.pack(0.0))


def policy_of(application: Application, data: Path) -> Policy:
    """The application's policy, and what the test adds to it. Raises PolicyError."""
    from seamline.mesh.policy import Policy  # Cedar is heavy, and the plugin is loaded by every pytest

    modules = application.modules
    attributes = {
        name: {"owner": modules[name].owner} if name in modules and modules[name].owner else {}
        for name in application.settings.modules
    }
    return Policy.load(
        data / _FOLDER / "policy",
        modules={**attributes, TEST: {}},
        contracts=application.contract_methods(),
        arguments=application.policy_arguments(),
        vocabulary=application.vocabulary(),
    )


class SharedClock:
    """A clock that stands still until a test moves it, seen alike by every process that opens its file."""

    def __init__(self, data: Path) -> None:
        with (data / _FOLDER / "clock").open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _OFFSET.size)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return _OFFSET.unpack_from(self._shared)[0]

    async def sleep(self, seconds: float) -> None:
        # The memory of another process wakes nobody, so a sleeper looks at it now and then.
        end = self.monotonic() + seconds
        await asyncio.sleep(0)
        while self.monotonic() < end:  # noqa: ASYNC110  # see above
            await asyncio.sleep(_LOOK_EVERY_S)

    def advance(self, seconds: float) -> None:
        _OFFSET.pack_into(self._shared, 0, self.monotonic() + seconds)

    def close(self) -> None:
        self._shared.close()
