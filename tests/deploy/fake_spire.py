"""A Workload API that speaks the real protocol, gRPC over a Unix socket, with a CA of its own behind it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from spiffe._proto import workload_pb2, workload_pb2_grpc

from seamline.mesh.identity import CertificateAuthority, new_key_and_csr

pb2 = cast("Any", workload_pb2)


class FakeSpire(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """An agent that gives every process the identities of all ``modules``, as one selector for a user would."""

    def __init__(self, folder: Path, trust_domain: str, app: str, modules: list[str]) -> None:
        self.authority = CertificateAuthority.load_or_create(folder / "spire-ca", trust_domain, app)
        self.modules = modules
        self.federated: dict[str, bytes] = {}
        self.address = f"unix://{folder / 'agent.sock'}"
        self.asked_without_header = 0
        self.lifetime_s = 3600.0
        self._streams: set[queue.SimpleQueue[bool]] = set()
        self._lock = threading.Lock()
        self._server: Any = None

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(32))
        cast("Any", workload_pb2_grpc).add_SpiffeWorkloadAPIServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        with self._lock:
            for stream in self._streams:
                stream.put(False)
        if self._server is not None:
            self._server.stop(0.2).wait()

    def renew(self) -> None:
        """New SVIDs for everybody, as an agent sends them at half of their lives."""
        with self._lock:
            for stream in self._streams:
                stream.put(True)

    @property
    def streams(self) -> int:
        return len(self._streams)

    def issue(self, module: str) -> tuple[bytes, bytes]:
        key, request = new_key_and_csr()
        return key, self.authority.issue(request, module, self.lifetime_s)

    def FetchX509SVID(self, request: Any, context: Any) -> Iterator[Any]:
        del request
        if ("workload.spiffe.io", "true") not in {(each.key, each.value) for each in context.invocation_metadata()}:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing")
        stream: queue.SimpleQueue[bool] = queue.SimpleQueue()
        with self._lock:
            self._streams.add(stream)
        try:
            yield self._answer()
            while context.is_active():
                try:
                    again = stream.get(timeout=0.1)
                except queue.Empty:
                    continue
                if not again:
                    return
                yield self._answer()
        finally:
            with self._lock:
                self._streams.discard(stream)

    def _answer(self) -> Any:
        svids: list[Any] = []
        bundle = _der(self.authority.bundle_pem)
        for module in self.modules:
            key, chain = self.issue(module)
            der = serialization.load_pem_private_key(key, None).private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            name = f"spiffe://{self.authority.trust_domain}/{self.authority.app}/{module}"
            svids.append(pb2.X509SVID(spiffe_id=name, x509_svid=_der(chain), x509_svid_key=der, bundle=bundle))
        others = {f"spiffe://{domain}": _der(pem) for domain, pem in self.federated.items()}
        return pb2.X509SVIDResponse(svids=svids, federated_bundles=others)


def _der(pem: bytes) -> bytes:
    found = x509.load_pem_x509_certificates(pem)
    return b"".join(each.public_bytes(serialization.Encoding.DER) for each in found)
