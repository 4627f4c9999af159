"""The boutique as ten FastAPI services that call each other with httpx: what a team would write without Seamline.

The same services, call graph, data, pages, and store as ``examples/boutique``; only the platform differs.

Choices, each in the peer's favour where there was one:
- one uvicorn process per service, uvloop and httptools, no access log, mutual TLS 1.3 between services;
- typed endpoints with pydantic models; documentation routes off;
- one shared ``httpx.AsyncClient`` per process, connections kept, the pool larger than the load;
- calls in the example's order; making independent ones together was measured and cost the peer more (``frontend.py``);
- no tracing, no policy, no retries, no deadlines beyond a timeout: ours has all of them on.
"""
