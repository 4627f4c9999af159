"""A stranger at the mesh's door: a clear error for it, a clear reason for the host, and a line in the audit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.mesh.rig import APP, TRUST_DOMAIN, Rig, Stock, StockService, rig

from seamline.kernel.clock import ManualClock
from seamline.mesh.identity import CertificateAuthority, WorkloadIdentity, new_key_and_csr
from seamline.mesh.mesh import Mesh
from seamline.module.errors import CallError, PermissionDenied

WIRES = pytest.mark.parametrize("wire", ["frames", "http"])


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as one:
        yield one


def certified(made: Rig, source: CertificateAuthority, app: str = APP) -> WorkloadIdentity:
    """An identity of ``orders`` by any authority, trusting the rig's: the most that a stranger can bring."""
    identity = WorkloadIdentity(source.trust_domain, app)
    identity.set_bundle(made.authority.bundle_pem)
    key, request = new_key_and_csr()
    identity.install("orders", key, source.issue(request, "orders"))
    return identity


async def refused(made: Rig, stranger: WorkloadIdentity, wire: str) -> tuple[str, str]:
    """(what the stranger's call raises, the reason in the host's audit)."""
    server, endpoint = await made.serve(StockService())
    client = made.mesh("orders", wire=wire, rules={"retries": 0})
    client.identity = stranger
    client.set_endpoints({"stock": [endpoint]})
    with pytest.raises(CallError) as caught:
        await client.stub(Stock, "orders").take("mug")
    return str(caught.value), (await audited(server))["reason"]


async def audited(server: Mesh) -> dict[str, str]:
    assert server.audit is not None
    async with asyncio.timeout(30):
        while not server.audit.path.exists():  # noqa: ASYNC110 - the file is all that an auditor sees
            await asyncio.sleep(0.01)
    line: dict[str, str] = json.loads(server.audit.path.read_text().splitlines()[0])
    assert line["decision"] == "refuse"
    return line


@WIRES
async def test_an_expired_certificate(made: Rig, wire: str):
    clock = ManualClock(datetime.now(UTC) - timedelta(minutes=70))
    late = CertificateAuthority.load_or_create(made.authority.folder, TRUST_DOMAIN, APP, clock=clock)
    told, heard = await refused(made, certified(made, late), wire)
    assert "this side's certificate has expired" in told
    assert "its certificate has expired" in heard


@WIRES
async def test_a_foreign_authority_of_the_same_name(made: Rig, wire: str, tmp_path: Path):
    foreign = CertificateAuthority.load_or_create(tmp_path / "foreign", TRUST_DOMAIN, APP)
    told, heard = await refused(made, certified(made, foreign), wire)
    assert "an authority the peer does not know" in told
    assert "unknown authority" in heard


@WIRES
async def test_another_application_of_the_same_root(made: Rig, wire: str):
    """TLS lets it in, since the root is trusted; its name keeps it out, and it is told so."""
    source = made.authority
    other = CertificateAuthority(
        source.folder,
        (TRUST_DOMAIN, "other"),
        source._key,  # pyright: ignore[reportPrivateUsage]
        source._root,  # pyright: ignore[reportPrivateUsage]
        clock=ManualClock(datetime.now(UTC)),
    )
    stranger = certified(made, other, "other")
    stranger.app = APP  # it asks for the right server; its certificate stays what it is
    told, heard = await refused(made, stranger, wire)
    assert "belongs to application 'other', not to 'shop'" in heard
    assert "belongs to application 'other', not to 'shop'" in told


@WIRES
async def test_a_call_that_is_not_permitted(made: Rig, wire: str):
    """The caller hears what to add, and the host keeps who wanted what."""
    server, endpoint = await made.serve(StockService(), text="")
    client = made.mesh("orders", wire=wire)
    client.set_endpoints({"stock": [endpoint]})
    with pytest.raises(PermissionDenied, match=r"'orders' may not call 'Stock\.take' of 'stock'.*Add `permit\("):
        await client.stub(Stock, "orders").take("mug")
    assert server.audit is not None
    line = json.loads(server.audit.path.read_text())
    assert (line["decision"], line["principal"], line["action"]) == ("deny", "orders", "Stock.take")
