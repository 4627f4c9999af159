"""What runs code is not taken, whatever it is called and wherever it is hidden."""

from __future__ import annotations

import io
import json
import pickle  # noqa: TID251  # to make what must be refused
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.registry.conftest import safetensors

from seamline.kernel.settings import ModelsSettings
from seamline.models.registry import Registry
from seamline.models.registry.errors import UnsafeFormatError
from seamline.models.registry.formats import inspect


class Evil:
    """Unpickled, it would run a command."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("run",))


def zipped(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return made.getvalue()


def npy(descr: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def field(number: int, content: bytes | int) -> bytes:
    """A field of a protocol buffer."""

    def varint(value: int) -> bytes:
        parts = bytearray()
        while value > 0x7F:
            parts.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*parts, value])

    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(location: str) -> bytes:
    pair = field(1, b"location") + field(2, location.encode())
    return field(2, 1) + field(13, pair) + field(14, 1)


def onnx(
    *, initializers: tuple[bytes, ...] = (), nodes: tuple[bytes, ...] = (), functions: tuple[bytes, ...] = ()
) -> bytes:
    graph = (
        b"".join(field(1, node) for node in nodes) + field(2, b"g") + b"".join(field(5, each) for each in initializers)
    )
    return field(1, 8) + field(2, b"test") + field(7, graph) + b"".join(field(25, each) for each in functions)


def kind(tmp_path: Path, name: str, content: bytes, *siblings: str) -> str:
    path = tmp_path / "blob"
    path.write_bytes(content)
    return inspect(path, name, (name, *siblings))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["model.bin", "weights.safetensors", "config.json", "vocab.txt", "model.onnx", "x"])
def test_a_pickle_is_known_by_what_is_inside(tmp_path: Path, name: str, protocol: int):
    """Of every protocol, under every name; also when something stands behind it."""
    content = pickle.dumps(Evil(), protocol=protocol)
    with pytest.raises(UnsafeFormatError):
        kind(tmp_path, name, content)
    with pytest.raises(UnsafeFormatError):
        kind(tmp_path, name, content + b"\xff\xfe more \x00")


@pytest.mark.parametrize("name", ["m.pkl", "m.pickle", "m.pt", "m.PTH", "m.ckpt", "m.joblib", "a/m.dill"])
def test_what_is_called_a_pickle_is_one(tmp_path: Path, name: str):
    """A library goes by the name, and would load it as one."""
    with pytest.raises(UnsafeFormatError, match="pickle"):
        kind(tmp_path, name, b"hello")


def test_archives_are_looked_into(tmp_path: Path):
    """torch's has a pickle in it; one of numbers and text is taken."""
    for inside in (
        {"archive__data_dot_pkl": pickle.dumps({"w": 1})},
        {"weights": pickle.dumps(Evil())},
        {"a_dot_npy": npy("'|O'", pickle.dumps([Evil()]))},
        {"up_dot_zip": zipped(data_dot_pkl=b"")},
        {"__etc__passwd": b"x"},
        {"run_dot_py": b"print()"},
    ):
        with pytest.raises(UnsafeFormatError):
            kind(tmp_path, "model.npz", zipped(**inside))
    good = zipped(a_dot_npy=npy("'<f4'", b"\0" * 4), schema_dot_json=b"{}")
    assert kind(tmp_path, "model.skops", good) == "archive"


def test_an_archive_behind_something_harmless_is_found(tmp_path: Path):
    """A file that begins as text and ends as an archive is an archive to who loads it."""
    with pytest.raises(UnsafeFormatError):
        kind(tmp_path, "notes.txt", b"only text\n" + zipped(data_dot_pkl=pickle.dumps(1)))


@pytest.mark.parametrize("descr", ["'|O'", "[('a', '<f4'), ('b', '|O')]", "[('a', [('b', 'O')])]", "nonsense", "'<Z9'"])
def test_arrays_of_objects_are_refused(tmp_path: Path, descr: str):
    """NumPy would unpickle them."""
    with pytest.raises(UnsafeFormatError):
        kind(tmp_path, "a.npy", npy(descr))


def test_arrays_of_numbers_are_taken(tmp_path: Path):
    assert kind(tmp_path, "a.npy", npy("[('a', '<f4'), ('b', '<U8')]")) == "numpy"


@pytest.mark.parametrize("name", ["modeling_x.py", "libfoo.so", "setup.sh", "a.PYC", "x.dll", "x.jar"])
def test_code_is_no_part_of_a_model(tmp_path: Path, name: str):
    with pytest.raises(UnsafeFormatError, match="is code"):
        kind(tmp_path, name, b"print('hello')")


@pytest.mark.parametrize(
    "content", [b"#!/bin/sh\necho", b"\x7fELF\x02\x01\x01\x00", b"MZ\x90\x00\x03", b"\x89HDF\r\n\x1a\n\0"]
)
def test_what_nobody_knows_is_refused(tmp_path: Path, content: bytes):
    """Programs, scripts and formats that may hold code."""
    with pytest.raises(UnsafeFormatError):
        kind(tmp_path, "weights.bin", content)


