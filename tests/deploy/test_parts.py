"""The parts of a sidecar by themselves: its settings, what it lacks, what it leaves, its command, and a real SPIRE."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from supervised_app import HERE, until

from other.echo import Echo
from seamline import User
from seamline.deploy.sidecar import children, hosting
from seamline.deploy.sidecar.errors import EnvoyMissingError
from seamline.kernel.settings import BadPlacementError, BadValueError, Settings, SettingsError
from seamline.run.placement import Workload, place
from seamline.testing.app import TopologyApp

TOML = '[app]\nname = "shop"\nmodules = ["shop.cart", "shop.orders"]\n[topologies.duo]\ncart = ["cart", "orders"]\n'
ENDPOINT = 'url = "https://b.example/"\n'


def settings(folder: Path, more: str) -> Settings:
    (folder / "seamline.toml").write_text(TOML + more)
    return Settings.load(folder, {})


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("[sidecars.basket]\nport = 1\n", BadPlacementError),
        ("[sidecars.cart]\n", BadValueError),
        ('[sidecars.cart]\nport = 1\ncommand = ["node"]\n', BadValueError),
        ("[sidecars.cart]\nport = 65536\n", BadValueError),
        (f'[identity.federation."shop.local"]\n{ENDPOINT}', BadValueError),
        (f'[identity.federation."B.example"]\n{ENDPOINT}', BadValueError),
        ('[identity.federation."b.example"]\nurl = "http://b.example/"\n', BadValueError),
        (f'[identity.federation."b.example"]\n{ENDPOINT}profile = "https_spiffe"\n', BadValueError),
        (f'[identity.federation."b.example"]\n{ENDPOINT}endpoint_id = "spiffe://b/x"\nbundle = "x"\n', BadValueError),
        (f'[identity.federation."b.example"]\n{ENDPOINT}modules = ["orders"]\n', BadValueError),
        ('[identity.federation."b.example"]\n', BadValueError),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, more: str, error: type[SettingsError]):
    """With the place, before anything starts."""
    with pytest.raises(error):
        settings(tmp_path, more)


def test_a_module_with_a_sidecar_is_alone_in_the_topologies_that_it_names(tmp_path: Path):
    """Also where its group is called like it."""
    found = settings(tmp_path, '[sidecars.cart]\nport = 9000\ntopologies = ["duo", "services"]\n')
    beside = found.sidecars["cart"]
    assert place(found, "duo") == (Workload("cart", ("orders",)), Workload("cart-sidecar", ("cart",), 1, beside))
    assert place(found, "services") == (Workload("cart", ("cart",), 1, beside), Workload("orders", ("orders",)))
    assert place(found, "monolith") == (Workload("all", ("cart", "orders")),)
    assert place(found, "duo", outside={"cart"}) == (Workload("cart", ("orders",)),)


def test_without_envoy_there_is_no_sidecar(monkeypatch: pytest.MonkeyPatch):
    """And how to get it is said."""

    def nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    monkeypatch.setattr(shutil, "which", nothing)
    with pytest.raises(EnvoyMissingError, match="sidecar"):
        children.find_envoy()


def test_what_a_killed_sidecar_left_is_swept_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Keys do not lie about; the folder of one that lives is left, and nobody else can enter."""
    monkeypatch.setattr(hosting, "_MEMORY", tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    own = hosting._folder_of(tmp_path / "data", "echo")  # pyright: ignore[reportPrivateUsage]
    mark = own.name.rpartition("-")[0]
    left, other = tmp_path / f"{mark}-{dead.pid}", tmp_path / f"{mark}-1"
    left.mkdir()
    other.mkdir()
    assert hosting._folder_of(tmp_path / "data", "echo") == own  # pyright: ignore[reportPrivateUsage]
    assert not left.exists()
    assert other.exists()
    assert own.stat().st_mode & 0o777 == 0o700


@pytest.mark.needs_server
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.skipif(importlib.util.find_spec("envoy") is None, reason="Envoy is not installed")
@pytest.mark.seamline(app="tests/deploy/other_app", topologies=["monolith"], fresh=True)
async def test_the_command_puts_a_service_in_place_and_takes_it_away(
    topology_app: TopologyApp, node_by_hand: tuple[int, int]
):
    """As long as it runs; Ctrl-C gives the module back."""
    port, pid = node_by_hand
    echo = topology_app.stub(Echo, caller="names", user=User("ann"))
    words = ["sidecar", "echo", "--port", str(port), "--app", str(HERE / "other_app"), "--data", str(topology_app.data)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "seamline.cli", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    said = b""
    while b"Ctrl-C gives it back" not in said:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        assert line, said
        said += line
    assert await echo.say("x") == f"x ({pid})"
    process.send_signal(signal.SIGINT)
    rest = await asyncio.wait_for(process.stdout.read(), 30)
    assert b"its inside in Python again" in rest
    assert await process.wait() == 0
    assert await echo.say("x") == "x"


def test_a_real_spire_gives_identities(tmp_path: Path):
    """Server, agent and entries of their own, on loopback and in a folder of the test."""
    server, agent = shutil.which("spire-server"), shutil.which("spire-agent")
    if server is None or agent is None:
        pytest.skip("spire-server and spire-agent are not on the PATH")
    pytest.importorskip("spiffe")
    from real_spire import RealSpire

    with RealSpire(tmp_path, server, agent) as spire:
        for module in ("gateway", "front", "echo", "names"):
            spire.register(f"spiffe://other.local/other/{module}", f"unix:uid:{os.getuid()}")
        from supervised_app import Up

        with Up(tmp_path, "python", f'[identity]\nsource = "spire"\nsocket = "{spire.address}"\n') as up:
            assert until(lambda: up.get("/real") == "/real")
