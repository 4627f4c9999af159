"""The shop in processes of its own, and shoppers who do not give up: for tests that break things on purpose."""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self, cast
from urllib.parse import urlencode, urlsplit

import msgspec
from boutique.frontend.forms import EXAMPLE
from examples.boutique.tests import balance
from examples.boutique.tests.sweep_host import Order

from seamline.run.admin import AdminClient
from seamline.testing import leftovers
from seamline.testing.supervisor import SupervisorOptions

HERE = Path(__file__).parent
APP = HERE.parent
_READY_S = 60
_PATIENCE_S = 45


class Page:
    """What came back, without following anything."""

    def __init__(self, status: int, location: str, text: str) -> None:
        self.status = status
        self.location = location
        self.text = text


class Shop:
    """Supervised workers with fuses; ``url`` is a PostgreSQL database, or nothing for SQLite files."""

    def __init__(self, data: Path, topology: str, url: str = "", **settings: object) -> None:
        self.data = data
        self.books: Path | str = url or data
        self._url = url
        self._topology = topology
        self._settings = {"RUN_CRASH_LOOP_CRASHES": 100_000, **settings}
        self._orders = 0
        self._staff = ""
        self.request_timeout_s = 20.0
        self.failed: list[str] = []
        """Requests that were not answered, or with an error of the shop's own."""
        self._process: subprocess.Popen[bytes] | None = None
        self._address: tuple[str, int] = ("", 0)

    def __enter__(self) -> Self:
        log = self.data / "log"
        options = SupervisorOptions(folder=str(APP), data=str(self.data), topology=self._topology, log=str(log))
        variables = {f"SEAMLINE_{name.upper()}": str(value) for name, value in self._settings.items()}
        variables["PYTHONPATH"] = str(HERE)
        if self._url:
            variables["SEAMLINE_DATA_URL"] = self._url
        command = [
            "env", *(f"{name}={value}" for name, value in variables.items()), sys.executable, "-P",
            str(HERE / "sweep_supervisor.py"), msgspec.json.encode(options).decode(),
        ]  # fmt: skip
        with log.open("ab") as errors:
            self._process = process = subprocess.Popen(  # noqa: S603  # our own interpreter and script
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, process_group=0
            )
        leftovers.watch(process.pid)
        said = cast("IO[bytes]", process.stdout).readline()
        answer: dict[str, Any] = json.loads(said) if said else {}
        if "ready" not in answer:
            self.__exit__()
            raise AssertionError(f"the shop did not start: {answer}\n{self.log()}")
        parts = urlsplit(str(answer["ready"]["url"]))
        self._address = (parts.hostname or "", parts.port or 0)
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        family = leftovers.family(process.pid)
        cast("IO[bytes]", process.stdin).close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        cast("IO[bytes]", process.stdout).close()
        leftovers.expect_gone(family)

    @property
    def _origin(self) -> str:
        return f"http://{self._address[0]}:{self._address[1]}"

    def log(self) -> str:
        """The last that its processes have written."""
        return (self.data / "log").read_text(encoding="utf-8", errors="replace")[-12_000:]

    # What breaks.

    def arm(self, module: str, commit: int, when: str, **order: Any) -> None:
        """Have the process die at that commit of the module, counted from now."""
        self._orders += 1
        content = msgspec.json.encode(Order(self._orders, module, commit, when, **order))
        new = self.data / "fuse.new"
        new.write_bytes(content)
        new.rename(self.data / "fuse")

    def disarm(self) -> bool:
        """Whether the last order was carried out."""
        try:
            (self.data / "fuse").unlink()
        except FileNotFoundError:
            return True
        return False

    def commits(self) -> Counter[str]:
        """How often each module committed since an order that says ``never``."""
        self.disarm()
        return Counter((self.data / "commits").read_text(encoding="utf-8").split())

    def ask(self, operation: str, /, **arguments: Any) -> dict[str, Any]:
        """The supervisor."""
        return asyncio.run(AdminClient(self.data).ask(operation, **arguments))

    def pids(self, module: str) -> list[int]:
        """The processes that host a module."""
        return [
            replica["pid"]
            for workload in self.ask("status")["workloads"]
            if module in workload["modules"]
            for replica in workload["replicas"]
        ]

    # What shoppers and the staff do.

    def sign_in(self) -> None:
        """Somebody of the staff signs in, and stays so."""
        while not self._staff:
            with suppress(OSError, http.client.HTTPException):
                jar: dict[str, str] = {}
                form = self._follow("/.seamline/sign-in", jar)
                ticket = form.text.partition('name="ticket" value="')[2].partition('"')[0]
                sent = self._ask(
                    "POST", "/.seamline/id/authorize", {"ticket": ticket, "name": "bo", "password": "needle"}, jar
                )
                self._ask("GET", sent.location.removeprefix(self._origin), None, jar)
                self._staff = jar.get("__Host-session", "")

    def _follow(self, path: str, jar: dict[str, str]) -> Page:
        page = self._ask("GET", path, None, jar)
        while page.status == 303:
            page = self._ask("GET", page.location.removeprefix(self._origin), None, jar)
        return page

    def once(
        self,
        method: str,
        path: str,
        form: Mapping[str, object] | None = None,
        shopper: str = "",
        *,
        staff: bool = False,
    ) -> Page:
        """One request. Raises OSError or HTTPException when nobody answers."""
        jar = {"shopper": shopper, **({"__Host-session": self._staff} if staff else {})}
        try:
            page = self._ask(method, path, form, jar)
        except (OSError, http.client.HTTPException) as error:
            self.failed.append(f"{method} {path}: {error!r}")
            raise
        if page.status >= 500:
            self.failed.append(f"{method} {path}: {page.status}")
        return page

    def _ask(self, method: str, path: str, form: Mapping[str, object] | None, jar: dict[str, str]) -> Page:
        connection = http.client.HTTPConnection(*self._address, timeout=self.request_timeout_s)
        try:
            cookie = "; ".join(f"{name}={value}" for name, value in jar.items())
            headers = {"cookie": cookie, "connection": "close", "origin": self._origin}
            body = None
            if form is not None:
                body = urlencode({name: str(value) for name, value in form.items()})
                headers["content-type"] = "application/x-www-form-urlencoded"
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            for line in response.headers.get_all("set-cookie") or ():
                name, _, value = line.partition(";")[0].partition("=")
                jar[name] = value
            return Page(response.status, response.getheader("location") or "", response.read().decode())
        finally:
            connection.close()

    def until(
        self,
        wanted: int,
        method: str,
        path: str,
        form: Mapping[str, object] | None = None,
        shopper: str = "",
        *,
        staff: bool = False,
    ) -> Page:
        """The same request again and again, as a shopper who does not give up, until it is answered as wanted."""
        end = time.monotonic() + _PATIENCE_S
        last: object = None
        while time.monotonic() < end:
            with suppress(OSError, http.client.HTTPException):
                page = self.once(method, path, form, shopper, staff=staff)
                if page.status == wanted:
                    return page
                last = (page.status, page.location, page.text[:2000])
            time.sleep(0.05)
        raise AssertionError(f"{method} {path} was never answered with {wanted}, last with {last}\n{self.log()}")

    def shows(self, mark: str, path: str, shopper: str = "") -> Page:
        """The page once it shows ``mark``: an order goes on by itself."""
        end = time.monotonic() + _PATIENCE_S
        while mark not in (page := self.until(200, "GET", path, shopper=shopper)).text:
            assert time.monotonic() < end, f"{path} never shows {mark!r}: {page.text}\n{self.log()}"
            time.sleep(0.02)
        return page

    def fill(self, shopper: str, product: str = "wool-throw", quantity: int = 2) -> int:
        """Put something into an empty bag; its version. A repeated form would put it in twice, so it looks first."""
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            with suppress(OSError, http.client.HTTPException):
                till = self.once("GET", "/checkout", shopper=shopper)
                if till.status == 200:
                    return int(till.text.partition('name="version" value="')[2].partition('"')[0])
                self.once("POST", "/cart", {"product_id": product, "quantity": quantity}, shopper)
        raise AssertionError(f"the bag of {shopper} stays empty\n{self.log()}")

    def form(self, version: int, **changes: str) -> dict[str, object]:
        return {**EXAMPLE, "version": version, "currency": "EUR", "country": "BE", **changes}

    def unbalanced(self, within_s: float = 25.0) -> list[str]:
        """What does not balance once all is quiet."""
        return asyncio.run(balance.settled(self.books, within_s=within_s))
