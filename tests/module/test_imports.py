"""The inside of a module cannot be imported by another, however it is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from seamline.module.imports import find_inside_imports


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Package ``shopfront`` with the modules cart and payments; payments has a contract and an inside."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "shopfront"]:
        monkeypatch.delitem(sys.modules, name)
    root = tmp_path / "shopfront"
    _write(root / "__init__.py", "")
    _write(root / "money.py", "class Money: ...\n")
    _write(
        root / "payments" / "__init__.py",
        "from shopfront.money import Money\nfrom .kinds import kinds\nclass Payments: ...\nrates = {}\n"
        "def helper():\n    module = 1\n    return module\n",
    )
    _write(root / "payments" / "module.py", "module = 1\n")
    _write(root / "payments" / "kinds.py", "kinds = ()\n")
    _write(root / "payments" / "rates.py", "")
    _write(root / "payments" / "ledger" / "book.py", "class Book: ...\n")
    _write(root / "cart" / "__init__.py", "")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return root


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _found(shop: Path, source: str, file: str = "cart/module.py") -> list[tuple[int, str]]:
    _write(shop / file, source)
    found = find_inside_imports({"cart": "shopfront.cart", "payments": "shopfront.payments"})
    assert all(f.importer_module == "cart" and f.owner_module == "payments" for f in found)
    assert all(f.file == shop / file for f in found)
    return [(f.line, f.imported_dotted) for f in found]


@pytest.mark.parametrize(
    "source",
    [
        "import shopfront.payments",
        "import shopfront.payments as p\np.Payments.charge",
        "from shopfront import payments\npayments.Payments()",
        "from shopfront.payments import Payments, Money",
        "from shopfront.payments import *",
        "from ..payments import Payments",
        "from .. import payments",
        "from shopfront.payments import rates",  # __init__ binds the name: the file of that name is not meant
        "from shopfront.payments import kinds",
        "from shopfront.money import Money",
        "from . import module, tables\nfrom .module import x\nimport shopfront.cart.module",
        "import importlib\nimportlib.import_module('shopfront.payments')",
        "import importlib\nimportlib.import_module(name)",
        "__import__('shopfront.payments')",
        "import shopfront.payments_old.module\nfrom shopfront.paymentsmodule import x",
        "'import shopfront.payments.module'\n# from shopfront.payments.module import x",
        "payments = make()\npayments.module",
        "from ....... import payments",
        "import importlib\nimportlib.import_module(f'shopfront.payments.{name}')",
        "obj.import_module('shopfront.payments.module')",  # somebody else's method of that name
        "def broken(:",
        "\x00",
    ],
)
def test_contract_may_be_imported(shop: Path, source: str):
    """What reaches the contract only, the module's own inside, or nobody's module, is allowed."""
    assert _found(shop, source) == []


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("import shopfront.payments.module", "module"),
        ("import shopfront.payments.module as m\nm.a\nm.b.c", "module"),
        ("import os, shopfront.payments.ledger.book", "ledger.book"),
        ("from shopfront.payments.module import module", "module"),
        ("from shopfront.payments.module import *", "module"),
        ("from shopfront.payments.kinds import kinds", "kinds"),
        ("from shopfront.payments import module", "module"),
        ("from shopfront.payments import Payments, module as m", "module"),
        ("from shopfront.payments import (\nledger)  # here", "ledger"),
        ("from shopfront.payments.ledger import book", "ledger.book"),
        ("from ..payments import module", "module"),
        ("from ..payments.module import x", "module"),
        ("from ..payments.ledger.book import Book", "ledger.book"),
        ("def f():\n    def g():\n        from ..payments.module import x  # here", "module"),
        ("class A:\n    import shopfront.payments.module  # here", "module"),
        ("try:\n    import shopfront.payments.module  # here\nexcept ImportError: pass", "module"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..payments.ledger import book  # here",
            "ledger.book",
        ),
        ("import importlib\nimportlib.import_module('shopfront.payments.module')  # here", "module"),
        ("import importlib as il\nil.import_module(name='shopfront.payments.module')  # here", "module"),
        ("from importlib import import_module as load\nload('shopfront.payments' + '.module')  # here", "module"),
        ("import importlib\nimportlib.import_module('.module', 'shopfront.payments')  # here", "module"),
        ("import importlib\nimportlib.import_module('..payments.module', 'shopfront.cart')  # here", "module"),
        ("import importlib\nimportlib.import_module(f'shopfront.payments.{\"module\"!s}')  # here", "module"),
        ("__import__('shopfront.payments.module')", "module"),
        ("__import__('shopfront.payments', fromlist=['module'])", "module"),
        ("__import__('shopfront.payments', {}, {}, ('Payments', 'ledger'), 0)", "ledger"),
        ("import pkgutil\npkgutil.resolve_name('shopfront.payments.module:module')  # here", "module"),
        ("import runpy\nrunpy.run_module('shopfront.payments.module')  # here", "module"),
        ("import shopfront.payments\nx = shopfront.payments.module.module  # here", "module"),
        ("import shopfront.payments as p\np.ledger.book.Book()  # here", "ledger.book"),
        ("from shopfront import payments\npayments.module  # here", "module"),
        ("from .. import payments as p\ndef f(): return p.module.x  # here", "module"),
        ("import importlib\nimportlib.import_module('shopfront.payments').module.x  # here", "module"),
        ("lambda: __import__('shopfront.payments.module')", "module"),
        ("# coding: latin-1\n# \u00e9\nimport shopfront.payments.module  # here", "module"),
        ("import shopfront.payments.module; import shopfront.payments.module", "module"),
    ],
)
def test_inside_is_found(shop: Path, source: str, target: str):
    """Every way of writing down another module's inside is found, once for each line."""
    found = _found(shop, source)
    line = next((n for n, text in enumerate(source.splitlines(), 1) if text.endswith("# here")), 1)
    assert found == [(line, f"shopfront.payments.{target}")]


