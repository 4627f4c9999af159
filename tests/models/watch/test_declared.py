"""A model that is watched because it says so: one line, and its scores are told; what is captured, and of whom."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from clerk.desk import Desk, Talk
from seamline import Clock, Contract, Module, Watch, current
from seamline.kernel.clock import ManualClock
from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest, Message
from seamline.models.engine import LanguageEngine
from seamline.models.watch.datasets import FOLDER, Datasets
from seamline.models.watch.declared import Watched, row_of, watched
from seamline.models.watch.errors import CaptureError, ReferenceUnfit
from seamline.models.watch.judges import Judge
from seamline.models.watch.reference import Reference
from seamline.models.watch.watcher import watchers
from seamline.module.context import CURRENT, CallContext
from seamline.module.errors import ServiceError
from seamline.module.models import Artefacts
from seamline.module.wiring import check_model
from seamline.run.application import Application
from seamline.run.host import Host

CLERK = Path(__file__).parent / "clerk_app"
ASKED = ChatRequest(messages=(Message(role="user", content="May I have it?"),))


@pytest_asyncio.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with Host(Application.load(CLERK), data=tmp_path) as found:
        yield found


def told(host: Host, model: str) -> dict[str, float]:
    found = host.take_measures()
    prefix = f"seamline.model.{model}."
    return {each.name.removeprefix(prefix): each.value for each in found if each.name.startswith(prefix)}


async def decided(host: Host, count: int, *, grown: float = 1.0, who: str = "ada") -> None:
    dice, desk = random.Random(3), host.stub(Desk, "counter")
    for number in range(count):
        amount = grown * dice.lognormvariate(4, 0.8)
        await desk.decide(f"{who}-{grown}-{number}", who, amount, dice.choice(["BE", "BE", "NL"]))


async def windows(host: Host, count: int) -> dict[str, float]:
    """The scores, once so many windows were compared."""
    (mild,) = [each for each in watchers("Risk") if each.version == "mild" and each.windows < count]
    async with asyncio.timeout(60):
        while mild.windows < count:
            host.take_measures()
            await asyncio.sleep(0)
    return told(host, "Risk.mild")


async def test_one_line_tells_a_drift_of_what_is_asked_and_of_what_is_said(host: Host):
    """The first window is what it is compared with; of the third, amounts doubled: they and the score are told, and
    nothing else. The version that nobody asks tells nothing."""
    await decided(host, 200)
    await windows(host, 1)
    await decided(host, 200)
    calm = await windows(host, 2)
    assert {"drift.amount", "drift.country", "drift.score"} <= calm.keys()
    assert set(calm.values()) == {0.0}
    await decided(host, 200, grown=2.5)
    drifted = await windows(host, 3)
    assert {name for name, value in drifted.items() if value} == {"drift.amount", "drift.score"}
    assert told(host, "Risk.stern") == {}


async def test_one_line_tells_refusals_time_and_cost_of_a_model_that_chats(host: Host):
    """Of fifty whole answers all refuse; of fifty streams none does, and their tokens are timed."""
    talk = host.stub(Talk, "counter")
    for _ in range(50):
        await talk.complete(ASKED)
    found = told(host, "Talk.1")
    assert (found["refusal"], found["words"], found["cost"]) == (1.0, 3.0, 2.0)
    for _ in range(50):
        assert len([chunk async for chunk in talk.stream(ASKED)]) == 4
    found = told(host, "Talk.1")
    assert (found["refusal"], found["cost"]) == (0.0, 1.0)
    assert found["first_token_ms"] > 0
    assert found["between_tokens_ms"] >= 0
    assert host.stats()["models"]["Talk@1"]["watch"]["scores"]["refusal"]["value"] == 0.0


async def test_a_stream_that_nobody_reads_on_is_not_judged(host: Host):
    """Whoever goes away says nothing of the answer."""
    talk = host.stub(Talk, "counter")
    for _ in range(50):
        stream = cast("AsyncGenerator[ChatChunk]", talk.stream(ASKED))
        await anext(stream)
        await stream.aclose()
    assert told(host, "Talk.1") == {}


class _Grader:
    """Grades by a function of what it is shown."""

    provider = "test"

    def __init__(self, say: Callable[[str], str]) -> None:
        self._say = say
        self.closed = False
        self.within: list[object] = []

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        self.within.append(current())
        return ChatAnswer(message=Message(role="assistant", content=self._say(request.messages[0].content)))

    async def close(self) -> None:
        self.closed = True


def graded(grader: _Grader, folder: Path) -> Watched:
    def judge(clock: Clock) -> Judge:
        return Judge(cast("LanguageEngine", grader), "Kind.", clock, share=1.0, per_hour_max=500)

    module = Module("talk", provides=Talk)
    module.model(Talk, version="1", watch=Watch(judge=judge))(type("Talking", (), {}))
    found = watched(module.models[0], module, None, ManualClock(), Datasets(folder, ManualClock()))
    assert found is not None
    return found


async def settled(found: Watched) -> None:
    """Whoever is judging has said what there is to say."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert found.stats()["judging"] == 0


