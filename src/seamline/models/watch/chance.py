"""How likely chance alone explains what is seen: tails of distributions, without a library for them."""

from __future__ import annotations

from math import erfc, exp, lgamma, log, sqrt
from typing import Final

_TINY: Final = 1e-300
_STEPS_MAX: Final = 10_000


def gamma_tail(shape: float, x: float) -> float:
    """The upper regularised incomplete gamma function Q(shape, x), by series below the mean and by Lentz's continued
    fraction above it (W. Press et al., "Numerical Recipes", 6.2)."""
    if x <= 0:
        return 1.0
    scale = exp(shape * log(x) - x - lgamma(shape))
    if x < shape + 1:
        term = total = 1.0 / shape
        for step in range(1, _STEPS_MAX):
            term *= x / (shape + step)
            total += term
            if term < total * 1e-15:
                break
        return min(max(1.0 - total * scale, 0.0), 1.0)
    b = x + 1.0 - shape
    c, d = 1.0 / _TINY, 1.0 / b
    fraction = d
    for step in range(1, _STEPS_MAX):
        a = -step * (step - shape)
        b += 2.0
        d = 1.0 / _away_from_zero(a * d + b)
        c = _away_from_zero(b + a / c)
        fraction *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return scale * fraction


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def chi_square_tail(x: float, degrees: int) -> float:
    """P(X > x) of a chi-square variable."""
    return gamma_tail(degrees / 2, x / 2) if degrees > 0 else 1.0


def normal_tail(z: float) -> float:
    """P(|Z| > |z|) of a standard normal variable."""
    return erfc(abs(z) / sqrt(2.0))


def kolmogorov_tail(distance: float, first: int, second: int) -> float:
    """P(D > distance) for two samples of one distribution (M. Stephens' correction of Kolmogorov's limit, 1970)."""
    size = sqrt(first * second / (first + second))
    reach = (size + 0.12 + 0.11 / size) * distance
    if reach < 0.2:
        return 1.0
    total = sum((-1) ** (k - 1) * exp(-2.0 * (k * reach) ** 2) for k in range(1, 101))
    return min(max(2.0 * total, 0.0), 1.0)


def skewed_tail(x: float, mean: float, variance: float, skewness: float) -> float:
    """P(X > x) of a Pearson type III variable with these moments."""
    if variance <= 0:
        return 1.0 if x <= mean else 0.0
    z = (x - mean) / sqrt(variance)
    if abs(skewness) < 1e-3:
        return 0.5 * erfc(z / sqrt(2.0))
    shape = 4.0 / skewness**2
    at = shape + z * sqrt(shape) * (1.0 if skewness > 0 else -1.0)
    tail = gamma_tail(shape, at)
    return tail if skewness > 0 else 1.0 - tail
