"""``[admin]``: where the supervisor's control API listens, and for whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seamline.kernel.settings.auth import loopback
from seamline.kernel.settings.errors import BadValueError
from seamline.kernel.settings.tables import TableReader


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """``[admin]``."""

    listen: str = "127.0.0.1:0"
    """Empty for no API; port 0 takes any free one."""
    remote: bool = False
    """Listen on more than this machine; then with TLS only."""
    hosts: tuple[str, ...] = ()
    """Names, with their ports, that browsers know it by, beside the machine's own."""
    tls_certificate: str = ""
    tls_key: str = ""
    token_s: float = 600
    """How long a one-time token waits to be used."""
    session_idle_s: float = 3600
    session_max_s: float = 43_200

    @property
    def address(self) -> tuple[str, int]:
        """``listen`` in its parts."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def read_admin(reader: TableReader, table: dict[str, Any]) -> AdminSettings:
    """``[admin]``, checked. Raises a SettingsError."""
    admin = reader.section(AdminSettings, "admin", table)

    def refused(fact: str, remedy: str, key: str) -> BadValueError:
        return BadValueError(fact, remedy, place=reader.place("admin", key))

    if not admin.listen:
        return admin
    host, _, port = admin.listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise refused(f"listen is {admin.listen!r}", "Write 127.0.0.1:9443, or leave it empty.", "listen")
    if bool(admin.tls_certificate) != bool(admin.tls_key):
        raise refused("only one of tls_certificate and tls_key is set", "Set both, or neither.", "tls_certificate")
    if loopback(admin.address[0]):
        return admin
    if not admin.remote:
        raise refused(
            f"the control API would listen on {host!r}, where others can reach it",
            "Listen on 127.0.0.1, or say remote = true and give a certificate.",
            "listen",
        )
    if not admin.tls_certificate:
        raise refused(
            "the control API would be reached from elsewhere without TLS", "Set tls_certificate and tls_key.", "remote"
        )
    return admin
