"""gRPC's own asyncio server and client, mutual TLS, messages compiled by protoc when the benchmark runs.

The peer's advantage that is left to it: its amounts stay strings, ours are parsed into ``Decimal``.
"""
