"""An application that runs, in several processes: canaries, shadows, rollback, and a supervisor that is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
from tests.models.rollout.conftest import Up

from seamline.kernel.audit.search import Query, entries
from seamline.models.registry.signing import new_key
from seamline.observe.records import Mark
from seamline.observe.store import TelemetryReader
from seamline.run.admin import RefusedError

USERS = [f"u{number}" for number in range(60)]


def back(up: Up) -> None:
    """All for the first, whatever a test before has done."""
    if up.weights() != {"good": 1.0} or up.ask("models")["contracts"]["Guess"]["shadow"]:
        up.ask("model_shadow", contract="Guess", versions=[])
        up.ask("model_promote", contract="Guess", version="good")


@pytest.fixture(autouse=True)
def begun_anew(request: pytest.FixtureRequest) -> None:
    if "running" in request.fixturenames:
        back(request.getfixturevalue("running"))


def test_shares_hold_in_every_process(running: Up):
    """When the answer has come; a user keeps to a version, whichever replica answers."""
    assert running.guesses(USERS) == {"good": 60}
    answer = running.ask("model_weights", contract="Guess", shares={"worse": 0.4}, why="try it")
    assert answer["processes"] == 3
    first = running.guesses(USERS)
    assert 10 <= first["worse"] <= 40
    assert all(running.guesses([user] * 4).total() == 4 for user in USERS[:3])
    assert all(len(running.guesses([user] * 8)) == 1 for user in USERS[:8])
    running.ask("model_promote", contract="Guess", version="worse")
    assert running.guesses(USERS) == {"worse": 60}


def test_a_version_has_its_files(running: Up):
    """Those that the settings name, from the registry."""
    running.ask("model_promote", contract="Guess", version="filed")
    assert running.guesses(USERS[:4]) == {"filed": 4}


@pytest.mark.parametrize(("canary", "watched"), [("failing", "fails"), ("worse", "scores")])
def test_a_canary_that_degrades_is_rolled_back_by_itself(running: Up, canary: str, watched: str):
    """By errors or by the quality of its answers, seen in two processes; with who and why in history and audit."""
    running.ask("model_weights", contract="Guess", shares={canary: 0.3})
    end = time.monotonic() + 40
    while running.weights() != {"good": 1.0} and time.monotonic() < end:
        running.guesses([f"{canary}{time.monotonic_ns()}" for _ in range(40)])
    assert running.guesses(USERS) == {"good": 60}
    newest = running.ask("models", name="Guess")["history"][0]
    assert (newest["what"], newest["who"]) == ("rollback", "guard")
    assert newest["why"].startswith(f"{canary} {watched} ")
    found = [each for each in entries(running.data / "audit", Query(principal="guard")) if each["version"] == canary]
    assert found[-1]["reason"] == newest["why"]
    assert f"Guess: {newest['why']}; it is rolled back" in running.log.read_text()
    assert running.until(lambda: [each for each in marks(running) if each.attributes.get("why") == newest["why"]])[
        0
    ].modules == ["oracle"]


def test_a_split_outlives_its_hosts(running: Up):
    """All killed at once while a canary is watched: those that come after them share the calls as before."""
    running.ask("model_weights", contract="Guess", shares={"filed": 0.4})

    def hosts() -> set[int]:
        workloads = running.ask("status")["workloads"]
        return {
            each["pid"] for workload in workloads if "oracle" in workload["modules"] for each in workload["replicas"]
        }

    gone = hosts()
    for pid in gone:
        os.kill(pid, signal.SIGKILL)
    running.until(lambda: running.ready() and not hosts() & gone)
    assert running.until(lambda: 10 <= running.guesses(USERS)["filed"] <= 40)


def marks(up: Up) -> list[Mark]:
    """What people see beside the lines of the portal: what was changed when."""
    reader = TelemetryReader(up.data / "telemetry")
    try:
        return reader.marks(0, 0)
    finally:
        reader.close()


def test_a_shadow_changes_no_answer(running: Up):
    """One that hangs, fails or differs is asked, compared and counted; every caller hears the champion, and waits for
    none of them."""
    running.ask("model_shadow", contract="Guess", versions=["worse", "failing", "hanging"])
    assert running.guesses(USERS) == {"good": 60}

    def compared() -> bool:
        found = running.ask("models")["contracts"]["Guess"]["shadow"]
        return found["worse"]["different"] > 30 and found["failing"]["same"] > 5 and found["failing"]["errors"] > 5

    running.until(compared)
    versions = running.ask("models")["contracts"]["Guess"]["versions"]
    assert {name: each["calls"] for name, each in versions.items() if each["calls"]} == {"good": 60}
    (running.folder / "let-go").touch()
    running.until(lambda: running.ask("models")["contracts"]["Guess"]["shadow"]["hanging"]["different"])
    sample = running.ask("models")["contracts"]["Guess"]["shadow"]["worse"]["samples"][0]
    assert (sample["ours"], sample["theirs"]) == ("('good', 'TEXT')", "('worse', 'text')")


def test_a_rollback_holds_at_once(running: Up):
    """While calls go on: in every process once the command has its answer, and no call fails by it."""
    running.ask("model_promote", contract="Guess", version="worse")
    stop, failed = threading.Event(), list[str]()

    def shop() -> None:
        while not stop.is_set():
            failed.extend(["x"] * running.guesses(USERS[:10])["failed"])

    shopping = threading.Thread(target=shop)
    shopping.start()
    try:
        running.ask("model_rollback", contract="Guess", why="not good")
        assert running.guesses(USERS) == {"good": 60}
    finally:
        stop.set()
        shopping.join()
    assert not failed
    running.ask("model_promote", contract="Guess", version="worse")
    running.ask("model_rollback", contract="Guess")
    assert running.weights() == {"good": 1.0}


def test_what_cannot_be_is_refused(running: Up):
    """With what there is; nothing changes by it. A version that cannot be loaded gets no calls."""
    before = running.ask("models", name="Guess")["history"]
    wrong: list[Callable[[], object]] = [
        lambda: running.ask("model_promote", contract="Guess", version="best"),
        lambda: running.ask("model_promote", contract="Guesses", version="good"),
        lambda: running.ask("model_weights", contract="Guess", shares={"worse": 1.5}),
        lambda: running.ask("model_rollback", contract="Alone"),
        lambda: running.ask("model_promote", contract="Guess", version="broken"),
        lambda: running.ask("model_weights", contract="Guess", shares={"broken": 0.1}),
    ]
    for ask, code in zip(wrong, ("SL7731", "SL7731", "SL7733", "SL7732", "SL7702", "SL7702"), strict=True):
        with pytest.raises(RefusedError) as raised:
            ask()
        assert raised.value.code == code
    assert running.ask("models", name="Guess")["history"] == before


def test_versions_are_evaluated_by_their_own_measure(running: Up):
    """Each in an instance of its own; one that has no measure is named."""
    found = running.ask("model_evaluate", contract="Guess")
    assert found["versions"] == {"good": {"recall@10": 0.5, "nDCG@10": 0.25}, "worse": {"recall@10": 0.375}}
    with pytest.raises(RefusedError, match="def evaluate"):
        running.ask("model_evaluate", contract="Guess", versions=["failing"])


def test_a_contract_of_one_version_is_shown(running: Up):
    found = running.ask("models")["contracts"]["Alone"]
    assert (found["module"], found["split"]["weights"]) == ("oracle", {"1": 1.0})


def test_a_killed_supervisor_leaves_what_was_last_told(up: Up):
    """In the middle of changes, again and again: what holds afterwards is the last, or the one that was under way."""
    up.start("monolith")
    acknowledged = 0.0

    def change() -> None:
        nonlocal acknowledged
        share = acknowledged
        while True:
            share += 0.001
            try:
                up.ask("model_weights", contract="Guess", shares={"worse": share})
            except Exception:  # it was killed
                return
            acknowledged = share

    for round_ in range(2):
        changing = threading.Thread(target=change)
        changing.start()
        up.until(lambda: acknowledged > 0.003 * (round_ + 1))  # noqa: B023  # before the next round
        up.kill()
        changing.join()
        up.start("monolith")
        kept = up.weights()["worse"]
        assert kept == pytest.approx(acknowledged, abs=1e-9) or kept == pytest.approx(acknowledged + 0.001, abs=1e-9)
        acknowledged = kept
    history = up.ask("models", name="Guess")["history"]
    shares = [each["after"]["weights"]["worse"] for each in history]
    assert shares == sorted(shares, reverse=True)


def test_a_model_that_nobody_trusts_is_not_started(up: Up):
    """With trusted keys, files without a signature stop the start with the fact; signed, they are loaded. So does a
    version in the settings that nobody declares."""
    public = new_key(up.folder / "key.pem")
    toml = up.folder / "seamline.toml"
    written = toml.read_text() + f'\n[models]\ntrusted_keys = ["{public}"]\n'
    toml.write_text(written.replace('"filed" =', '"file" ='))
    with pytest.raises(AssertionError, match=r"SL7731: seamline.toml \[models.Guess\]: Guess has no version 'file'"):
        up.start("monolith")
    toml.write_text(written)
    with pytest.raises(AssertionError, match=r"SL7724: oracle:1 is not signed, and \[models\] trusts 1 other key"):
        up.start("monolith")
    up.registry.sign("oracle:1", up.folder / "key.pem")
    up.start("monolith")
    up.ask("model_promote", contract="Guess", version="filed")
    assert up.guesses(USERS[:2]) == {"filed": 2}
