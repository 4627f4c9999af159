"""What supervisor and workers say to each other, and the channel it travels on.

A message is a JSON object behind its length in four bytes (big-endian). The supervisor asks with a ``number`` that
the worker repeats in its :class:`Done`; a worker asks only for signatures and secrets.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from seamline.kernel.settings import SidecarSettings
from seamline.run.errors import ControlError

CONTROL_SOCKET = Path("run", "control.sock")
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
_UNSENT_BYTES_MAX = 16 * 1024 * 1024
_LENGTH = struct.Struct(">I")


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told on its command line."""

    folder: str
    data: str
    control: str
    supervisor_pid: int
    workload: str
    replica: int
    generation: int
    modules: list[str]
    mesh: int
    """The descriptor of its mesh socket."""
    public: int
    """The descriptor of the public socket."""
    ai: int
    """That of the AI gateway's socket; -1 if it has none."""
    log_level: str
    host_factory: str
    telling: str = ""
    """The observer's socket, if it is to be told anything."""
    sidecar: SidecarSettings | None = None

    @property
    def descriptors(self) -> list[int]:
        """Those that it has: mesh, public, and the AI gateway's if there is one."""
        return [self.mesh, self.public, *([self.ai] if self.ai >= 0 else [])]


class Message(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower, forbid_unknown_fields=True):
    """One object on the channel; ``type`` names the class."""


class Show(Message, frozen=True):
    """Module to certificate chain (PEM), of identities that the worker has from SPIRE."""

    chains: dict[str, str]


class Hello(Message, frozen=True):
    """A worker's first words. What it claims must be what was spawned under its process id."""

    workload: str
    replica: int
    generation: int


class Sign(Message, frozen=True):
    """Module to certificate request (PEM)."""

    requests: dict[str, str]


class Route(msgspec.Struct, frozen=True, array_like=True):
    """A public face: which module answers below ``at``, for ``host`` or any."""

    module: str
    at: str
    host: str = ""


class Ready(Message, frozen=True):
    """Serves its mesh socket. ``gateway`` says that it can serve the public one, for these and other routes."""

    gateway: bool
    took_s: float
    routes: list[Route] = []
    versions: dict[str, str] = {}
    """Module to the version of its code that this process runs, where it has one."""


class Failed(Message, frozen=True):
    """Cannot start: the error, as ``SeamlineError.to_json`` gives it."""

    error: dict[str, str | None]


class Beat(Message, frozen=True):
    """Every heartbeat: how late the event loop is, what the process has used."""

    lag_ms: float
    cpu_s: float
    rss_bytes: int


class Announce(Message, frozen=True):
    """Something was written that other processes wait for: ``events/<module>`` or ``sagas/<module>``."""

    topics: list[str]


class AskSecrets(Message, frozen=True):
    """What a module hosted there asks of the keeper of secrets; answered under the same ``number``."""

    number: int
    module: str
    operation: str
    arguments: dict[str, Any]


class Spend(Message, frozen=True):
    """What a gateway has let through, in seconds of each name's rate; answered with :class:`Spent`."""

    number: int
    costs_s: dict[str, float]


class Audited(Message, frozen=True):
    """How far the worker's audit has come (``kernel.audit.Written``), for the supervisor to sign."""

    log: str
    lines: int
    head: str


class AskKey(Message, frozen=True):
    """Whose key is called so? Answered with :class:`Keys`, if anybody knows."""

    kid: str


class Revoke(Message, frozen=True):
    """The gateway's process says what is no longer good, such as the session of who signed out."""

    entries: list[dict[str, Any]]


class Done(Message, frozen=True):
    """The answer to a numbered message; ``error`` is empty when it went well."""

    number: int
    result: Any = None
    error: str = ""


class Welcome(Message, frozen=True):
    """Attested. Modules whose certificates the worker may ask for, and what to trust."""

    modules: list[str]
    trust_domain: str
    app: str
    bundle: str
    heartbeat_s: float
    clock_offset_s: float = 0.0
    keys: list[tuple[str, str, str, int, int]] = []
    """The modules' public keys (``KnownKey``)."""
    workload_api: str = ""
    """Where SPIRE's agent gives certificates and roots, which then do not come from here."""
    foreign: dict[str, str] = {}
    """Other trust domains, and their roots (PEM)."""


class Refused(Message, frozen=True):
    """Not attested, or a certificate that this worker may not have."""

    error: dict[str, str | None]


class SecretsTold(Message, frozen=True):
    """The answer to :class:`AskSecrets`; an error as ``SeamlineError.to_json`` gives it."""

    number: int
    result: Any = None
    error: dict[str, str | None] | None = None


class Spent(Message, frozen=True):
    """The answer to :class:`Spend`: how far ahead all gateways together are."""

    number: int
    ahead_s: dict[str, float]


class Keys(Message, frozen=True):
    """Public keys of modules (``KnownKey``), beside those that were told before."""

    keys: list[tuple[str, str, str, int, int]]


