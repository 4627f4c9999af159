"""``seamline version``: what is running here."""

from __future__ import annotations

import platform

import typer

from seamline.cli import output
from seamline.cli.manual import ManualCommand
from seamline.cli.options import Json

app = typer.Typer(add_completion=False)

STANDS_ON = ("pydantic", "msgspec", "uvloop", "httptools", "cryptography", "cedarpy", "sqlalchemy")


def seamline_version() -> str:
    from importlib.metadata import version

    return version("seamline")


@app.command(cls=ManualCommand, epilog="seamline version --json   # for a bug report")
def version(as_json: Json = False) -> None:
    """The versions of Seamline and of what it stands on."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    packages: dict[str, str | None] = {}
    for name in STANDS_ON:
        try:
            packages[name] = installed(name)
        except PackageNotFoundError:
            packages[name] = None
    python = f"{platform.python_implementation()} {platform.python_version()}"
    if as_json:
        output.emit({"seamline": seamline_version(), "python": python, "packages": packages})
        return
    typer.echo(f"seamline {seamline_version()}, {python}, {platform.system()} {platform.machine()}")
    typer.echo("stands on " + ", ".join(f"{name} {found or 'missing'}" for name, found in packages.items()))
