"""What revision files say about themselves, read without importing them.

Importing Alembic takes a third of a second, and a start that finds nothing pending needs none of it.
"""

from __future__ import annotations

import ast
from pathlib import Path


def only_head(folder: Path) -> str | None:
    """The last revision in ``folder/versions``, or None if that cannot be told at a glance."""
    revisions: set[str] = set()
    followed: set[str | None] = set()
    for file in (folder / "versions").glob("*.py"):
        said = _assigned(file)
        revision, follows = said.get("revision"), said.get("down_revision", ...)
        if not isinstance(revision, str) or revision in revisions or not (follows is None or isinstance(follows, str)):
            return None
        revisions.add(revision)
        followed.add(follows)
    heads = revisions - followed
    return heads.pop() if len(heads) == 1 and followed - {None} <= revisions else None


def _assigned(file: Path) -> dict[str, object]:
    """The constants that a file assigns to names of its own."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[str, object] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                found[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value)):
                found[name] = value
            case _:
                pass
    return found
