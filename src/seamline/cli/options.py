"""Options that many verbs share, so that they read and behave the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

App = Annotated[
    Path | None,
    typer.Option("--app", metavar="DIR", help="The folder with seamline.toml; otherwise found upward from here."),
]

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The data folder, where `up` was started with --data."),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
