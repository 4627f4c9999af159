"""A method that is a stream in one version of a contract and a single result in the other fails alone, and says why."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.mesh.rig import StockService, rig

from seamline import Contract, Unimplemented, idempotent


class Stock(Contract):
    """As the rig's, in another version."""

    @idempotent
    async def count(self, upto: int, fail_at: int = -1) -> int: ...

    @idempotent
    def put(self, sku: str) -> AsyncIterator[int]: ...

    @idempotent
    async def look(self, sku: str) -> str: ...


async def test_calls_of_another_kind_fail_alone(tmp_path: Path):
    """Both ways round: each is told, and the calls beside them on the connection go on."""
    async with rig(tmp_path) as made:
        _, endpoint = await made.serve(StockService("a"))
        client = made.mesh("orders")
        client.know(Stock, "stock")
        client.set_endpoints({"stock": [endpoint]})
        stock = client.stub(Stock, "orders")
        assert await stock.look("mug")
        with pytest.raises(Unimplemented, match=r"answers Stock.count with a stream, and the contract here says one"):
            await stock.count(3)
        with pytest.raises(Unimplemented, match=r"answers Stock.put with one result, and the contract here says a"):
            _ = [item async for item in stock.put("mug")]
        assert await stock.look("mug")
        assert len(client._channels) == 1
