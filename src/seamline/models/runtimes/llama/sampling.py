"""The next token of a sequence, from its logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from seamline.models.runtimes.llama.shape import Floats
from seamline.models.runtimes.tokens import Sampling

Ids = npt.NDArray[np.int64]

_FEW: Final = 64
"""Tokens that are usually enough for ``top_p``."""


class Sampler:
    """Chooses for one sequence; the same seed chooses the same from the same logits."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self._how = sampling
        self._dice = np.random.default_rng(sampling.seed)
        self._seen = set(prompt) if sampling.repetition_penalty != 1.0 else None

    def choose(self, logits: Floats) -> int:
        weights = self._weights(logits)
        if self._how.temperature <= 0:
            return int(weights.argmax())
        kept = self._kept(weights)
        scaled: Floats = (weights if kept is None else weights[kept]) / self._how.temperature
        sums: Floats = _softmax(scaled).cumsum()
        drawn = float(sums[-1]) * self._dice.random()
        at = min(int(np.searchsorted(sums, drawn, side="right")), len(sums) - 1)
        return at if kept is None else int(kept[at])

    def choices(self, logits: Floats) -> Iterator[int]:
        """Tokens, none twice: the next one is for whoever cannot use those before it."""
        weights = self._weights(logits)
        if self._how.temperature <= 0:
            yield from _falling(weights)
            return
        kept = self._kept(weights)
        order = _drawn(weights, np.arange(len(weights)) if kept is None else kept, self._how.temperature, self._dice)
        yield from order
        used = set(order)
        yield from (token for token in _falling(weights) if token not in used)

    def took(self, token: int) -> None:
        if self._seen is not None:
            self._seen.add(token)

    def _weights(self, logits: Floats) -> Floats:
        if not self._seen:
            return logits
        weights = logits.copy()
        seen: Ids = np.array([*self._seen], np.int64)
        of_them = weights[seen]
        penalty = self._how.repetition_penalty
        weights[seen] = np.where(of_them > 0, of_them / penalty, of_them * penalty)
        return weights

    def _kept(self, weights: Floats) -> Ids | None:
        """The tokens that may be drawn; None for all."""
        how = self._how
        if how.top_k <= 0 and how.top_p >= 1:
            return None
        few = how.top_k or _FEW
        if how.top_p >= 1:
            return _largest(weights, few)
        scaled = weights / how.temperature
        powers = np.exp(scaled - scaled.max())
        while True:
            kept = _largest(weights, few)
            shares = powers[kept] / (powers[kept].sum() if how.top_k else powers.sum())
            before = shares.cumsum() - shares
            # Those before which something is still missing; where the few are not enough, more of them.
            if how.top_k or len(kept) == len(weights) or before[-1] + shares[-1] >= how.top_p:
                return kept[before < how.top_p]
            few *= 8


def _softmax(values: Floats) -> Floats:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def _largest(weights: Floats, count: int) -> Ids:
    """The tokens of the largest weights, the largest first."""
    if count >= len(weights):
        return np.argsort(-weights, kind="stable")
    some = np.argpartition(weights, -count)[-count:]
    return some[np.argsort(-weights[some], kind="stable")]


def _drawn(weights: Floats, kept: Ids, temperature: float, dice: np.random.Generator) -> list[int]:
    """``kept`` in the order of draws without putting back (the Gumbel trick: Kool et al. 2019)."""
    noisy = weights[kept] / temperature + dice.gumbel(size=len(kept))
    return [int(token) for token in kept[np.argsort(-noisy)]]


def _falling(weights: Floats) -> Iterator[int]:
    """The likeliest first; all are put in order only if the first is not wanted."""
    best = int(weights.argmax())
    yield best
    for token in np.argsort(-weights, kind="stable"):
        if token != best:
            yield int(token)