@pytest.mark.parametrize(
    "location", ["../../etc/passwd", "/etc/shadow", "other.bin", "a/../weights.bin", "", "http://x/y", "weights.bin\0"]
)
def test_onnx_reaches_for_nothing_outside(tmp_path: Path, location: str):
    """Neither in a tensor of the graph, nor of a node, a graph inside a node, or a function."""
    bad = tensor(location)
    constant = field(5, field(1, b"value") + field(5, bad))
    inner = field(2, b"inner") + field(5, bad)
    for content in (
        onnx(initializers=(bad,)),
        onnx(nodes=(constant,)),
        onnx(nodes=(field(5, field(6, inner)),)),
        onnx(nodes=(field(5, field(11, field(1, field(5, field(6, inner))))),)),
        onnx(functions=(field(7, constant),)),
    ):
        with pytest.raises(UnsafeFormatError, match="no file of the model"):
            kind(tmp_path, "model.onnx", content, "weights.bin")


def test_onnx_with_data_beside_it_is_taken(tmp_path: Path):
    """The file is one of the same model, in the same folder."""
    content = onnx(initializers=(tensor("weights.bin"),))
    assert kind(tmp_path, "model.onnx", content, "weights.bin") == "onnx"
    assert kind(tmp_path, "onnx/model.onnx", content, "onnx/weights.bin") == "onnx"
    with pytest.raises(UnsafeFormatError):
        kind(tmp_path, "onnx/model.onnx", content, "weights.bin")


def test_onnx_of_the_real_library_is_taken(tmp_path: Path):
    """As the package onnx writes it, with and without data outside."""
    library = pytest.importorskip("onnx", reason="an extra that is not installed")
    numpy = pytest.importorskip("numpy", reason="an extra that is not installed")
    weights = library.numpy_helper.from_array(numpy.ones((64, 64), "float32"), "w")
    graph = library.helper.make_graph(
        [library.helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [library.helper.make_tensor_value_info("x", 1, [1, 64])],
        [library.helper.make_tensor_value_info("y", 1, [1, 64])], [weights],
    )  # fmt: skip
    model = library.helper.make_model(graph)
    library.save(model, tmp_path / "inside.onnx")
    assert inspect(tmp_path / "inside.onnx", "model.onnx") == "onnx"
    library.save(model, tmp_path / "outside.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    assert inspect(tmp_path / "outside.onnx", "model.onnx", ("w.data",)) == "onnx"
    with pytest.raises(UnsafeFormatError, match=r"w\.data"):
        inspect(tmp_path / "outside.onnx", "model.onnx", ("other.data",))


def test_what_is_safe_is_taken(tmp_path: Path):
    """By its content, whatever its name."""
    assert kind(tmp_path, "model.safetensors", safetensors()) == "safetensors"
    assert kind(tmp_path, "model.gguf", b"GGUF\x03\0\0\0" + bytes(100)) == "gguf"
    assert kind(tmp_path, "config.json", json.dumps({"a": 1}).encode()) == "json"
    assert kind(tmp_path, "vocab.txt", "größe\n.\ncos\nsystem\n".encode()) == "text"
    assert kind(tmp_path, "README.md", b"I am. And (so) are you. N.\n") == "text"
    assert kind(tmp_path, "merges.txt", b"") == "text"
    assert kind(tmp_path, "model.bin", struct.pack("<IH", 6, 16) + b"TransformerSpec\0" + b"\1\2\xff") == "ctranslate2"
    pieces = b"".join(field(1, field(1, piece) + b"\x15\0\0\0\0") for piece in (b"a", b"b"))
    assert kind(tmp_path, "tokenizer.model", pieces) == "sentencepiece"


def test_safetensors_with_something_behind_it_are_refused(tmp_path: Path):
    """Every byte is accounted for by the header."""
    for content in (safetensors() + b"\x80\x04.", safetensors()[:-1], struct.pack("<Q", 1 << 60) + b"{}" + bytes(100)):
        with pytest.raises(UnsafeFormatError):
            kind(tmp_path, "model.safetensors", content)


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=300),
    start=st.sampled_from([b"", b"\x08\x08", b"\x0a", b"GGUF", b"\x93NUMPY\1\0", b"PK\3\4", b"\x80\4"]),
)
def test_no_content_makes_it_stumble(tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes):
    """It knows what a file is, or refuses it."""
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(start + content)
    try:
        inspect(path, "any.bin")
    except UnsafeFormatError:
        return


def test_the_registry_refuses_on_the_way_in_and_on_the_way_out(tmp_path: Path):
    """``allow_pickle`` lets it in; without it, what came in that way is not given."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "model.pkl").write_bytes(pickle.dumps(Evil()))
    strict, lax = (Registry(tmp_path / "models", ModelsSettings(allow_pickle=allow)) for allow in (False, True))
    with pytest.raises(UnsafeFormatError, match="allow_pickle"):
        strict.add("a", "1", str(tmp_path / "source"))
    assert strict.list() == []
    lax.add("a", "1", str(tmp_path / "source"))
    assert lax.open("a").path("model.pkl").exists()
    with pytest.raises(UnsafeFormatError):
        strict.open("a")
