"""The handler, as the SDK's documentation writes one."""

from __future__ import annotations

import restate

service = restate.Service("Bench")


@service.handler()
async def three_steps(ctx: restate.Context, number: int) -> int:
    for _ in range(3):
        number = await ctx.run_typed("step", step, number=number)
    return number


async def step(number: int) -> int:
    return number + 1


app = restate.app([service])
