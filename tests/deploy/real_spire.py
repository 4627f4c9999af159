"""A SPIRE server and an agent, started for a test and stopped with it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Self

from supervised_app import until

_SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{folder}/server.sock"
  trust_domain = "other.local"
  data_dir = "{folder}/server"
  log_level = "WARN"
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3", connection_string = "{folder}/server/db" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
}}
"""
_AGENT = """
agent {{
  data_dir = "{folder}/agent"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{folder}/agent.sock"
  trust_domain = "other.local"
  insecure_bootstrap = true
  log_level = "WARN"
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""
_PARENT = "spiffe://other.local/agent"


class RealSpire:
    def __init__(self, folder: Path, server: str, agent: str) -> None:
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._folder = folder / "spire"
        self._server, self._agent = server, agent
        self.address = f"unix://{self._folder}/agent.sock"
        for part in ("server", "agent"):
            (self._folder / part).mkdir(parents=True)
        (self._folder / "server.conf").write_text(_SERVER.format(folder=self._folder, port=port))
        (self._folder / "agent.conf").write_text(_AGENT.format(folder=self._folder, port=port))
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._start(self._server, "run", "-config", str(self._folder / "server.conf"))
        until(lambda: self._ask("healthcheck").returncode == 0)
        token = self._ask("token", "generate", "-spiffeID", _PARENT).stdout.split()[-1]
        self._start(self._agent, "run", "-config", str(self._folder / "agent.conf"), "-joinToken", token)
        until((self._folder / "agent.sock").exists)
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(10)

    def register(self, name: str, selector: str) -> None:
        self._ask("entry", "create", "-parentID", _PARENT, "-spiffeID", name, "-selector", selector)

    def _start(self, *command: str) -> None:
        with (self._folder / "output").open("ab") as output:
            self._processes.append(subprocess.Popen(command, stdout=output, stderr=output))

    def _ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [self._server, *words, "-socketPath", f"{self._folder}/server.sock"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
