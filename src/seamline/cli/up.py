"""``seamline up``: start an application and stay with it, or leave it in the background."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, manual, output
from seamline.cli.errors import ArgumentError, NotAnsweringError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Json
from seamline.cli.portal import sign_in_url

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

app = typer.Typer(add_completion=False)

LAST_WORDS = 12
POLL_S = 0.05


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline up                                   # as seamline.toml says
    seamline up -t services --replicas orders=3   # one process per module, three for orders
    seamline up --reload                          # start anew what you change
    seamline up --detach                          # return when it is ready
    seamline up --port 0                          # any free port, for tests
    """,
)
def up(
    app_folder: App = None,
    topology: Annotated[
        str | None, typer.Option("--topology", "-t", metavar="NAME", help="Instead of the one in seamline.toml.")
    ] = None,
    replicas: Annotated[
        list[str] | None, typer.Option("--replicas", "-r", metavar="MODULE=N", help="How many; may be repeated.")
    ] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew what changes on disk.")] = False,
    port: Annotated[int | None, typer.Option(metavar="P", min=0, max=65535, help="The public port.")] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The public address.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where databases, keys and sockets are kept.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")] = False,
    as_json: Json = False,
) -> None:
    """Start the application and keep it running; Ctrl-C stops it and lets what is in flight finish.

    The exit status is 0 if all was finished, 5 if the drain time was over before it was, 130 after a second
    Ctrl-C, and otherwise as `seamline --help` says.
    """
    from seamline.cli.topology import known

    settings = with_address(connect.read_settings(app_folder, data), port, listen)
    topology = known(settings, topology) if topology else None
    counts = connect.parse_counts(replicas or [], connect.known_names(settings))
    if as_json and not detach:
        raise ArgumentError("--json stands without --detach", "In the foreground `up` prints the log")
    if detach:
        status = start_detached(settings, topology, replicas or [], data, reload=reload)
        if as_json:
            output.emit(status)
        else:
            token = connect.ask(settings, "token")["token"] if status.get("control_url") else ""
            banner(settings, status, data, stop="seamline down", token="" if into_a_file() else token)
        return
    from seamline.run.supervisor import run

    def on_ready(status: dict[str, Any]) -> None:
        token = status.pop("control_token", "")
        banner(settings, status, data, stop="Ctrl-C", token="" if into_a_file() else token)

    outcome = run(
        settings,
        topology=topology,
        replicas=counts,
        reload=reload,
        on_ready=on_ready,
    )
    raise typer.Exit(int(outcome))


def with_address(settings: Settings, port: int | None, listen: str | None) -> Settings:
    """The settings with the public address from the command line."""
    if port is None and listen is None:
        return settings
    if port is not None and listen is not None:
        raise ArgumentError("--port and --listen are both given", "--listen names the port, too")
    if listen is None:
        listen = f"{settings.gateway.listen.rpartition(':')[0]}:{port}"
    host, _, number = listen.rpartition(":")
    if not host or not number.isdigit() or int(number) > 65535:
        raise ArgumentError(f"--listen is {listen!r}", "Write HOST:PORT, 127.0.0.1:8080 or [::]:8080")
    return replace(settings, gateway=replace(settings.gateway, listen=listen))


def _portal(status: dict[str, Any], token: str, command: str) -> str:
    """Where to look. What may be read by others holds no token."""
    return sign_in_url(status["control_url"], token) if token else f"{status['control_url']}  ({command} signs you in)"


