"""What a call costs, in whole billionths of the currency that the prices are in: no float touches money."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Final, NamedTuple

from seamline.models.chat import Usage

NANO: Final = 1_000_000_000
_MILLION: Final = 1_000_000


class Cost(NamedTuple):
    """Tokens, and billionths of the currency."""

    tokens: int = 0
    nano: int = 0


NOTHING: Final = Cost()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of one model: billionths of the currency for a million tokens. All zero is a model that costs nothing.

    ``tokens_per_byte`` is how many tokens a byte of a prompt is taken for before the engine has counted: a third is
    more than English and most code need; at 1 no prompt can have more tokens than were reserved for it.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    tokens_per_byte: float = 0.34
    output_tokens_max: int = 4096
    """Reserved for the answer of a call that does not say ``tokens_max``."""

    @classmethod
    def per_million(
        cls,
        *,
        input: str | int = 0,  # noqa: A002  # as price lists call it
        output: str | int = 0,
        cached_input: str | int | None = None,
        cache_write: str | int | None = None,
        tokens_per_byte: float = 0.34,
        output_tokens_max: int = 4096,
    ) -> Price:
        """``Price.per_million(input="2.50", output="10")``. What is not said of caches costs what input costs.

        Raises ValueError.
        """
        fresh = nano(input)
        return cls(
            input=fresh,
            cached_input=fresh if cached_input is None else nano(cached_input),
            cache_write=fresh if cache_write is None else nano(cache_write),
            output=nano(output),
            tokens_per_byte=tokens_per_byte,
            output_tokens_max=output_tokens_max,
        )

    def cost(self, usage: Usage) -> Cost:
        """Rounded up to a billionth."""
        cached, written = usage.cached_input_tokens, usage.cache_write_tokens
        fresh = max(usage.input_tokens - cached - written, 0)
        scaled = fresh * self.input + usage.output_tokens * self.output
        if cached or written:
            scaled += cached * self.cached_input + written * self.cache_write
        return Cost(usage.input_tokens + usage.output_tokens, -(-scaled // _MILLION))

    def estimate(self, prompt_bytes: int, tokens_max: int = 0, answers: int = 1) -> Cost:
        """What a call may cost at most, as far as that can be told before: to be reserved."""
        prompt = int(prompt_bytes * self.tokens_per_byte) + 8
        answer = (tokens_max or self.output_tokens_max) * answers
        dearest = max(self.cache_write, self.input)
        return Cost(prompt + answer, -(-(prompt * dearest + answer * self.output) // _MILLION))

    def asked(self, prompt_bytes: int) -> Cost:
        """What is owed as soon as an engine was asked, whatever it answers."""
        prompt = int(prompt_bytes * self.tokens_per_byte) + 8
        return Cost(prompt, -(-prompt * self.input // _MILLION))


def nano(amount: str | Decimal | int) -> int:
    """``"2.50"`` as billionths. Raises ValueError for what is no amount, or finer than that."""
    try:
        scaled = Decimal(amount) * NANO
    except ArithmeticError:
        raise ValueError(f"{amount!r} is not an amount of money") from None
    if not scaled.is_finite() or scaled < 0 or scaled != scaled.to_integral_value():
        raise ValueError(f"{amount!r} is not an amount of money, or has more than nine decimals")
    return int(scaled)


def money(amount_nano: int) -> str:
    """``2500000000`` as ``"2.5"``."""
    whole, rest = divmod(abs(amount_nano), NANO)
    text = f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
    return f"-{text}" if amount_nano < 0 else text
