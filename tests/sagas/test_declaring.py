"""What is wrong with a saga is said before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from seamline.module import Module
from seamline.module.errors import ModuleError, SagaError
from seamline.module.wiring import Wiring
from seamline.sagas import Saga
from seamline.sagas.calls import callee_of
from seamline.sagas.cron import Cron
from seamline.sagas.errors import UntypedStepError
from seamline.sagas.kinds import check_sagas


def check(function: Callable[..., Any], **options: Any) -> None:
    module = Module("shop")
    module.saga(**options)(function)
    check_sagas(module.sagas, Wiring(module, {}, {}))


class Socket:
    """Nothing that can be written down."""


async def no_result(s: Saga, n: int): ...  # type: ignore[no-untyped-def]


async def strange_result(s: Saga, n: int) -> Socket:
    return Socket()


async def strange_input(s: Saga, n: Socket) -> None: ...


async def wants_input(s: Saga, n: int) -> None: ...


async def good(s: Saga, n: int = 3) -> int:
    return n


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (no_result, {}, "does not say what it returns"),
        (strange_result, {}, "the result of the saga 'strange_result' cannot be written down"),
        (strange_input, {}, "parameter 'n' of strange_input cannot cross a seam"),
        (wants_input, {"cron": "0 3 * * *"}, "starts by the clock but wants input"),
        (good, {"cron": "0 3 * *"}, "has 4 fields, not five"),
        (good, {"cron": "0 25 * * *"}, "has '25' as its hour"),
        (good, {"cron": "0 3 31 2 *"}, "names no day that exists"),
        (good, {"cron": "*/0 3 * * *"}, "has the step '0'"),
        (good, {"cron": "x 3 * * *"}, "has 'x' as its minute"),
    ],
)
def test_a_wrong_saga_is_found_by_the_checks(function: Callable[..., Any], options: dict[str, Any], says: str):
    """With a sentence that names it."""
    with pytest.raises(ModuleError, match=says):
        check(function, **options)


def test_a_right_saga_passes():
    """With input, and with a schedule."""
    check(good)
    check(good, cron="*/5 9-17 * jan,jul mon-fri")


@pytest.mark.parametrize(
    ("cron", "after", "next_"),
    [
        ("* * * * *", "2026-01-01T00:00:30", "2026-01-01T00:01:00"),
        ("0 3 * * *", "2026-01-01T03:00:00", "2026-01-02T03:00:00"),
        ("*/15 * * * *", "2026-01-01T00:50:00", "2026-01-01T01:00:00"),
        ("5/20 8 * * *", "2026-01-01T08:06:00", "2026-01-01T08:25:00"),
        ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 * * sun", "2026-01-01T00:00:00", "2026-01-04T00:00:00"),
        ("0 0 * * 7", "2026-01-01T00:00:00", "2026-01-04T00:00:00"),
        ("0 0 13 * fri", "2026-01-01T00:00:00", "2026-01-02T00:00:00"),
        ("30 23 31 dec *", "2026-12-31T23:30:00", "2027-12-31T23:30:00"),
    ],
)
def test_schedules_are_read_as_cron_reads_them(cron: str, after: str, next_: str):
    """The next time after one."""
    begin = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert Cron(cron).after(begin) == datetime.fromisoformat(next_).replace(tzinfo=UTC)


async def gives_socket() -> Socket:
    return Socket()


def test_a_step_whose_result_cannot_be_written_is_refused():
    """When it is made, not when it has run."""
    with pytest.raises(UntypedStepError, match="the result of the step 'gives_socket'"):
        callee_of(gives_socket)


def test_what_lambdas_give_is_limited_to_plain_values():
    """Their types are not known."""
    with pytest.raises(UntypedStepError, match="does not say its type"):
        callee_of(lambda: None).encode_result(Socket())
    assert bytes(callee_of(lambda: None).encode_result("x")) == b'"x"'


def test_sagas_of_one_name_are_refused():
    """In one module."""
    module = Module("shop")
    module.saga(good)
    with pytest.raises(SagaError, match="two sagas"):
        module.saga(good)
