"""``seamline policy bundle``, ``apply`` and ``rollback``: policy as one signed file, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, modules, output
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

Key = Annotated[Path, typer.Option("--key", metavar="FILE", help="The Ed25519 key to sign with, PEM without password.")]
Sequence = Annotated[
    int, typer.Option("--sequence", metavar="N", min=1, help="Higher than that of every bundle before.")
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A bundle.", exists=True, dir_okay=False)]


def bundle(
    key: Key,
    sequence: Sequence,
    out: Out = Path("policy.bundle"),
    app_folder: App = None,
    as_json: Json = False,
) -> None:
    """Write the policy folder as one signed file. What does not check, or fails its tests, is not signed."""
    from seamline.mesh.errors import PolicyTestError
    from seamline.mesh.policy import in_folder, read_cases, run_cases
    from seamline.mesh.policy.bundles import Bundle, private_key

    application = modules.load_application(app_folder)
    folder = application.settings.policy_folder
    policy = application.policy(in_folder(folder))
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.cedar"))}
    tests = folder / "tests.toml"
    if tests.is_file():
        failed = [each.case.name for each in run_cases(policy, read_cases(tests)) if not each.passed]
        if failed:
            raise PolicyTestError(
                f"{len(failed)} policy tests fail, the first is {failed[0]!r}",
                "Run `seamline policy test`.",
                place=str(tests),
            )
        files[tests.name] = tests.read_text(encoding="utf-8")
    made = Bundle(application.settings.app.name, sequence, files)
    out.write_bytes(made.signed(private_key(key)))
    _tell(as_json, {"file": str(out), "sequence": sequence, "files": sorted(files)}, f"Bundle {sequence} is in {out}.")


def apply(file: File, app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Put a signed bundle in force, here and in the running application. One that does not check changes nothing."""
    from seamline.mesh.policy import Texts
    from seamline.mesh.policy.bundles import bundle_store

    settings = _bundled(connect.read_settings(app_folder, data))
    store = bundle_store(settings)
    content = file.read_bytes()
    texts = Texts(store.open(content, str(file)).cedar)
    modules.load_application(app_folder).policy(lambda: texts)
    applied = store.apply(content)
    running = _reload(settings)
    _tell(as_json, {"sequence": applied.sequence, "running": running}, f"Bundle {applied.sequence} is in force.")


def rollback(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Go back to the bundle before the one in force. Its number may not be applied again; sign a newer one."""
    from seamline.mesh.policy.bundles import bundle_store

    settings = _bundled(connect.read_settings(app_folder, data))
    back = bundle_store(settings).rollback()
    running = _reload(settings)
    _tell(as_json, {"sequence": back.sequence, "running": running}, f"Bundle {back.sequence} is in force again.")


def _bundled(settings: Settings) -> Settings:
    from seamline.mesh.errors import BundleError

    if not settings.policy.bundle_key:
        raise BundleError(
            "this application reads its policy from the folder",
            'Say whose bundles are good: [policy] bundle_key = "policy.pub"',
            place="seamline.toml [policy]",
        )
    return settings


def _reload(settings: Settings) -> bool:
    """Whether an application runs that has taken it."""
    from seamline.run.errors import NotRunningError

    try:
        connect.ask(settings, "policy")
    except NotRunningError:
        return False
    return True


def _tell(as_json: bool, fields: dict[str, Any], sentence: str) -> None:
    if as_json:
        output.emit(fields)
    else:
        typer.echo(sentence)
