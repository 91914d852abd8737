"""Recalibration of probabilities, on data kept apart for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_GOLDEN = (np.sqrt(5) - 1) / 2


def best_factor(score: Callable[[float], float], *, low: float = 0.25, high: float = 4.0) -> float:
    """Return the positive factor with the lowest ``score``, by golden-section search on its logarithm.

    Parameters
    ----------
    score : callable
        A proper score (such as the CRPS) of the tune data when spreads, or logits, are multiplied by the
        factor. It should have one minimum.
    low, high : float
        Range searched.

    Returns
    -------
    float
        To about 1 %; 1 (or the limit next to it) where no other factor scores lower.

    References
    ----------
    One factor for all: temperature scaling, Guo et al., ICML 2017.
    """
    a, b = float(np.log(low)), float(np.log(high))
    inner, outer = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
    at_inner, at_outer = score(float(np.exp(inner))), score(float(np.exp(outer)))
    while b - a > 0.01:
        if at_inner < at_outer:
            b, outer, at_outer = outer, inner, at_inner
            inner = b - _GOLDEN * (b - a)
            at_inner = score(float(np.exp(inner)))
        else:
            a, inner, at_inner = inner, outer, at_outer
            outer = a + _GOLDEN * (b - a)
            at_outer = score(float(np.exp(outer)))
    best, unchanged = float(np.exp((a + b) / 2)), min(max(1.0, low), high)
    return best if score(best) < score(unchanged) else unchanged
