"""The kit's supervisor, with workers that have a fuse: ``python sweep_supervisor.py <options as JSON>``."""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import sys

from seamline.testing import supervisor

if __name__ == "__main__":
    supervisor.HOST_FACTORY = "sweep_host:host"
    sys.exit(supervisor.main(sys.argv[1]))
