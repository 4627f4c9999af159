"""Strangers come in: public HTTP in front of the modules' routes, in every topology.

    auth/        who is asking: sign-in, tokens, keys, certificates
    gateway      one public port: routes, limits, timeouts, features, drain
    routes       host and path prefix to module
    asgi         one exchange of the wire as an ASGI app sees it
    websocket    the same for a WebSocket
    tunnel       ASGI events over a byte stream, for modules in another process
    headers      request ids, forwarding, security and CORS headers: pure functions
    compression  gzip that does not hold a stream back
    told         what a request leaves behind: a count by route, a span
    pages        error answers that people and programs can read
    tls          certificate files, read again when they change
    wsgi         WSGI apps through a2wsgi

What a module does with a request, and whether a module may call another, does not belong here.
"""
