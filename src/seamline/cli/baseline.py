"""The contracts as others were promised them: at a git reference, or as the lock file beside seamline.toml has them."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from seamline.cli.errors import BaselineError

if TYPE_CHECKING:
    from seamline.run.application import Application

LOCK = "contracts.lock.json"
_LINE_MAX = 116
_TELL = "import sys; sys.path[:0] = sys.argv[4:]; from seamline.cli.baseline import tell; tell(*sys.argv[1:4])"


def described(application: Application) -> dict[str, Any]:
    from seamline.module.description import describe

    return describe(application.contracts, application.events)


def read_lock(folder: Path) -> dict[str, Any] | None:
    """What the lock file says, or None where there is none. Raises BaselineError."""
    from seamline.module.description import FORMAT

    file = folder / LOCK
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text("utf-8"))
        known = found["format"] <= FORMAT and isinstance(found["modules"], dict) and isinstance(found["types"], dict)
    except (ValueError, KeyError, TypeError) as error:
        raise BaselineError(
            f"{LOCK} cannot be read: {error}",
            "Take it from the repository again, or write it anew: `seamline contracts lock`.",
        ) from None
    if not known:
        raise BaselineError(f"{LOCK} was written by a newer Seamline", "Update Seamline.")
    return found


def write_lock(folder: Path, description: Mapping[str, Any]) -> Path:
    file = folder / LOCK
    file.write_text(lock_text(description), "utf-8")
    return file


def lock_text(description: Any, indent: str = "") -> str:
    """JSON in which a change is a short diff: each field, method and event on lines of its own."""
    whole = json.dumps(description, ensure_ascii=False)
    end = "" if indent else "\n"
    members = cast("dict[str, Any]", description) if isinstance(description, dict) else {}
    is_table = any(len(cast("dict[str, Any]", v)) > 1 for v in members.values() if isinstance(v, dict))
    if not members or (len(whole) + len(indent) <= _LINE_MAX and not is_table):
        return whole + end
    deeper = indent + "  "
    lines = [f"{deeper}{json.dumps(name)}: {lock_text(value, deeper)}" for name, value in members.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}{end}"


def at_reference(folder: Path, reference: str) -> dict[str, Any]:
    """The contracts of the application in ``folder`` as they were at a git reference.

    The repository's files at that reference are written into a temporary folder, and loaded there by another process.
    """
    top = Path(_git(folder, "rev-parse", "--show-toplevel").decode().strip()).resolve()
    found = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{reference}^{{commit}}")
    commit = found.decode().strip()
    below = folder.resolve().relative_to(top)
    if not _git(top, "ls-tree", "--name-only", commit, "--", str(below / "seamline.toml")):
        raise BaselineError(
            f"at {reference!r} there was no seamline.toml in {str(below)!r}",
            "Name a later commit, or the folder with --app.",
        )
    with tempfile.TemporaryDirectory(prefix="seamline-contracts-") as made:
        tree = Path(made).resolve() / "tree"
        archive = tree.with_name("tree.tar")
        _git(top, "archive", "--format=tar", f"--output={archive}", commit)
        with tarfile.open(archive) as tar:
            tar.extractall(tree, filter="data")
        return _told(tree / below, tree, top, reference)


def _told(then: Path, tree: Path, top: Path, reference: str) -> dict[str, Any]:
    """What the application in ``then`` says of itself in a process of its own."""
    answer = tree.with_name("description.json")
    command = [sys.executable, "-c", _TELL, str(then), str(tree), str(answer), *_moved_path(tree, top)]
    done = subprocess.run(command, cwd=then, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603  # our own interpreter
    if not answer.is_file():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BaselineError(
            f"the application as it was at {reference!r} cannot be loaded: {last}",
            "It is loaded with what is installed now. Name another commit, or use `seamline contracts lock`.",
        )
    return json.loads(answer.read_text("utf-8"))


def _moved_path(tree: Path, top: Path) -> list[str]:
    """The import path's folders in the repository, as they are in ``tree``; not where this program itself lies."""
    own = Path(__file__).resolve().parents[2]
    inside = [path for entry in sys.path if entry and (path := Path(entry).resolve()).is_relative_to(top)]
    moved = [tree / path.relative_to(top) for path in inside if path != own]
    return [str(path) for path in moved if path.is_dir()]


def tell(folder: str, tree: str, answer: str) -> None:
    """Write the description of the application in ``folder``, all of which must come from ``tree``."""
    from seamline.run.application import Application

    application = Application.load(folder, only=())
    for thing in (*application.contracts, *application.events):
        file = Path(getattr(sys.modules[thing.__module__], "__file__", None) or "?").resolve()
        if not file.is_relative_to(tree):
            message = f"{thing.__module__} was imported from {file}, not from the commit"
            raise SystemExit(message)
    Path(answer).write_text(json.dumps(described(application)), "utf-8")


def _git(folder: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603  # words are ours; a reference stands after --end-of-options
            ["git", *words],  # noqa: S607  # the user's own git
            cwd=folder, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise BaselineError("there is no git", "Install it, or keep a lock file: `seamline contracts lock`.") from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip().splitlines()
    fact = said[-1] if said else f"git does not know {_shown(words)}"
    raise BaselineError(fact, "Name a commit, branch or tag of the repository that the application lies in.")


def _shown(words: Sequence[str]) -> str:
    return repr(words[-1].removesuffix("^{commit}"))
