"""ONNX graphs made by our own code, and run by ONNX Runtime on weights that stay where they are.

A graph that carried its weights would hold them three times while it is loaded. Here it names the place in the file
where they lie, which the session maps; what had to be computed first is handed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from seamline.models.extras import required

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPSET: Final = 20
FUSED: Final = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
_IR_VERSION: Final = 9
_INLINE_BYTES_MAX: Final = 1024
_FOLDER: Final = "session.model_external_initializers_file_folder_path"


class Session:
    """A graph that runs. Several threads may run it at once."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> list[NDArray[Any]]:
        """The outputs by name, or all in their order."""
        return self._session.run(outputs, inputs)


class Graph:
    """A graph in the making. Values have names; a method that adds one returns its name.

    Args:
        name: of the graph.
        folder: of the files where weights are stored, if there are any.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self._onnx = required("onnx")
        self._numpy = required("numpy")
        self._name = name
        self._folder = folder
        self._nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._small: dict[str, NDArray[Any]] = {}
        self._large: dict[str, NDArray[Any]] = {}
        self._stored: dict[str, Any] = {}

    def input(self, name: str, dtype: str, shape: Sequence[str | int]) -> str:
        """``dtype`` is NumPy's name of it. A dimension that is a text may have any length."""
        self._inputs.append(self._value(name, dtype, shape))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[str | int]) -> None:
        self._outputs.append(self._value(name, dtype, shape))

    def weight(self, name: str, value: NDArray[Any]) -> str:
        """A tensor that was computed. Of the same name, it is the same."""
        value = self._numpy.require(value, requirements=["C", "ALIGNED"])
        (self._small if value.nbytes <= _INLINE_BYTES_MAX else self._large)[name] = value
        return name

    def stored(self, name: str, value: NDArray[Any], file: str, offset: int) -> str:
        """A tensor that lies in a file of the folder, whole and as it is; the file must not change."""
        if value.nbytes <= _INLINE_BYTES_MAX or offset % value.itemsize:
            return self.weight(name, value)
        self._stored[name] = self._reference(name, value, file, offset)
        return name

    def numbers(self, *values: int) -> str:
        """A vector of integers, as shapes and axes are given."""
        return self.weight(f"numbers {values}", self._numpy.array(values, "int64"))

    def node(self, operator: str, inputs: Sequence[str], *, name: str = "", domain: str = "", **attributes: Any) -> str:
        """An operator with one result. An input that is left out is an empty text."""
        return self.nodes(operator, inputs, 1, name=name, domain=domain, **attributes)[0]

    def nodes(
        self, operator: str, inputs: Sequence[str], count: int, *, name: str = "", domain: str = "", **attributes: Any
    ) -> list[str]:
        """An operator with ``count`` results."""
        name = name or f"{operator} {len(self._nodes)}"
        results = [name] if count == 1 else [f"{name}.{number}" for number in range(count)]
        made = self._onnx.helper.make_node(operator, list(inputs), results, name=name, domain=domain, **attributes)
        self._nodes.append(made)
        return results

    def session(self, threads: int = 1) -> Session:
        """The graph, ready to run with ``threads`` threads for each run."""
        onnx, runtime = self._onnx, required("onnxruntime")
        tensors = [onnx.numpy_helper.from_array(value, name) for name, value in self._small.items()]
        # These name a place that is never looked at: the session is given their memory instead.
        tensors += [self._reference(name, value, "memory", 0) for name, value in self._large.items()]
        tensors += self._stored.values()
        graph = onnx.helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, tensors)
        opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(FUSED, 1)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # A thread that spins for the next operator would look busy to whoever shares the core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._folder is not None:
            options.add_session_config_entry(_FOLDER, str(self._folder.resolve()))
        if self._large:
            values = [runtime.OrtValue.ortvalue_from_numpy(value) for value in self._large.values()]
            options.add_external_initializers(list(self._large), values)
        return Session(runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]))

    def _value(self, name: str, dtype: str, shape: Sequence[str | int]) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self._type(dtype), shape)

    def _type(self, dtype: Any) -> int:
        return self._onnx.helper.np_dtype_to_tensor_dtype(self._numpy.dtype(dtype))

    def _reference(self, name: str, value: NDArray[Any], file: str, offset: int) -> Any:
        tensor = self._onnx.TensorProto(
            name=name,
            dims=value.shape,
            data_type=self._type(value.dtype),
            data_location=self._onnx.TensorProto.EXTERNAL,
        )
        for key, text in (("location", file), ("offset", str(offset)), ("length", str(value.nbytes))):
            tensor.external_data.add(key=key, value=text)
        return tensor
