"""The predictive distribution of a pixel: a mixture of logistics, and the statistics of it.

A logistic of location m and scale s has the cumulative distribution 1 / (1 + exp(-(x - m) / s)). A mixture
of three of them is compact (nine numbers a pixel and label, against the paper's 256 bins), has closed forms
for mean, variance and cumulative distribution, and is not confined to a range of intensities.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from insilico.options import STATISTICS

Array = NDArray[np.floating[Any]]

KIND = "mixture of logistics"

# Likelihoods are of bins this wide on the label's normalized scale (an 8-bit gray level), so that no
# density can grow without bound on constant background.
DISCRETE_STEP = 1 / 255
LOG_SCALE_RANGE = (-4.5, 2.0)

_ARRAYS = ("weights", "locations", "scales")
_BISECTIONS, _NEWTON_STEPS = 12, 5
_CHUNK = 1 << 16  # pixels worked on at a time, so that temporary arrays stay in the processor's cache


# Places (from 0 to 1 along the quantile axis) and weights at which the entropy is integrated.
_ROOTS, _ROOT_WEIGHTS = np.polynomial.legendre.leggauss(32)
_PARTS = [
    (float(root + 1) / 2, float(weight) / 2) for root, weight in zip(_ROOTS, _ROOT_WEIGHTS, strict=True)
]

# The trapezoidal rule over a standard logistic density; it converges faster than any power of the distance
# between places.
_STANDARD = [(1.2 * k, 1.2 / (4 * math.cosh(0.6 * k) ** 2)) for k in range(-14, 15)]


def part_names(components: int) -> tuple[str, ...]:
    """Return what `LogisticMixture.statistic` calls the arrays that together are a whole distribution."""
    return tuple(f"{kind} {k + 1}" for kind in _ARRAYS for k in range(components))


@dataclass(frozen=True, eq=False)
class LogisticMixture:
    """Independent mixtures of logistics, one for each pixel.

    Parameters
    ----------
    weights, locations, scales : ndarray
        Shape (K, ...), float. The weights of the K components add up to 1, the scales are positive.
    """

    weights: Array
    locations: Array
    scales: Array

    @classmethod
    def from_parameters(cls, parameters: Array, labels: int) -> list[LogisticMixture]:
        """Read a network's ``parameters`` output.

        Parameters
        ----------
        parameters : ndarray
            Shape (labels * 3 * K, Y, X).
        labels : int
            Number of labels.

        Returns
        -------
        list of LogisticMixture
            One per label, each over (Y, X).
        """
        parts = parameters.reshape(labels, 3, -1, *parameters.shape[1:])
        return [cls(part[0], part[1], part[2]) for part in parts]

    @classmethod
    def from_parts(cls, parts: Mapping[str, Array]) -> LogisticMixture:
        """Put a distribution together again from all of its `part_names`."""
        components = len(parts) // len(_ARRAYS)
        names = iter(part_names(components))
        return cls(*(np.stack([parts[next(names)] for _ in range(components)]) for _ in _ARRAYS))

    @property
    def mean(self) -> Array:
        """Expected value: sum of w_k m_k."""
        return np.sum(self.weights * self.locations, axis=0)

    @cached_property
    def sd(self) -> Array:
        """Standard deviation: the variance is sum of w_k (m_k^2 + (pi s_k)^2 / 3), less the mean squared."""
        deviation = self.locations - self.mean
        return np.sqrt(np.sum(self.weights * (deviation**2 + (np.pi * self.scales) ** 2 / 3), axis=0))

    def cdf(self, value: Array | float) -> Array:
        """Probability of a value of at most ``value``: sum of w_k / (1 + exp(-(x - m_k) / s_k))."""
        from scipy.special import expit

        result: Array = np.sum(self.weights * expit((value - self.locations) / self.scales), axis=0)
        return result

    def pdf(self, value: Array | float) -> Array:
        """Density at ``value``."""
        falling = np.exp(-np.abs((value - self.locations) / self.scales))
        result: Array = np.sum(self.weights / self.scales * falling / (1 + falling) ** 2, axis=0)
        return result

    def quantile(self, probability: float) -> Array:
        """Return the value below which a share ``probability`` (between 0 and 1) of the distribution lies."""
        if not 0 < probability < 1:
            raise ValueError(f"probability must be between 0 and 1, not {probability}")
        return self._by_chunks(lambda chunk: chunk._quantile(probability))

    def _quantile(self, probability: float) -> Array:
        """Bisection until Newton's method is safe, then a few of its steps, kept within the bracket."""
        from scipy.special import expit

        # Every component's own quantile lies on one side or the other of the mixture's.
        own = self.locations + self.scales * _standard_quantile(probability)
        low, high = own.min(axis=0), own.max(axis=0)
        inverse = 1 / self.scales
        heights = self.weights * inverse
        place = (low + high) / 2
        for turn in range(_BISECTIONS + _NEWTON_STEPS):
            below = expit((place - self.locations) * inverse)
            excess = np.sum(self.weights * below, axis=0) - probability
            low, high = np.where(excess < 0, place, low), np.where(excess < 0, high, place)
            middle = (low + high) / 2
            if turn < _BISECTIONS - 1:
                place = middle
                continue
            slope = np.sum(heights * below * (1 - below), axis=0)
            step = place - excess / np.maximum(slope, 1e-20)
            place = np.where((step < low) | (step > high), middle, step)
        result: Array = place
        return result

    @property
    def mode(self) -> Array:
        """The value of highest density.

        The modes of a mixture of symmetric components lie between their outermost locations; the density
        is searched at the components' locations, at 9 places between them, and then around the best.
        """
        return self._by_chunks(lambda chunk: chunk._mode())

    def _mode(self) -> Array:
        low, high = self.locations.min(axis=0), self.locations.max(axis=0)
        best, best_density = low, self.pdf(low)
        # A narrow component falls between the places of a grid, so its own location is a place too.
        places = [*self.locations, *(low + (high - low) * step / 10 for step in range(1, 10))]
        for place in places:
            density = self.pdf(place)
            better = density > best_density
            best, best_density = np.where(better, place, best), np.where(better, density, best_density)
        reach = (high - low) / 20
        for _ in range(10):
            for side in (-1, 1):
                place = best + side * reach
                density = self.pdf(place)
                better = density > best_density
                best = np.where(better, place, best)
                best_density = np.where(better, density, best_density)
            reach = reach / 2
        return best

    @property
    def entropy(self) -> Array:
        """Differential entropy in nats (on the label's normalized scale; it may be negative).

        Minus the mean of the log density, integrated along the quantile axis of each component by
        Gauss-Legendre quadrature at 32 places; right to about 0.01, at worst to 0.1.
        """
        return self._by_chunks(lambda chunk: chunk._entropy())

    def _entropy(self) -> Array:
        total = np.zeros(self.weights.shape[1:], self.weights.dtype)
        # The density at a component of no weight may be 0, and 0 times its logarithm is 0.
        smallest = np.finfo(self.weights.dtype).tiny
        for weight, location, scale in zip(self.weights, self.locations, self.scales, strict=True):
            for probability, share in _PARTS:
                value = location + scale * _standard_quantile(probability)
                total -= weight * share * np.log(np.maximum(self.pdf(value), smallest))
        return total

    def crps(self, truth: Array) -> Array:
        """Continuous ranked probability score of ``truth``; lower is better, in units of the truth.

        Parameters
        ----------
        truth : ndarray
            Shape of one pixel array (the shape of `mean`).

        Notes
        -----
        CRPS = E|X - y| - E|X - X'| / 2 (Gneiting and Raftery, JASA 102:359, 2007, eq. 21). For one
        logistic E|X - y| = s (2 log(1 + e^z) - z) with z = (y - m) / s, and E|X - X'| = 2 s. For two
        components the expectation over the wider one is that closed form too, and the one over the narrower
        is an integral over a standard logistic density (29 places, error a few 1e-6 of the scale).
        """
        return self._by_chunks(lambda chunk, y: chunk._crps(y), truth)

    def _crps(self, truth: Array) -> Array:
        result = np.sum(self.weights * _distance(truth, self.locations, self.scales), axis=0)
        result -= np.sum(self.weights**2 * self.scales, axis=0)
        for i, j in itertools.combinations(range(len(self.weights)), 2):
            wide, narrow = np.maximum(*self.scales[[i, j]]), np.minimum(*self.scales[[i, j]])
            apart = self.locations[i] - self.locations[j]
            between = np.zeros_like(result)
            for place, share in _STANDARD:
                between += share * _distance(apart + narrow * place, 0.0, wide)
            result -= self.weights[i] * self.weights[j] * between
        return result

    def statistic(self, name: str) -> Array:
        """Return one of `STATISTICS`, or of `part_names`, by its name."""
        kind, _, number = name.partition(" ")
        if kind in _ARRAYS and number:
            part: Array = getattr(self, kind)[int(number) - 1]
            return part
        if name in ("q05", "q95"):
            return self.quantile(0.05 if name == "q05" else 0.95)
        if name == "median":
            return self.quantile(0.5)
        if name not in STATISTICS:
            raise ValueError(f"statistic {name!r} is not one of {STATISTICS}")
        result: Array = getattr(self, name)
        return result

    def with_spread(self, factor: float) -> LogisticMixture:
        """Widen every distribution about its mean; mean and correlation stay, sd is multiplied."""
        factor, mean = float(factor), self.mean
        return LogisticMixture(self.weights, mean + factor * (self.locations - mean), factor * self.scales)

    def _by_chunks(self, function: Callable[..., Array], *arrays: Array) -> Array:
        """Apply ``function`` to parts of the pixels, on all cores (NumPy releases the interpreter)."""
        shape = self.weights.shape[1:]
        flat = [part.reshape(len(self.weights), -1) for part in (self.weights, self.locations, self.scales)]
        others = [np.broadcast_to(array, shape).reshape(-1) for array in arrays]
        result = np.empty(flat[0].shape[1], np.result_type(*flat))

        def work(start: int) -> None:
            part = slice(start, start + _CHUNK)
            chunk = LogisticMixture(*(array[:, part] for array in flat))
            result[part] = function(chunk, *(array[part] for array in others))

        starts = range(0, result.size, _CHUNK)
        if len(starts) == 1:
            work(0)
        else:
            with ThreadPoolExecutor() as pool:
                list(pool.map(work, starts))
        return result.reshape(shape)


def _standard_quantile(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _distance(value: Array, location: Array | float, scale: Array) -> Array:
    """Return the mean distance of ``value`` from a logistic: s (2 log(1 + e^z) - z)."""
    z = np.abs(value - location) / scale
    result: Array = scale * (z + 2 * np.log1p(np.exp(-z)))
    return result
