"""Clocks that tests move."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from seamline.kernel.clock import ManualClock, SystemClock, now_ms


async def test_a_sleeper_wakes_when_the_clock_is_moved_past_its_time():
    clock = SystemClock()
    async with asyncio.TaskGroup() as group:
        asleep = group.create_task(clock.sleep(3600))
        longer = group.create_task(clock.sleep(7200))
        await asyncio.sleep(0)
        clock.offset_s = 1800
        await asyncio.sleep(0.01)
        assert not asleep.done()
        clock.offset_s = 3601
        await asleep
        assert not longer.done()
        longer.cancel()


async def test_a_clock_that_is_moved_back_wakes_nobody_early():
    clock = SystemClock()
    async with asyncio.TaskGroup() as group:
        asleep = group.create_task(clock.sleep(0.02))
        await asyncio.sleep(0)
        clock.offset_s = -3600
        await asyncio.sleep(0.05)
        assert not asleep.done()
        clock.offset_s = 0
        await asleep


def test_milliseconds_are_those_of_now():
    assert now_ms(ManualClock(datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC))) == 1500
    clock = SystemClock()
    clock.offset_s = 60
    assert abs(now_ms(clock) - clock.now().timestamp() * 1000) < 1000
