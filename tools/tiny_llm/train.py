"""Train the tiny language models of the boutique's assistant from this project's own text.

    python -m venv /somewhere && /somewhere/bin/pip install torch tokenizers safetensors
    /somewhere/bin/python tools/tiny_llm/train.py tiny-1
    /somewhere/bin/python tools/tiny_llm/train.py tiny-2

torch is needed here and nowhere else. Minutes on two cores; the same seed gives the same batches, and the same text the
same tokenizer. The weights are stored as float16.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from corpus import ROOT, Turn, conversations, pages
from network import Llama, Shape
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional

FOLDER = ROOT / "examples/boutique/boutique/assistant/weights"
END, BEGIN_TURN, END_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LENGTH, ROWS, SEED = 320, 12, 20
QUIET = 0.15
"""What a token counts that the model has not to say itself."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    shape: Shape
    steps: int
    rate: float
    talk: float
    """The share of rows that are conversations; the others are pages."""


RECIPES = {
    "tiny-1": Recipe(Shape(256, 704, 5, 8, 4), steps=1000, rate=2.5e-3, talk=0.8),
    "tiny-2": Recipe(Shape(128, 352, 4, 4, 2), steps=500, rate=4e-3, talk=0.9),
}


def tokenizer() -> Tokenizer:
    """Byte-level BPE in which each digit stands alone, so that prices can be copied."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    talk = ["\n".join(turn.text for turn in turns) for turns in islice(conversations(SEED), 6000)]
    made.train_from_iterator(
        [*pages(), *talk],
        trainers.BpeTrainer(
            vocab_size=2048,
            special_tokens=[END, BEGIN_TURN, END_TURN],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return made


def rows_of_talk(made: Tokenizer, seed: int) -> Iterator[tuple[list[int], list[float]]]:
    """Conversations end to end, and what each token counts."""
    ids: list[int] = []
    weights: list[float] = []
    begin, end, stop = (made.token_to_id(token) for token in (BEGIN_TURN, END_TURN, END))
    for turns in conversations(seed):
        for turn in turns:
            head, body = [begin, *made.encode(turn.role + "\n").ids], [*made.encode(turn.text).ids, end]
            tail = made.encode("\n").ids
            ids += [*head, *body, *tail]
            weights += [QUIET] * len(head) + [1.0 if turn.role == "assistant" else QUIET] * len(body)
            weights += [QUIET] * len(tail)
        ids.append(stop)
        weights.append(QUIET)
        while len(ids) > LENGTH:
            yield ids[: LENGTH + 1], weights[: LENGTH + 1]
            # The next row begins with a conversation.
            ids, weights = [], []


def rows_of_pages(made: Tokenizer, seed: int) -> Iterator[tuple[list[int], list[float]]]:
    texts = [[*made.encode(text).ids, made.token_to_id(END)] for text in pages()]
    stream = [token for text in random.Random(seed).sample(texts, len(texts)) for token in text]
    dice = random.Random(seed)
    while True:
        at = dice.randrange(len(stream) - LENGTH - 1)
        yield stream[at : at + LENGTH + 1], [0.5] * (LENGTH + 1)


def batches(made: Tokenizer, recipe: Recipe, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    talk, reading, dice = rows_of_talk(made, seed), rows_of_pages(made, seed), random.Random(seed)
    while True:
        rows = [next(talk) if dice.random() < recipe.talk else next(reading) for _ in range(ROWS)]
        yield torch.tensor([ids for ids, _ in rows]), torch.tensor([weights for _, weights in rows])


def train(made: Tokenizer, recipe: Recipe, steps: int) -> Llama:
    torch.manual_seed(SEED)
    model = Llama(recipe.shape)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.rate,
        betas=(0.9, 0.95),
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=steps, pct_start=0.08, final_div_factor=100
    )
    began = time.monotonic()
    for step, (ids, weights) in enumerate(islice(batches(made, recipe, SEED + 1), steps)):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids[:, :-1])
        losses = functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        counts = weights[:, 1:].flatten()
        loss = (losses * counts).sum() / counts.sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 20 == 0 or step == steps - 1:
            said = counts == 1.0
            answers = losses[said].mean().item() if said.any() else float("nan")
            print(f"{step:5} loss {loss.item():.3f} answers {answers:.3f} {time.monotonic() - began:.0f} s", flush=True)
    return model


def save(model: Llama, made: Tokenizer, recipe: Recipe, folder: Path) -> None:
    """As Hugging Face lays a model out."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": p.detach().to(torch.float16).contiguous() for name, p in model.named_parameters()}
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    end = made.token_to_id(END)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **dataclasses.asdict(recipe.shape),
        "head_dim": recipe.shape.head_dim,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": end,
        "eos_token_id": [made.token_to_id(END_TURN), end],
        "torch_dtype": "float16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    made.save(str(folder / "tokenizer.json"), pretty=False)
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END_TURN,
        "chat_template": TEMPLATE,
        "model_max_length": recipe.shape.max_position_embeddings,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=1) + "\n")


def talk(model: Llama, made: Tokenizer, turns: list[Turn]) -> str:
    """The likeliest answer: slow, and enough for a look."""
    text = "".join(f"{BEGIN_TURN}{turn.role}\n{turn.text}{END_TURN}\n" for turn in turns)
    ids = made.encode(f"{text}{BEGIN_TURN}assistant\n").ids
    begun = len(ids)
    with torch.no_grad():
        while len(ids) - begun < 60:
            best = int(model(torch.tensor([ids]))[0, -1].argmax())
            if best == made.token_to_id(END_TURN):
                break
            ids.append(best)
    return made.decode(ids[begun:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--into", type=Path, default=FOLDER)
    options = parser.parse_args()
    recipe = RECIPES[options.name]
    made = tokenizer()
    model = train(made, recipe, options.steps or recipe.steps)
    save(model, made, recipe, options.into / options.name)
    right = total = 0
    for turns in islice(conversations(SEED - 1), 60):
        answer = talk(model, made, turns[:2])
        right += answer == turns[2].text
        total += 1
        if total <= 12:
            print(f"{turns[1].text}\n    {answer}")
    print(f"{right} of {total} first answers to the letter")


if __name__ == "__main__":
    main()
