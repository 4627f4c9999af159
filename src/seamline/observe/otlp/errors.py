"""What can be wrong with OTLP.

OtlpError            SL7610
  OtlpListenError    SL7611  the address on which OTLP is taken cannot be had
  OtlpExtraError     SL7612  what gRPC needs is not installed
"""

from __future__ import annotations

from seamline.observe.errors import ObserveError


class OtlpError(ObserveError):
    """SL7610: telemetry could not be taken or sent by OpenTelemetry's protocol."""

    code = "SL7610"


class OtlpListenError(OtlpError):
    """SL7611: the address on which OTLP is taken cannot be had; another program may hold it."""

    code = "SL7611"


class OtlpExtraError(OtlpError):
    """SL7612: OTLP over gRPC needs a package that is not installed."""

    code = "SL7612"

    def __init__(self, place: str) -> None:
        super().__init__(
            "OTLP over gRPC needs grpcio, which is not installed",
            "pip install 'seamline[otlp]', or use http/protobuf, which needs nothing more.",
            place=place,
        )
