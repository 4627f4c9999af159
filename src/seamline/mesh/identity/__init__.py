"""Who is asking: a built-in certificate authority and one SPIFFE X.509-SVID per module.

Belongs here: making, issuing, installing, rotating and checking certificates, and saying why a handshake failed; the
proofs of on whose behalf a call is made, signed with the keys of those certificates, and what was revoked.
Does not belong here: deciding who deserves a certificate (``run`` attests the worker) and who may call what
(``mesh/policy``).
"""

from __future__ import annotations

from seamline.mesh.identity.authority import CertificateAuthority
from seamline.mesh.identity.handshake import explain_tls_failure
from seamline.mesh.identity.keys import new_key_and_csr
from seamline.mesh.identity.rotation import next_rotation
from seamline.mesh.identity.spiffe import SpiffeId
from seamline.mesh.identity.workload import WorkloadIdentity

__all__ = [
    "CertificateAuthority",
    "SpiffeId",
    "WorkloadIdentity",
    "explain_tls_failure",
    "new_key_and_csr",
    "next_rotation",
]
