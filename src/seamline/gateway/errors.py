"""What goes wrong on the public side.

GatewayError             SL6000  the gateway cannot do what it was told
  RouteError             SL6001  two routes claim the same place, or a route is malformed
  CertificateError       SL6002  the certificate files cannot be used
  WsgiMissingError       SL6003  a WSGI app is mounted, but its adapter is not installed
  TunnelError            SL6004  the other end of a tunnel broke the protocol
  AppProtocolError       SL6005  a mounted app sent what ASGI does not allow here
"""

from __future__ import annotations

from seamline.kernel.errors import SeamlineError


class GatewayError(SeamlineError):
    """The gateway cannot do what it was told."""

    code = "SL6000"


class RouteError(GatewayError):
    """Two routes claim the same place, or a route is malformed."""

    code = "SL6001"


class CertificateError(GatewayError):
    """The certificate files cannot be used."""

    code = "SL6002"


class WsgiMissingError(GatewayError):
    """A WSGI app is mounted, but its adapter is not installed."""

    code = "SL6003"


class TunnelError(GatewayError):
    """The other end of a tunnel broke the protocol."""

    code = "SL6004"


class AppProtocolError(GatewayError):
    """A mounted app sent what ASGI does not allow here."""

    code = "SL6005"
