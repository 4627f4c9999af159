"""Language models run here: the same logits as a plain computation, many answers at once, bounds that hold."""

# ruff: noqa: ASYNC110, E402  # it looks at what another thread does; what is imported needs the packages that are asked for first
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

np: Any = pytest.importorskip("numpy", reason="the extra `models` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `models` is not installed")

from tests.models import llama_oracle as oracle

from seamline.models.errors import EngineRefused, EngineUnreachable
from seamline.models.formats.errors import ArchitectureError, WeightsError
from seamline.models.runtimes.llama.engine import LlamaEngine
from seamline.models.runtimes.llama.files import open_folder
from seamline.models.runtimes.llama.gguf_model import open_gguf_model
from seamline.models.runtimes.llama.packed import Packed
from seamline.models.runtimes.llama.runner import Runner
from seamline.models.runtimes.tokens import Sampling, Token
from seamline.module.errors import Overloaded

PROMPT = [70, 81, 92, 75, 300, 301, 80, 90, 100, 110, 120]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return oracle.write_folder(tmp_path_factory.mktemp("llama"), oracle.config(), oracle.weights(oracle.config()))


@pytest.fixture
def engine(folder: Path) -> Iterator[LlamaEngine]:
    made = LlamaEngine(open_folder(folder), slots=3)
    yield made
    made.close()


async def said(engine: LlamaEngine, prompt: list[int], **how: Any) -> list[Token]:
    settings: dict[str, Any] = {"tokens_max": 12, **how}
    return [token async for token in engine.generate(prompt, Sampling(**settings))]


def plain(prompt: list[int], count: int = 12, **changes: Any) -> list[int]:
    """The likeliest continuation, each token computed from the whole text before it."""
    config = oracle.config(**changes)
    weights, ids = oracle.weights(config), [*prompt]
    for _ in range(count):
        ids.append(int(oracle.logits(config, weights, ids)[-1].argmax()))
        if ids[-1] in config["eos_token_id"]:
            break
    return ids[len(prompt) :]


# The computation.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 4, "tie_word_embeddings": False},
        {"model_type": "qwen2", "rope_theta": 1e6},
        {"head_dim": 32, "num_attention_heads": 6, "num_key_value_heads": 1},
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ],
    ids=["llama", "untied", "qwen2", "wide-heads", "llama3-positions"],
)
def test_logits_are_those_of_a_plain_computation(tmp_path: Path, changes: dict[str, Any]):
    """At every position, however the text is cut into pieces, and with strangers in the other slots."""
    config = oracle.config(**changes)
    weights = oracle.weights(config)
    if "rope_scaling" in changes:
        config["divisors"] = stretched(config)
    ids = np.random.default_rng(3).integers(3, config["vocab_size"], 40)
    due = oracle.logits(config, weights, [int(each) for each in ids])
    told = {key: each for key, each in config.items() if key != "divisors"}
    runner = Runner(open_folder(oracle.write_folder(tmp_path, told, weights)), slots=3, context=64)
    np.testing.assert_allclose(runner.read(1, ids, 0), due[-1], atol=2e-4)
    runner.read(2, ids[:7], 0)
    np.testing.assert_allclose(runner.read(2, ids[7:25], 7), due[24], atol=2e-4)
    for at in range(25, 40):
        logits = runner.step(np.array([5, 6, ids[at]]), np.array([at, 3, at], np.int32))
        np.testing.assert_allclose(logits[2], due[at], atol=2e-4)


def stretched(config: dict[str, Any]) -> Any:
    """Llama 3's divisors, as its paper's reference code has them: by cases, not by clipping."""
    rope, head = config["rope_scaling"], config["head_dim"]
    found: list[float] = []
    for at in range(0, head, 2):
        wave = 2 * np.pi * config["rope_theta"] ** (at / head)
        original = rope["original_max_position_embeddings"]
        if wave < original / rope["high_freq_factor"]:
            found.append(1.0)
        elif wave > original / rope["low_freq_factor"]:
            found.append(rope["factor"])
        else:
            span = rope["high_freq_factor"] - rope["low_freq_factor"]
            smooth = (original / wave - rope["low_freq_factor"]) / span
            found.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    assert len(set(found)) > 2, "the case between is not met"
    return np.array(found)


