"""The two modules of the bench, opened over a mesh in this process: policy on, identities from the run's authority."""

from __future__ import annotations

from pathlib import Path

from benchmarks.ours.orders import Orders
from benchmarks.ours.orders.module import OrderService
from seamline.kernel.settings import Settings
from seamline.kernel.signal.trace import Tracer
from seamline.mesh.identity import CertificateAuthority, WorkloadIdentity, new_key_and_csr
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy

HERE = Path(__file__).parent
APP, TRUST_DOMAIN = "bench", "bench.local"


def open_mesh(*hosted: str, authority: Path | None = None, sample: float | None = None) -> Mesh:
    """A mesh that hosts the named modules; without ``authority`` it has no identity and reaches no other process."""
    settings = Settings.load(HERE)
    contracts = {"Orders": ("orders", ("place", "count"))}
    policy = Policy.load(HERE / "policy", modules={"orders": {}, "caller": {}}, contracts=contracts)
    mesh = Mesh(
        APP,
        policy,
        settings.mesh,
        identity=None if authority is None else _identity(authority, hosted),
        tracer=Tracer(settings.telemetry.sample if sample is None else sample),
    )
    mesh.know(Orders, "orders")
    if "orders" in hosted:
        mesh.provide("orders", Orders, OrderService())
    return mesh


def _identity(folder: Path, modules: tuple[str, ...]) -> WorkloadIdentity:
    authority = CertificateAuthority.load_or_create(folder, TRUST_DOMAIN, APP)
    identity = WorkloadIdentity(TRUST_DOMAIN, APP)
    identity.set_bundle(authority.bundle_pem)
    for module in modules:
        key, request = new_key_and_csr()
        identity.install(module, key, authority.issue(request, module))
    return identity


def write_leaf(authority: Path, folder: Path, module: str) -> None:
    """A module's certificate as files, for a client that is not ours: ``<module>.pem``, ``.key`` and ``ca.pem``."""
    made = CertificateAuthority.load_or_create(authority, TRUST_DOMAIN, APP)
    key, request = new_key_and_csr()
    folder.mkdir(exist_ok=True)
    secret = folder / f"{module}.key"
    secret.touch(mode=0o600)
    secret.write_bytes(key)
    (folder / f"{module}.pem").write_bytes(made.issue(request, module))
    (folder / "ca.pem").write_bytes(made.bundle_pem)
