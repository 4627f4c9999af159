"""Mistakes in the settings of money and guardrails end the program with a sentence, before anything is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamline.kernel.settings.ai_gateway import load_ai_gateway
from seamline.kernel.settings.errors import SettingsError

TARGET = '[[ai_gateway.models.m.targets]]\nengine = "openai:http://127.0.0.1:1/v1"\n'
BUDGET = '[[ai_gateway.budgets]]\nname = "b"\nby = "key"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BUDGET + "money = 0.0000000001", "money is 1e-10"),
        (BUDGET + "money = inf", "money is inf"),
        (BUDGET + "money = nan", "nan is out of range"),
        (BUDGET + "money = -1", "out of range"),
        (BUDGET + 'money = 1\nperiod = "week"', "week"),
        (TARGET + "input_price = 1e-12", "input_price is 1e-12"),
        ('[ai_gateway]\npii = ["email", "names"]', "'names' is not one of the choices"),
        ('[ai_gateway]\nguardrails = ["pi"]', "Did you mean 'pii'"),
    ],
)
def test_a_mistake_is_told(text: str, said: str, tmp_path: Path):
    """What it is, and where."""
    path = tmp_path / "ai.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_ai_gateway(path, {})
    assert said in str(refused.value)


def test_amounts_of_nine_decimals_are_read(tmp_path: Path):
    """And what was written is what is meant."""
    path = tmp_path / "ai.toml"
    path.write_text(BUDGET + "money = 0.000000001\n" + TARGET + "input_price = 0.1\noutput_price = 1e-9")
    found = load_ai_gateway(path, {})
    assert found.budgets[0].money == 1e-9
    assert found.models["m"].targets[0].output_price == 1e-9
