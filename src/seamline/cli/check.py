"""``seamline check``: everything that can be found wrong before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from seamline.cli import connect, output
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Json
from seamline.kernel.errors import SeamlineError

if TYPE_CHECKING:
    from seamline.run.application import Application

app = typer.Typer(add_completion=False)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline check         # each finding with its code, place and remedy
    seamline check --json  # for an editor or a pipeline
    """,
)
def check(app_folder: App = None, as_json: Json = False) -> None:
    """Load the application and check settings, modules, contracts, wiring, permits and urls. Nothing is started.

    Where `seamline contracts lock` was used, changes that break what it promised are found too.

    The exit status is 1 if anything was found, and `seamline explain CODE` says more about a finding.
    """
    folder = connect.find_folder(app_folder)
    found, modules = findings(folder)
    if as_json:
        output.emit({"ok": not found, "modules": modules, "findings": [error.to_json() for error in found]})
    elif found:
        for error in found:
            output.print_error(error.code, str(error).removeprefix(f"{error.code}: "))
        plural = "s" if len(found) > 1 else ""
        typer.echo(f"\n{len(found)} finding{plural}; `seamline explain CODE` says more about each.", err=True)
    else:
        typer.echo(f"{len(modules)} module{'s' if len(modules) != 1 else ''}, nothing found.")
    if found:
        raise typer.Exit(output.STATUS_FOUND_WANTING)


def findings(folder: Path) -> tuple[list[SeamlineError], list[str]]:
    """All that is wrong, and the names of the modules that could be loaded."""
    from seamline.run.application import Application

    try:
        application = Application.load(folder)
    except SeamlineError as error:
        return all_of(error), []
    found = [each for error in application.findings() for each in all_of(error)]
    found += [*unusable_broker(application), *unknown_events(application), *broken_promises(application)]
    return [*found, *unpermitted(application)], list(application.modules)


def unusable_broker(application: Application) -> list[SeamlineError]:
    """A broker's url that cannot be used, or whose client is not installed. Whether the broker answers is not asked."""
    events = application.settings.events
    if not events.broker:
        return []
    from seamline.events.brokers import check_url
    from seamline.events.errors import BrokerUrlError

    try:
        check_url(events.broker, app=application.settings.app.name, settings=events)
    except BrokerUrlError as error:
        return [error]
    return []


def unpermitted(application: Application) -> list[SeamlineError]:
    """What would be refused whenever it is asked. Where modules or policy cannot be read, that is found already."""
    from seamline.run.permits import missing_permits

    try:
        return [*missing_permits(application, application.policy())]
    except SeamlineError:
        return []


def unknown_events(application: Application) -> list[SeamlineError]:
    """Webhooks that would send what their module does not publish."""
    found: list[SeamlineError] = []
    for webhook in application.settings.events.webhooks:
        from seamline.events.webhooks.egress import chosen_events

        try:
            chosen_events(webhook, application.events)
        except SeamlineError as error:
            found.append(error)
    return found


def broken_promises(application: Application) -> list[SeamlineError]:
    """Breaking changes since ``seamline contracts lock``, where there is a lock file."""
    from seamline.cli import baseline
    from seamline.cli.contracts import spot
    from seamline.cli.errors import BaselineError
    from seamline.module.errors import BreakingChangeError
    from seamline.module.evolution import changes

    try:
        before = baseline.read_lock(application.folder)
    except BaselineError as error:
        return [error]
    if before is None:
        return []
    return [
        BreakingChangeError(
            f"{change.what} {spot(change)}: {change.fact}; breaks: {'; '.join(change.breaks)}",
            f"{change.remedy} If nobody is left who could break, `seamline contracts lock --break`.",
            place=f"{baseline.LOCK} {change.module}",
        )
        for change in changes(before, baseline.described(application))
        if change.verdict == "breaking"
    ]


def all_of(error: SeamlineError) -> list[SeamlineError]:
    """An error may carry others that were found with it (those of a policy do)."""
    others: list[SeamlineError] = list(getattr(error, "findings", None) or [error])
    return others if error in others else [error, *others]
