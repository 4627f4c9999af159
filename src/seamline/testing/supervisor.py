"""The supervisor of an application under test, in a process of its own: ``python -m seamline.testing.supervisor``.

It says one line, ``{"ready": <status>}`` or ``{"error": {...}}``, and stops when its standard input ends, so that it
cannot outlive the tests however they end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import Settings
from seamline.run.supervisor import Supervisor, exit_of

HOST_FACTORY = "seamline.testing.worker_host:host"


class SupervisorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the kit says on the command line."""

    folder: str
    data: str
    topology: str
    log: str


def main(argument: str) -> int:
    """Run until standard input ends; the exit status."""
    options = msgspec.json.decode(argument, type=SupervisorOptions)
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        return asyncio.run(_supervise(options))
    except SeamlineError as error:
        _say({"error": error.to_json()})
        return exit_of(error)


async def _supervise(options: SupervisorOptions) -> int:
    settings = settings_under_test(Settings.load(options.folder), Path(options.data))
    with Path(options.log).open("a", encoding="utf-8", buffering=1) as log:  # noqa: ASYNC230  # before anything runs
        supervisor = Supervisor(
            settings,
            topology=options.topology,
            testing=True,
            host_factory=HOST_FACTORY,
            output=log,
            on_ready=lambda status: _say({"ready": status}),
        )
        return await supervisor.run()


def settings_under_test(settings: Settings, data: Path) -> Settings:
    """The application's settings with a data directory and port of its own, patient at the start, not at the end."""
    return dataclasses.replace(
        settings,
        app=dataclasses.replace(settings.app, data=str(data)),
        gateway=dataclasses.replace(settings.gateway, listen="127.0.0.1:0"),
        ai_gateway=dataclasses.replace(settings.ai_gateway, listen="127.0.0.1:0" if settings.ai_gateway.listen else ""),
        run=dataclasses.replace(
            settings.run,
            ready_timeout_s=60.0,
            drain_timeout_s=2.0,
            backoff_first_s=0.05,
            backoff_longest_s=0.5,
            heartbeat_s=0.5,
        ),
    )


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201  # this is how the kit hears of it


def _end_with_input() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
