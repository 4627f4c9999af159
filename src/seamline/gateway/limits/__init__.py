"""How much one client may ask for: rates, quotas, and what an address is worth.

    addresses    where a request comes from, through proxies that are trusted
    gcra         the algorithm, in bounded memory
    limiter      the rules of ``[limits]``, asked for each request
    quotas       requests of a day or month, which outlive the process
    sharing      one sum for all gateways: by the supervisor, Redis or PostgreSQL

What a module may do to another is the mesh's (``mesh/limits.py``); wrong passwords are ``gateway/auth/throttle.py``.
"""
