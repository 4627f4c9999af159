"""Models: which versions answer and with what share, how quick they are and what they cost, what of them drifts, and a
place to try those that chat."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import Settings
from seamline.observe.store import TelemetryReader
from seamline.observe.store.query import Series
from seamline.portal.acting import Act, Done, action
from seamline.portal.errors import FieldError, NotFoundError
from seamline.portal.live import fragments
from seamline.portal.now import Course, Picture, newest, picture
from seamline.portal.session import caller_of
from seamline.portal.shell import Page, portal_of, render
from seamline.portal.shell import page as answer
from seamline.portal.showing import number
from seamline.portal.status import running
from seamline.run.placement import GATEWAY

SCORES: Final = "seamline.model."
"""What measures of a model's scores begin with."""
FIRST: Final = "seamline.serving.first_item"
"""How long streams took to begin."""
_COURSES: Final = {FIRST: "First piece", "seamline.serving.between_items": "Between pieces"}
_LINES_MAX: Final = 12
_SPAN_NS: Final = 15 * 60 * 1_000_000_000
_SCORES_MAX: Final = 40
_ASKED_S: Final = 3.0
_TALK_MAX: Final = 40
"""Messages of a conversation that are sent along."""


@dataclass(slots=True)
class Version:
    """One version of a model, over all processes that host it."""

    name: str
    share: float = 0.0
    """Of the calls."""
    champion: bool = False
    shadow: bool = False
    loaded: int = 0
    hosts: int = 0
    calls: int = 0
    batches: int = 0
    busy_s: float = 0.0
    waited_s: float = 0.0
    waiting: int = 0
    streams: int = 0
    """Under way."""
    streamed: int = 0
    refused: int = 0
    """And expired: nobody answered them."""
    hits: int = 0
    misses: int = 0
    first_ms: float | None = None
    """Until a stream begins: half of them, and all but one in twenty."""
    first_p95_ms: float | None = None
    routed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the rollout has counted: ``calls``, ``errors``, ``quality``."""
    compared: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """With the answers that callers got, where it is a shadow: ``same``, ``different``, ``errors``."""

    @property
    def asked(self) -> int:
        return int(self.routed.get("calls") or self.calls + self.streamed)

    @property
    def error_ratio(self) -> float | None:
        calls = self.routed.get("calls")
        return self.routed["errors"] / calls if calls else None

    @property
    def agrees(self) -> float | None:
        """Of what it was asked as a shadow, the share that it would have answered the same."""
        asked = sum(self.compared.get(each, 0) for each in ("same", "different", "errors"))
        return self.compared["same"] / asked if asked else None

    @property
    def batch(self) -> float | None:
        return self.calls / self.batches if self.batches else None

    @property
    def call_ms(self) -> float | None:
        """A batch, from its begin to its end."""
        return self.busy_s * 1000 / self.batches if self.batches else None

    @property
    def hit_share(self) -> float | None:
        asked = self.hits + self.misses
        return self.hits / asked if asked else None

    def add(self, told: Mapping[str, Any]) -> None:
        """What one process has counted."""
        self.hosts += 1
        self.loaded += bool(told.get("loaded"))
        self.streams += int(told.get("streams", 0))
        self.streamed += int(told.get("streamed", 0))
        cache: Mapping[str, Any] = told.get("cache", {})
        self.hits += int(cache.get("hits", 0)) + int(cache.get("joined", 0)) + int(cache.get("similar", 0))
        self.misses += int(cache.get("misses", 0))
        for method in told.get("methods", {}).values():
            self.calls += int(method["calls"])
            self.batches += int(method["batches"])
            self.busy_s += float(method["busy_s"])
            self.waited_s += float(method["waited_s"])
            self.waiting += int(method["waiting"])
            self.refused += int(method["refused"]) + int(method["expired"])


@dataclass(slots=True)
class Model:
    """The versions of one contract."""

    contract: str
    module: str
    chats: bool
    versions: dict[str, Version] = field(default_factory=dict[str, Version])
    methods: list[tuple[str, Course]] = field(default_factory=list[tuple[str, Course]])
    history: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    charts: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])

    @property
    def divisible(self) -> bool:
        """Whether there is a choice of who answers."""
        return len(self.versions) > 1

    @property
    def shares(self) -> list[tuple[Version, float, float]]:
        """Each version that answers, where its part of the bar begins, and how wide it is, in hundredths."""
        found: list[tuple[Version, float, float]] = []
        at = 0.0
        for version in self.versions.values():
            if version.share > 0:
                found.append((version, at, version.share * 100))
                at += version.share * 100
        return found

    @property
    def split_words(self) -> str:
        """For people who hear the bar."""
        return ", ".join(f"{version.name} {version.share:.0%}" for version, _, _ in self.shares) or "nobody answers"


@dataclass(slots=True)
class Alias:
    """A model of the AI gateway, over all processes."""

    name: str
    calls: int = 0
    failed: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    first_ms: float = 0.0
    targets: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    _most: int = 0

    @property
    def error_ratio(self) -> float:
        return self.failed / self.calls if self.calls else 0.0

    @property
    def cost_per_answer(self) -> Decimal | None:
        answered = self.calls - self.failed
        return self.cost / answered if answered and self.cost else None

    def add(self, told: Mapping[str, Any]) -> None:
        """What one gateway has counted. Times are those of the one that was asked most."""
        calls = int(told.get("calls", 0))
        self.calls += calls
        self.failed += int(told.get("failed", 0))
        self.cached += int(told.get("cached", 0))
        self.input_tokens += int(told.get("input_tokens", 0))
        self.output_tokens += int(told.get("output_tokens", 0))
        self.cost += _money(told.get("cost", "0"))
        if calls > self._most:
            self._most = calls
            self.p50_ms = float(told.get("p50_ms", 0))
            self.p95_ms = float(told.get("p95_ms", 0))
            self.first_ms = float(told.get("first_token_p50_ms", 0))


@dataclass(frozen=True, slots=True)
class Score:
    """What was told of how a model does, over time."""

    model: str
    version: str
    name: str
    values: list[float | None]

    @property
    def last(self) -> float | None:
        return next((each for each in reversed(self.values) if each is not None), None)


# What is shown, from what was told.


def models_of(processes: Iterable[Mapping[str, Any]], rollout: Mapping[str, Any], settings: Settings) -> list[Model]:
    """Every model that is hosted, by its contract. ``rollout`` is what the operation ``models`` answers, or nothing."""
    found: dict[str, Model] = {}
    for process in processes:
        for contract, told in process.get("contracts", {}).items():
            model = found.setdefault(contract, Model(contract, str(told["module"]), bool(told["chats"])))
            for name, counted in told["versions"].items():
                model.versions.setdefault(name, Version(name)).add(counted)
    for model in found.values():
        _divide(model, rollout.get("contracts", {}).get(model.contract, {}), settings)
        model.history = [each for each in rollout.get("history", ()) if each["subject"] == model.contract]
    return [found[name] for name in sorted(found)]


def _divide(model: Model, told: Mapping[str, Any], settings: Settings) -> None:
    """Whose calls are whose: as the rollout says, or else the settings, or else the first version's."""
    split: Mapping[str, Any] = told.get("split") or {}
    configured = settings.models.of(model.contract)
    weights: Mapping[str, float] = split.get("weights") or configured.weights or {next(iter(model.versions)): 1.0}
    shadows: Sequence[str] = split.get("shadow") or configured.shadow
    total = sum(weights.values()) or 1.0
    champion = split.get("champion") or max(weights, key=lambda version: weights[version])
    for name in (*weights, *shadows):
        model.versions.setdefault(name, Version(name))
    for version in model.versions.values():
        version.share = weights.get(version.name, 0.0) / total
        version.champion = version.name == champion
        version.shadow = version.name in shadows
        version.routed = told.get("versions", {}).get(version.name, {})
        version.compared = told.get("shadow", {}).get(version.name, {})


