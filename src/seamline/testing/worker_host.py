"""What workers under test host: the application's modules, with the test's policy and clock."""

from __future__ import annotations

from seamline.run.application import Application
from seamline.run.berth import Berth, Hosting
from seamline.run.hosting import ModuleHosting
from seamline.testing.ground import SharedClock, policy_of


class HostingUnderTest(ModuleHosting):
    def __init__(self, berth: Berth) -> None:
        super().__init__(berth)
        self._host.clock = SharedClock(berth.data)
        self._host.mesh.policy = policy_of(self._host.application, berth.data)


def host(berth: Berth) -> Hosting:
    """The factory that the supervisor under test names to its workers."""
    if berth.sidecar is None:
        return HostingUnderTest(berth)
    from seamline.deploy.sidecar.hosting import SidecarHosting  # only where a service in another language is

    return SidecarHosting(berth, policy=policy_of(Application.load(berth.folder, only=()), berth.data))
