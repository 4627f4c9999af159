"""``seamline new``: a small application that runs at once."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from seamline.cli import manual, output
from seamline.cli.errors import ArgumentError, FolderTakenError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import Json

app = typer.Typer(add_completion=False)

SCAFFOLD = Path(__file__).parent / "scaffold"
NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline new shop && cd shop   # write it, go there
    seamline up                    # and run it
    """,
)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Small letters, digits and '-': shop, pet-store.")],
    into: Annotated[
        Path | None, typer.Option("--into", metavar="DIR", help="Where to write; otherwise a folder NAME here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a small application that runs at once: two modules, a contract between them, policy, a test."""
    package = usable(name)
    folder = into or Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderTakenError(f"{str(folder)!r} is not empty", "Choose another name, or another folder with --into")
    written = write(folder, name, package)
    if as_json:
        output.emit({"folder": str(folder.resolve()), "files": written})
        return
    typer.echo(f"Wrote {manual.strong(str(folder))} with {len(written)} files.\n")
    next_steps = (
        (f"cd {folder}", ""),
        ("seamline up", "start it in one process; open the address it prints"),
        ("seamline topology switch services", "in a second terminal: one process per module"),
        ("pytest", "its test, in every topology"),
    )
    typer.echo(manual.section("Next", manual.columns(next_steps)))


def usable(name: str) -> str:
    """The Python package for a name. Raises ArgumentError if it cannot be one."""
    if not NAME.fullmatch(name):
        raise ArgumentError(f"{name!r} is not a name", "Use small letters, digits and '-', a letter first: shop")
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or package in sys.stdlib_module_names:
        raise ArgumentError(f"{package!r} is a word of Python", "Choose another name")
    if package not in sys.modules and find_spec(package) is None:
        return package
    raise ArgumentError(f"a package {package!r} is installed here already", "Choose another name")


def write(folder: Path, name: str, package: str) -> list[str]:
    """Write the files; return their names."""
    written: list[str] = []
    for source in sorted(SCAFFOLD.rglob("*.txt")):
        relative = source.relative_to(SCAFFOLD).with_suffix("").as_posix()
        if relative.startswith("package/"):
            relative = package + relative.removeprefix("package")
        target = folder / (".gitignore" if relative == "gitignore" else relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(source.read_text("utf-8")).substitute(name=name, package=package), "utf-8")
        written.append(target.relative_to(folder).as_posix())
    return written
