"""Envoy beside a service in another language, so that it is a module like any other.

The sidecar is a worker of the supervisor: attested like one, with the module's certificate. Envoy has the connections,
TLS and retries (``envoy``); what may pass is asked of this process for each request (``check``), where the
application's own policy, proofs and contracts are. Files tell Envoy of certificates and endpoints, each replaced whole.
"""
