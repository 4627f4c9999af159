"""Identities from SPIRE: SVIDs and trust bundles streamed from the SPIFFE Workload API, in place of our own authority.

The agent attests each process by what the machine knows of it, and says with each update all that the process may be.
Of that this process takes the identities of the modules that it hosts, ``spiffe://<trust domain>/<app>/<module>``.
Source: github.com/spiffe/spiffe, SPIFFE_Workload_API.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization

from seamline.kernel.signal import log
from seamline.mesh.errors import SvidError, WorkloadApiError
from seamline.mesh.identity.workload import WorkloadIdentity

if TYPE_CHECKING:
    from spiffe import WorkloadApiClient, X509Svid
    from spiffe.workloadapi.workload_api_client import StreamCancelHandler
    from spiffe.workloadapi.x509_context import X509Context

_log = log.get("seamline.mesh")
FIRST_S = 30.0
"""How long the first identities may take: the agent may start after us."""
_PAUSE_S, _PAUSE_MOST_S = 0.1, 5


class WorkloadApi:
    """Keeps a process's identities as SPIRE says.

    Args:
        identity: what is kept.
        modules: whose SVIDs are wanted.
        address: of the agent, ``unix:///...`` or a path.
        show: called with module to certificate chain (PEM) for those that are new.
        federate: called with trust domain to bundle (PEM) of the others that SPIRE federates with.
    """

    def __init__(
        self,
        identity: WorkloadIdentity,
        modules: list[str],
        address: str,
        show: Callable[[dict[str, str]], None],
        federate: Callable[[Mapping[str, bytes]], None],
    ) -> None:
        self._identity = identity
        self._wanted = {str(identity.spiffe_id(module)): module for module in modules}
        self._address = address if "://" in address else f"unix://{address}"
        self._show = show
        self._federate = federate
        self._leaves: dict[str, bytes] = {}
        self._complete = asyncio.Event()
        self._said = "it has said nothing"
        self._client: WorkloadApiClient | None = None
        self._stream: StreamCancelHandler | None = None

    async def open(self) -> None:
        """Return with the first identities of all modules. Raises WorkloadApiError."""
        try:
            from spiffe import WorkloadApiClient
            from spiffe.workloadapi.workload_api_client import RetryPolicy
        except ModuleNotFoundError:
            raise WorkloadApiError(
                "the package for the Workload API is not installed", "pip install 'seamline[spire]'"
            ) from None
        loop = asyncio.get_running_loop()

        def heard(context: X509Context) -> None:
            loop.call_soon_threadsafe(self._take, context)

        def failed(error: Exception) -> None:
            loop.call_soon_threadsafe(self._fail, error)

        policy = RetryPolicy(max_retries=RetryPolicy.UNLIMITED_RETRIES, max_backoff=_PAUSE_MOST_S)
        try:
            async with asyncio.timeout(FIRST_S):
                while self._client is None:
                    try:
                        self._client = await asyncio.to_thread(WorkloadApiClient, self._address)
                    except Exception as error:  # no socket there yet
                        self._said = str(error)
                        await asyncio.sleep(_PAUSE_S)
                self._stream = self._client.stream_x509_contexts(heard, failed, retry_policy=policy)
                await self._complete.wait()
        except TimeoutError:
            missing = sorted(self._wanted.keys() - self._leaves.keys())
            raise WorkloadApiError(
                f"the Workload API at {self._address!r} gave no identity {', '.join(missing)}: {self._said}",
                "Is the agent there? Register the identity for this process: `spire-server entry create -spiffeID ...`",
            ) from None

    def close(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
        if self._client is not None:
            self._client.close()

    def _fail(self, error: Exception) -> None:
        self._said = str(error)
        _log.error("the Workload API: %s", error)

    def _take(self, context: X509Context) -> None:
        """An update: everything that holds from now on."""
        bundles = {str(each.trust_domain): each for each in context.x509_bundle_set.bundles}
        own = bundles.pop(self._identity.trust_domain, None)
        if own is None:
            self._said = f"it knows no bundle of {self._identity.trust_domain!r}"
            _log.error("the Workload API: %s", self._said)
            return
        self._identity.set_bundle(_pem(own.x509_authorities))
        self._federate({domain: _pem(each.x509_authorities) for domain, each in bundles.items()})
        new: dict[str, str] = {}
        for svid in context.x509_svids:
            module = self._wanted.get(str(svid.spiffe_id))
            if module is not None and self._install(module, svid):
                new[module] = _pem(svid.cert_chain).decode()
        if new:
            self._show(new)
        self._said = f"it gives {', '.join(sorted(str(each.spiffe_id) for each in context.x509_svids)) or 'nothing'}"
        if self._leaves.keys() == self._wanted.keys():
            self._complete.set()

    def _install(self, module: str, svid: X509Svid) -> bool:
        """Use an SVID, unless it is the one in use."""
        name = str(svid.spiffe_id)
        leaf = svid.leaf.public_bytes(serialization.Encoding.DER)
        if self._leaves.get(name) == leaf:
            return False
        key = svid.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        try:
            self._identity.install(module, key, _pem(svid.cert_chain))
        except SvidError as error:
            self._fail(error)
            return False
        self._leaves[name] = leaf
        return True


def _pem(certificates: Any) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)
