"""The running boutique under attack, in one process or in many, and what an attacker has to attack it with.

The application is the boutique as it is, with one module more: ``mallory`` is code of a stranger that was let in and
may do nothing. It runs under a real supervisor with its real policy, clock and workers.
"""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, ClassVar, Self, cast
from urllib.parse import urlsplit

from joserfc.jwk import ECKey, Key, RSAKey

from seamline.kernel.wire.http1_client import HttpPool
from seamline.mesh.identity import CertificateAuthority, new_key_and_csr
from seamline.run.admin import AdminClient
from seamline.testing import leftovers
from seamline.testing.http import HttpClient
from seamline.testing.thread import LoopThread

BOUTIQUE = Path(__file__).resolve().parents[2]
_MORE = """
[[auth.issuers]]
issuer = "{issuer}"
audience = ["shop"]

[gateway]
listen = "127.0.0.1:0"
head_timeout_s = 1
header_bytes_max = 16384

[[events.webhooks]]
name = "partner"
module = "checkout"
events = ["OrderPlaced"]
url = "https://localhost:{trap}/latest/meta-data"
secret = "ATTACK_WEBHOOK_SECRET"
attempts = 1
"""
_POLICY = """
permit (principal == Module::"gateway", action == Action::"http", resource == Module::"mallory");
"""
_LAUNCH = """\
import json, sys
from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import Settings
from seamline.run import supervisor
def ready(status):
    print(json.dumps(status), flush=True)
try:
    sys.exit(supervisor.run(Settings.load(sys.argv[1]), topology=sys.argv[2], testing=True, on_ready=ready))
except SeamlineError as error:
    print(json.dumps(error.to_json()), flush=True)
    raise
"""
_AUDITED_S = 3.0


