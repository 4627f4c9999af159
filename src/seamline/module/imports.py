"""Finds imports of another module's inside, without importing anything.

Of another module's package only the root may be imported: it is the contract. What a file says in plain
sight is found, wherever it stands (in functions, under ``TYPE_CHECKING``, relative, by ``importlib`` with a
name that is written out, or by reaching through an imported package: ``payments.module.ledger``). A name
that is put together while the program runs is not.
"""

from __future__ import annotations

import ast
import glob
import os
import sys
from collections.abc import Container, Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True, slots=True, order=True)
class InsideImport:
    """``importer_module`` and ``owner_module`` are names of modules, ``imported_dotted`` is what was reached for."""

    importer_module: str
    file: Path
    line: int
    imported_dotted: str
    owner_module: str


def find_inside_imports(
    packages: Mapping[str, str | Path], importers: Container[str] | None = None
) -> list[InsideImport]:
    """Look through every source file of every module.

    Args:
        packages: the modules' names with their dotted packages: ``{"payments": "boutique.payments"}``. A
            :class:`~pathlib.Path` is the folder of a package whose dotted name is the module's name.
        importers: look through the files of these modules alone.

    Returns:
        The findings by module, file and line; each place and target once.
    """
    house = _House(
        [
            _Package(name, name, at) if isinstance(at, Path) else _Package(name, at, _folder_of(at))
            for name, at in packages.items()
        ]
    )
    looked_through = [each for each in house.packages if importers is None or each.module in importers]
    return sorted({finding for package in looked_through for finding in house.findings_in(package)})


def _folder_of(dotted: str) -> Path | None:
    loaded = sys.modules.get(dotted)
    if loaded is not None:
        places = list(getattr(loaded, "__path__", []))
    else:
        try:
            spec = find_spec(dotted)
        except ImportError:
            return None  # whoever imports the module will say so
        places = list(spec.submodule_search_locations or []) if spec is not None else []
    return Path(places[0]) if places else None


class _Package:
    """The package of one module."""

    def __init__(self, module: str, dotted: str, folder: Path | None) -> None:
        self.module = module
        self.dotted = dotted
        self.folder = folder

    def files(self, others: Iterable[_Package]) -> Generator[tuple[Path, str]]:
        """Source files with the dotted package that relative imports in them start from."""
        if self.folder is None:
            return
        taken = {other.folder for other in others if other is not self}
        for place, folders, names in os.walk(self.folder):
            here = Path(place)
            folders[:] = sorted(
                f for f in folders if f != "__pycache__" and not f.startswith(".") and here / f not in taken
            )
            package = ".".join([self.dotted, *here.relative_to(self.folder).parts])
            for name in sorted(names):
                if name.endswith((".py", ".pyi")):
                    yield here / name, package

    def hides(self, name: str) -> bool:
        """Whether ``name``, reached for at the root, is a part of the inside rather than of the contract."""
        if self.folder is None or name in self._contract_names:
            return False
        return (self.folder / name).is_dir() or any(self.folder.glob(f"{glob.escape(name)}.*"))

    @cached_property
    def _contract_names(self) -> frozenset[str]:
        """What ``__init__`` itself binds: there a name wins over a file that is called the same."""
        assert self.folder is not None
        tree = _parsed(self.folder / "__init__.py")
        names: set[str] = set()
        for node in _outside_functions(tree) if tree is not None else ():
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
                case ast.ImportFrom(module=base, level=level) if not (level == 1 and base is None):
                    if base != self.dotted:  # `from . import module` binds the file, and opens nothing
                        names |= {alias.asname or alias.name for alias in node.names}
                case _:
                    pass
        return frozenset(names)


class _House:
    """All packages, and who owns which dotted name."""

    def __init__(self, packages: list[_Package]) -> None:
        self.packages = packages
        self._by_dotted = {package.dotted: package for package in packages}

    def findings_in(self, package: _Package) -> Generator[InsideImport]:
        for file, parent in package.files(self.packages):
            tree = _parsed(file)
            if tree is None:
                continue
            for reach in _Reader(parent).reached_in(tree):
                hit = self._inside(package, reach.dotted, reach.files)
                if hit is not None and not (reach.through and self._inside(package, reach.through, 0)):
                    owner, target = hit
                    yield InsideImport(package.module, file, reach.line, target, owner.module)

    def _inside(self, importer: _Package, dotted: str, files: int) -> tuple[_Package, str] | None:
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            owner = self._by_dotted.get(".".join(parts[:length]))
            if owner is None:
                continue
            if owner is importer or length == len(parts):
                return None
            if length >= files and not owner.hides(parts[length]):
                return None
            return owner, ".".join(parts[: self._depth(owner, parts, length)])
        return None

    @staticmethod
    def _depth(owner: _Package, parts: list[str], length: int) -> int:
        """How many parts are packages and files; what follows are names in the last of them."""
        if owner.folder is None:
            return len(parts)
        place, depth = owner.folder, length
        while depth < len(parts):
            place /= parts[depth]
            depth += 1
            if not place.is_dir():
                break
        return depth


