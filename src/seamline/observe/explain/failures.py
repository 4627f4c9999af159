"""Where errors begin: the module that failed by itself, and not because what it called did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from seamline.observe.explain.finding import Finding, share
from seamline.observe.explain.interface import Traces
from seamline.observe.explain.latency import SIGMAS_MIN
from seamline.observe.explain.picture import Picture, Slice
from seamline.observe.records import Attribute, Span, is_failure

_PER_S_MIN: Final = 0.05
_SHARE_MIN: Final = 0.1
_UNREACHED: Final = frozenset({"unavailable", "deadline_exceeded", "cancelled", "unauthenticated"})
_NO_ERRORS: Final = frozenset({"1xx", "2xx", "3xx", "4xx"})
_OURS: Final = ("site-packages", "/seamline/", "<frozen", "/lib/python")
_TEXT_MAX: Final = 200


def own_errors(picture: Picture) -> dict[str, float]:
    """Errors a second that each module has begun to answer with of its own, where they stand out."""
    found: dict[str, float] = {}
    for module in picture.modules:
        extra = _mean(picture.after, module) - _mean(picture.before, module)
        errors = sum(max(each.errors_of_its_own(module), 0) for each in picture.after)
        grown = picture.change(lambda each, module=module: each.errors_of_its_own(module) / each.seconds, _PER_S_MIN)
        if (
            errors >= 3
            and extra > _PER_S_MIN
            and (grown.sigmas >= SIGMAS_MIN or extra > 5 * _mean(picture.before, module))
        ):
            found[module] = extra
    return found


def _mean(slices: Sequence[Slice], module: str) -> float:
    seconds = sum(each.seconds for each in slices)
    return sum(max(each.errors_of_its_own(module), 0) for each in slices) / seconds if seconds else 0.0


def errors(picture: Picture, own: dict[str, float], traces: Traces | None) -> Iterator[Finding]:
    total = sum(own.values())
    for module, extra in own.items():
        part = extra / total
        if part < _SHARE_MIN:
            continue
        codes, method = _codes(picture, module)
        yield Finding(
            module, "errors", 0.2 + 0.6 * part,
            f"{share(part)} of the new errors begin in {module}: its own calls did not fail, and it answered "
            f"{_listed(codes)}.",
            _mean(picture.before, module), _mean(picture.after, module), "errors/s", method, f"/modules/{module}",
        )  # fmt: skip
        if traces is not None:
            since, until = picture.span_ns
            yield from _exceptions(module, traces(module, failed=True, since_ns=since, until_ns=until))


def _codes(picture: Picture, module: str) -> tuple[Counter[str], str]:
    """With which codes the module failed, and which of its methods did most."""
    codes: Counter[str] = Counter()
    methods: Counter[str] = Counter()
    for each in picture.after:
        for (_, method), flow in each.served.get(module, {}).items():
            if flow.errors:
                codes.update({code: count for code, count in flow.codes.items() if code not in _NO_ERRORS})
            methods[method] += flow.errors
    (worst, count), *_ = methods.most_common(1) or [("", 0)]
    return codes, worst if count else ""


def _exceptions(module: str, traces: Sequence[Sequence[Span]]) -> Iterator[Finding]:
    """What was raised in the module's own code, and where."""
    raised: Counter[str] = Counter()
    example: dict[str, str] = {}
    failed = 0
    for spans in traces:
        callers_failed = {span.parent_id for span in spans if is_failure(span.status) and span.module != module}
        for span in spans:
            if (
                span.module != module
                or not is_failure(span.status)
                or span.span_id in callers_failed
                or span.kind == "client"
            ):
                continue
            failed += 1
            for event in span.events:
                if event.name == "exception":
                    said = _exception_said(event.attributes)
                    raised[said] += 1
                    example.setdefault(said, span.trace_id.hex())
    for said, count in raised.most_common(2):
        yield Finding(
            module, "code", 0.35 * count / max(failed, 1) + 0.15,
            f"{said}: in {count} of {failed} failed calls that were traced.",
            None, float(count), "calls", "", f"/traces/{example[said]}", sign="exception",
        )  # fmt: skip


