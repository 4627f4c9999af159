"""What is inside a file of a model, whatever it is called. Only what runs nothing when it is loaded is known here."""

from __future__ import annotations

import ast
import io
import json
import mmap
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, cast

from seamline.models.registry.errors import BadReferenceError, UnsafeFormatError
from seamline.models.registry.names import checked_path

Kind = Literal["safetensors", "gguf", "onnx", "numpy", "json", "text", "sentencepiece", "ctranslate2", "archive"]

_HEAD: Final = 1 << 20
_HEADER_BYTES_MAX: Final = 100_000_000
_MEMBERS_MAX: Final = 10_000
_CODE: Final = re.compile(r"(?i)\.(py|pyc|pyd|so|dll|dylib|sh|bash|exe|bat|ps1|jar|class|js|wasm)$")
_PICKLED: Final = re.compile(r"(?i)\.(pkl|pickle|pt|pth|ckpt|joblib|dill|cloudpickle)$")
_RUNS: Final = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX"})
_CONVERT: Final = "Convert it to safetensors, ONNX or GGUF; or set allow_pickle under [models], and it may run code."


def inspect(path: Path, name: str, siblings: Sequence[str] = ()) -> Kind:
    """The kind of a file that is called ``name`` in its model, beside ``siblings``.

    Raises:
        UnsafeFormatError: it is code or a pickle, it reaches for other files, or nobody knows what it is.
    """
    with path.open("rb") as file:
        head, size = file.read(_HEAD), path.stat().st_size
        if _CODE.search(name):
            raise UnsafeFormatError(f"{name!r} is code", "A model's code belongs into the application.")
        if zipfile.is_zipfile(file):
            return _archive(path, name)
        if not head.startswith(b"\x08") and not head.startswith(b"\x0a"):
            return _kind(head, size, name)
        # Not closed by hand: what raises keeps views of it until it was told.
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _protobuf(whole, name, siblings) or _kind(head, size, name)


def _kind(head: bytes, size: int, name: str) -> Kind:
    """Of anything but archives and ONNX, by its first bytes."""
    if head.startswith(b"GGUF"):
        return "gguf"
    if head.startswith(b"\x93NUMPY"):
        _check_numpy(head, name)
        return "numpy"
    if _is_safetensors(head, size):
        return "safetensors"
    if _is_pickle(head, name):
        raise UnsafeFormatError(f"{name!r} is a pickle, which runs code when it is loaded", _CONVERT)
    if _is_ctranslate2(head):
        return "ctranslate2"
    if _is_text(head, whole=size <= len(head)):
        return _text(head, size, name)
    raise UnsafeFormatError(f"{name!r} is of no kind that is known to run nothing", _CONVERT)


def _is_pickle(head: bytes, name: str) -> bool:
    """Whether it could be loaded as one, or is called like one."""
    if _PICKLED.search(name) or (head[:1] == b"\x80" and head[1:2] in {b"\2", b"\3", b"\4", b"\5"}):
        return True
    found = False
    try:
        for operation, _, _ in pickletools.genops(head):
            found = found or operation.name in _RUNS
    except Exception:  # whatever it stumbles over, it is no whole pickle; one that calls something has been seen
        return found and not _is_text(head, whole=True)
    return found


def _text(head: bytes, size: int, name: str) -> Kind:
    if head.startswith(b"#!"):
        raise UnsafeFormatError(f"{name!r} is a script", "A model's code belongs into the application.")
    if not name.lower().endswith((".json", ".jsonl")):
        return "text"
    if name.lower().endswith(".json") and size <= len(head):
        try:
            json.loads(head)
        except (ValueError, RecursionError):
            raise UnsafeFormatError(f"{name!r} is not JSON", "Correct it, or take it out.") from None
    return "json"


def _is_text(head: bytes, *, whole: bool) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return not whole and error.start > len(head) - 4
    return True


def _is_ctranslate2(head: bytes) -> bool:
    """A version, and the length and name of a specification."""
    if len(head) < 8:
        return False
    version, length = struct.unpack_from("<IH", head)
    return 0 < version < 64 and 4 < length < 64 and re.fullmatch(rb"\w+Spec\0", head[6 : 6 + length]) is not None


# safetensors


def _is_safetensors(head: bytes, size: int) -> bool:
    """The length of a header, a header in JSON, and exactly the data that it speaks of."""
    if len(head) < 10 or head[8:9] != b"{":
        return False
    (length,) = struct.unpack_from("<Q", head)
    if length > min(size - 8, _HEADER_BYTES_MAX):
        return False
    if length > len(head) - 8:
        return True  # the reader looks at all of it
    try:
        header = json.loads(head[8 : 8 + length])
        ends = [each["data_offsets"][1] for key, each in header.items() if key != "__metadata__"]
        return 8 + length + max(ends, default=0) == size
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return False


# NumPy


def _check_numpy(head: bytes, name: str) -> None:
    """Of numbers only. https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html"""
    try:
        start, form = (10, "<H") if head[6] == 1 else (12, "<I")
        (length,) = struct.unpack_from(form, head, 8)
        header = ast.literal_eval(head[start : start + length].decode("latin-1"))
        kinds = _kinds(header["descr"])
    except (ValueError, SyntaxError, KeyError, IndexError, TypeError, struct.error, RecursionError, MemoryError):
        raise UnsafeFormatError(f"{name!r} has no header that NumPy would read", "Write it anew.") from None
    if not kinds <= set("?bBiufcSUmMV"):
        raise UnsafeFormatError(f"{name!r} holds Python objects, which are pickled", _CONVERT)