class Signed(Message, frozen=True):
    """Module to certificate chain (PEM), and the bundle to trust from now on."""

    chains: dict[str, str]
    bundle: str


class Address(msgspec.Struct, frozen=True, array_like=True):
    """Where a module can be reached."""

    host: str
    port: int
    weight: float = 1.0
    workload: str = ""
    version: str = ""
    wire: str = ""
    """``http`` where frames are not spoken."""


class Endpoints(Message, frozen=True):
    """Where the modules are, and the public faces of all of them."""

    number: int
    endpoints: dict[str, list[Address]]
    routes: list[Route] = []
    topology: str = ""
    """The topology in force, for people to see."""


class ServePublic(Message, frozen=True):
    """Accept on the public socket from now on."""

    number: int


class Bundle(Message, frozen=True):
    """Whom to trust from now on: in our own trust domain, and in others by their names."""

    number: int
    bundle: str
    foreign: dict[str, str] = {}


class Revoked(Message, frozen=True):
    """What is no longer good (``Revocation``), beside what was told before. Number 0 wants no answer."""

    number: int
    entries: list[dict[str, Any]]


class ReloadPolicy(Message, frozen=True):
    number: int


class Inject(Message, frozen=True):
    """Rules of faults, by short method name; an empty map takes them away."""

    number: int
    rules: dict[str, dict[str, Any]]


class MoveClock(Message, frozen=True):
    number: int
    offset_s: float


class AskStats(Message, frozen=True):
    number: int


class AskRoom(Message, frozen=True):
    """An operation on events or sagas (``room``) of a module hosted there; an error comes back inside the result."""

    number: int
    room: str
    operation: str
    arguments: dict[str, Any]


class Wake(Message, frozen=True):
    """Another process has announced these; or a secret has changed, ``secrets/<name>``, no name for any."""

    topics: list[str]


class Drain(Message, frozen=True):
    """Refuse new work, finish what is in flight; the result says whether all was finished."""

    number: int
    timeout_s: float


class Stop(Message, frozen=True):
    """Stop without further waiting, and exit."""


ToWorker = (
    Welcome
    | Refused
    | SecretsTold
    | Spent
    | Signed
    | Keys
    | Endpoints
    | ServePublic
    | Bundle
    | Revoked
    | ReloadPolicy
    | Inject
    | MoveClock
    | AskStats
    | AskRoom
    | Wake
    | Drain
    | Stop
)
ToSupervisor = (
    Hello | Sign | Show | AskKey | Revoke | AskSecrets | Spend | Ready | Failed | Beat | Announce | Audited | Done
)
Numbered = Endpoints | ServePublic | Bundle | Revoked | ReloadPolicy | Inject | MoveClock | AskStats | AskRoom | Drain

M = TypeVar("M")


class ControlChannel(Generic[M]):
    """Messages of type ``M`` in, any message out, both bounded."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decoder: msgspec.json.Decoder[M]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = decoder

    async def receive(self) -> M | None:
        """The next message; None when the other end is gone. Raises ControlError for what is no message."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > MESSAGE_BYTES_MAX:
                raise ControlError(f"a control message of {length} bytes is above the limit of {MESSAGE_BYTES_MAX}")
            body = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise ControlError(f"not a control message: {error}") from error

    def send(self, message: Message) -> None:
        """Queue ``message``; a peer that does not read is cut off rather than buffered for."""
        body = msgspec.json.encode(message)
        if len(body) > MESSAGE_BYTES_MAX:
            raise ControlError(f"a control message of {len(body)} bytes is above the limit of {MESSAGE_BYTES_MAX}")
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > _UNSENT_BYTES_MAX:
            self._writer.transport.abort()
            return
        self._writer.write(_LENGTH.pack(len(body)) + body)

    async def hang_up(self, wait_s: float) -> None:
        """The last word is said: wait until the other end has read it and closes too, at most ``wait_s`` seconds.

        To close at once would lose it: what the other end writes meanwhile fails, and with it what it has not read.
        Nobody else receives any more.
        """
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(wait_s):
                if not self._writer.is_closing():
                    self._writer.write_eof()
                while await self._reader.read(_UNSENT_BYTES_MAX):
                    pass
        self.close()
        await self.closed()

    def close(self) -> None:
        self._writer.close()

    async def closed(self) -> None:
        """Wait until what was sent is gone or the peer is."""
        try:
            await self._writer.wait_closed()
        except (ConnectionError, BrokenPipeError):
            return


def worker_decoder() -> msgspec.json.Decoder[ToWorker]:
    return msgspec.json.Decoder(ToWorker)


def supervisor_decoder() -> msgspec.json.Decoder[ToSupervisor]:
    return msgspec.json.Decoder(ToSupervisor)


def in_json(endpoints: Mapping[str, list[Address]]) -> dict[str, list[dict[str, Any]]]:
    """Endpoints for people and scripts."""
    return {
        module: [
            {"host": each.host, "port": each.port, "workload": each.workload, "wire": each.wire} for each in addresses
        ]
        for module, addresses in endpoints.items()
    }
