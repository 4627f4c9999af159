"""``seamline policy diff`` and ``record``: what the policy to come changes, and the least that was needed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, modules, output
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

Call = tuple[str, str, str]
Write = Annotated[bool, typer.Option("--write", help="Write the narrowed files to next/ in the policy folder.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget what was seen at earlier times.")]
_SEEN = "policy-seen.json"


def diff(app_folder: App = None, as_json: Json = False) -> None:
    """What the policy in next/ of the policy folder would change. The exit status is 1 if it changes anything."""
    from seamline.mesh.policy.operations import changes

    policy = modules.load_application(app_folder).policy()
    candidate = policy.candidate()
    if candidate is None:
        typer.echo("There is no policy to come: write *.cedar files into next/ in the policy folder.")
        return
    changed = changes(policy, candidate)
    if as_json:
        output.emit(changed)
    for each in [] if as_json else changed:
        typer.echo(f"{each['caller']} -> {each['call']} of {each['callee']}: {each['now']} -> {each['then']}")
    if not changed and not as_json:
        typer.echo("It allows and denies the same.")
    if any(each["now"] != each["then"] for each in changed):
        raise typer.Exit(output.STATUS_FOUND_WANTING)


def record(
    write: Write = False, fresh: Fresh = False, app_folder: App = None, data: Data = None, as_json: Json = False
) -> None:
    """Narrow the policy to what the running application was seen to do since it started, as a diff for review.

    What is seen is remembered from run to run of this command. Nothing changes: with --write the narrowed files go to
    next/, where they decide nothing, and the log tells of each call that they would refuse.
    """
    from seamline.mesh.policy import read_folder
    from seamline.mesh.policy.recording import recorded

    settings = connect.read_settings(app_folder, data)
    policy = modules.load_application(app_folder).policy()
    seen = _seen(settings, fresh=fresh)
    recording = recorded(policy.world, read_folder(settings.policy_folder), seen)
    folder = settings.policy_folder / "next"
    if write:
        folder.mkdir(exist_ok=True)
        for name, text in recording.files.items():
            (folder / name.rpartition("/")[2]).write_text(text, encoding="utf-8")
    if as_json:
        output.emit(
            {
                "seen": [dict(zip(("caller", "callee", "call"), each, strict=True)) for each in sorted(seen)],
                "unused": list(recording.unused),
                "narrowed": list(recording.narrowed),
                "diff": recording.diff,
            }
        )
        return
    typer.echo(recording.diff or "Every permit was used whole: there is nothing to narrow.", nl=not recording.diff)
    for name in recording.unused:
        typer.echo(f"never used: {name}")
    if write:
        typer.echo(f"The narrowed policy is in {folder}; take it live by moving it up, when nothing is told of it.")


def _seen(settings: Settings, *, fresh: bool) -> set[Call]:
    """What the running application has done, and what was seen before. Raises NotRunningError."""
    path = settings.data_folder / _SEEN
    before: list[list[str]] = [] if fresh or not path.is_file() else json.loads(path.read_text(encoding="utf-8"))
    found: set[Call] = {(caller, callee, call) for caller, callee, call in before}
    found |= _observed(connect.ask(settings, "observed"))
    path.write_text(json.dumps(sorted(found)), encoding="utf-8")
    return found


def _observed(answer: dict[str, Any]) -> set[Call]:
    found: set[Call] = set()
    for process in answer["processes"]:
        found |= {(e["caller"], e["callee"], e["action"]) for e in process["edges"] if e["calls"]}
        found |= {(e["caller"], e["callee"], "http") for e in process["public"]}
    return found
