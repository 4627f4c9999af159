"""The command line: one file per verb, each a thin hand on the rooms below.

A verb parses, asks the application's files or the running supervisor, and prints for a person or, with
``--json``, for a script. What can be decided without a terminal belongs in ``run`` or lower. Verb modules
are imported only when their verb is typed, so that ``seamline --help`` answers at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point of the ``seamline`` script."""
    from seamline.cli.app import run  # here, so that importing the package stays free of typer

    sys.exit(run(sys.argv[1:]))