async def test_one_line_has_a_sample_of_answers_judged(tmp_path: Path):
    """Whole answers and streams alike, apart from the call that each is of."""
    grader = _Grader(lambda shown: '{"grade": 5}' if "Gladly." in shown else '{"grade": 1}')
    found = graded(grader, tmp_path)
    call = CURRENT.set(CallContext("talk", "counter"))
    for number in range(50):
        if number % 2:
            said = ChatAnswer(message=Message(role="assistant", content="Gladly."))
            found.answered("complete", (ASKED,), said)
        else:
            passing = found.stream("stream", (ASKED,))
            passing.passed(ChatChunk(text="No."))
            passing.ended()
        await settled(found)
    assert found.watcher.scores["grade"].value == 0.5
    CURRENT.reset(call)
    assert set(grader.within) == {None}
    await found.close()
    assert grader.closed


async def test_a_judge_that_fails_or_is_slow_holds_nobody_up(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """What fails is logged; so many wait, and the answers beyond are not judged."""

    def fails(_: str) -> str:
        raise ConnectionError("no judge")

    found = graded(_Grader(fails), tmp_path)
    answer = ChatAnswer(message=Message(role="assistant", content="Gladly."))
    found.answered("complete", (ASKED,), answer)
    await settled(found)
    assert "was not judged: no judge" in caplog.text
    for _ in range(100):
        found.answered("complete", (ASKED,), answer)
    assert found.stats()["judging"] == 16
    await found.close()


async def test_how_good_answers_were_is_a_score_of_the_version(host: Host):
    """The word that a canary is judged by is told, too: fifty make a mean."""
    desk = host.stub(Desk, "counter")
    for number in range(50):
        await desk.rate("stern", number % 2)
    await desk.rate("unknown", 1.0)
    assert told(host, "Risk.stern")["quality"] == 0.5


async def test_what_cannot_be_looked_at_is_answered_all_the_same(host: Host, monkeypatch: pytest.MonkeyPatch):
    """A function of the watch that fails is logged; callers get their answers."""
    (found,) = [each for each in watchers("Risk") if each.version == "mild" and not each.windows]

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(found), "saw", fails)
    assert await host.stub(Desk, "counter").decide("x", "ada", 5.0, "BE") == "accept"


# What is captured.


async def test_only_who_agreed_is_captured_until_they_withdraw(host: Host, tmp_path: Path):
    """Calls before the word and after its withdrawal are not kept, and those between are deleted with it; of others
    nothing goes, and neither name stands in any file."""
    desk, datasets = host.stub(Desk, "counter"), Datasets(tmp_path / FOLDER, ManualClock())
    await decided(host, 3, who="ada lovelace")
    await desk.agree("ada lovelace")
    await desk.agree("bo weaver")
    await decided(host, 4, who="ada lovelace", grown=2)
    await decided(host, 2, who="bo weaver")
    await kept(host, 6)
    (line, *_) = datasets.known("risks").lines("Risk")
    assert (line.method, line.version) == ("risk", "mild")
    assert line.asked.keys() == {"who", "amount", "country"}
    assert line.answered["version"] == "mild"
    (listed,) = datasets.told()
    assert (listed.name, listed.lines, listed.subjects, listed.models) == ("risks", 6, 2, {"Risk@mild": 6})
    assert await desk.withdraw("ada lovelace") == 4
    await decided(host, 1, who="ada lovelace", grown=3)
    await decided(host, 1, who="bo weaver", grown=3)
    await kept(host, 7)
    assert datasets.told()[0].lines == 3
    for path in (tmp_path / FOLDER).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
        assert "ada" not in path.name
        assert path.suffix == ".jsonl" or not path.is_file() or b"ada" not in path.read_bytes()


async def kept(host: Host, count: int) -> None:
    """So many lines were written."""
    async with asyncio.timeout(60):
        while host.stats()["models"]["Risk@mild"]["watch"]["captured"]["kept"] < count:  # noqa: ASYNC110  # a thread writes
            await asyncio.sleep(0.001)


