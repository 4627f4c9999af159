"""The inside of the frontend: a Starlette app at the root of the shop, and what its shoppers look at."""

from __future__ import annotations

import asyncio

from boutique.frontend import ProductViewed, Views
from boutique.frontend.app import app
from seamline import Clock, Events, Module

module = Module("frontend", provides=Views)
module.mount(app, at="/")


class Gathered:
    """Views wait for company, so that a busy shop does not wait for the disk at every page.

    They are counted, not accounted: those of the last moments go with a process that dies.
    """

    TOGETHER_S = 0.25
    TOGETHER_MAX = 256

    def __init__(self, events: Events) -> None:
        self._events = events
        self._views: list[ProductViewed] = []
        self._told_s = float("-inf")

    async def add(self, view: ProductViewed) -> None:
        self._views.append(view)
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_s >= self.TOGETHER_S or len(self._views) >= self.TOGETHER_MAX:
            self._told_s = now_s
            await self.tell()

    async def tell(self) -> None:
        views, self._views = self._views, []
        await self._events.publish_all(views)


@module.provide
def gathered(events: Events) -> Gathered:
    return Gathered(events)


@module.service
class ViewService(Views):
    def __init__(self, gathered: Gathered, clock: Clock) -> None:
        self._gathered = gathered
        self._clock = clock

    async def viewed(self, session: str, product_id: str, via: str = "") -> None:
        await self._gathered.add(ProductViewed(session=session, product_id=product_id, at=self._clock.now(), via=via))


@module.shutdown
async def tell_the_rest(gathered: Gathered) -> None:
    await gathered.tell()