def _kinds(description: object) -> set[str]:
    if isinstance(description, str):
        return {description.lstrip("<>|=")[:1]}
    fields = cast("list[tuple[object, ...]]", description)
    return set[str]().union(*(_kinds(field[1]) for field in fields))


# Archives


def _archive(path: Path, name: str) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if not each.is_dir()]
            if len(members) > _MEMBERS_MAX:
                raise UnsafeFormatError(f"{name!r} has {len(members)} members", f"At most {_MEMBERS_MAX}.")
            for each in members:
                place = f"{name}/{each.filename}"
                checked_path(each.filename)
                if _CODE.search(each.filename) or _PICKLED.search(each.filename):
                    raise UnsafeFormatError(f"{place!r} runs code when it is loaded", _CONVERT)
                with archive.open(each) as member:
                    head = member.read(_HEAD)
                if head.startswith(b"PK") and zipfile.is_zipfile(io.BytesIO(head)):
                    raise UnsafeFormatError(f"{place!r} is an archive in an archive", "Unpack it.")
                _kind(head, each.file_size, place)
    except (zipfile.BadZipFile, BadReferenceError, NotImplementedError, RuntimeError, OSError) as error:
        raise UnsafeFormatError(f"{name!r} is an archive that cannot be looked into: {error}", _CONVERT) from None
    return "archive"


# Protocol buffers: ONNX and SentencePiece


def _protobuf(content: memoryview, name: str, siblings: Sequence[str]) -> Kind | None:
    try:
        found = list(_fields(content, 2_000_000))
    except (ValueError, IndexError):
        return None
    try:
        numbers = {number for number, _ in found}
        graphs = [value for number, value in found if number == 7 and isinstance(value, memoryview)]
        if len(graphs) == 1 and 1 in numbers and numbers <= set(range(1, 30)) and isinstance(found[0][1], int):
            _check_graph(graphs[0], name, siblings, depth=0)
            for number, function in found:
                if number == 25 and isinstance(function, memoryview):
                    _check_nodes(function, 7, name, siblings, depth=0)
            return "onnx"
        pieces = [value for number, value in found if number == 1 and isinstance(value, memoryview)]
        if pieces and numbers <= {1, 2, 3, 4, 5} and all(bytes(value[:1]) == b"\x0a" for value in pieces):
            return "sentencepiece"
        return None
    except (ValueError, IndexError):
        raise UnsafeFormatError(f"{name!r} is an ONNX model that cannot be read", "Export it anew.") from None


def _fields(content: memoryview, most: int = 50_000_000) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field. Raises ValueError or IndexError for what is no message."""
    at, end = 0, len(content)
    while at < end:
        most -= 1
        key, at = _varint(content, at)
        number, wire = key >> 3, key & 7
        if not number or not most:
            raise ValueError
        if wire == 0:
            value, at = _varint(content, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(content, at)
        else:
            length = {1: 8, 5: 4}.get(wire, end + 1)
        if at + length > end:
            raise ValueError
        yield number, content[at : at + length]
        at += length


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError


def _check_graph(graph: memoryview, name: str, siblings: Sequence[str], depth: int) -> None:
    """Data outside the file only in files of the same model. Numbers of fields: onnx.proto3 of ONNX 1.19."""
    if depth > 16:
        raise ValueError
    _check_nodes(graph, 1, name, siblings, depth)
    for number, value in _fields(graph):
        if isinstance(value, int):
            continue
        if number == 5:
            _check_tensor(value, name, siblings)
        elif number == 15:
            for inner, tensor in _fields(value):
                if inner in {1, 2} and not isinstance(tensor, int):
                    _check_tensor(tensor, name, siblings)


def _check_nodes(holder: memoryview, nodes: int, name: str, siblings: Sequence[str], depth: int) -> None:
    """The tensors and graphs in the attributes of the nodes of a graph or of a function."""
    for number, node in _fields(holder):
        if number != nodes or isinstance(node, int):
            continue
        for inner, attribute in _fields(node):
            if inner == 5 and not isinstance(attribute, int):
                _check_attribute(attribute, name, siblings, depth)


def _check_attribute(attribute: memoryview, name: str, siblings: Sequence[str], depth: int) -> None:
    for number, value in _fields(attribute):
        if isinstance(value, int):
            continue
        if number in {5, 10}:
            _check_tensor(value, name, siblings)
        elif number in {6, 11}:
            _check_graph(value, name, siblings, depth + 1)


def _check_tensor(tensor: memoryview, name: str, siblings: Sequence[str]) -> None:
    for number, value in _fields(tensor):
        if number != 13 or isinstance(value, int):
            continue
        pair = {inner: bytes(text).decode() for inner, text in _fields(value) if isinstance(text, memoryview)}
        if pair.get(1) != "location":
            continue
        folder = name.rpartition("/")[0]
        try:
            wanted = checked_path(f"{folder}/{pair.get(2, '')}".lstrip("/"))
        except BadReferenceError:
            wanted = ""
        if wanted not in siblings:
            raise UnsafeFormatError(
                f"{name!r} reads {pair.get(2, '')[:100]!r}, which is no file of the model", "Save it in one file."
            )
