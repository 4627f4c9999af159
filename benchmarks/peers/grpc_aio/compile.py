"""protoc, run into a folder of the run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent


def compile_into(folder: Path) -> None:
    from grpc_tools import protoc

    arguments = ["protoc", f"-I{HERE}", f"-I{_well_known()}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main([*arguments, str(HERE / "orders.proto")]) != 0:
        raise RuntimeError("protoc refused orders.proto")


def load(folder: str) -> tuple[ModuleType, ModuleType]:
    """The message and the service modules that protoc wrote into ``folder``."""
    sys.path.insert(0, folder)
    return importlib.import_module("orders_pb2"), importlib.import_module("orders_pb2_grpc")


def _well_known() -> Path:
    import grpc_tools

    return Path(grpc_tools.__file__).parent / "_proto"