def _exception_said(found: Mapping[str, Attribute]) -> str:
    kind = found.get("exception.type")
    place = innermost(str(found.get("exception.stacktrace") or ""))
    message = str(found.get("exception.message") or "")
    said = f"{kind or 'An exception'} {message!r}" if message else str(kind or "An exception")
    return (said + (f" at {place}" if place else ""))[:_TEXT_MAX]


def innermost(stack: str) -> str:
    """The innermost line of a stack that is the application's own, as it was written."""
    lines = [line.strip() for line in stack.splitlines() if ":" in line or "File " in line]
    own = [line for line in lines if not any(part in line for part in _OURS)]
    return (own or lines or [""])[-1]


def _listed(codes: Counter[str]) -> str:
    return ", ".join(f"{code!r} ({count})" for code, count in codes.most_common(3)) or "errors"


def unreached(picture: Picture, failing: Collection[str]) -> Iterator[Finding]:
    """Errors that callers saw and the callee did not make: it was not reached, or died under them.

    Of a callee that fails by itself this says nothing: its callers' circuit breakers keep calls back.
    """
    usual, _ = _lost(picture, picture.before)
    lost, calls = _lost(picture, picture.after)
    for (caller, callee), count in lost.items():
        if count < 3 or count <= 3 * usual[caller, callee] or callee in failing:
            continue
        ended = _ended(picture, callee)
        text = f"{count} of {calls[caller, callee]} calls from {caller} did not reach a handler of {callee}"
        yield Finding(
            callee, "errors" if ended else "network", 0.75 if ended else 0.45,
            f"{text}, whose process ended or fell silent." if ended else f"{text}.",
            float(usual[caller, callee]), float(count), "calls", "", "/topology", caller,
        )  # fmt: skip


def _lost(picture: Picture, slices: Sequence[Slice]) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Calls that failed on the way, and all calls, by caller and callee; only where the callee counts, too."""
    lost: Counter[tuple[str, str]] = Counter()
    calls: Counter[tuple[str, str]] = Counter()
    for each in slices:
        for key, (client, server) in each.edges.items():
            if key not in picture.two_sided:
                continue
            caller, callee, _ = key
            if client is not None:
                lost[caller, callee] += sum(count for code, count in client.codes.items() if code in _UNREACHED)
                calls[caller, callee] += client.calls
            if server is not None:
                lost[caller, callee] -= server.errors
    return lost, calls


def _ended(picture: Picture, module: str) -> bool:
    """Whether a process of the module was started again, or tells no more."""
    return any(
        module in each.window.unknown
        or any(known.restarts and module in (name, *known.modules) for name, known in each.window.workloads.items())
        for each in picture.after
    )


def dead_letters(picture: Picture) -> Iterator[Finding]:
    for module in sorted({name for each in picture.after for name in each.window.modules}):
        dead = picture.change(lambda each, module=module: _dead(each, module), 0.1)
        total = sum(_dead(each, module) for each in picture.after)
        if total and total > 3 * sum(_dead(each, module) for each in picture.before):
            yield Finding(
                module, "queue", 0.6,
                f"{int(total)} events that {module} could not handle became dead letters.",
                dead.before, total, "events", "", "/events",
            )  # fmt: skip
        lag = picture.change(lambda each, module=module: _lag(each, module), 5.0)
        if lag.sigmas >= SIGMAS_MIN and lag.extra > 10:
            yield Finding(
                module, "queue", 0.35,
                f"Events wait for {module}: it handles fewer than come.",
                lag.before, lag.after, "events", "", "/events",
            )  # fmt: skip


def _dead(each: Slice, module: str) -> int:
    known = each.window.modules.get(module)
    return known.dead_letters if known is not None else 0


def _lag(each: Slice, module: str) -> float:
    known = each.window.modules.get(module)
    return known.events_lag if known is not None else 0.0
