"""One step of a model: tokens in, logits out, keys and values kept in slots of a cache of fixed size."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from seamline.models.runtimes.llama.files import Llama
from seamline.models.runtimes.llama.graph import LlamaGraph
from seamline.models.runtimes.llama.shape import Floats

_CPU: Final = "cpu"


class Runner:
    """Not to be used by two threads at once.

    Args:
        llama: the model.
        slots: sequences that it keeps at once.
        context: tokens of each, at most.
        threads: that a step computes with.
    """

    def __init__(self, llama: Llama, *, slots: int, context: int, threads: int = 1) -> None:
        shape = llama.shape
        self.slots = slots
        self.context = context
        self.vocabulary = shape.vocabulary
        self._session = _session(LlamaGraph(llama, context), threads)
        # Its memory is taken as it is written.
        size = (2 * shape.layers, slots, shape.kv_heads, context, shape.head_size)
        self._cache: Floats = np.zeros(size, np.float32)
        self._names = [f"{kind}.{layer}" for layer in range(shape.layers) for kind in ("key", "value")]
        self._steps: dict[int, _Step] = {}

    def read(self, slot: int, ids: npt.NDArray[np.int64], past: int) -> Floats:
        """Append ``ids`` to a slot that has ``past`` tokens; the logits ``[vocabulary]`` after the last."""
        step = _Step(self, slot, 1, len(ids))
        step.ids[0] = ids
        step.lengths[0] = past + len(ids) - 1
        step.total[...] = past + len(ids)
        self._session.run_with_iobinding(step.binding)
        return step.logits[0]

    def step(self, ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int32]) -> Floats:
        """Append one token to each of the first slots, which have ``lengths``; the logits ``[slots, vocabulary]``.

        They are overwritten by the next step.
        """
        rows = len(ids)
        step = self._steps.get(rows)
        if step is None:
            step = self._steps[rows] = _Step(self, 0, rows, 1)
        step.ids[:, 0] = ids
        step.lengths[:] = lengths
        step.total[...] = lengths.max() + 1
        self._session.run_with_iobinding(step.binding)
        return step.logits

    def copy(self, source: int, target: int, tokens: int) -> None:
        """The beginning of one slot into another."""
        self._cache[:, target, :, :tokens] = self._cache[:, source, :, :tokens]

    def bind(self, binding: Any, slot: int, rows: int) -> None:
        for name, array in zip(self._names, self._cache, strict=True):
            part = array[slot : slot + rows]
            # What is written is what is read: the operator sees that it is the same memory, and copies nothing.
            binding.bind_input(name, _CPU, 0, np.float32, part.shape, part.ctypes.data)
            binding.bind_output(f"new_{name}", _CPU, 0, np.float32, part.shape, part.ctypes.data)

    def binding(self) -> Any:
        return self._session.io_binding()


class _Step:
    """The memory of a step of one form, bound once."""

    def __init__(self, runner: Runner, slot: int, rows: int, tokens: int) -> None:
        self.ids: npt.NDArray[np.int64] = np.zeros((rows, tokens), np.int64)
        self.lengths: npt.NDArray[np.int32] = np.zeros(rows, np.int32)
        self.total: npt.NDArray[np.int32] = np.zeros((), np.int32)
        self.logits: Floats = np.zeros((rows, runner.vocabulary), np.float32)
        self.binding = runner.binding()
        for name, array in (("ids", self.ids), ("lengths", self.lengths), ("total", self.total)):
            self.binding.bind_input(name, _CPU, 0, array.dtype.type, array.shape, array.ctypes.data)
        self.binding.bind_output("logits", _CPU, 0, np.float32, self.logits.shape, self.logits.ctypes.data)
        runner.bind(self.binding, slot, rows)


def _session(graph: LlamaGraph, threads: int) -> Any:
    runtime: Any = onnxruntime
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait actively take the CPU from the rest of the process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False
    values = [runtime.OrtValue.ortvalue_from_numpy(array) for array in graph.arrays.values()]
    options.add_external_initializers([*graph.arrays], values)
    return runtime.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
