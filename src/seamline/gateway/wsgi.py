"""WSGI apps (Flask, Django without ASGI) as ASGI apps."""

from __future__ import annotations

from typing import Any, cast

from seamline.gateway.asgi import AsgiApp
from seamline.gateway.errors import WsgiMissingError


def wsgi_app(app: Any, workers: int = 10) -> AsgiApp:
    """``app`` behind an adapter that runs it in at most ``workers`` threads.

    Raises WsgiMissingError when the adapter is not installed.
    """
    try:
        from a2wsgi import WSGIMiddleware
    except ImportError as error:
        raise WsgiMissingError(
            f"{app!r} is a WSGI app, and the adapter a2wsgi is not installed",
            "Install it with `pip install 'seamline[wsgi]'`.",
        ) from error
    return cast("AsgiApp", WSGIMiddleware(app, workers=workers))
