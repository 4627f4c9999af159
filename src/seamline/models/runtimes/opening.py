"""Opening a model of the Llama architecture, whatever its files are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from seamline.models.extras import required
from seamline.models.formats.errors import WeightsError

if TYPE_CHECKING:
    from seamline.models.runtimes.llama.engine import LlamaEngine


def open_llama(
    where: Path,
    *,
    weights: Literal["stored", "float32", "int8", "int4"] = "stored",
    slots: int = 8,
    context: int = 0,
    waiting_max: int = 256,
    threads: int = 1,
) -> LlamaEngine:
    """A running engine from a folder, or from a ``.gguf``, or from a folder with one ``.gguf``.

    Raises:
        ExtraMissingError: the extra ``models`` is not installed.
        WeightsError: a file is missing or damaged.
        ArchitectureError: it is a model of another kind.
    """
    for package in ("numpy", "onnx", "onnxruntime", "tokenizers"):
        required(package)
    # Only now is it known that these can be imported.
    from seamline.models.runtimes.llama.engine import LlamaEngine
    from seamline.models.runtimes.llama.files import open_folder
    from seamline.models.runtimes.llama.gguf_model import open_gguf_model

    if where.is_dir() and not (where / "config.json").exists():
        found = sorted(where.glob("*.gguf"))
        if len(found) != 1:
            raise WeightsError(
                f"{where} has {len(found)} .gguf and no config.json", "Name one model.", place=str(where)
            )
        where = found[0]
    opened = open_folder(where, weights=weights) if where.is_dir() else open_gguf_model(where, weights=weights)
    return LlamaEngine(opened, slots=slots, context=context, waiting_max=waiting_max, threads=threads)
