"""The control socket: who a worker is, and the identities it may have.

A process is believed only by what the kernel says of it: its pid must be of a child that this supervisor spawned,
its user ours, its claim of workload, replica and generation that of the spawn, and it may come once. Then it is
given certificates for exactly the modules of its workload. Everything else is refused and written to the audit.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seamline.gateway.limits.gcra import Arrivals
from seamline.kernel.audit import AuditLog
from seamline.kernel.clock import SystemClock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import Settings
from seamline.kernel.signal import log
from seamline.run.auditing import Auditing
from seamline.run.control import (
    AskKey,
    AskSecrets,
    Audited,
    Bundle,
    ControlChannel,
    Hello,
    Keys,
    Refused,
    Revoke,
    Revoked,
    SecretsTold,
    Show,
    Sign,
    Signed,
    Spend,
    Spent,
    ToSupervisor,
    Welcome,
    supervisor_decoder,
)
from seamline.run.errors import AttestationError, ControlError
from seamline.run.federation import Federation
from seamline.run.keeping import Keeping
from seamline.run.placement import GATEWAY, identities
from seamline.run.replica import Replica
from seamline.run.revocations import RevocationBook, of_users
from seamline.run.sockets import Peer, peer_of
from seamline.run.trust import Key, KeyBook

if TYPE_CHECKING:
    from seamline.mesh.identity import CertificateAuthority

_log = log.get("seamline.run")
_HELLO_TIMEOUT_S = 10.0
_BUNDLE_S = 5.0
_REVOKED_S = 2.0
_MAINTENANCE_S = 600.0
_CONNECTIONS_MAX = 512


class Registrar:
    """Serves the control socket.

    Args:
        settings: the application's.
        data: the data directory; the authority lives in ``identity``, the audit in ``audit``.
        replicas: all that may have a process now.
        clock: the authority's.
    """

    def __init__(
        self, settings: Settings, data: Path, replicas: Callable[[], Iterable[Replica]], clock: SystemClock
    ) -> None:
        self._settings = settings
        self._folder = data / "identity"
        self._replicas = replicas
        self._clock = clock
        files_max = settings.audit.files_max
        self.audit = AuditLog(data / "audit" / "supervisor.jsonl", clock=clock, files_max=files_max)
        self.keeping = Keeping(lambda: self._settings, data, replicas, clock)
        self.auditing = Auditing(settings, data, clock, self.audit, self.keeping.audit)
        self._owner = TaskOwner("control socket")
        self._authority: asyncio.Task[CertificateAuthority] | None = None
        self._connections = 0
        self._let_through = Arrivals()
        self.keys = KeyBook(self._folder, clock)
        self.revocations = RevocationBook(self._folder, clock)
        self.federation = Federation(settings, self._folder, self.spread_bundle)

    async def federate(self) -> None:
        """Follow the bundles of other trust domains, and give out ours. Until cancelled."""
        await self.federation.run(await self.authority())

    async def serve(self, listener: socket.socket) -> None:
        """Accept workers until cancelled."""
        loop = asyncio.get_running_loop()
        # Loaded beside the start of the workers: the cryptography library takes a tenth of a second to import.
        self._authority = self._owner.spawn(asyncio.to_thread(self._load_authority), name="authority")
        try:
            while True:
                connection, _ = await loop.sock_accept(listener)
                self._owner.spawn(self._serve_one(connection), name="control connection")
        finally:
            await self._owner.stop()
            await self.keeping.close()

    def _load_authority(self) -> CertificateAuthority:
        from seamline.mesh.identity import CertificateAuthority  # heavy: see serve

        self.federation.load()
        return CertificateAuthority.load_or_create(
            self._folder,
            self._settings.trust_domain,
            self._settings.app.name,
            passphrase=self._settings.identity.passphrase or None,
            clock=self._clock,
        )

    async def authority(self) -> CertificateAuthority:
        assert self._authority is not None
        return await asyncio.shield(self._authority)

    async def maintain(self) -> None:
        """Now and then: drop or replace roots whose time has come, and tell every worker. Until cancelled."""
        while True:
            authority = await self.authority()
            if authority.maintain():
                await self.spread_bundle()
            self.audit.flush()
            await asyncio.sleep(_MAINTENANCE_S)

    async def spread_bundle(self) -> int:
        """Have every worker trust what the authority's bundle holds now; how many there are."""
        authority = await self.authority()
        workers = [each for each in self._replicas() if each.reachable]
        bundle, foreign = authority.bundle_pem.decode(), self.federation.bundles
        answers = await asyncio.gather(
            *(each.ask(Bundle, _BUNDLE_S, bundle=bundle, foreign=foreign) for each in workers), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                # It gets the bundle with its next certificate; that of the old root holds until then.
                _log.warning("%s", answer)
        return len(workers)

    async def _serve_one(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        peer = peer_of(connection)
        if self._connections >= _CONNECTIONS_MAX:
            connection.close()
            return
        self._connections += 1
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        channel = ControlChannel[ToSupervisor](reader, writer, supervisor_decoder())
        try:
            await self._converse(channel, peer)
        except SeamlineError as error:
            self._refuse(channel, peer, error)
        finally:
            self._connections -= 1
            channel.close()
            await channel.closed()

    async def _converse(self, channel: ControlChannel[ToSupervisor], peer: Peer) -> None:
        try:
            hello = await asyncio.wait_for(channel.receive(), _HELLO_TIMEOUT_S)
        except TimeoutError:
            raise AttestationError(f"the process {peer.pid} connected and said nothing") from None
        if hello is None:
            return
        replica = self.attest(hello, peer)
        authority = await self.authority()
        replica.attach(channel)
        try:
            await self._hear_out(replica, channel, peer, authority)
        finally:
            replica.hung_up(channel)

    async def _hear_out(
        self, replica: Replica, channel: ControlChannel[ToSupervisor], peer: Peer, authority: CertificateAuthority
    ) -> None:
        """Welcome a worker, and do what it asks for until it hangs up."""
        channel.send(
            Welcome(
                modules=identities(self._settings, replica.workload.modules),
                trust_domain=self._settings.trust_domain,
                app=self._settings.app.name,
                bundle=authority.bundle_pem.decode(),
                heartbeat_s=self._settings.run.heartbeat_s,
                clock_offset_s=self._clock.offset_s,
                keys=self.keys.current(),
                workload_api=self._settings.identity.socket if self._by_spire else "",
                foreign=self.federation.bundles,
            )
        )
        for entries in self.revocations.parts():  # before its certificates, without which it serves nobody
            channel.send(Revoked(number=0, entries=entries))
        while (message := await channel.receive()) is not None:
            if isinstance(message, Show):
                self._hear_of(message, replica, peer)
            elif isinstance(message, Sign):
                channel.send(self.sign(message, replica, authority, peer))
            elif isinstance(message, AskKey):
                found = await asyncio.to_thread(self.keys.find, message.kid)
                channel.send(Keys(keys=[found] if found is not None else []))
            elif isinstance(message, Revoke):
                self._owner.spawn(self._revoke_for(message, replica, peer), name="revoke")
            elif isinstance(message, Spend):
                if GATEWAY in identities(self._settings, replica.workload.modules):
                    ahead_s = self._let_through.spend(message.costs_s, self._clock.monotonic())
                    channel.send(Spent(number=message.number, ahead_s=ahead_s))
            elif isinstance(message, Audited):
                self.auditing.hear(message, replica.audit_name)
            elif isinstance(message, AskSecrets):
                self._owner.spawn(self._tell_secret(channel, message, replica), name="secret")
            else:
                replica.hear(message)

    async def _tell_secret(self, channel: ControlChannel[ToSupervisor], message: AskSecrets, replica: Replica) -> None:
        reason = self.revocations.set_apart(message.module)
        if reason is not None:
            error = AttestationError(f"module {message.module!r} is quarantined: {reason}")
            self.audit.write(
                "secret",
                "refuse",
                principal=message.module,
                action="secret",
                resource=message.operation,
                reason=error.fact,
            )
            channel.send(SecretsTold(number=message.number, error=error.to_json()))
            return
        channel.send(await self.keeping.answer(message, replica))

    def attest(self, hello: ToSupervisor, peer: Peer) -> Replica:
        """The replica whose process this is. Raises AttestationError."""
        if peer.uid != os.getuid():
            raise AttestationError(f"the process {peer.pid} belongs to user {peer.uid}, not to ours ({os.getuid()})")
        replica = next((each for each in self._replicas() if each.pid == peer.pid), None)
        if replica is None:
            raise AttestationError(f"the process {peer.pid} was not started by this supervisor")
        claim = (hello.workload, hello.replica, hello.generation) if isinstance(hello, Hello) else None
        if claim != (replica.workload.name, replica.index, replica.generation):
            raise AttestationError(f"the process {peer.pid} was started as {replica!r} and claims to be {claim!r}")
        if replica.attached:
            raise AttestationError(f"the process {peer.pid} ({replica!r}) is connected already")
        return replica

    def sign(self, message: Sign, replica: Replica, authority: CertificateAuthority, peer: Peer) -> Signed | Refused:
        foreign = sorted(set(message.requests) - set(identities(self._settings, replica.workload.modules)))
        if self._by_spire:
            error = AttestationError(f"{replica.label!r} asked for a certificate, and SPIRE gives them")
            self._record(peer, replica.label, error)
            return Refused(error.to_json())
        if foreign:
            error = AttestationError(
                f"{replica.label!r} asked for the identity of {', '.join(map(repr, foreign))}, which it does not host"
            )
            self._record(peer, str(foreign), error)
            return Refused(error.to_json())
        lifetime_s = self._settings.identity.certificate_lifetime_s
        try:
            chains = self.issue(authority, self._good(message.requests, replica), lifetime_s, replica.label)
        except SeamlineError as error:
            self._record(peer, replica.label, error)
            return Refused(error.to_json())
        return Signed(chains=chains, bundle=authority.bundle_pem.decode())

    @property
    def _by_spire(self) -> bool:
        return self._settings.identity.source == "spire"

    def _hear_of(self, message: Show, replica: Replica, peer: Peer) -> None:
        """The keys of identities that a worker has from SPIRE: of its own modules, for everybody to know."""
        own = identities(self._settings, replica.workload.modules)
        if not self._by_spire or not set(message.chains) <= set(own):
            error = AttestationError(f"{replica.label!r} shows identities that are not its own")
            self._record(peer, str(sorted(message.chains)), error)
            return
        keys = [_key_of(chain.encode(), module) for module, chain in message.chains.items()]
        self._tell_keys(keys, f"SPIRE for {replica.label}")

    def _good(self, requests: Mapping[str, str], replica: Replica) -> dict[str, str]:
        """Without those of modules that are quarantined: these have no certificate until they are released."""
        good: dict[str, str] = {}
        for module, request in requests.items():
            reason = self.revocations.set_apart(module)
            if reason is None:
                good[module] = request
            else:
                why = f"module {module!r} is quarantined: {reason}"
                self.audit.write(
                    "identity", "refuse", principal=replica.label, action="issue identity", resource=module, reason=why
                )
        return good

    def issue(
        self, authority: CertificateAuthority, requests: Mapping[str, str], lifetime_s: float, by: str = ""
    ) -> dict[str, str]:
        """Module to certificate chain. Everybody is told of the keys before who asked has the certificates."""
        chains = {module: authority.issue(each.encode(), module, lifetime_s) for module, each in requests.items()}
        new = [_key_of(chain, module) for module, chain in chains.items()]
        self._tell_keys(new, by)
        return {module: chain.decode() for module, chain in chains.items()}

    def _tell_keys(self, new: list[Key], by: str) -> None:
        self.keys.add(new)
        for kid, module, _point, _begins, ends in new:
            self.audit.write(
                "identity", "allow", principal=by or "supervisor", action="issue identity", resource=module,
                key=kid, ends_s=ends,
            )  # fmt: skip
        for each in self._replicas():
            each.tell(Keys(keys=new))

    async def revoke(self, entries: Iterable[dict[str, Any]], by: str) -> int:
        """Make entries (``Revocation``) hold everywhere; how many workers have heard."""
        kept = self.revocations.add(entries)
        for entry in kept:
            what = f"{entry['kind']} {entry['id']}"
            decision = "allow" if entry["lifted"] else "revoke"
            self.audit.write(
                "revocation", decision, principal=by, action="revoke", resource=what, reason=entry["reason"]
            )
        workers = [each for each in self._replicas() if each.reachable]
        answers = await asyncio.gather(
            *(each.ask(Revoked, _REVOKED_S, entries=kept) for each in workers), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                _log.warning("%s", answer)
        return sum(not isinstance(answer, BaseException) for answer in answers)

    async def _revoke_for(self, message: Revoke, replica: Replica, peer: Peer) -> None:
        """What a worker asks to revoke: only the gateway's may, and only what belongs to users."""
        if GATEWAY not in identities(self._settings, replica.workload.modules) or not of_users(message.entries):
            kinds = {str(entry.get("kind")) for entry in message.entries}
            error = AttestationError(f"{replica.label!r} asked to revoke what is not its own")
            self._record(peer, ", ".join(sorted(kinds)), error)
            return
        await self.revoke(message.entries, GATEWAY)

    def _refuse(self, channel: ControlChannel[ToSupervisor], peer: Peer, error: SeamlineError) -> None:
        self._record(peer, "control socket", error)
        if isinstance(error, AttestationError):
            channel.send(Refused(error.to_json()))

    def _record(self, peer: Peer, resource: str, error: SeamlineError) -> None:
        _log.warning("%s", error)
        kind = "protocol" if isinstance(error, ControlError) else "attestation"
        self.audit.write(
            "identity",
            "refuse",
            principal=f"pid {peer.pid}",
            action="issue identity",
            resource=resource,
            reason=f"{kind}: {error.fact}",
            peer=f"uid {peer.uid}",
        )


def _key_of(chain: bytes, module: str) -> Key:
    from cryptography import x509  # heavy, and loaded with the authority

    from seamline.mesh.identity.keyring import known_key

    key = known_key(x509.load_pem_x509_certificates(chain)[0], module)
    return key.kid, key.module, key.point, key.begins, key.ends
