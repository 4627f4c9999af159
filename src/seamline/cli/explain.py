"""``seamline explain``: why an incident began; or the meaning of an error code.

An incident's explanation is read from what is kept of it, a code's from the source of the class that carries it.
The table is not kept by hand: the package's files are parsed (not imported) for classes with a ``code``.
What a code means is the line of the tree at the head of its ``errors.py``; the class's docstring adds to it.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from seamline.cli import connect, manual, output
from seamline.cli.errors import UnknownCodeError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json

app = typer.Typer(add_completion=False)

CODE = re.compile(rb"\"SL\d{4}\"")
TREE_LINE = re.compile(r"(\w+)[ ]+SL\d{4}[ ]+(\S.*)")
ROOM_OF_RANGE = {
    "SL0": "Seamline itself",
    "SL1": "settings",
    "SL2": "modules, contracts and wiring",
    "SL3": "calls",
    "SL4": "identity and policy",
    "SL5": "starting, placing, switching, stopping",
    "SL6": "the gateway",
    "SL7": "data and migrations",
    "SL72": "events",
    "SL73": "sagas",
    "SL74": "streams and views",
    "SL75": "webhooks",
    "SL76": "telemetry, incidents and drills",
    "SL77": "models",
    "SL8": "the testing kit",
    "SL9": "the command line",
}


class Meaning(NamedTuple):
    """What one code means."""

    code: str
    name: str
    summary: str
    text: str
    module: str

    def to_json(self) -> dict[str, str | int]:
        return {**self._asdict(), "exit_status": output.status_of(self.code)}


def meanings(package: Path | None = None) -> list[Meaning]:
    """All codes of the package, in order."""
    root = package or Path(__file__).parent.parent
    found = [meaning for path in sorted(root.rglob("*.py")) for meaning in read_file(root, path)]
    return sorted(found)


def read_file(root: Path, path: Path) -> Iterator[Meaning]:
    source = path.read_bytes()
    if not CODE.search(source):
        return
    module = ".".join(("seamline", *path.relative_to(root).with_suffix("").parts))
    tree = ast.parse(source)
    lines = dict(TREE_LINE.findall(ast.get_docstring(tree) or ""))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and (code := code_of(node)):
            text = inspect.cleandoc(ast.get_docstring(node) or "").removeprefix(f"{code}: ").replace("``", "`")
            line = lines.get(node.name) or manual.summary(text)
            yield Meaning(code, node.name, sentence(line), sentence(text), module)


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def code_of(node: ast.ClassDef) -> str | None:
    """The value of ``code = "SLnnnn"`` (annotated or not) in a class body."""
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            target, value = statement.targets[0], statement.value
        elif isinstance(statement, ast.AnnAssign):
            target, value = statement.target, statement.value
        else:
            continue
        named = isinstance(target, ast.Name) and target.id == "code"
        if named and isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value if value.value.startswith("SL") else None
    return None


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline explain INC-7    # an incident: suspects, and the evidence against each
    seamline explain SL2104   # an error code
    seamline explain 2104     # the same
    seamline explain          # all codes
    """,
)
def explain(
    code: Annotated[
        str | None, typer.Argument(metavar="WHAT", help="An incident such as INC-7, or a code such as SL2104.")
    ] = None,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Why an incident began, or what an error code means and what to do. Without either, all codes."""
    if code is not None and code.upper().startswith("INC-"):
        from seamline.cli.explain_incident import explain_incident  # reads the store

        explain_incident(connect.read_settings(app_folder, data), code.upper(), as_json=as_json)
        return
    known = meanings()
    if code is None:
        list_all(known, as_json=as_json)
        return
    wanted = "SL" + code.upper().removeprefix("SL")
    found = [meaning for meaning in known if meaning.code == wanted]
    if not found:
        near = [meaning.code for meaning in known if meaning.code[:4] == wanted[:4]]
        remedy = f"Near it are {', '.join(near)}" if near else "`seamline explain` lists all codes"
        raise UnknownCodeError(f"no error carries the code {wanted!r}", remedy)
    if as_json:
        output.emit([meaning.to_json() for meaning in found])
        return
    for meaning in found:
        typer.echo(manual.strong(f"{meaning.code}  {meaning.name}"))
        typer.echo(f"about {_room_of(meaning.code)}; raised as {meaning.module}")
        typer.echo(f"exit status {output.status_of(meaning.code)}\n")
        if not meaning.text.startswith(meaning.summary) or not meaning.text:
            typer.echo(manual.paragraphs(f"{meaning.summary or 'It has no explanation yet'}.") + "\n")
        typer.echo(manual.paragraphs(meaning.text))


def _room_of(code: str) -> str:
    return ROOM_OF_RANGE.get(code[:4]) or ROOM_OF_RANGE.get(code[:3]) or "the application"


def list_all(known: list[Meaning], *, as_json: bool) -> None:
    if as_json:
        output.emit([meaning.to_json() for meaning in known])
        return
    for begin, about in ROOM_OF_RANGE.items():
        rows = [(m.code, m.summary) for m in known if m.code.startswith(begin)]
        if rows:
            typer.echo(manual.section(f"{begin}xxx {about}", manual.columns(rows)) + "\n")
