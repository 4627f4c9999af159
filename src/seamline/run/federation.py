"""The supervisor's side of federation: gives our bundle to other trust domains, and follows theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import Runners, TaskOwner
from seamline.kernel.settings import FederationSettings, Settings
from seamline.kernel.signal import log
from seamline.run.sockets import listen_public

if TYPE_CHECKING:
    import ssl

    from seamline.kernel.wire.http1 import Exchange
    from seamline.mesh.identity import CertificateAuthority

_log = log.get("seamline.run")
ENDPOINT = "bundle-endpoint"
"""The last part of our endpoint's SPIFFE ID."""
_RETRY_S = 10.0
_FETCH_S = 10.0


class Federation:
    """Bundles of other trust domains, kept in ``<data>/identity/federation`` so that a start needs nobody.

    Args:
        settings: the application's.
        folder: ``<data>/identity``.
        spread: tells the workers, after a bundle has changed.
    """

    def __init__(self, settings: Settings, folder: Path, spread: Callable[[], Awaitable[object]]) -> None:
        self._settings = settings
        self._folder = folder / "federation"
        self._authority_folder = folder
        self._spread = spread
        self._sequences: dict[str, int] = {}
        self.bundles: dict[str, str] = {}
        """Trust domain to roots (PEM)."""
        self.port = 0
        """Where our bundle is given out."""

    async def run(self, authority: CertificateAuthority) -> None:
        """Follow all of them, and serve ours if it is to be; until cancelled."""
        identity = self._settings.identity
        async with TaskOwner("federation") as owner:
            for domain, other in identity.federation.items():
                owner.spawn(self._follow(domain, other), name=f"bundle of {domain}")
            if identity.bundle_listen:
                owner.spawn(self._serve(authority), name="bundle endpoint")
            await asyncio.Event().wait()

    def load(self) -> None:
        """What was known before, or is given to begin with."""
        for domain, other in self._settings.identity.federation.items():
            for path in (self._kept(domain), self._settings.folder / other.bundle if other.bundle else None):
                if path is not None and path.is_file() and domain not in self.bundles:
                    try:
                        self._take(domain, path.read_bytes())
                    except SeamlineError as error:
                        _log.error("%s", error)

    # Theirs.

    async def _follow(self, domain: str, other: FederationSettings) -> None:
        while True:
            try:
                data = await self._fetch(domain, other)
                wait_s, changed = self._take(domain, data)
            except (SeamlineError, OSError, TimeoutError, ValueError) as error:
                _log.warning("the bundle of trust domain %s was not fetched: %s", domain, error or type(error).__name__)
                await asyncio.sleep(_RETRY_S)
                continue
            if changed:
                await asyncio.to_thread(self._keep, domain, data)
                _log.info("trust domain %s has a new bundle", domain)
                await self._spread()
            await asyncio.sleep(wait_s)

    async def _fetch(self, domain: str, other: FederationSettings) -> bytes:
        from seamline.kernel.wire.http1_client import HttpPool
        from seamline.mesh.errors import FederationError
        from seamline.mesh.identity.federation import BUNDLE_BYTES_MAX

        parts = urlsplit(other.url)
        host = parts.hostname or ""
        pool = HttpPool(host, parts.port or 443, self._context(domain, other), host, 1)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "") or "/"
            headers = [(b"accept", b"application/json")]
            response = await pool.request("GET", target, headers, timeout_s=_FETCH_S)
            data = await response.read_all(BUNDLE_BYTES_MAX)
            if response.status != 200:
                raise FederationError(f"{other.url!r} answered with status {response.status}", "Is it the endpoint?")
            return data
        finally:
            await pool.close()

    def _context(self, domain: str, other: FederationSettings) -> ssl.SSLContext:
        from seamline.mesh.errors import FederationError
        from seamline.mesh.identity.federation import spiffe_context, web_context

        if other.profile == "https_web":
            return web_context(str(self._settings.folder / other.authority) if other.authority else None)
        known = self.bundles.get(domain)
        if known is None:
            raise FederationError(f"no bundle of trust domain {domain!r} is known to begin with", "Give one: `bundle`.")
        return spiffe_context(known.encode(), other.endpoint_id)

    def _take(self, domain: str, data: bytes) -> tuple[int, bool]:
        """How long the bundle is good without asking again, and whether it is another. Raises FederationError."""
        from seamline.mesh.identity.federation import read_bundle

        found = read_bundle(data, domain)
        if found.sequence < self._sequences.get(domain, 0):
            _log.warning("trust domain %s gave a bundle older than the one that is known: it is not used", domain)
            return found.refresh_s, False
        self._sequences[domain] = found.sequence
        changed = self.bundles.get(domain) != found.roots.decode()
        self.bundles[domain] = found.roots.decode()
        return found.refresh_s, changed

    def _kept(self, domain: str) -> Path:
        return self._folder / f"{domain}.json"

    def _keep(self, domain: str, data: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._kept(domain).with_suffix(".new")
        new.write_bytes(data)
        new.replace(self._kept(domain))

    # Ours.

    async def _serve(self, authority: CertificateAuthority) -> None:
        """The bundle endpoint: https with an SVID of ours (``https_spiffe``), which is renewed."""
        from seamline.kernel.wire.http1 import HttpLimits, HttpServer

        context = self._server_context(authority)
        runners = Runners()
        limits = HttpLimits(body_bytes_max=1024, head_timeout_s=5, idle_timeout_s=10)

        async def answer(exchange: Exchange) -> None:
            from seamline.mesh.identity.federation import write_bundle

            sequence = int((self._authority_folder / "bundle.pem").stat().st_mtime)
            body = write_bundle(authority.bundle_pem, sequence, self._settings.identity.bundle_refresh_s)
            exchange.respond(200, [(b"content-type", b"application/json")], body)

        http = HttpServer(answer, limits, runners=runners, scheme="https")
        host, _, port = self._settings.identity.bundle_listen.rpartition(":")
        listener = listen_public(host.strip("[]"), int(port))
        self.port = int(listener.getsockname()[1])
        server = await asyncio.get_running_loop().create_server(http.protocol, sock=listener, ssl=context)
        try:
            while True:
                await asyncio.sleep(self._settings.identity.certificate_lifetime_s / 2)
                self._certify(authority, context)
        finally:
            server.close()
            await http.close()
            await runners.stop()

    def _server_context(self, authority: CertificateAuthority) -> ssl.SSLContext:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._certify(authority, context)
        return context

    def _certify(self, authority: CertificateAuthority, context: ssl.SSLContext) -> None:
        from seamline.mesh.identity import new_key_and_csr
        from seamline.mesh.identity.keys import secret_file

        key, request = new_key_and_csr()
        chain = authority.issue(request, ENDPOINT, self._settings.identity.certificate_lifetime_s)
        with secret_file(key.rstrip() + b"\n" + chain) as path:
            context.load_cert_chain(path)
