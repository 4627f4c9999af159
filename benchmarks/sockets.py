"""Listening sockets of the servers, ours and the peers'."""

from __future__ import annotations

import socket

_BACKLOG = 1024


def listen(port: int = 0) -> socket.socket:
    """Listen on this machine; on any free port unless one is given."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(_BACKLOG)
    return listening