class Issuer:
    """A trusted issuer of access tokens somewhere else."""

    def __init__(self) -> None:
        self.rsa = RSAKey.generate_key(2048, auto_kid=True)
        self.ec = ECKey.generate_key("P-256", auto_kid=True)
        self.asked: list[str] = []
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                content = issuer.document(self.path)
                self.send_response(200 if content else 404)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name of the library
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def document(self, path: str) -> bytes:
        if path == "/.well-known/openid-configuration":
            return json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        keys: list[Key] = [self.rsa, self.ec]
        return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode() if path == "/keys" else b""

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Target:
    """The boutique, started once for all attacks of a topology."""

    def __init__(self, folder: Path, topology: str) -> None:
        self.folder = folder
        self.topology = topology
        self.data = folder / ".seamline"
        self.issuer = Issuer()
        self.admin = AdminClient(self.data)
        self.thread = LoopThread("attacks")
        self.host, self.port = "", 0
        self._pids: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self.trap = socket.create_server(("127.0.0.1", 0))
        self._lines: dict[Path, int] = {}
        self._log_seen = 0

    def __enter__(self) -> Self:
        self.thread.__enter__()
        self._write()
        log = (self.folder / "log").open("ab")
        command = ["env", "ATTACK_WEBHOOK_SECRET=whsec_YXR0YWNrIHRoZSBib3V0aXF1ZSB3aXRoIGNhcmU=",
                   f"REVIEWS_DB={self.folder}/reviews.sqlite3", sys.executable, "-P", "-c", _LAUNCH, str(self.folder),
                   self.topology]  # fmt: skip
        with log:
            self._process = process = subprocess.Popen(  # noqa: S603  # our own interpreter and script
                command, stdout=subprocess.PIPE, stderr=log, process_group=0
            )
        leftovers.watch(process.pid)
        out = cast("IO[bytes]", process.stdout)
        said: dict[str, Any] = {}
        for line in out:
            if line.startswith(b"{") and ("url" in (said := json.loads(line)) or "code" in said):
                break
        if "url" not in said:
            self.__exit__()
            raise AssertionError(f"the boutique did not start: {said}\n{self.log()[-6000:]}")
        self._reader = threading.Thread(target=self._drain, args=(out,))
        self._reader.start()
        parts = urlsplit(str(said["url"]))
        self.host, self.port = parts.hostname or "", parts.port or 0
        self._pids = self.pids()
        return self

    def _write(self) -> None:
        for name in ("boutique", "reviews_before", "users.toml", "contracts.lock.json"):
            (self.folder / name).symlink_to(BOUTIQUE / name)
        (self.folder / "mallory").symlink_to(Path(__file__).parent / "mallory")
        (self.folder / "policy").mkdir()
        (self.folder / "policy" / "boutique.cedar").symlink_to(BOUTIQUE / "policy" / "boutique.cedar")
        (self.folder / "policy" / "mallory.cedar").write_text(_POLICY, encoding="utf-8")
        text = (BOUTIQUE / "seamline.toml").read_text(encoding="utf-8")
        text = text.replace('"boutique.analytics",', '"boutique.analytics",\n    "mallory",')
        more = _MORE.format(issuer=self.issuer.url, trap=self.trap.getsockname()[1])
        (self.folder / "seamline.toml").write_text(text + more, encoding="utf-8")

    def _drain(self, out: IO[bytes]) -> None:
        with (self.folder / "log").open("ab", buffering=0) as file:
            for line in out:
                file.write(line)

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            family = leftovers.family(process.pid)
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if self._reader is not None:
                self._reader.join()
            cast("IO[bytes]", process.stdout).close()
            leftovers.expect_gone(family)
        self.thread.__exit__(None, None, None)
        self.trap.close()
        self.issuer.close()

    # What it says of itself.

    def ask(self, operation: str, /, **arguments: Any) -> dict[str, Any]:
        return asyncio.run(self.admin.ask(operation, **arguments))

    def pids(self) -> dict[str, int]:
        return {
            f"{workload['name']}#{replica['replica']}": replica["pid"]
            for workload in self.ask("status")["workloads"]
            for replica in workload["replicas"]
        }

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def news(self) -> list[dict[str, Any]]:
        """The lines of audit since the last look."""
        found: list[dict[str, Any]] = []
        for file in sorted((self.data / "audit").glob("*.jsonl")):
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            found += [json.loads(line) for line in whole[self._lines.get(file, 0) :]]
            self._lines[file] = len(whole)
        return found

    async def audited(self, because: str) -> None:
        """A refusal whose reason holds ``because`` stands in the audit since the last look."""
        if not because:
            return
        seen: list[dict[str, Any]] = []
        end = time.monotonic() + _AUDITED_S
        while time.monotonic() < end:
            seen += self.news()
            if any(because in json.dumps(line) and line["decision"] in ("deny", "refuse", "revoke") for line in seen):
                return
            await asyncio.sleep(0.02)
        others = [line for line in seen if line["decision"] != "allow"]
        raise AssertionError(f"no line of audit says {because!r}: {others}")

    async def unhurt(self) -> None:
        """The same processes, pages that answer, and no traceback in the log."""
        page = await self.browser().get("/")
        assert page.status == 200
        status = await self.admin.ask("status")
        now = {
            f"{workload['name']}#{each['replica']}": each["pid"]
            for workload in status["workloads"]
            for each in workload["replicas"]
        }
        assert now == self._pids
        log = self.log()
        seen, self._log_seen = self._log_seen, len(log)
        assert "Traceback" not in log[seen:], log[seen:]

    async def told_in_the_log(self, text: str) -> None:
        """An error that has to be told, traceback and all, is told."""
        async with asyncio.timeout(_AUDITED_S):
            while text not in self.log()[self._log_seen :]:  # noqa: ASYNC110  # files tell nobody
                await asyncio.sleep(0.02)
        self._log_seen = len(self.log())

    # What an attacker has.

    def browser(self) -> HttpClient:
        return HttpClient(self.thread, self.host, self.port)

    async def raw(self, data: bytes, *, pause_s: float = 0) -> bytes:
        """What the public port answers to these bytes, until it closes the connection or says nothing more."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        answer = b""
        try:
            writer.write(data)
            async with asyncio.timeout(max(2.0, pause_s)):
                while piece := await reader.read(65_536):
                    answer += piece
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
        return answer

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers, body."""
        pool = HttpPool(self.host, self.port)
        try:
            lines = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
            response = await pool.request("GET", path, lines, b"", 20.0)
            body = await response.read_all()
            return response.status, {k.decode().lower(): v.decode("latin-1") for k, v in response.headers}, body
        finally:
            await pool.close()

    async def endpoint(self, module: str) -> tuple[str, int]:
        """Where a module's mesh port is."""
        found = (await self.admin.ask("endpoints"))["endpoints"][module][0]
        return found["host"], found["port"]

    @cached_property
    def authority(self) -> CertificateAuthority:
        """The application's own authority, as somebody has it who stole the root key: for forgeries only."""
        return CertificateAuthority.load_or_create(self.data / "identity", "boutique.local", "boutique")

    async def identity(self, module: str) -> tuple[bytes, bytes, bytes]:
        """Key, chain and bundle of a module in good standing that was taken over."""
        key, request = new_key_and_csr()
        issued = await self.admin.ask("issue", module=module, csr=request.decode())
        return key, issued["chain"].encode(), issued["bundle"].encode()


@dataclass(frozen=True)
class Attack:
    """One attack: ``run`` asserts that it is refused, and ``audit`` is what the audit then says."""

    run: Callable[[Target], Awaitable[None]]
    audit: str

    ALL: ClassVar[list[Attack]] = []

    @property
    def name(self) -> str:
        return self.run.__name__


def attack(audit: str) -> Callable[[Callable[[Target], Awaitable[None]]], Callable[[Target], Awaitable[None]]]:
    """Make a function one of the attacks."""

    def add(run: Callable[[Target], Awaitable[None]]) -> Callable[[Target], Awaitable[None]]:
        Attack.ALL.append(Attack(run, audit))
        return run

    return add
