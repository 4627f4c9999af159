"""A process that is one model: ``python -m seamline.models.serving.worker <descriptor> <parent>``.

It reads from its socket and answers there, from as many threads as calls may be under way. It ends when the socket
does, and with its parent. Output and errors are its parent's.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from seamline.kernel.children import die_with_parent
from seamline.mesh.outcome import error_body
from seamline.models.errors import ModelAnswerError
from seamline.models.serving.messages import (
    Answer,
    Answered,
    Ask,
    Begin,
    Credit,
    Failed,
    Frames,
    FromProcess,
    Item,
    Leave,
    Ready,
    Stream,
    StreamEnd,
    ToProcess,
    framed,
    to_process,
)
from seamline.models.serving.outcomes import encoded_error
from seamline.models.serving.place import loaded_with
from seamline.module.contract import ContractSpec, MethodSpec, compile_contract
from seamline.module.models import Artefacts, is_batched
from seamline.module.values import Fault

_log = logging.getLogger("seamline.models")
_CHUNK_BYTES: Final = 1 << 18
_NICENESS: Final = 5
"""Who hosts modules goes before the models that it hosts: it answers for all of them."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class _Reader:
    """A stream's reader, at the other end."""

    def __init__(self, credit: int) -> None:
        self.room = threading.Semaphore(credit)
        self.gone = False


class Worker:
    """The one model of this process."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._writing = threading.Lock()
        self._readers: dict[int, _Reader] = {}
        self._model: Any = None
        self._spec: ContractSpec
        self._threads: ThreadPoolExecutor

    def run(self) -> None:
        """Until the socket ends."""
        frames = Frames()
        while data := self._socket.recv(_CHUNK_BYTES):
            for frame in frames.feed(data):
                self._take(to_process.decode(frame))

    def _take(self, message: ToProcess) -> None:
        match message:
            case Begin():
                self._begin(message)
            case Ask():
                self._threads.submit(self._guarded, self._answer, message)
            case Stream():
                self._readers[message.id] = _Reader(message.credit)
                self._threads.submit(self._guarded, self._stream, message)
            case Credit():
                if reader := self._readers.get(message.id):
                    reader.room.release(message.items)
            case Leave():
                if reader := self._readers.get(message.id):
                    reader.gone = True
                    reader.room.release()

    def _begin(self, begin: Begin) -> None:
        try:
            sys.path[:] = begin.path
            self._spec = compile_contract(_found(begin.contract))
            self._model = _found(begin.cls)()
            load = getattr(self._model, "load", None)
            if load is not None:
                artefacts = Artefacts(Path(begin.artefacts), begin.digest) if begin.artefacts else None
                load(*loaded_with(load, artefacts))
            for method, call in begin.warm:
                self._called(self._spec.methods[method], [call])
        except Exception as error:  # whatever the model raises is told
            _log.exception("%s cannot be loaded", begin.cls)
            self._send(Failed(f"{type(error).__name__}: {error}"))
            return
        self._threads = ThreadPoolExecutor(begin.concurrency)
        self._send(Ready(_rss_bytes()))

    def _guarded(self, work: Callable[[Any], None], message: Any) -> None:
        """What cannot be told, as the socket is broken or the answer too odd, ends the process; it is started again."""
        try:
            work(message)
        except BaseException:
            _log.exception("the model's process cannot go on")
            os._exit(1)

    def _answer(self, ask: Ask) -> None:
        spec = self._spec.methods[ask.method]
        try:
            answers = [self._encoded(spec, each) for each in self._called(spec, ask.calls)]
        except Exception as error:
            self._send(Answered(ask.id, [], _rss_bytes(), self._error(spec, error)))
            return
        self._send(Answered(ask.id, answers, _rss_bytes()))

    def _called(self, spec: MethodSpec, calls: Sequence[bytes]) -> Sequence[Any]:
        function = getattr(self._model, spec.name)
        arguments = [spec.decode_request(call) for call in calls]
        if not is_batched(function):
            (alone,) = arguments
            return [function(*alone)]
        results = function(*(list(column) for column in zip(*arguments, strict=True)))
        if not isinstance(results, Sequence) or len(results) != len(calls):  # pyright: ignore[reportUnknownArgumentType]
            raise ModelAnswerError(
                f"{spec.full_name} gave {type(results).__name__} for {len(calls)} calls",  # pyright: ignore[reportUnknownArgumentType]
                "Return a list with one result for each call.",
            )
        return results  # pyright: ignore[reportUnknownVariableType]

    def _encoded(self, spec: MethodSpec, result: Any) -> Answer:
        if isinstance(result, Exception):
            return Answer(error=self._error(spec, result))
        return Answer(spec.result.encode(result))

    def _stream(self, stream: Stream) -> None:
        spec, reader, error = self._spec.methods[stream.method], self._readers[stream.id], b""
        try:
            items = getattr(self._model, spec.name)(*spec.decode_request(stream.call))
            try:
                for item in items:
                    reader.room.acquire()
                    if reader.gone:
                        break
                    self._send(Item(stream.id, spec.result.encode(item)))
            finally:
                items.close()
        except Exception as raised:
            error = self._error(spec, raised)
        self._readers.pop(stream.id, None)
        self._send(StreamEnd(stream.id, _rss_bytes(), error))

    def _error(self, spec: MethodSpec, error: Exception) -> bytes:
        if isinstance(error, Fault) and self._spec.faults.get(type(error).__name__) is type(error):
            return encoded_error(error_body(error))
        _log.error("%s failed", spec.full_name, exc_info=error)
        return encoded_error(error)

    def _send(self, message: FromProcess) -> None:
        data = framed(message)
        with self._writing:
            self._socket.sendall(data)


def _found(name: str) -> Any:
    module, _, qualname = name.partition(":")
    return attrgetter(qualname)(importlib.import_module(module))


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES


def main(descriptor: int, parent: int) -> None:
    """Answer on the socket ``descriptor`` for as long as the process ``parent`` lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's, which is for the parent
    if not die_with_parent(parent):
        return
    os.nice(_NICENESS)
    os.set_inheritable(descriptor, False)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        Worker(socket.socket(fileno=descriptor)).run()
    except OSError:
        _log.info("the host of the model has gone")
    # Threads may still be at work: nobody waits for them.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
