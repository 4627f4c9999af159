"""``seamline models``: on disk where nothing runs, in every process where something does."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.models.registry.conftest import safetensors
from tests.models.rollout.conftest import Up, copied

from seamline.cli import app
from seamline.kernel.clock import SystemClock
from seamline.kernel.settings.observe import ObserveSettings
from seamline.models.watch.datasets import Datasets
from seamline.observe.records import Batch, Point, Source
from seamline.observe.store import TelemetryStore


def models(up: Up, *words: str, status: int = 0) -> str:
    """What a command says, on both channels."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        found = app.run(["models", *words, "--app", str(up.folder)])
    assert found == status, said.getvalue()
    return said.getvalue()


def as_json(up: Up, *words: str) -> Any:
    return json.loads(models(up, *words, "--json"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Up:
    """The application, which does not run."""
    return copied(tmp_path_factory.mktemp("guessing") / "app")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    made = copied(tmp_path_factory.mktemp("guessing") / "app")
    toml = made.folder / "seamline.toml"
    toml.write_text(toml.read_text().replace('watch = ["errors", "quality"]', "watch = []"))  # what is shown stays
    made.start("monolith")
    yield made
    made.stop()


# Where nothing runs


def test_shares_are_changed_on_disk(stopped: Up):
    """They hold when it is started; the history has who and why, and the way back works."""
    said = models(stopped, "weights", "Guess", "worse=10", "--why", "try it")
    assert re.search(r"█+░+ +90\.0%  good  champion\n██░+ +10\.0%  worse\n", said)
    assert "It holds when it is started." in said
    models(stopped, "shadow", "Guess", "hanging")
    found = as_json(stopped, "show", "Guess")
    assert found["contracts"]["Guess"]["split"]["shadow"] == ["hanging"]
    assert [(each["what"], each["why"]) for each in found["history"]] == [("shadow", ""), ("weights", "try it")]
    assert all(each["who"] for each in found["history"])
    models(stopped, "rollback", "Guess")
    models(stopped, "rollback", "Guess")
    assert "SL7732" in models(stopped, "rollback", "Guess", status=9)
    assert "SL7731" in models(stopped, "promote", "Guess", "best", status=9)
    assert "SL7731" in models(stopped, "promote", "Nothing", "best", status=9)
    assert "SL7733" in models(stopped, "weights", "Guess", "worse=lots", status=9)
    listed = models(stopped, "list")
    assert re.search(r"Guess +oracle +good +█{20} +100\.0% +champion", listed)
    assert re.search(r"oracle +1 +champion +\d+ KB +1 +no", listed)
    assert "2026" not in listed


def test_names_in_the_settings_that_are_none_are_found_before_a_start(tmp_path: Path):
    """A contract and versions that nobody declares, by ``seamline check``."""
    up = copied(tmp_path / "app")
    toml = up.folder / "seamline.toml"
    toml.write_text(toml.read_text() + '\n[models.Gues]\nkey = "call"\n\n[models.Alone]\nweights = { "2" = 1.0 }\n')
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert app.run(["check", "--app", str(up.folder)]) == 1
    assert "[models.Gues] is for a contract that no module provides. Did you mean 'Guess'?" in said.getvalue()
    assert "seamline.toml [models.Alone]: Alone has no version '2'. It has 1." in said.getvalue()


def test_files_are_added_signed_and_called(stopped: Up, tmp_path: Path):
    """With a card; what may run code is refused; a signature makes it trusted."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.safetensors").write_bytes(safetensors())
    (source / "README.md").write_text("# Small\nIt is \x1b[31mred.")
    said = models(stopped, "add", "minilm", "1", str(source), "--metric", "recall@10=0.41", "--commit", "c0ffee")
    assert re.search(r"minilm:1 is kept: 2 files, \d+ KB, sha256:", said)
    card = models(stopped, "card", "minilm")
    assert "recall@10 0.41" in card
    assert "c0ffee" in card
    assert "# Small" in card
    assert "\x1b" not in card
    key = models(stopped, "sign", "--new-key", str(tmp_path / "key.pem")).strip()
    assert f"minilm is signed by {key}." in models(stopped, "sign", "minilm", "--key", str(tmp_path / "key.pem"))
    assert as_json(stopped, "card", "minilm")["signed_by"] == [key]
    (source / "more.txt").write_text("more")
    assert "SL7728" in models(stopped, "add", "minilm", "1", str(source), status=9)
    models(stopped, "add", "minilm", "2", str(source), "--parent", "minilm:1")
    assert models(stopped, "alias", "minilm", "champion", "2").strip() == "minilm@champion is minilm:2."
    assert models(stopped, "alias", "minilm", "champion", "--undo").strip() == "minilm@champion is minilm:1."
    assert "SL9002" in models(stopped, "alias", "minilm", "champion", status=2)
    models(stopped, "remove", "minilm:2")
    assert "are free again" in models(stopped, "clean")
    (source / "model.pkl").write_bytes(b"\x80\x04.")
    assert "SL7723" in models(stopped, "add", "minilm", "3", str(source), status=9)
    assert "SL7722" in models(stopped, "card", "minilm:3", status=9)


def test_a_changed_file_is_found(stopped: Up, tmp_path: Path):
    """By ``verify``, with an exit status for scripts."""
    (tmp_path / "words.txt").write_text("words")
    models(stopped, "add", "damaged", "1", str(tmp_path / "words.txt"))
    assert models(stopped, "verify").strip() == "Every file is what it was."
    blob = next(
        path
        for path in (stopped.data / "models" / "blobs").rglob("*")
        if path.is_file() and path.read_bytes() == b"words"
    )
    blob.chmod(0o600)
    blob.write_bytes(b"swords")
    assert "damaged:1 words.txt: sha256:" in models(stopped, "verify", status=1)
    assert list(as_json_of(models(stopped, "verify", "--json", status=1))) == ["damaged:1 words.txt"]
    blob.write_bytes(b"words")


def as_json_of(text: str) -> Any:
    return json.loads(text)


def test_keys_of_the_ai_gateway_are_made_listed_and_revoked(stopped: Up):
    """Shown once; with limits in money and tokens."""
    made = as_json(
        stopped, "keys", "create", "search team", "--model", "fast", "--team", "search", "--money", "0.5", "--tokens",
        "1000", "--per", "day", "--valid", "1h",
    )  # fmt: skip
    assert made["key"].startswith("sk-sl-")
    assert [(each["unit"], each["most"], each["per"]) for each in made["limits"]] == [
        ("money", 500_000_000, "day"), ("tokens", 1000, "day"),
    ]  # fmt: skip
    listed = models(stopped, "keys", "list")
    assert made["key"] not in listed
    assert re.search(r"search team +fast +search +.*good", listed)
    models(stopped, "keys", "revoke", made["id"])
    assert as_json(stopped, "keys", "list")[0]["state"] == "revoked"
    assert "SL7740" in models(stopped, "keys", "revoke", "key-none", status=9)
    assert "SL9002" in models(stopped, "keys", "create", "x", "--money", "1", "--per", "year", status=2)
    assert "SL9002" in models(stopped, "keys", "create", "x", "--money", "much", status=2)


def test_the_ai_gateway_runs_alone(stopped: Up, tmp_path: Path):
    """It says where it listens, and ends when it is asked to."""
    config = tmp_path / "ai.toml"
    config.write_text('[ai_gateway]\nlisten = "127.0.0.1:0"\n')
    with subprocess.Popen(
        [sys.executable, "-m", "seamline.cli", "models", "gateway", "--config", str(config), "--data", str(tmp_path)],
        stdout=subprocess.PIPE, text=True,
    ) as gateway:  # fmt: skip
        assert gateway.stdout
        assert json.loads(gateway.stdout.readline())["listen"].startswith("127.0.0.1:")
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(30) == 0


def test_drift_is_read_from_what_is_kept(stopped: Up):
    """Scores by model and version over time, and none where none was told."""
    assert "SL7601" in models(stopped, "drift", status=9)
    store = TelemetryStore(stopped.data / "telemetry", ObserveSettings(), SystemClock())
    store.start()
    about = {"seamline.model": "Guess", "seamline.model.version": "good"}
    now = time.time_ns()
    for minute, value in enumerate((0.01, 0.02, 0.4)):
        at = now - (10 - minute) * 60 * 10**9
        point = Point("seamline.model.Guess.good.drift.amount", value, "oracle", attributes=about)
        store.add(Batch(Source("oracle", 0), at, 10**9, points=[point]))
    store.close()
    said = models(stopped, "drift", "Guess", "--since", "15m")
    assert re.search(r"Guess good +drift\.amount +oracle +.*0\.01 +0\.4", said)
    assert "No model of Other told a score" in models(stopped, "drift", "Other")


# Where it runs


def test_changes_hold_in_what_runs(running: Up):
    """The versions are loaded first; the answer says in how many processes."""
    assert "It holds in 1 process." in models(running, "promote", "Guess", "worse", "--why", "try it")
    assert running.guesses(["a", "b"]) == {"worse": 2}
    models(running, "rollback", "Guess")
    assert running.guesses(["a", "b"]) == {"good": 2}
    assert re.search(r"Guess +oracle +good +█{20} +100\.0% +champion +2 +0\.0%", models(running, "list"))
    assert "SL7731" in models(running, "promote", "Guess", "best", status=9)
    history = as_json(running, "show", "Guess")["history"]
    assert [(each["what"], bool(each["who"]), each["why"]) for each in history] == [
        ("rollback", True, ""), ("promote", True, "try it"),
    ]  # fmt: skip


def test_what_shadows_said_and_how_versions_differ_is_shown(running: Up):
    """With one example, and intervals that hold at any time."""
    models(running, "weights", "Guess", "worse=50")
    models(running, "shadow", "Guess", "failing")
    running.guesses([f"u{number}" for number in range(400)])
    said = models(running, "show", "Guess")
    assert re.search(r"failing +\d+ +\d+ +\d+", said)
    assert re.search(r"worse: score -0\.\d+ beside the champion, within -0\.\d+ to -0\.\d+ \(p \S+: differs\)", said)
    models(running, "shadow", "Guess")


def test_versions_are_evaluated_side_by_side(running: Up, tmp_path: Path):
    """By their own measure, and by known cases."""
    said = models(running, "eval", "Guess")
    assert re.search(r"measure +good +worse\nrecall@10 +0\.5 +0\.375\nnDCG@10 +0\.25 +-", said)
    cases = tmp_path / "cases.jsonl"
    call = {"method": "guess", "arguments": {"text": "Ab", "user": "u"}}
    cases.write_text(
        "\n".join(json.dumps({**call, "expected": each}) for each in (["good", "AB"], ["worse", "ab"], []))
    )
    found = as_json(running, "eval", "Guess", "good", "worse", "--cases", str(cases))["versions"]
    assert [found[name]["right"] for name in ("good", "worse")] == [pytest.approx(1 / 3)] * 2
    assert "SL7731" in models(running, "eval", "Guess", "best", status=9)
    assert "No version of Alone can be evaluated" in models(running, "eval", "Alone", status=1)
    cases.write_text('{"method": "guess"}')
    assert "line 1 of" in models(running, "eval", "Guess", "--cases", str(cases), status=2)
    cases.write_text(json.dumps({"method": "none", "arguments": {}, "expected": 1}))
    assert "case 0 asks 'none'" in models(running, "eval", "Guess", "--cases", str(cases), status=9)


def test_versions_are_evaluated_on_what_was_captured(running: Up):
    """Of those who agreed; how often each says what was said then, and the cases on which they differ first."""
    models(running, "promote", "Guess", "good")
    assert as_json(running, "datasets")[0]["lines"] == 0
    assert "SL7753" in models(running, "eval", "Guess", "--dataset", "guesses", status=9)
    datasets = Datasets(running.data / "datasets", SystemClock())
    datasets.agree("ann")
    running.guesses(["ann", "bob"] * 3)
    running.until(lambda: datasets.known("guesses").told().lines == 3)
    assert re.search(r"guesses +3 +1 .*Guess@good 3", models(running, "datasets"))
    assert re.search(r"Guess@good +guess +.*\"ann\".*\"TEXT\"", models(running, "datasets", "guesses", "--last", "1"))
    said = models(running, "eval", "Guess", "good", "worse", "--dataset", "guesses", "--examples", "1")
    assert re.search(r"as then +1 +0\n", said)
    assert re.search(r'then +\["good","TEXT"\]\n +good +\["good","TEXT"\]\n +worse +\["worse","text"\]', said)
    found = as_json(
        running, "eval", "Guess", "good", "failing", "--dataset", "guesses", "--last", "2", "--examples", "9"
    )
    assert found["cases"] == len(found["examples"]) == 2
    assert found["versions"]["good"]["as then"] == 1.0
    assert "SL7753" in models(running, "eval", "Alone", "--dataset", "guesses", status=9)
    assert "two things" in models(running, "eval", "Guess", "--dataset", "x", "--cases", "y", status=2)
    assert "3 captured calls of theirs deleted" in models(running, "forget", "ann")
    assert as_json(running, "datasets")[0]["lines"] == 0
    running.guesses(["ann"])
    assert as_json(running, "datasets", "guesses") == []


def test_what_was_decided_is_decided_again(running: Up, tmp_path: Path):
    """By the champion and the rules in force everything is as it was; another version, or other rules, change what they
    change, and what is not kept any more is counted apart."""
    models(running, "promote", "Guess", "good")
    assert re.search(
        r"4 decisions since \S+ \S+, by Guess@good and today's rules: 3 as before, 0 changed, 1 whose past",
        models(running, "replay", "Guess"),
    )
    said = models(running, "replay", "Guess", "--version", "worse", "--since", "60h")
    assert "3 decisions since" in said
    assert "by Guess@worse and today's rules: 0 as before, 3 changed." in said
    assert re.search(r"case-1 +CD +cd +- → - +model +\[b\]worse said so", said)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "swap.txt").write_text("AB>no")
    found = as_json(running, "replay", "Guess", "--policy", str(tmp_path / "rules"))
    assert found["changes"] == {"AB": {"no": 1}}
    assert (found["same"], found["unknown"], len(found["policy"])) == (2, 1, 12)
    assert [(each["id"], each["before"], each["after"]) for each in found["cases"]] == [("case-0", "AB", "no")]
    (tmp_path / "rules" / "swap.txt").write_text("no arrow")
    assert "SL7754" in models(running, "replay", "Guess", "--policy", str(tmp_path / "rules"), status=9)
    assert "@module.replays(Alone)" in models(running, "replay", "Alone", status=9)
    assert "SL7731" in models(running, "replay", "Guess", "--version", "none", status=9)
    assert "cannot be read" in models(running, "replay", "Guess", "--policy", str(tmp_path / "none"), status=2)
