"""The application as a test sees it, the same in every topology."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from seamline.module import CallContext, Contract, User
from seamline.module.context import CURRENT
from seamline.run.placement import GATEWAY
from seamline.testing.errors import NoSuchTargetError, NoSuchTopologyError, NotHereError
from seamline.testing.ground import TEST, prepare
from seamline.testing.http import HttpClient
from seamline.testing.site import START_S, STOP_S, Plan, Site
from seamline.testing.thread import LoopThread, crossing_stub

if TYPE_CHECKING:
    from seamline.run.application import Application

C = TypeVar("C", bound=Contract)
S = TypeVar("S", bound=Contract)
_OPERATION_S = 30.0
_WIRES = ("frames", "http")
_ERRORS = ("unavailable", "deadline_exceeded", "internal", "resource_exhausted", "permission_denied")

Target = str | type[Contract] | Callable[..., Any]


class AppClock:
    """The clock that every module of the application sees. It stands still until a test moves it."""

    def __init__(self, site: Site, thread: LoopThread) -> None:
        self._site = site
        self._thread = thread

    def now(self) -> datetime:
        return self._site.now()

    def advance(self, seconds: float) -> None:
        """Move it on; who sleeps until then wakes."""
        self._thread.do(lambda: self._site.advance(seconds))


class TopologyApp:
    """An application that runs in one of its topologies.

    Attributes:
        topology: ``local``, ``copy``, ``processes``, or the name of one of the application's topologies.
        data: its data directory, empty when it started.
        clock: the clock of its modules.
        http: a client of its public side, with cookies of its own.
    """

    def __init__(self, application: Application, topology: str, data: Path, *, policy: str = "") -> None:
        settings = application.settings
        self.application = application
        self.topology = topology
        self.data = data
        prepare(settings, data, policy)
        self._thread = LoopThread(f"{settings.app.name} as {topology}")
        self._site = _site(Plan(application, topology, data))
        self._rules: list[dict[str, dict[str, Any]]] = []
        self._fakes: list[dict[type[Contract], object]] = []
        self._revoked: list[dict[str, Any]] = []
        self._dead: list[int] = []
        self.clock = AppClock(self._site, self._thread)
        self._http: HttpClient | None = None
        self._stack = ExitStack()
        self._started = False

    def __repr__(self) -> str:
        return f"<{self.application.settings.app.name} as {self.topology}>"

    @property
    def one_process(self) -> bool:
        """Whether the application runs in the test's own process, where nothing can crash or be killed."""
        return self._site.one_process

    @property
    def http(self) -> HttpClient:
        if self._http is None:
            self._http = HttpClient(self._thread, *self._site.address())
        return self._http

    @property
    def ai_url(self) -> str:
        """Where the AI gateway answers, with ``/v1``, as OpenAI's client wants it; empty if it does not listen."""
        return self._site.ai_url()

    # Start and stop.

    def start(self) -> Self:
        """Start it; blocks until it is ready. Raises what its start raises, or TooSlowError."""
        self._stack.enter_context(self._thread)
        self._started = True
        try:
            self._thread.run(self._site.start(), START_S, f"starting {self!r}")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop it; blocks until all of it is gone; does nothing a second time. Raises LeftoverError or TooSlowError."""
        if not self._started:
            return
        self._started = False
        try:
            self._close_http()
            self._thread.run(self._site.stop(), STOP_S + 5, f"stopping {self!r}")
        finally:
            self._stack.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def reset(self) -> None:
        """End what a test did to it, between tests that share it. Data and clock stay as they are."""
        self._close_http()
        if self._dead:
            self.wait_ready()
        for entry in self._revoked:
            self._thread.run(self._site.revoke(entry), _OPERATION_S, "lifting what was revoked")
        self._revoked.clear()
        if self._rules:
            self._rules.clear()
            self._apply_rules()
        if self._fakes:
            self._fakes.clear()
            self._apply_fakes()

    def _close_http(self) -> None:
        if self._http is not None:
            client, self._http = self._http, None
            client.close()

    # Calls.

    def stub(self, contract: type[C], *, caller: str = TEST, user: User | None = None) -> C:
        """A stub of the contract. ``caller`` is the module to act as; ``"test"`` may call everything.

        With a ``user`` each call is made in the course of a request of theirs, as the gateway would have let it in.
        Raises NoSuchTargetError.
        """
        settings = self.application.settings
        if caller != TEST and caller not in settings.modules:
            raise NoSuchTargetError(f"there is no module {caller!r}", _nearest(caller, settings.modules))
        if contract not in self.application.contracts:
            raise NoSuchTargetError(
                f"no module of the application provides {contract.__name__!r}",
                "Is it the contract of this application?",
            )
        inner = self._thread.run(self._site.stub(contract, caller), _OPERATION_S, "getting a stub")
        if user is None:
            return crossing_stub(self._thread, contract, inner)
        mesh = self._thread.run(self._site.gateway(), _OPERATION_S, "getting a stub")

        @contextmanager
        def request() -> Generator[None]:
            subject = mesh.introduce(user)
            token = CURRENT.set(CallContext(caller, GATEWAY, subject=subject))
            try:
                with mesh.revocations.bound(subject):
                    yield
            finally:
                CURRENT.reset(token)

        return crossing_stub(self._thread, contract, inner, request)

    def revoke(self, kind: str, name: str, *, reason: str = "revoked by a test", before: int = 0) -> None:
        """Revoke a ``session``, ``user``, ``client``, ``device``, ``token`` or ``module``, everywhere, for this test.

        ``before`` is in milliseconds since the epoch: what was issued earlier is void; 0 is all that there is.
        """
        entry: dict[str, Any] = {"kind": kind, "id": name, "reason": reason, "before": before}
        self._revoked.append({**entry, "lifted": True})
        self._thread.run(self._site.revoke(entry), _OPERATION_S, "revoking")

    # What tests do to it.

    @contextmanager
    def inject(
        self,
        target: Target,
        *,
        delay_ms: float = 0,
        error: str = "",
        drop: bool = False,
        crash: bool = False,
        percent: float = 100,
    ) -> Generator[None]:
        """Let calls of a method, or of a whole contract, go wrong inside the block.

        Args:
            target: ``Payments.charge`` itself or its name, or the contract ``Payments``.
            delay_ms: wait so long before the call.
            error: fail with it: ``"unavailable"``, ``"deadline_exceeded"``, ``"internal"``,
                ``"resource_exhausted"`` or ``"permission_denied"``.
            drop: never answer; the caller's deadline ends it.
            crash: the callee's process dies instead of answering. Raises NotHereError in one process.
            percent: of how many calls.
        """
        rule: dict[str, Any] = {}
        if delay_ms:
            rule |= {"inject_delay_ms": delay_ms, "inject_delay_percent": percent}
        if drop:
            rule |= {"inject_drop_percent": percent}
        if crash:
            self._refuse_crash()
            error = "crash"
        elif error and error not in _ERRORS:
            raise NoSuchTargetError(f"there is no error {error!r} to inject", _nearest(error, _ERRORS))
        if error:
            rule |= {"inject_error": error, "inject_error_percent": percent}
        rules = {self._name_of(target): rule}
        self._rules.append(rules)
        try:
            self._apply_rules()
            yield
        finally:
            if crash:
                self._dead.append(0)
            if rules in self._rules:
                self._rules.remove(rules)
                self._apply_rules()

    @contextmanager
    def fake(self, contract: type[Contract], service: S) -> Generator[S]:
        """Have ``service`` stand in for the contract inside the block, for every caller.

        It runs in the test's process, on the kit's own event loop. Raises BadFakeError.
        """
        fakes: dict[type[Contract], object] = {contract: service}
        self._fakes.append(fakes)
        try:
            self._apply_fakes()
            yield service
        finally:
            if fakes in self._fakes:
                self._fakes.remove(fakes)
                self._apply_fakes()

    def kill(self, module: str) -> None:
        """``kill -9`` for the processes that host the module; the supervisor starts them again.

        Raises NotHereError in one process.
        """
        if module not in self.application.settings.modules:
            raise NoSuchTargetError(f"there is no module {module!r}", _nearest(module, self.application.modules))
        self._dead += self._thread.run(self._site.kill(module), _OPERATION_S, f"killing {module!r}")

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until what was killed, or crashed, serves again. Raises TooSlowError."""
        wait = getattr(self._site, "wait_ready", None)
        if wait is not None:
            self._thread.run(wait(timeout_s, self._dead), timeout_s + 5, "waiting for the application")
        self._dead.clear()

    def restart(self) -> None:
        """Stop everything and start it again on the same data."""
        self._close_http()
        self._thread.run(self._site.restart(), START_S + STOP_S, f"restarting {self!r}")

    def log(self) -> str:
        """What its processes have written; empty in one process, where pytest captures it."""
        file = self.data / "test" / "processes.log"
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    def _apply_rules(self) -> None:
        merged: dict[str, dict[str, Any]] = {}
        for rules in self._rules:
            for name, rule in rules.items():
                merged[name] = {**merged.get(name, {}), **rule}
        self._thread.run(self._site.set_rules(merged), _OPERATION_S, "injecting faults")

    def _apply_fakes(self) -> None:
        merged = {contract: service for fakes in self._fakes for contract, service in fakes.items()}
        self._thread.run(self._site.set_fakes(merged), _OPERATION_S, "putting fakes in place")

    def _refuse_crash(self) -> None:
        if self.one_process:
            raise NotHereError(
                "a crash would end the test itself: the whole application is in its process",
                "Ask `app.one_process` first, or mark the test with topologies=['processes'].",
            )

    def _name_of(self, target: Target) -> str:
        methods = self.application.contract_methods()
        if isinstance(target, str):
            name = target
        elif isinstance(target, type):
            name = target.__name__
        else:
            name = cast("str", getattr(target, "__qualname__", repr(target)))
        contract, _, method = name.partition(".")
        if contract not in methods or (method and method not in methods[contract][1]):
            known = [*methods, *(f"{each}.{m}" for each, (_, found) in methods.items() for m in found)]
            raise NoSuchTargetError(f"there is no contract or method {name!r}", _nearest(name, known))
        return name


def _site(plan: Plan) -> Site:
    if plan.topology in ("local", "copy"):
        from seamline.testing.one_process import OneProcess

        return OneProcess(plan, copies=plan.topology == "copy")
    name, _, wire = plan.topology.partition("+")
    topology = "services" if name == "processes" else name
    known = plan.application.settings.topologies
    if topology not in known or wire not in ("", *_WIRES):
        every = [*known, "processes"]
        names = ["local", "copy", *every, *(f"{each}+{wire}" for each in every for wire in _WIRES)]
        raise NoSuchTopologyError(f"there is no topology {plan.topology!r}", _nearest(plan.topology, names))
    from seamline.testing.many_processes import ManyProcesses

    return ManyProcesses(plan, topology, wire)


def _nearest(given: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."
