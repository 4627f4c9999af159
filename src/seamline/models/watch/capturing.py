"""What one version is asked and answers, kept as it goes by: written by a thread, so that no call waits for a disk."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import Any, Final, NamedTuple

import msgspec

from seamline.models.watch.datasets import Dataset, Datasets
from seamline.module.context import current
from seamline.module.contract import compile_contract
from seamline.module.models import Capture, ModelType

_log = logging.getLogger("seamline.models")
_WAITING_MAX: Final = 1_000


class _Call(NamedTuple):
    subject: str
    method: str
    asked: bytes
    answered: bytes


class Capturing:
    """Captures calls of one version into a dataset."""

    def __init__(self, model: ModelType, capture: Capture, dataset: Dataset) -> None:
        self._model = model
        self._capture = capture
        self._dataset = dataset
        self._specs = compile_contract(model.contract).methods
        self._waiting: deque[_Call] = deque()
        self._writing: asyncio.Future[None] | None = None
        self.kept = 0
        self.not_agreed = 0
        self.dropped = 0
        """Calls that came faster than they could be written."""

    @staticmethod
    def of(model: ModelType, capture: Capture | None, datasets: Datasets) -> Capturing | None:
        """None where nothing is captured. Raises CaptureError for a dataset that cannot be."""
        if capture is None:
            return None
        return Capturing(model, capture, datasets.open(capture.dataset, mask=capture.mask))

    def keep(self, method: str, arguments: tuple[Any, ...], answer: Any) -> None:
        """A call and its answer, if whose it is agreed."""
        if self._capture.share < 1.0 and random.random() >= self._capture.share:
            return
        subject = self._capture.subject(*arguments) if self._capture.subject is not None else _signed_in()
        if not self._dataset.agreed(subject):  # and asked for again when it is written
            self.not_agreed += 1
            return
        if len(self._waiting) >= _WAITING_MAX:
            self.dropped += 1
            return
        spec = self._specs[method]
        self._waiting.append(_Call(subject, method, spec.encode_request(arguments), spec.result.encode(answer)))
        if self._writing is None:
            self._begin_writing()

    def stats(self) -> dict[str, Any]:
        """For JSON."""
        dataset = self._dataset
        return {
            "kept": self.kept,
            "not_agreed": self.not_agreed + dataset.refused,
            "dropped": dataset.dropped + self.dropped,
        }

    async def close(self) -> None:
        """What came is written."""
        while self._writing is not None:
            await asyncio.wait([self._writing])
            await asyncio.sleep(0)

    def _begin_writing(self) -> None:
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._write)
        self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        if not writing.cancelled() and (error := writing.exception()) is not None:
            self.dropped += len(self._waiting)
            self._waiting.clear()
            _log.error("what %s is asked cannot be kept: %s", self._model.name, error)
        elif self._waiting:
            self._begin_writing()

    def _write(self) -> None:
        contract, version = self._model.contract.__name__, self._model.version
        while self._waiting:
            call = self._waiting.popleft()
            asked, answered = msgspec.json.decode(call.asked), msgspec.json.decode(call.answered)
            self.kept += self._dataset.capture(call.subject, contract, version, asked, answered, method=call.method)


def _signed_in() -> str:
    """The user on whose behalf the call at work is made."""
    call = current()
    subject = call.subject if call is not None else None
    return subject.user.id if subject is not None and subject.user is not None else ""
