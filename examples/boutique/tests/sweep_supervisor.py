"""The kit's supervisor, with workers that have a fuse: ``python sweep_supervisor.py <options as JSON>``."""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from seamline.kernel.settings import Settings
from seamline.testing import supervisor

_settings_under_test = supervisor.settings_under_test


def patient(settings: Settings, data: Path) -> Settings:
    """As the kit has them, but workers may finish what shoppers wait for, as outside of tests."""
    found = _settings_under_test(settings, data)
    return dataclasses.replace(found, run=dataclasses.replace(found.run, drain_timeout_s=settings.run.drain_timeout_s))


if __name__ == "__main__":
    supervisor.HOST_FACTORY = "sweep_host:host"
    supervisor.settings_under_test = patient
    sys.exit(supervisor.main(sys.argv[1]))