_BY_NAME = frozenset(
    {
        "__import__",
        "importlib.__import__",
        "importlib.import_module",
        "importlib.util.find_spec",
        "pkgutil.resolve_name",
        "runpy.run_module",
    }
)


class _Reach(NamedTuple):
    """A dotted name that a file asks for, of which the first ``files`` parts can only be packages and files.

    ``through`` is the imported name that it was reached by, which is judged where it was imported.
    """

    line: int
    dotted: str
    files: int
    through: str = ""


def _length(dotted: str) -> int:
    return dotted.count(".") + 1


class _Reader:
    """Reads one file: every dotted name that it imports or reaches through."""

    def __init__(self, parent: str) -> None:
        self._parent = parent
        self._bound: dict[str, str] = {"__import__": "__import__"}

    def reached_in(self, tree: ast.Module) -> Generator[_Reach]:
        nodes = list(ast.walk(tree))
        links = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}  # inner parts of a.b.c
        for node in nodes:
            match node:
                case ast.Import():
                    yield from self._import(node)
                case ast.ImportFrom():
                    yield from self._import_from(node)
                case _:
                    pass
        # Names are followed without regard to scope: a file that gives one name two meanings is read as both.
        for node in nodes:
            match node:
                case ast.Attribute() if id(node) not in links:
                    dotted = self._chain(node)
                    if dotted is not None:
                        yield _Reach(node.lineno, dotted, 0, self._root(node))
                case ast.Call():
                    yield from self._call(node)
                case _:
                    pass

    def _import(self, node: ast.Import) -> Generator[_Reach]:
        for alias in node.names:
            yield _Reach(alias.lineno, alias.name, _length(alias.name))
            if alias.asname:
                self._bound[alias.asname] = alias.name
            else:
                first = alias.name.partition(".")[0]
                self._bound[first] = first

    def _import_from(self, node: ast.ImportFrom) -> Generator[_Reach]:
        base = node.module or ""
        if node.level:
            try:
                base = resolve_name("." * node.level + base, self._parent)
            except ImportError:
                return  # climbs out of the tree; Python will not import it either
        for alias in node.names:
            dotted = base if alias.name == "*" else f"{base}.{alias.name}"
            yield _Reach(alias.lineno, dotted, _length(base))
            self._bound[alias.asname or alias.name] = dotted

    def _chain(self, node: ast.expr) -> str | None:
        """``a.b.c`` as the dotted name that it means, if ``a`` was imported."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Call):
            reached = next(iter(self._call(node)), None)
            return None if reached is None else ".".join([reached.dotted, *reversed(parts)])
        if not isinstance(node, ast.Name) or node.id not in self._bound:
            return None
        return ".".join([self._bound[node.id], *reversed(parts)])

    def _root(self, node: ast.expr) -> str:
        while isinstance(node, ast.Attribute):
            node = node.value
        return self._bound.get(node.id, "") if isinstance(node, ast.Name) else ""

    def _call(self, node: ast.Call) -> Generator[_Reach]:
        function = self._chain(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else None
        if function not in _BY_NAME:
            return
        arguments = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        named = node.args[0] if node.args else arguments.get("name") or arguments.get("mod_name")
        name = _text(named)
        if name is None:
            return
        name = name.replace(":", ".").rstrip(".")
        if name.startswith("."):
            anchor = _text(node.args[1] if len(node.args) > 1 else arguments.get("package")) or self._parent
            try:
                name = resolve_name(name, anchor)
            except ImportError:
                return
        yield _Reach(node.lineno, name, _length(name))
        wanted = arguments.get("fromlist") or (node.args[3] if len(node.args) > 3 else None)
        if function.endswith("__import__") and isinstance(wanted, ast.List | ast.Tuple):
            for item in wanted.elts:
                part = _text(item)
                if part and part != "*":
                    yield _Reach(node.lineno, f"{name}.{part}", _length(name))


def _outside_functions(tree: ast.Module) -> Generator[ast.AST]:
    """The nodes whose names belong to the file itself."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.expr):
            waiting.extend(ast.iter_child_nodes(node))


def _text(node: ast.expr | None) -> str | None:
    """The value of a string that is written out, in one piece or several."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            first, second = _text(left), _text(right)
            return None if first is None or second is None else first + second
        case ast.JoinedStr(values=values):
            parts = [_text(part.value if isinstance(part, ast.FormattedValue) else part) for part in values]
            return None if None in parts else "".join(part or "" for part in parts)
        case _:
            return None


def _parsed(file: Path) -> ast.Module | None:
    """None for what Python could not read either: importing it will say so."""
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
