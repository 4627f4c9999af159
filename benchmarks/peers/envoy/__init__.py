"""Two real Envoys, as a sidecar mesh places them: plain HTTP from the client to its sidecar, mutual TLS 1.3 between
the sidecars, plain HTTP from the server's sidecar to the service.

Left to the peer: one worker thread each, no access log, no statistics sinks, no authorisation filter, no tracing, no
control plane. A deployed mesh has all of these and pays for them.
"""