def test_every_file_of_a_module_is_read(shop: Path):
    """Sub-packages, folders without __init__, migrations and stubs belong to the module too."""
    for file in ("cart/deep/er/x.py", "cart/migrations/versions/0001_first.py", "cart/x.pyi", "cart/__init__.py"):
        assert _found(shop, "from shopfront.payments.module import x", file) != [], file
        (shop / file).unlink()
    relative = _found(shop, "from ....payments.module import x", "cart/deep/er/x.py")
    assert relative == [(1, "shopfront.payments.module")]


def test_reexported_file_stays_inside(shop: Path):
    """A contract that binds its own inside (``from . import module``) does not open it."""
    init = shop / "payments" / "__init__.py"
    for line in ("from . import module", "from shopfront.payments import module", "import shopfront.payments.module"):
        init.write_text(line, encoding="utf-8")
        assert _found(shop, "from shopfront.payments import module") == [(1, "shopfront.payments.module")]


def test_nested_packages_belong_to_the_inner_module(shop: Path):
    """Where one module's package lies in another's, each file belongs to the nearest, in both directions."""
    _write(shop / "payments" / "fraud" / "__init__.py", "class Fraud: ...\n")
    _write(shop / "payments" / "fraud" / "module.py", "from shopfront.payments.ledger import book\n")
    _write(
        shop / "payments" / "module.py",
        "from shopfront.payments.fraud import Fraud\nfrom .fraud.module import x\nfrom .ledger import book\n",
    )
    found = find_inside_imports({"payments": "shopfront.payments", "fraud": "shopfront.payments.fraud"})
    assert [(f.importer_module, f.line, f.imported_dotted) for f in found] == [
        ("fraud", 1, "shopfront.payments.ledger.book"),
        ("payments", 2, "shopfront.payments.fraud.module"),
    ]


def test_who_asks_about_some_modules_hears_of_those_alone(shop: Path):
    """A process looks through the files of what it hosts; whose inside is reached for is known all the same."""
    _write(shop / "cart" / "module.py", "from shopfront.payments.ledger import book\n")
    _write(shop / "payments" / "module.py", "from shopfront.cart.module import x\n")
    packages = {"cart": "shopfront.cart", "payments": "shopfront.payments"}
    assert {f.importer_module for f in find_inside_imports(packages)} == {"cart", "payments"}
    assert [f.owner_module for f in find_inside_imports(packages, {"cart"})] == ["payments"]


def test_each_file_is_parsed_once(shop: Path, monkeypatch: pytest.MonkeyPatch):
    """Forty modules that import each other's contracts: the work grows with the files, not with their pairs."""
    packages: dict[str, str] = {}
    for number in range(40):
        name = f"m{number}"
        packages[name] = f"shopfront.{name}"
        _write(shop / name / "__init__.py", "class C: ...\n")
        imports = "".join(f"from shopfront.m{other} import C as C{other}\n" for other in range(40) if other != number)
        _write(shop / name / "module.py", imports)
    parsed: list[Path] = []
    read = Path.read_bytes

    def counted(self: Path) -> bytes:
        parsed.append(self)
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", counted)
    assert find_inside_imports(packages) == []
    # Once as a file of its module, and __init__ once more for the names of the contract.
    assert len(parsed) <= 3 * 40


def test_missing_package_is_left_to_the_importer():
    """A package that is not there is no finding here: importing it says so with its own error."""
    assert find_inside_imports({"ghost": "no_such_package_of_anyone.ghost"}) == []