@pytest.mark.parametrize("form", ["F16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_gguf_is_the_same_model(tmp_path: Path, form: str, kind: str):
    """With its weights as they are stored: 4 and 8 bits are computed with as such."""
    config = oracle.config(model_type=kind)
    meant = oracle.write_gguf(tmp_path / "m.gguf", config, oracle.weights(config), form)
    ids = np.arange(40, 70)
    due = oracle.logits(config, meant, [int(each) for each in ids])[-1]
    logits = Runner(open_gguf_model(tmp_path / "m.gguf"), slots=1, context=64).read(0, ids, 0)
    # Products of 8-bit integers round the activations, too.
    cosine = float(logits @ due / np.linalg.norm(logits) / np.linalg.norm(due))
    assert cosine > (1 - 1e-6 if form == "F16" else 0.99)


def test_divisors_in_a_gguf_stretch_positions(tmp_path: Path):
    """What Llama 3's files bring instead of a configuration."""
    config = oracle.config(divisors=[1.0, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 8.0])
    meant = oracle.write_gguf(tmp_path / "m.gguf", config, oracle.weights(config), "F32")
    ids = np.arange(40, 70)
    due = oracle.logits(config, meant, [int(each) for each in ids])[-1]
    np.testing.assert_allclose(
        Runner(open_gguf_model(tmp_path / "m.gguf"), slots=1, context=64).read(0, ids, 0), due, atol=2e-4
    )


@pytest.mark.parametrize(("bits", "error"), [(8, 0.005), (4, 0.126)])
def test_rounding_is_as_good_as_its_bits(bits: Any, error: float):
    """Packed weights unpack to what they were, but for rounding; zeros stay zeros."""
    weights = np.random.default_rng(1).standard_normal((48, 96)).astype(np.float32)
    weights[3] = 0
    found = Packed.of(weights, bits).floats()
    assert float(np.abs(found - weights).max()) < error * float(np.abs(weights).max())
    assert not found[3].any()


# Answers.


async def test_the_likeliest_tokens_are_taken(engine: LlamaEngine):
    """Token by token, the same as computing the whole text anew for each."""
    tokens = await said(engine, PROMPT)
    assert [token.id for token in tokens] == plain(PROMPT)
    assert [token.index for token in tokens] == list(range(len(tokens)))
    assert [bool(token.finish) for token in tokens] == [False] * (len(tokens) - 1) + [True]
    assert "".join(token.text for token in tokens) == engine.tokenizer.decode([token.id for token in tokens])


async def test_answers_at_once_are_those_one_by_one(engine: LlamaEngine):
    """Seven prompts of different lengths over three slots: each gets its own answer, whoever joins or leaves."""
    prompts = [[*PROMPT[: 3 + each], 60 + 7 * each] for each in range(7)]
    answers = await asyncio.gather(
        *(said(engine, prompt, tokens_max=4 + 5 * (at % 3)) for at, prompt in enumerate(prompts))
    )
    for at, (prompt, tokens) in enumerate(zip(prompts, answers, strict=True)):
        assert [token.id for token in tokens] == plain(prompt, 4 + 5 * (at % 3))
    stats = engine.stats()
    assert (stats["under_way"], stats["waiting"], stats["answers"]) == (0, 0, 7)
    # Steps were shared: alone, each token but the first of its answer would have taken one.
    assert stats["steps"] < sum(len(tokens) - 1 for tokens in answers)


async def test_a_beginning_that_is_known_is_not_read_again(engine: LlamaEngine):
    """A prompt that begins like another one gets a copy of what that left; the answer is the same as without."""
    await said(engine, PROMPT)
    other = [*PROMPT[:9], 77, 78]
    tokens = await said(engine, other)
    assert tokens[0].cached == 9
    assert [token.id for token in tokens] == plain(other)
    longer = [*other, *(token.id for token in tokens), 80]
    assert (await said(engine, longer))[0].cached == len(longer) - 2, "a conversation goes on where it was"


def by_hand(engine: LlamaEngine) -> LlamaEngine:
    """It makes a step only where the test says so."""
    engine._thread = threading.current_thread()
    return engine


async def turn(engine: LlamaEngine) -> None:
    await asyncio.sleep(0)
    if engine._live or engine._waiting:  # it would wait for work, and nobody else runs here
        engine._admit()
        engine._turn()
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_long_prompt_does_not_hold_up_who_speaks(folder: Path):
    """It is read in pieces; between two of them everybody else gets a token."""
    engine = by_hand(LlamaEngine(open_folder(folder), slots=2, read_max=8))
    order: list[str] = []

    async def follow(name: str, prompt: list[int]) -> None:
        async for _ in engine.generate(prompt, Sampling(tokens_max=16)):
            order.append(name)  # noqa: PERF401  # the order among several is wanted

    async with asyncio.TaskGroup() as group:
        group.create_task(follow("a", PROMPT[:4]))
        await turn(engine)
        group.create_task(follow("b", list(range(10, 58))))
        for _ in range(40):
            await turn(engine)
    # It spoke twice in the first turn; five of the six pieces were read before the other one's first word.
    assert order.index("b") == 7
    engine.close()


async def test_who_leaves_frees_the_slot(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """In the middle of an answer, and while it waits: the next one in line begins, nothing goes on for nobody."""
    engine = LlamaEngine(open_folder(folder), slots=1)
    step, goes_on = engine._runner.step, threading.Event()

    def held_up(*given: Any) -> Any:
        if engine.stats()["tokens_out"]:
            goes_on.wait(10)
        return step(*given)

    monkeypatch.setattr(engine._runner, "step", held_up)
    async with aclosing(engine.generate(PROMPT, Sampling(tokens_max=80))) as tokens:
        await anext(tokens)
        waiting = asyncio.get_running_loop().create_task(said(engine, PROMPT[:5]))
        following = asyncio.get_running_loop().create_task(said(engine, PROMPT[:6]))
        while engine.stats()["waiting"] < 2:
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    goes_on.set()  # now that both have left: before, it might answer all on a busy machine
    assert [token.id for token in await following] == plain(PROMPT[:6])
    stats = engine.stats()
    assert (stats["left"], stats["answers"], stats["under_way"]) == (2, 1, 0)
    assert stats["tokens_out"] < 80
    engine.close()


async def test_a_crowd_that_comes_and_goes_leaves_nothing_behind(folder: Path):
    """Three hundred at once over three slots, most of whom leave somewhere: all places are free again, and who comes
    then gets their own answer."""
    engine, lot = LlamaEngine(open_folder(folder), slots=3, waiting_max=1000), random.Random(5)

    async def visit(count: int, length: int) -> None:
        prompt = [lot.randrange(3, 320) for _ in range(length)]
        async with aclosing(engine.generate(prompt, Sampling(tokens_max=10, temperature=1.0))) as tokens:
            async for _ in tokens:
                count -= 1
                if count <= 0:
                    return

    await asyncio.gather(*(visit(lot.randint(1, 12), lot.randint(1, 60)) for _ in range(300)))
    assert [token.id for token in await said(engine, PROMPT)] == plain(PROMPT)
    stats = engine.stats()
    assert (stats["under_way"], stats["waiting"]) == (0, 0)
    assert stats["answers"] + stats["left"] == 301
    engine.close()


async def test_bounds_hold(folder: Path):
    """A prompt that does not fit is refused before it costs anything; an answer ends where the context does."""
    engine = LlamaEngine(open_folder(folder), slots=1, context=16)
    with pytest.raises(EngineRefused) as refused:
        await said(engine, [5] * 16)
    assert (refused.value.status, refused.value.kind) == (400, "context_length_exceeded")
    tokens = await said(engine, [5] * 10, tokens_max=0)
    assert len(tokens) == 16 - 10
    assert tokens[-1].finish == "length"
    assert engine.cache_bytes == 16 * 2 * 2 * 2 * 16 * 4
    engine.close()


async def test_who_comes_too_many_is_told_when_to_come_again(folder: Path):
    """Two may wait; the others are refused at once."""
    engine = by_hand(LlamaEngine(open_folder(folder), slots=1, waiting_max=2))
    tasks = [asyncio.get_running_loop().create_task(said(engine, PROMPT, tokens_max=1)) for _ in range(8)]
    for _ in range(3):
        await turn(engine)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    many = [each for each in answers if isinstance(each, Overloaded)]
    assert len(many) == 6, answers
    assert all(each.retry_after_s > 0 for each in many)
    assert engine.stats()["refused"] == 6
    engine.close()


async def test_closing_ends_what_is_under_way(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Readers are told; the thread is gone; who comes later is told, too."""
    engine = LlamaEngine(open_folder(folder), slots=1)
    heard: list[Token] = []

    async def follow() -> None:
        async for token in engine.generate(PROMPT, Sampling(tokens_max=80)):
            heard.append(token)  # noqa: PERF401  # those before the failure are wanted

    step, goes_on = engine._runner.step, threading.Event()

    def held_up(*given: Any) -> Any:
        goes_on.wait(10)
        return step(*given)

    monkeypatch.setattr(engine._runner, "step", held_up)
    reading = asyncio.get_running_loop().create_task(follow())
    while not heard:
        await asyncio.sleep(0.001)
    closing = asyncio.get_running_loop().create_task(asyncio.to_thread(engine.close))
    while not engine._closed:
        await asyncio.sleep(0.001)
    goes_on.set()
    await closing
    with pytest.raises(EngineUnreachable):
        await reading
    with pytest.raises(EngineUnreachable):
        await said(engine, PROMPT)
    assert not [each for each in threading.enumerate() if each.name.startswith(f"model {folder.name}")]


async def test_a_failure_reaches_every_reader(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch):
    """A step that fails ends all answers with an error; nobody waits for ever."""

    def fails(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine._runner, "step", fails)
    answers = await asyncio.gather(*(said(engine, PROMPT[:each]) for each in range(3, 9)), return_exceptions=True)
    assert all(isinstance(each, EngineUnreachable) for each in answers)


# Sampling.


async def test_a_seed_repeats_an_answer(engine: LlamaEngine):
    """The same seed gives the same answer, whatever else is under way; others give others."""
    hot: dict[str, Any] = {"temperature": 1.5, "tokens_max": 10}
    first = [token.id for token in await said(engine, PROMPT, **hot, seed=7)]
    beside = await asyncio.gather(*(said(engine, PROMPT, **hot, seed=seed) for seed in (7, 8, 9)))
    assert [token.id for token in beside[0]] == first
    assert len({tuple(token.id for token in tokens) for tokens in beside}) == 3


async def test_stop_strings_end_an_answer(engine: LlamaEngine):
    """They are not shown, and nothing behind them is."""
    text = "".join(token.text for token in await said(engine, PROMPT))
    stop = text[4:7]
    tokens = await said(engine, PROMPT, stop=(stop,))
    assert "".join(token.text for token in tokens) == text[: text.index(stop)]
    assert tokens[-1].finish == "stop"


async def test_only_what_is_accepted_is_said(engine: LlamaEngine):
    """With a bound on the text, whatever the weights say: here, digits, four of them."""

    def accepts(text: str) -> bool:
        return text.isdigit() and len(text) <= 4

    def four(text: str) -> bool:
        return len(text) == 4

    tokens = await said(engine, PROMPT, accepts=accepts, complete=four, tokens_max=20)
    text = "".join(token.text for token in tokens)
    assert accepts(text)
    assert len(text) == 4
    assert tokens[-1].finish == "stop"


def test_nucleus_and_penalty_choose_as_they_say():
    """Only the likeliest that make up top_p are drawn, with their shares; what was there before loses."""
    from seamline.models.runtimes.llama.sampling import Sampler

    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05, *[1e-9] * 500], np.float32))
    sampler = Sampler(Sampling(temperature=1.0, top_p=0.75, seed=1), [])
    draws = [sampler.choose(logits) for _ in range(2000)]
    assert set(draws) == {0, 1}
    assert abs(draws.count(0) / 2000 - 0.625) < 0.05
    few = Sampler(Sampling(temperature=1.0, top_k=3, seed=1), [])
    assert {few.choose(logits) for _ in range(500)} == {0, 1, 2}
    shy = Sampler(Sampling(repetition_penalty=2.0), [0])
    assert shy.choose(logits) == 1, "twice log 0.5 is less than log 0.3"
    assert shy.choose(np.array([3.0, 1.0], np.float32)) == 0, "half of 3 is more than 1"


# What cannot be run.


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"model_type": "gpt2"}, "'gpt2'"),
        ({"hidden_size": "many"}, "many"),
        ({"num_key_value_heads": 3}, "cannot be run"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "'yarn'"),
        ({"intermediate_size": 97}, r"\(96, 64\), and not \(97, 64\)"),
        ({"hidden_act": "gelu"}, "'gelu'"),
    ],
)
def test_a_model_that_cannot_be_run_says_why(tmp_path: Path, changes: dict[str, Any], fact: str):
    """Before it answers anything."""
    oracle.write_folder(tmp_path, oracle.config(**changes), oracle.weights(oracle.config()))
    with pytest.raises((ArchitectureError, WeightsError), match=fact):
        Runner(open_folder(tmp_path), slots=1, context=16)