async def test_withdrawing_wins_against_whoever_captures_meanwhile(tmp_path: Path):
    """Two that know nothing of each other write one folder, as processes do: when the withdrawal has returned, nothing
    of that person is there, and nothing is ever again."""
    ours, theirs = (Datasets(tmp_path, ManualClock()) for _ in range(2))
    ours.agree("ada")
    assert theirs.agreed("ada")
    dataset = theirs.open("talks")

    def write() -> int:
        return sum(dataset.capture("ada", "Talk", "1", number, number, method="m") for number in range(400))

    writing = asyncio.get_running_loop().run_in_executor(None, write)
    while not ours.told() or not ours.told()[0].lines:  # noqa: ASYNC110  # a thread writes
        await asyncio.sleep(0)
    gone = await asyncio.to_thread(ours.withdraw, "ada")
    assert list(ours.open("talks").lines()) == []
    assert await writing == gone
    assert list(ours.open("talks").lines()) == []


def test_a_dataset_that_is_not_there_is_said(tmp_path: Path):
    """With those that are; a name cannot lead out of the folder, and looking makes none."""
    datasets = Datasets(tmp_path / "none", ManualClock())
    with pytest.raises(CaptureError, match=r"SL7753.*no dataset 'talks'.*Capture"):
        datasets.known("talks")
    assert (datasets.names(), datasets.told(), (tmp_path / "none").exists()) == ([], [], False)
    datasets.open("risks")
    with pytest.raises(CaptureError, match="There are risks"):
        datasets.known("talks")
    for name in ("../x", "", "A", "agreed", ".x"):
        with pytest.raises(CaptureError, match="cannot be a dataset's name"):
            datasets.open(name)
    datasets.remove("risks")
    assert datasets.names() == []
    with pytest.raises(CaptureError, match="nobody"):
        datasets.agree("")


# What can be declared.


class _Colour(Enum):
    RED = "red"


@dataclass
class _Order:
    worth: Decimal
    colour: _Colour
    lines: list[str]
    note: str | None
    inner: object


def test_what_is_compared_of_a_call_is_found_in_it():
    """Numbers, words, booleans and lengths, one level deep; what the answer calls as an argument does is apart."""
    order = _Order(Decimal("2.5"), _Colour.RED, ["a", "b"], None, object())
    assert row_of(["order", "text", "limit"], [order, "two words", 3], {"limit": 9, "ok": True}) == {
        "worth": 2.5, "colour": "red", "lines_count": 2, "note": None, "text": "two words", "text_words": 2,
        "limit": 3, "answer_limit": 9, "ok": True,
    }  # fmt: skip
    assert row_of([], [], [1, 2]) == {"answer_count": 2}
    assert row_of(["x"], [b"raw"], 0.5) == {"answer": 0.5}


class _Both(Contract):
    async def one(self, number: int) -> int: ...

    async def other(self, word: str) -> int: ...


class _Model:
    def one(self, number: int) -> int:
        return number

    def other(self, word: str) -> int:
        return len(word)


def declared(watch: Watch) -> Module:
    module = Module("both", provides=_Both)
    module.model(_Both, version="1", watch=watch)(_Model)
    return module


@pytest.mark.parametrize(
    ("watch", "said"),
    [
        (Watch(), r"methods that take unlike arguments.*Watch\(methods=\['one'\]\)"),
        (Watch(methods=["none"]), "no method 'none'"),
    ],
)
def test_methods_that_cannot_be_compared_are_refused_before_anything_runs(watch: Watch, said: str):
    """Rows of one window have to be of one kind."""
    with pytest.raises(ServiceError, match=said):
        check_model(declared(watch).models[0])


def test_what_a_model_was_made_with_lies_among_its_files_or_beside_its_code(tmp_path: Path):
    """Its own file first; one that is not there keeps the model from starting, and says why."""
    module = declared(Watch(methods=["one"], reference="made.json"))
    check_model(module.models[0])
    datasets = Datasets(tmp_path / "data", ManualClock())
    with pytest.raises(ReferenceUnfit, match=r"made\.json"):
        watched(module.models[0], module, None, ManualClock(), datasets)
    (tmp_path / "made.json").write_bytes(Reference.of([{"number": each} for each in range(30)]).to_json())
    found = watched(module.models[0], module, Artefacts(tmp_path), ManualClock(), datasets)
    assert found is not None
    found.answered("other", ("word",), 4)
    assert found.watcher.stats()["rows"] == 0
    found.answered("one", (4,), 4)
    assert found.watcher.stats()["drift"].keys() == {"number"}
