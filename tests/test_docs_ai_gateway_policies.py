"""What the page on the AI gateway says of keys, budgets, guardrails and accounts is the code's."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from tests.models.gateway import said
from tests.pages import read_page

from seamline.kernel.settings.ai_gateway import AiGatewaySettings, load_ai_gateway
from seamline.models.chat import Usage
from seamline.models.gateway import budgets, errors, keys, ledger
from seamline.models.gateway.accounting import Accounting
from seamline.models.gateway.guardrails import chain, detect, holding, injection
from seamline.models.gateway.guardrails.lists import Size
from seamline.models.gateway.keys import Key, caller
from seamline.models.gateway.ledger import Line
from seamline.models.gateway.prices import Cost, Price
from seamline.models.gateway.quota import Per

PAGE = read_page("ai-gateway.md")
SAID = re.sub(r"\s+", " ", PAGE)


def test_the_errors_of_the_page_are_the_codes():
    """Each with its HTTP status and the first words of its class."""
    rows: list[tuple[str, str, str]] = re.findall(r"^\| (SL77\d\d) \| (\d+) \| (.*) \|", PAGE, re.MULTILINE)
    table = {code: (status, text) for code, status, text in rows}
    classes = [each for each in vars(errors).values() if isinstance(each, type) and each.__module__ == errors.__name__]
    known = {each.code: each for each in classes if issubclass(each, errors.AiGatewayError)}
    assert table.keys() == known.keys() - {"SL7740"}
    for code, (status, text) in table.items():
        assert known[code].status == int(status)
        assert (known[code].__doc__ or "").startswith(f"{code}: {text}")


def test_the_budgets_of_the_page_are_read(tmp_path: Path):
    """As they stand there, and become limits."""
    example = re.search(r"^```toml\n(.*?)^```", PAGE.partition("## Keys and")[2], re.MULTILINE | re.DOTALL)
    assert example
    (tmp_path / "ai.toml").write_text(example[1])
    found = load_ai_gateway(tmp_path / "ai.toml", {}).budgets
    assert [(each.name, each.unit, each.per) for each in budgets.limits_of(found)] == [
        ("people", "money", "day"), ("pace", "tokens", "minute"), ("pace", "requests", "minute"),
    ]  # fmt: skip
    assert re.findall(r"`(\w+)`", SAID.partition("Periods are ")[2].partition(", by the")[0]) == list(get_args(Per))


def test_the_numbers_of_the_page_are_the_codes():
    """Of reservations, slices, masks and what is looked at."""
    assert f"begin with `{keys.PREFIX}`" in SAID
    assert f"within {keys.LOOK_S:g} s" in SAID
    price = Price()
    assert f"{price.tokens_per_byte} tokens for each byte" in SAID
    assert f"({price.output_tokens_max} where that is not set)" in SAID
    assert (1 / budgets.FLUSH_S, ledger._SHARE) == (10, 4)
    assert "Ten times a second each process" in SAID
    assert "a quarter of its share" in SAID
    assert f"at most {holding.HOLD_MAX} letters, of a private key {holding.BLOCK_MAX}" in SAID
    assert f"longer than {injection.TEXT_MAX} letters" in SAID
    assert f"the newest {injection.TEXTS_MAX}" in SAID
    assert f"more than {chain._INLINE_MAX} letters" in SAID
    assert f"({len(said.ATTACKS)} attacks, {len(said.HARMLESS)} harmless" in SAID
    assert Size(1)._bytes_max == 4
    assert "counted as 4 bytes each" in SAID


def test_a_slice_is_what_the_page_says():
    """A quarter of a process's share of what is left, however much it would like."""
    line = Line("m", 0, most=1000, spent=0, reserved=100, free=0, ahead=10**9, give=False, used=100)
    ledger.Ledger._keep(None, line, 2, wanted=True, recalled=False)  # type: ignore[arg-type]
    assert line.free == 800 // 2 // 4


def test_the_steps_and_kinds_of_the_page_are_the_codes():
    """All of them, and their settings exist."""
    steps = re.findall(r"^\| `(\w+)` \| (?:refuses|replaces|asks)", PAGE, re.MULTILINE)
    literal = AiGatewaySettings.__annotations__["guardrails"]
    assert steps == re.findall(r"[\"'](\w+)[\"']", literal)
    kinds = SAID.partition("`pii` knows the kinds ")[2].partition("(keys of")[0]
    assert tuple(re.findall(r"`(\w+)`", kinds)) == detect.KINDS == AiGatewaySettings().pii


def test_the_measures_of_the_page_are_told():
    """With their kinds, units and attributes."""
    accounts = Accounting()
    accounts.done(
        caller(Key(id="k", tenant="t")), "fast", operation="chat", provider="p", engine_model="m", usage=Usage(),
        cost=Cost(0, 1), began=0.0, ended=1.0,
    )  # fmt: skip
    told = {
        each.name: (each.kind, each.unit, set(each.attributes))
        for each in accounts.take()
        if each.name.startswith("seamline.")
    }
    attributes = {"gen_ai.request.model", "seamline.key", "seamline.tenant"}
    table = re.findall(r"^\| `(seamline\.ai\.\w+)` \| (\w+) \| (\S+) \| model, key, tenant \|", PAGE, re.MULTILINE)
    assert {name: (kind, unit, attributes) for name, kind, unit in table} == told
