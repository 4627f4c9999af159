"""``seamline status``: what runs, where, and how it is."""

from __future__ import annotations

import time
from typing import Any

import typer

from seamline.cli import connect, output
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json

app = typer.Typer(add_completion=False)

WIDTH_FOR_ADDRESSES = 120
STATES = {"ready": "green", "starting": "cyan", "draining": "yellow", "restarting": "bold red"}


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline status                                         # a table
    seamline status --json | jq '.workloads[].replicas[].pid'   # for a script
    """,
)
def status(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Workloads, their modules, processes, health, restarts, CPU and memory. Exit status 1 if one is not well."""
    settings = connect.read_settings(app_folder, data)
    found = connect.ask(settings, "status")
    replicas = [replica for workload in found["workloads"] for replica in workload["replicas"]]
    for replica in replicas:
        replica["uptime_s"] = process_uptime(replica["pid"])
    if as_json:
        output.emit(found)
    else:
        show(found)
    if any(replica["crash_loop"] or replica["state"] == "restarting" for replica in replicas):
        raise typer.Exit(output.STATUS_FOUND_WANTING)


def show(found: dict[str, Any]) -> None:
    console = output.console()
    state = "changing" if found["changing"] else f"up {output.lasted(time.time() - found['started_at'])}"
    if not found["ready"]:
        state = "starting"
    console.print(
        f"[bold]{found['app']}[/] runs as [bold]{found['topology']}[/], {state}, at {found['url']}; "
        f"supervisor {found['pid']}\n"
    )
    console.print(processes(found["workloads"], console.width))
    for workload in found["workloads"]:
        for replica in workload["replicas"]:
            if replica["crash_loop"]:
                tell_crash_loop(console, label(workload, replica), replica["crash_loop"])


def processes(workloads: list[dict[str, Any]], width: int) -> Any:
    """One row for each process."""
    columns = {"workload": "fixed", "state": "fixed", "pid": "right", "up": "right", "restarts": "right"}
    columns |= {"CPU": "right", "memory": "right", "modules": "left"}
    if width >= WIDTH_FOR_ADDRESSES:
        columns["mesh"] = "fixed"
    rows: list[list[str]] = []
    for workload in workloads:
        for replica in workload["replicas"]:
            tint = STATES.get(replica["state"], "dim")
            rows.append(
                [
                    label(workload, replica) + (" ◂ public" if replica["gateway"] else ""),
                    f"[{tint}]{replica['state']}[/]",
                    str(replica["pid"] or "-"),
                    output.lasted(replica.get("uptime_s")),
                    f"[bold red]{replica['restarts']}[/]" if replica["restarts"] else "0",
                    f"{replica['cpu_percent']:.0f} %",
                    output.megabytes(replica["rss_mb"]),
                    ", ".join(workload["modules"]),
                    replica["mesh"],
                ][: len(columns)]
            )
    return output.table(columns, rows)


def label(workload: dict[str, Any], replica: dict[str, Any]) -> str:
    return f"{workload['name']}#{replica['replica']}" if replica["replica"] else str(workload["name"])


def tell_crash_loop(console: Any, name: str, loop: dict[str, Any]) -> None:
    console.print(
        f"\n[bold red]{name} crashes in a loop[/]: {loop['crashes']} times within {loop['window_s']:g} s, last with "
        f"{loop['ended']}; next try in {loop['retry_s']:g} s. Its last lines:"
    )
    for line in loop["log"]:
        console.print(f"  {line}", markup=False)


def process_uptime(pid: int) -> float | None:
    """Seconds since the process began; ``None`` if it is gone."""
    import psutil

    try:
        return max(time.time() - psutil.Process(pid).create_time(), 0.0) if pid else None
    except psutil.Error:
        return None
