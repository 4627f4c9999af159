"""The pytest plugin: one test file, every topology.

A test that asks for ``topology_app`` runs once in each of them. Fixtures are plain functions and the application has
an event loop of its own, so they serve tests of pytest-asyncio and anyio alike, and tests that are not async.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from seamline.testing.errors import NoApplicationError
from seamline.testing.transcript import Transcript, compare, compare_with_golden

if TYPE_CHECKING:
    from seamline.run.application import Application
    from seamline.testing.app import TopologyApp

TOPOLOGIES = ("local", "copy", "processes")
_LOG_CHARACTERS_MAX = 20_000
_LEFT_OVER = pytest.StashKey[str]()
_TRANSCRIPTS = pytest.StashKey[dict[str, tuple[str, bytes]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("seamline")
    group.addoption(
        "--topologies",
        default="",
        help="In which topologies tests with topology_app run, between commas: local, copy, processes (the default), "
        "or topologies of the application; with +http over the JSON wire.",
    )
    group.addoption("--update-golden", action="store_true", help="Write transcripts to their golden files.")
    parser.addini("seamline_app", "The folder of the application under test, relative to the root.", default="")
    parser.addini("seamline_topologies", "As --topologies.", type="args", default=list(TOPOLOGIES))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "seamline(app, policy, topologies, fresh): the application's folder, Cedar text that holds in the test only, "
        "the topologies it runs in, and whether it gets an application of its own.",
    )
    config.stash[_TRANSCRIPTS] = {}
    for folder in (config.invocation_params.dir, config.rootpath):
        if (folder / "seamline.toml").is_file() and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))  # as `seamline up` does: the tests import the modules, too


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seamline_topology" not in metafunc.fixturenames:
        return
    chosen = [name.strip() for name in str(metafunc.config.getoption("--topologies")).split(",") if name.strip()]
    names: list[str] = chosen or list(metafunc.config.getini("seamline_topologies"))
    marked = _marked(metafunc.definition, "topologies")
    if marked is not None:
        names = [name for name in marked if name in chosen] if chosen else list(marked)
    metafunc.parametrize("seamline_topology", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def seamline_topology(request: pytest.FixtureRequest) -> str:
    """The topology the test runs in."""
    return str(request.param)


@pytest.fixture
def seamline_app_folder(request: pytest.FixtureRequest) -> Path:
    """The folder of the application under test. Override it, or say it in the ini file or in the marker.

    Where nothing is said it is the nearest folder above the test that holds a ``seamline.toml``.
    """
    root = request.config.rootpath
    said = _marked(request.node, "app") or request.config.getini("seamline_app")
    if said:
        return root / str(said)
    for folder in request.node.path.parents:
        if (folder / "seamline.toml").is_file():
            return folder
        if folder == root:
            break
    raise NoApplicationError(
        "nothing says which application is under test",
        "Set `seamline_app` in the ini file, or mark the test: @pytest.mark.seamline(app='examples/boutique').",
    )


@pytest.fixture(scope="module")
def seamline_running(seamline_topology: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Running]:
    """The applications that the tests of a module share in one topology."""
    running = _Running(seamline_topology, tmp_path_factory)
    yield running
    running.stop()


@pytest.fixture
def topology_app(
    request: pytest.FixtureRequest, seamline_running: _Running, seamline_app_folder: Path
) -> Iterator[TopologyApp]:
    """The application under test, running; shared by the tests of a module unless marked ``fresh``.

    What a test injects, fakes or kills is undone after it. Data and clock go on from test to test.
    """
    policy = _marked(request.node, "policy") or ""
    if _marked(request.node, "fresh"):
        with seamline_running.new(seamline_app_folder, policy) as app:
            yield app
        return
    app = seamline_running.shared(seamline_app_folder, policy)
    yield app
    try:
        app.reset()
    except BaseException:
        seamline_running.forget(seamline_app_folder, policy)
        raise


@pytest.fixture
def topology_app_factory(
    request: pytest.FixtureRequest, seamline_running: _Running, seamline_app_folder: Path
) -> Iterator[Callable[..., TopologyApp]]:
    """Makes applications of the test's own: ``with topology_app_factory(policy=...) as app: ...``.

    They take ``app`` (a folder), ``policy`` and ``topology``; those still running at the end are stopped.
    """
    made: list[TopologyApp] = []
    marked = _marked(request.node, "policy") or ""

    def make(*, app: Path | str | None = None, policy: str = "", topology: str | None = None) -> TopologyApp:
        folder = seamline_app_folder if app is None else request.config.rootpath / app
        made.append(seamline_running.new(folder, marked + policy, topology))
        return made[-1]

    yield make
    for app in made:
        app.stop()


@pytest.fixture
def transcript(seamline_topology: str) -> Transcript:  # noqa: ARG001  # the test runs in every topology
    """Records what calls do. It must be the same in every topology, and in the golden file if there is one."""
    return Transcript()


class _Running:
    def __init__(self, topology: str, folders: pytest.TempPathFactory) -> None:
        self._topology = topology
        self._folders = folders
        self._shared: dict[tuple[Path, str], TopologyApp | Exception] = {}

    def new(self, folder: Path, policy: str, topology: str | None = None) -> TopologyApp:
        from seamline.testing.app import TopologyApp  # heavy, and every pytest loads the plugin

        topology = topology or self._topology
        return TopologyApp(_application(folder), topology, self._folders.mktemp(f"data-{topology}-"), policy=policy)

    def shared(self, folder: Path, policy: str) -> TopologyApp:
        """The one that runs, started at first need. One that did not start is not tried again."""
        key = (folder, policy)
        if key not in self._shared:
            try:
                self._shared[key] = self.new(folder, policy).start()
            except Exception as error:
                self._shared[key] = error
        found = self._shared[key]
        if isinstance(found, Exception):
            raise found
        return found

    def forget(self, folder: Path, policy: str) -> None:
        """Stop one that is in no state to be shared on; the next test gets a new one."""
        found = self._shared.pop((folder, policy))
        if not isinstance(found, Exception):
            found.stop()

    def stop(self) -> None:
        errors: list[Exception] = []
        for app in self._shared.values():
            if isinstance(app, Exception):
                continue
            try:
                app.stop()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]


_applications: dict[Path, Application] = {}


def _application(folder: Path) -> Application:
    from seamline.run.application import Application  # heavy, see above

    folder = folder.resolve()
    if folder not in _applications:
        application = Application.load(folder)
        application.check()
        _applications[folder] = application
    return _applications[folder]


def _marked(node: pytest.Item | pytest.Collector, name: str) -> Any:
    """What the nearest ``seamline`` marker that says anything about ``name`` says."""
    return next((marker.kwargs[name] for marker in node.iter_markers("seamline") if name in marker.kwargs), None)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """An async test of an application needs no other plugin; where one takes it, it is left to that one."""
    mine = "seamline_topology" in pyfuncitem.fixturenames and inspect.iscoroutinefunction(pyfuncitem.obj)
    if not mine or any(pyfuncitem.get_closest_marker(name) for name in ("anyio", "asyncio", "trio")):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True


# What pytest tells of a test.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    funcargs: dict[str, Any] = getattr(item, "funcargs", {})
    app: TopologyApp | None = funcargs.get("topology_app")
    said_before = len(app.log()) if app is not None else 0
    try:
        yield
    except BaseException:
        if app is not None and (said := app.log()[said_before:]):
            item.add_report_section("call", "log of the application", said[-_LOG_CHARACTERS_MAX:])
        raise
    record = funcargs.get("transcript")
    if isinstance(record, Transcript) and record.content:
        _judge(item, record.content, str(funcargs["seamline_topology"]))


def _judge(item: pytest.Item, content: bytes, topology: str) -> None:
    """Compare a test's transcript with that of the first topology it ran in, and with its golden file."""
    case = _case(item)
    update = bool(item.config.getoption("--update-golden"))
    seen = item.config.stash[_TRANSCRIPTS]
    other, expected = seen.setdefault(f"{item.path}::{case}", (topology, content))
    compare(content, expected, topology, other)
    compare_with_golden(content, item.path.parent / "golden" / f"{case}.jsonl", topology, update=update)


def _case(item: pytest.Item) -> str:
    """The test's name with its parameters, but without the topology."""
    callspec: Any = getattr(item, "callspec", None)
    ids = [f"{value}" for name, value in callspec.params.items() if name != "seamline_topology"] if callspec else []
    parents = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
    return "-".join([item.path.stem, *parents, str(getattr(item, "originalname", item.name)), *ids])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No process of a test outlives the session."""
    leftovers = sys.modules.get("seamline.testing.leftovers")
    if leftovers is None:
        return
    from seamline.testing.errors import LeftoverError

    try:
        leftovers.expect_all_gone()
    except LeftoverError as error:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.stash[_LEFT_OVER] = str(error)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told = terminalreporter.config.stash.get(_LEFT_OVER, "")
    if told:
        terminalreporter.section("seamline", red=True)
        terminalreporter.line(told)
