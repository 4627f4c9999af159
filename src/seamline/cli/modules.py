"""The application's modules, loaded but not started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from seamline.cli import connect

if TYPE_CHECKING:
    from seamline.run.application import Application


def load_application(app: Path | None) -> Application:
    """Import the application's modules. Raises what is wrong with them."""
    folder = connect.find_folder(app)
    from seamline.run.application import Application

    return Application.load(folder)
