"""The root command: the table of verbs, lazy loading, and what becomes of errors.

Exit status: 0 done; 1 what was asked about is not in order (a finding, a failed request); 2 the command was
used wrongly; 3 to 10 the error's range, SL1xxx to SL8xxx; 70 a defect of Seamline itself; 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

import typer
import typer.core
import typer.main

from seamline.cli import manual, output
from seamline.cli.errors import ArgumentError
from seamline.kernel.errors import SeamlineError


class Entry(NamedTuple):
    """One verb: its module is ``seamline.cli.<module>`` and holds ``app``, a ``typer.Typer``."""

    section: str
    summary: str
    module: str


RUN, LOOK, CHANGE, PROVE, KEEP, HELP = (
    "Run an application",
    "Look at it",
    "Change it while it runs",
    "Check and prove it",
    "Policy and data",
    "Find your way",
)

VERBS: dict[str, Entry] = {
    "new": Entry(RUN, "Write a small application that runs at once", "new"),
    "up": Entry(RUN, "Start the application, in the foreground or with --detach", "up"),
    "down": Entry(RUN, "Stop it: refuse new work, drain, end", "down"),
    "stop": Entry(RUN, "The same as down", "down"),
    "status": Entry(LOOK, "Workloads, modules, processes, health, CPU and memory", "status"),
    "portal": Entry(LOOK, "The web pages on which you see it run: prints where to sign in", "portal"),
    "top": Entry(LOOK, "Calls per second, latency and errors per edge, live", "top"),
    "logs": Entry(LOOK, "The merged log of all workloads, as it comes and as it was", "logs"),
    "traces": Entry(LOOK, "Which requests failed or were slow, and what one of them waited for", "traces"),
    "metrics": Entry(LOOK, "What was measured, over time", "metrics"),
    "incidents": Entry(LOOK, "What goes wrong, since when, and who is suspected", "incidents"),
    "graph": Entry(LOOK, "Which module calls which contract", "graph"),
    "contracts": Entry(LOOK, "The contracts, their methods, types and JSON schema", "contracts"),
    "events": Entry(LOOK, "Topics, lag, the last events, dead letters and replay", "events"),
    "sagas": Entry(LOOK, "Sagas: what goes on, what is stuck, and a hand on it", "sagas"),
    "models": Entry(CHANGE, "Versions of models: shares, canaries, rollback, files, scores, keys", "models"),
    "topology": Entry(CHANGE, "List, draw and switch topologies, without losing a request", "topology"),
    "scale": Entry(CHANGE, "Give modules more or fewer replicas", "scale"),
    "restart": Entry(CHANGE, "Replace the processes of a workload, or of all", "restart"),
    "sidecar": Entry(CHANGE, "Have a service in another language answer for a module", "sidecar"),
    "inject": Entry(CHANGE, "Inject delays, errors, drops and crashes into calls", "inject"),
    "check": Entry(PROVE, "Check modules, contracts, wiring and policy without starting anything", "check"),
    "drill": Entry(PROVE, "Plant a fault, and see whether it is noticed and explained", "drill"),
    "load": Entry(PROVE, "Send shoppers, switch topologies meanwhile, count what failed", "load"),
    "policy": Entry(KEEP, "Test and explain who may call what", "policy"),
    "users": Entry(KEEP, "Who may sign in at the development identity provider", "users"),
    "keys": Entry(KEEP, "API keys of programs: make, list, rotate, revoke", "keys"),
    "identity": Entry(KEEP, "Quarantine a module; revoke sessions, users, programs, devices", "identity"),
    "secrets": Entry(KEEP, "Set, rotate and list secrets, and see who read them", "secrets"),
    "audit": Entry(KEEP, "Prove that the audit is whole, search and export it", "audit"),
    "admin": Entry(KEEP, "A way into the control API", "admin"),
    "migrate": Entry(KEEP, "Bring the modules' databases to their newest schema", "migrate"),
    "explain": Entry(HELP, "Why an incident began; or what an error code means and what to do", "explain"),
    "doctor": Entry(HELP, "What this machine has, and what it lacks", "doctor"),
    "version": Entry(HELP, "The versions of Seamline and of what it stands on", "version"),
}

TITLE = "Seamline runs a system of typed modules as one process or as many, and changes which while it runs."

START_HERE = (
    ("seamline new shop && cd shop", "a small application with two modules and a test"),
    ("seamline up", "start it in one process; open the address it prints"),
    ("seamline topology switch services", "in a second terminal: one process per module, no request lost"),
    ("seamline top", "watch the calls between the modules"),
    ("seamline load --switches 10", "the proof: shop, switch ten times, count failed requests"),
)

WORTH_KNOWING = (
    ("seamline VERB --help", "what a verb does, with examples"),
    ("--app DIR", "the folder with seamline.toml; otherwise found upward from here"),
    ("--json", "after most verbs: the answer as JSON, for scripts"),
    ("--traceback", "before the verb: show where an error was raised"),
    ("--install-completion", "let the shell complete verbs and options"),
)

EXIT_STATUS = (
    ("0", "done"),
    ("1", "what was asked about is not in order: a finding, a failed request"),
    ("2", "the command was used wrongly"),
    ("3 to 10", "an error SL1xxx to SL8xxx; `seamline explain SLnnnn` says more"),
    ("70", "a defect of Seamline itself"),
)


class Root(typer.core.TyperGroup):
    """The group that imports a verb's module when the verb is typed."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the parser's signature
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the parser's signature
        entry = VERBS.get(cmd_name)
        if entry is None:
            return None
        command = typer.main.get_command(import_module(f"seamline.cli.{entry.module}").app)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in VERBS:
            near = get_close_matches(args[0], VERBS, n=1, cutoff=0.5)
            remedy = f"Did you mean `seamline {near[0]}`?" if near else "`seamline --help` lists the verbs."
            raise ArgumentError(f"there is no verb {args[0]!r}", remedy)
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: Any) -> str:  # noqa: ARG002 - the parser's signature
        blocks = [manual.strong(TITLE), f"{manual.strong('Usage:')} seamline VERB [options]"]
        blocks.append(manual.section("Start here", manual.columns(START_HERE)))
        for name in dict.fromkeys(entry.section for entry in VERBS.values()):
            rows = [(verb, entry.summary) for verb, entry in VERBS.items() if entry.section == name]
            blocks.append(manual.section(name, manual.columns(rows)))
        blocks.append(manual.section("Worth knowing", manual.columns(WORTH_KNOWING)))
        blocks.append(manual.section("Exit status", manual.columns(EXIT_STATUS)))
        return "\n\n".join(blocks)


root = typer.Typer(cls=Root, add_completion=True, invoke_without_command=True)


@root.callback()
def start(
    context: typer.Context,
    traceback: bool = typer.Option(False, "--traceback", help="Show where an error was raised."),
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    """Run a system of typed modules as one process or as many."""
    output.state.traceback = traceback
    if version:
        from seamline.cli.version import seamline_version

        typer.echo(f"seamline {seamline_version()}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status. Nothing but a defect raises out of here."""
    as_json = "--json" in arguments
    output.state.traceback = False
    try:
        command = typer.main.get_command(root)
        status = command.main(args=list(arguments), prog_name="seamline", standalone_mode=False)
    except SeamlineError as error:
        return output.fail(error, as_json=as_json)
    except ExceptionGroup as group:
        return output.fail_group(group, as_json=as_json)
    except typer.TyperException as error:  # wrong usage, in the words of the parser
        return output.misused(error, as_json=as_json)
    except typer.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        output.abandon_stdout()
        return 0
    except Exception as error:  # the last resort of the program
        return output.defect(error, as_json=as_json)
    return status if isinstance(status, int) else 0
