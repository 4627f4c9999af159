"""What a module says of its models; the room ``models`` acts on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

RunsIn = Literal["thread", "loop", "process"]
"""Where a model's methods run: in threads of its own; if they are ``async``, on the event loop; or in processes of its
own, which may crash, leak or hog the CPU and hurt nobody."""

Loads = Literal["", "start", "background", "first_call"]
"""When a model is loaded: before the process is ready, while it already serves, or when it is first asked. Empty is
``start`` for the first version of a contract and ``first_call`` for the others."""

_LOOP_CONCURRENCY: Final = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """How calls that wait at the same time are put together.

    Args:
        max: calls in one batch, at most.
        wait_ms: how long a batch waits for calls that are likely to come, in milliseconds. With nothing else under
            way and nobody expected, it does not wait.
    """

    max: int = 32
    wait_ms: float = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workers:
    """The processes of a model that runs in processes of its own.

    Args:
        count: how many there are in each process that hosts the module.
        rss_max_mb: one that has grown beyond it is replaced between calls, when its successor is ready; one that
            grows to twice as much within a call is killed. 0 is no limit.
        requests_max: one that has answered so many calls is replaced likewise. 0 is no limit.
        grace_s: how long a call goes on that nobody waits for any more, in seconds, before its process is killed.
    """

    count: int = 1
    rss_max_mb: int = 0
    requests_max: int = 0
    grace_s: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemanticCache:
    """Also answers what is *similar* to what was asked before. Be sure that this is what callers want.

    Args:
        embed: places a call in a space where what means alike is near: it takes the method's arguments and gives
            numbers. It may be ``async``.
        similarity: the cosine from which on two calls count as one.
        same: what of the arguments has to be equal besides, such as the language of the answer.
        entries: how many are kept for each method and principal.
    """

    embed: Callable[..., Any]
    similarity: float = 0.95
    same: Callable[..., str] | None = None
    entries: int = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache:
    """Answers of methods that are ``@readonly``, kept in each process by version, arguments and principal.

    Args:
        entries: how many are kept.
        size_max_mb: how large they are altogether, as they are encoded.
        ttl_s: how long one is good, in seconds.
        shared: what one principal (a user, or a module that acts for none) was answered may be given to another.
        semantic: also what is only similar; off unless given.
    """

    entries: int = 10_000
    size_max_mb: float = 64.0
    ttl_s: float = 300.0
    shared: bool = False
    semantic: SemanticCache | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capture:
    """Keep what a model was asked and answered, of those who agreed; see :mod:`seamline.models.watch.datasets`.

    Args:
        dataset: its name; a word.
        subject: whose a call is: takes the method's arguments. By default the user who is signed in.
        mask: takes out of texts what is nobody's business.
        share: of the calls, how many.
    """

    dataset: str
    subject: Callable[..., str] | None = None
    mask: Callable[[str], str] | None = None
    share: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watch:
    """What is looked at as a model answers, and told as scores: drift of what it is asked and says; of answers that
    stream, tokens in time; of those of language models, what evaluators say and what they cost.

    Args:
        reference: what the model was made with: the name of a file among its own, or a path from the module's folder.
            Without one the first window is taken for it.
        methods: whose calls are compared; all of them, if they take the same arguments.
        row: what is compared of a call: takes the answer (None for a stream), then the method's arguments. By default
            all numbers, words and booleans in them, by their names.
        window_s: calls are gathered for so long, at least, in seconds,
        rows_min: until there are so many,
        rows_max: of which so many are kept.
        share: of the calls, how many are looked at.
        evaluators: of texts that are answered; see :mod:`seamline.models.watch.evaluators`. By default, of a model
            that chats, whether it refuses and how long it speaks.
        cost: of an answer, in a currency of yours: takes the :class:`~seamline.models.chat.Usage`.
        judge: of a model that chats, who grades a sample of its answers: makes a
            :class:`~seamline.models.watch.judges.Judge`, and takes the clock.
        capture: what is kept for evaluation.
    """

    reference: str = ""
    methods: Sequence[str] = ()
    row: Callable[..., Mapping[str, Any]] | None = None
    window_s: float = 300.0
    rows_min: int = 200
    rows_max: int = 2_000
    share: float = 1.0
    evaluators: Sequence[Any] | None = None
    cost: Callable[[Any], float] | None = None
    judge: Callable[[Any], Any] | None = None
    capture: Capture | None = None


@dataclasses.dataclass(frozen=True)
class Artefacts:
    """The files of one version of a model, as ``load`` gets them.

    Args:
        folder: where they lie; they are checked, and must not be changed.
        digest: of all of them, ``sha256:...``; empty where they do not come from a registry.
    """

    folder: Path
    digest: str = ""

    def path(self, name: str) -> Path:
        """One of them. Raises FileNotFoundError."""
        found = self.folder / name
        if not found.exists():
            raise FileNotFoundError(f"{name!r} is not among the files in {self.folder}")
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelType:
    """A class that is a model. See :meth:`seamline.Module.model`."""

    cls: type[Any]
    contract: type[Any]
    version: str
    batch: Batch = Batch()
    runs_in: RunsIn = "thread"
    concurrency: int = 0
    waiting_max: int = 1000
    warm: Sequence[tuple[str, tuple[Any, ...]]] = ()
    workers: Workers = Workers()
    cache: Cache | None = None
    loads: Loads = ""
    idle_s: float = 0.0
    watch: Watch | None = None

    @property
    def name(self) -> str:
        """``Similar@minilm-1``."""
        return f"{self.contract.__name__}@{self.version}"

    @property
    def slots(self) -> int:
        """Calls, or batches, at once in each process that hosts the module."""
        each = self.concurrency or (_LOOP_CONCURRENCY if self.runs_in == "loop" else 1)
        return each * self.workers.count if self.runs_in == "process" else each


def batched(method: F) -> F:
    """Mark a model's method that answers several calls at once.

    It takes the contract's parameters, each as a list with one element a call, and returns a list with one result a
    call. A result that is an exception is raised to that caller only.
    """
    method.__seamline_batched__ = True  # type: ignore[attr-defined]
    return method


def is_batched(method: object) -> bool:
    return bool(getattr(method, "__seamline_batched__", False))
