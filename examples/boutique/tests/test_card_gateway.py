"""The key to the card gateway: payments have it, nobody else does, and a first one is there by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from boutique.payments.gateway import KEY, check, sandbox_key

from seamline import Secret
from seamline.kernel.settings import Settings
from seamline.mesh.policy import SecretRules
from seamline.mesh.policy.sources import policy_source

APP = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("action", ["secret", "rotate"])
def test_no_module_but_payments_gets_the_key(action: str):
    """Of all modules of the shop, policy gives the key to one."""
    settings = Settings.load(APP, {})
    names = [each.rpartition(".")[2] for each in settings.modules]
    rules = SecretRules(policy_source(settings), names)
    assert [each for each in names if rules.denial(each, action, KEY) is None] == ["payments"]


def test_a_key_that_is_worth_money_does_not_reach_the_sandbox():
    """It is refused without being told; a key of the sandbox's own is taken."""
    check(Secret(KEY, "1", sandbox_key().encode()))
    with pytest.raises(ValueError, match="does not know") as raised:
        check(Secret(KEY, "2", b"live_canary"))
    assert "canary" not in str(raised.value)