def banner(settings: Settings, status: dict[str, Any], data: Path | None, *, stop: str, token: str = "") -> None:
    """What runs, where to look, how to change and to end it."""
    seamline, here = command_name(), where_options(settings, data)
    processes = sum(len(workload["replicas"]) for workload in status["workloads"])
    other = "monolith" if status["topology"] == "services" else "services"
    plural = "es" if processes != 1 else ""
    public = any(replica["gateway"] for workload in status["workloads"] for replica in workload["replicas"])
    rows = (
        *([("open it", str(status["url"]))] if public else []),
        *([("ask models", status["ai_url"])] if status.get("ai_url") else []),
        ("change it", f"{seamline} topology switch {other}{here}"),
        ("look at it", f"{seamline} status{here}"),
        ("", f"{seamline} top{here}"),
        *([("see it run", _portal(status, token, f"{seamline} portal{here}"))] if status.get("portal") else []),
        *([("control it", f"{status['control_url']}  token {token}")] if token and not status.get("portal") else []),
        *([("prove it", f"{seamline} load --switches 10{here}")] if public else []),
        ("stop it", stop if stop == "Ctrl-C" else f"{seamline} down{here}"),
    )
    modules = f"{len(settings.modules)} module{'s' if len(settings.modules) != 1 else ''}"
    print()
    print(
        manual.strong(f"{settings.app.name} is up"),
        f"with {modules} in {processes} process{plural}, topology {status['topology']}\n",
    )
    for what, how in rows:
        print(f"  {what:<12} {manual.lit(how)}")
    print(flush=True)


def into_a_file() -> bool:
    """Whether what is printed is kept: no token belongs there."""
    try:
        return stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def command_name() -> str:
    """How to type the tool here: by name where it is on the path, else by where it lies."""
    if shutil.which("seamline"):
        return "seamline"
    script = Path(sys.argv[0])
    if script.name != "seamline":
        return "seamline"
    return os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script)


def where_options(settings: Settings, data: Path | None) -> str:
    """`` --app DIR --data DIR`` where the application would not be found without."""
    here = Path.cwd()

    def shown(folder: Path) -> Path:
        return folder.relative_to(here) if folder.is_relative_to(here) else folder

    found = settings.folder == here or settings.folder in here.parents
    app = "" if found else f" --app {shown(settings.folder)}"
    return app if data is None else f"{app} --data {shown(data.resolve())}"


def start_detached(
    settings: Settings, topology: str | None, replicas: list[str], data: Path | None, *, reload: bool
) -> dict[str, Any]:
    """Start ``up`` in a session of its own, and wait until it is ready. Raises what it said when it ended."""
    settings.prepare_data_folder()
    log = settings.data_folder / "run" / "up.log"
    log.parent.mkdir(exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "seamline.cli", "up", "--app", str(settings.folder)]
    command += ["--listen", settings.gateway.listen]
    command += ["--topology", topology] if topology else []
    command += ["--data", str(data.resolve())] if data else []
    command += ["--reload"] if reload else []
    command += [part for each in replicas for part in ("--replicas", each)]
    with log.open("wb") as written:
        process = subprocess.Popen(  # noqa: S603  # our own words, no shell
            command, stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + settings.run.ready_timeout_s + 30
    while process.poll() is None and time.monotonic() < deadline:
        status = status_of(settings, process.pid)
        if status is not None:
            return status
        time.sleep(POLL_S)
    if process.poll() is None:
        process.terminate()
    raise failure(settings, log, process.returncode)


def status_of(settings: Settings, pid: int) -> dict[str, Any] | None:
    """What that supervisor runs, once it is ready."""
    from seamline.run.errors import RunError

    try:
        status = connect.ask(settings, "status")
    except RunError:  # not listening yet, or just gone
        return None
    return status if status.get("ready") and status.get("pid") == pid else None


def failure(settings: Settings, log: Path, returncode: int | None) -> NotAnsweringError:
    """Why the background did not come up, in its own words."""
    lines = log.read_text("utf-8", "replace").strip().splitlines()[-LAST_WORDS:]
    said = next((line for line in reversed(lines) if line.startswith("SL")), None)
    how = "was not ready in time" if returncode is None else f"ended with status {returncode} before it was ready"
    words = (said or " | ".join(lines)).removesuffix(".")
    return NotAnsweringError(f"{settings.app.name!r} {how}: {words}", f"The whole log is {log}")
