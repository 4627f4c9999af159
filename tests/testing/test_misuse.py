"""What is asked wrongly is refused with a code, the fact and the remedy, before anything happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from kiosk.stock import Stock
from seamline import Contract
from seamline.run.application import Application
from seamline.testing import (
    BadFakeError,
    NoSuchTargetError,
    NoSuchTopologyError,
    NotHereError,
    TestingError,
    TooSlowError,
)
from seamline.testing.app import TopologyApp
from seamline.testing.thread import LoopThread

pytestmark = pytest.mark.seamline(app="tests/testing/kiosk_app", topologies=["local"])
KIOSK = Path(__file__).parent / "kiosk_app"


class Elsewhere(Contract):
    """No module of the kiosk provides it."""

    async def act(self) -> None: ...


class HalfStock(Stock):
    """Stands in for hardly anything."""

    async def count(self, sku: str) -> int:
        return 0


def test_a_caller_that_is_no_module(topology_app: TopologyApp):
    """The nearest right name is the remedy."""
    with pytest.raises(NoSuchTargetError, match=r"SL8004: there is no module 'tilt'. Did you mean 'till'\?"):
        topology_app.stub(Stock, caller="tilt")


def test_a_contract_of_another_application(topology_app: TopologyApp):
    with pytest.raises(NoSuchTargetError, match="provides 'Elsewhere'"):
        topology_app.stub(Elsewhere)


@pytest.mark.parametrize("target", ["Stock.tke", "Stok", "Stock.take.it", HalfStock.count])
def test_a_target_of_injection_that_is_not_there(topology_app: TopologyApp, target: str):
    """It would otherwise inject nothing, and the test would pass for nothing."""
    with pytest.raises(NoSuchTargetError), topology_app.inject(target, error="unavailable"):
        pytest.fail("entered")


def test_an_error_that_cannot_be_injected(topology_app: TopologyApp):
    with (
        pytest.raises(NoSuchTargetError, match="Did you mean 'unavailable'"),
        topology_app.inject(Stock.take, error="unavailible"),
    ):
        pytest.fail("entered")


async def test_a_fake_that_stands_in_for_half(topology_app: TopologyApp):
    """Every method must be there; and after the refusal the real one still is."""
    with pytest.raises(BadFakeError, match="has no 'take'"), topology_app.fake(Stock, HalfStock()):
        pytest.fail("entered")
    assert await topology_app.stub(Stock).count("pen") == 100


def test_nothing_can_be_killed_in_one_process(topology_app: TopologyApp):
    with pytest.raises(NotHereError, match="test's own process"):
        topology_app.kill("stock")
    with pytest.raises(NoSuchTargetError):
        topology_app.kill("stok")


async def test_what_a_test_leaves_behind_is_undone(topology_app: TopologyApp):
    """Rules and fakes that were entered and never left do not reach the next test."""
    rules = topology_app.inject(Stock.count, error="internal")
    rules.__enter__()
    topology_app.reset()
    assert await topology_app.stub(Stock).count("pen") == 100
    rules.__exit__(None, None, None)


def test_an_unknown_topology(tmp_path: Path):
    with pytest.raises(NoSuchTopologyError, match=r"'dou'. Did you mean 'duo'"):
        TopologyApp(Application.load(KIOSK), "dou", tmp_path)


def test_a_policy_that_is_wrong_names_its_place(tmp_path: Path):
    """The test's own Cedar text is checked like the application's."""
    app = TopologyApp(
        Application.load(KIOSK), "local", tmp_path, policy='permit(principal == Module::"tilt", action, resource);'
    )
    with pytest.raises(Exception, match=r"of-the-test\.cedar:2.*'tilt'"):
        app.start()
    app.stop()


def test_an_application_with_a_module_called_test(tmp_path: Path):
    """The name is taken."""
    (tmp_path / "seamline.toml").write_text('[app]\nname = "x"\nmodules = ["takenname.test"]\n')
    package = tmp_path / "takenname" / "test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "module.py").write_text('from seamline import Module\nmodule = Module("test")\n')
    with pytest.raises(TestingError, match="SL8000: the application has a module called 'test'"):
        TopologyApp(Application.load(tmp_path), "local", tmp_path / "data")


def test_what_does_not_end_is_ended():
    """A bound on everything: a coroutine that hangs is cancelled and named."""
    import asyncio

    cancelled: list[bool] = []

    async def hang() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with LoopThread("hangs") as thread:
        with pytest.raises(TooSlowError, match=r"SL8006: hanging took more than 0.05 s"):
            thread.run(hang(), 0.05, "hanging")
        thread.do(lambda: None)
    assert cancelled == [True]


async def test_a_service_that_cannot_start_says_so(tmp_path: Path):
    """An error while starting is the error of the start, and nothing is left running."""
    (tmp_path / "seamline.toml").write_text('[app]\nname = "x"\nmodules = ["failsatstart.only"]\n')
    package = tmp_path / "failsatstart" / "only"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "module.py").write_text(
        'from seamline import Module\nmodule = Module("only")\n'
        '@module.startup\nasync def start() -> None:\n    raise RuntimeError("no coffee")\n'
    )
    application = Application.load(tmp_path)
    for topology in ("local", "processes"):
        (tmp_path / topology).mkdir()
        app = TopologyApp(application, topology, tmp_path / topology)
        with pytest.raises(Exception, match="no coffee"):
            app.start()
        app.stop()