def aliases_of(processes: Iterable[Mapping[str, Any]]) -> list[Alias]:
    """The models of the AI gateway, whoever asked for them."""
    found: dict[str, Alias] = {}
    for process in processes:
        for gateway in process.get("ai_gateway", {}).values():
            for name, targets in gateway.get("targets", {}).items():
                found.setdefault(name, Alias(name)).targets |= targets
            for name, counted in gateway.get("models", {}).items():
                found.setdefault(name, Alias(name)).add(counted)
    return [found[name] for name in sorted(found)]


def keys_of(processes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Whose calls of which model cost what, the dearest first."""
    accounts = [
        cast("Mapping[str, Any]", account)
        for process in processes
        for gateway in process.get("ai_gateway", {}).values()
        for account in gateway.get("accounts", ())
    ]
    return sorted(accounts, key=lambda each: (_money(each["cost"]), each["calls"]), reverse=True)[:50]


def talkers_of(models: Iterable[Model], processes: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Who can be talked to: contracts that chat, and models of AI gateways that are served. Values, and names."""
    served = {
        alias for process in processes for alias in process.get("ai_gateway", {}).get(GATEWAY, {}).get("targets", {})
    }
    contracts = [(f"{model.module}/{model.contract}", model.contract) for model in models if model.chats]
    return contracts + [(f"/{alias}", f"{alias} (AI gateway)") for alias in sorted(served)]


def _money(text: Any) -> Decimal:
    try:
        return Decimal(str(text))
    except InvalidOperation:
        return Decimal(0)


@dataclass(slots=True)
class Measured:
    """What the store has of the last quarter of an hour."""

    first: dict[tuple[str, str], tuple[float, float]] = field(
        default_factory=dict[tuple[str, str], tuple[float, float]]
    )
    """By contract and version: milliseconds until half of all streams had begun, and 95 of 100."""
    charts: dict[str, list[tuple[str, dict[str, Any]]]] = field(
        default_factory=dict[str, list[tuple[str, dict[str, Any]]]]
    )
    """By contract."""
    scores: list[Score] = field(default_factory=list[Score])


def _measured(reader: TelemetryReader, now_ns: int) -> Measured:
    since_ns = now_ns - _SPAN_NS
    names = [each.name for each in reader.metric_names(since_ns)]
    found = Measured()
    if FIRST in names:
        for series in reader.metric(FIRST, since_ns=since_ns, until_ns=now_ns, step_ns=_SPAN_NS):
            half, most = _last(series.columns["p50"]), _last(series.columns["p95"])
            if half is not None and most is not None:
                before = found.first.get(_whose(series), (0.0, 0.0))
                found.first[_whose(series)] = max(before[0], half * 1000), max(before[1], most * 1000)
    for name, title in _COURSES.items():
        if name in names:
            for contract, chart in _charts(reader.metric(name, since_ns=since_ns, until_ns=now_ns)).items():
                found.charts.setdefault(contract, []).append((title, chart))
    for name in [each for each in names if each.startswith(SCORES)][:_SCORES_MAX]:
        for series in reader.metric(name, since_ns=since_ns, until_ns=now_ns):
            model, version = (series.attributes.get(key, "") for key in ("seamline.model", "seamline.model.version"))
            short = name.removeprefix(SCORES).removeprefix(f"{model}.{version}.")
            found.scores.append(Score(model, version, short, series.columns["value"]))
    found.scores = found.scores[:_SCORES_MAX]
    return found


def _whose(series: Series) -> tuple[str, str]:
    """Contract and version."""
    return series.attributes.get("contract", ""), series.attributes.get("version", "")


def _charts(found: Iterable[Series]) -> dict[str, dict[str, Any]]:
    """By contract, a line for each version in each process: the median."""
    charts: dict[str, dict[str, Any]] = {}
    for series in found:
        contract, version = _whose(series)
        chart = charts.setdefault(contract, {"at": [at / 1e9 for at in series.at_ns], "series": [], "marks": []})
        values = [None if each is None else each * 1000 for each in series.columns["p50"]]
        if len(values) == len(chart["at"]) and len(chart["series"]) < _LINES_MAX:
            chart["series"].append({"name": version, "values": values, "unit": "ms"})
    return charts


def _last(values: Sequence[float | None]) -> float | None:
    return next((each for each in reversed(values) if each is not None), None)


# The page.


async def _context(request: Request) -> dict[str, Any]:
    portal = portal_of(request)
    (stats, trouble), (rollout, _), measured, status = await asyncio.gather(
        _asked(request, "model_stats"),
        _asked(request, "models"),
        asyncio.to_thread(_measured, portal.reader, portal.now_ns()),
        running(request),
    )
    processes: list[Mapping[str, Any]] = stats.get("processes", [])
    models = models_of(processes, rollout, portal.settings)
    now = picture(newest(portal.rows()), portal.settings.modules, status, [], portal.recent.seen)
    for model in models:
        model.methods = _methods(now, model)
        model.charts = measured.charts.get(model.contract, [])
        for version in model.versions.values():
            version.first_ms, version.first_p95_ms = measured.first.get((model.contract, version.name), (None, None))
    return {
        "models": models, "aliases": aliases_of(processes), "keys": keys_of(processes), "scores": measured.scores,
        "trouble": trouble, "talkers": talkers_of(models, processes),
        "steers": "contracts" in rollout, "registry": rollout.get("registry", ()),
    }  # fmt: skip


async def _asked(request: Request, operation: str) -> tuple[dict[str, Any], str]:
    """The answer, or why there is none: a page about models in trouble must not wait for them."""
    try:
        async with asyncio.timeout(_ASKED_S):
            return await portal_of(request).admin.ask(operation, as_=caller_of(request)), ""
    except SeamlineError as error:
        return {}, error.fact
    except TimeoutError:
        return {}, f"no answer came within {_ASKED_S:g} s"


def _methods(now: Picture, model: Model) -> list[tuple[str, Course]]:
    """Of its contract, those that were called lately, by whoever called most."""
    found: dict[str, Course] = {}
    for edge in now.edges:
        if edge.callee == model.module:
            for method, course in edge.methods.items():
                ours = method.startswith(f"{model.contract}.")
                if ours and (method not in found or found[method].flow.calls < course.flow.calls):
                    found[method] = course
    return sorted(found.items())


async def _page(request: Request) -> Response:
    context = await _context(request)
    return answer(request, "models.html", title="Models", live="/live/models", script="pages/models.js", **context)


async def _live(request: Request) -> Response:
    async def draw() -> dict[str, str]:
        context = await _context(request)
        return {f"models-{part}": render(request, f"models.html#{part}", **context) for part in ("list", "more")}

    return fragments(request, draw, at_least_every_s=5.0)


# What people do.


async def _try(act: Act) -> Done:
    module, _, name = act.field("model").partition("/")
    whom = {"module": module, "contract": name} if module else {"alias": name}
    request: dict[str, Any] = {"messages": _talk(act.field("talk", "[]"), act.field("text"))}
    if tokens := int(number(act.field("tokens_max", ""), "tokens")):
        request["tokens_max"] = tokens
    if temperature := act.field("temperature", ""):
        request["temperature"] = number(temperature, "degrees")
    found = await act.ask("model_try", **whom, request=request)
    text = render(act.request, "models_tried.html", found=found)
    return Done("", into="model-tried", html=text)


def _talk(before: str, text: str) -> list[dict[str, str]]:
    """The messages so far, and the new one."""
    try:
        talk: Any = json.loads(before)
    except ValueError:
        raise FieldError("the conversation cannot be read", "Reload the page.") from None
    messages: list[dict[str, str]] = []
    for each in cast("list[Any]", talk) if isinstance(talk, list) else []:
        match each:
            case {"role": "user" | "assistant" as role, "content": str(content)}:
                messages.append({"role": role, "content": content})
            case _:
                raise FieldError("the conversation cannot be read", "Reload the page.")
    return [*messages[-_TALK_MAX:], {"role": "user", "content": text}]


async def _promote(act: Act) -> Done:
    contract, version = act.field("contract"), act.field("version")
    await act.ask("model_promote", contract=contract, version=version, why=act.field("why", ""))
    return Done(f"{version} answers all calls of {contract}.", again=True)


async def _roll_back(act: Act) -> Done:
    contract = act.field("contract")
    await act.ask("model_rollback", contract=contract, why=act.field("why", ""))
    return Done(f"{contract} is answered as before.", again=True)


async def _weigh(act: Act) -> Done:
    contract = act.field("contract")
    shares = {
        name.removeprefix("share-"): number(value, "hundredths") / 100
        for name, value in act.values().items()
        if name.startswith("share-")
    }
    if not shares or sum(shares.values()) <= 0:
        raise NotFoundError("no version has a share", "Give one at least a share.")
    await act.ask("model_weights", contract=contract, shares=shares, why=act.field("why", ""))
    return Done("The calls are divided so.", again=True)


page = Page(
    title="Models",
    path="/models",
    key="d",
    icon="models",
    group="work",
    order=3,
    routes=[
        Route("/models", _page),
        Route("/live/models", _live),
        action("/models/try", "operator", _try),
        action("/models/promote", "operator", _promote),
        action("/models/rollback", "operator", _roll_back),
        action("/models/weights", "operator", _weigh),
    ],
)
