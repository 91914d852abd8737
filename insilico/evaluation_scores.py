"""Predicted distributions against the truth: scores, and counts from which curves are drawn."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from insilico.distribution import LogisticMixture
from lincei.image import Image

Array = NDArray[np.float32]

# Bins of predicted probability; the ends of the 90 % interval lie between two of them.
PROBABILITY_BINS = 200
# Bins of the two-dimensional histogram: true and predicted values on the label's normalized scale.
VALUE_EDGES = np.linspace(-0.2, 1.4, 129)
SD_EDGES = np.geomspace(1e-3, 10, 61)


@dataclass(frozen=True, eq=False)
class Curves:
    """Counts of one label's pixels, over all images, from which calibration and error curves are drawn.

    Parameters
    ----------
    probability : ndarray of int64, shape (PROBABILITY_BINS,)
        By the predicted probability of a value of at most the truth (the distribution's cdf there).
    density : ndarray of int64, shape (bins, bins)
        By true (first axis) and predicted value, in bins of `VALUE_EDGES`; values beyond count as outermost.
    sd_pixels, sd_squared, error_squared : ndarray of float64
        In bins of the predicted standard deviation (`SD_EDGES`): number of pixels, sum of its square, sum of
        the squared error of the mean.
    """

    probability: NDArray[np.int64]
    density: NDArray[np.int64]
    sd_pixels: NDArray[np.float64]
    sd_squared: NDArray[np.float64]
    error_squared: NDArray[np.float64]

    def __add__(self, other: Curves) -> Curves:
        names = [field.name for field in dataclasses.fields(self)]
        return Curves(*(getattr(self, name) + getattr(other, name) for name in names))

    def interval_shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return probabilities of central intervals, 0 to 1, and the share of truths found inside each."""
        half = PROBABILITY_BINS // 2
        per_step = self.probability[half:] + self.probability[:half][::-1]
        shares = np.concatenate([[0], np.cumsum(per_step)]) / self.probability.sum()
        return np.linspace(0, 1, half + 1), shares

    def error_by_sd(self, *, least_share: float = 1e-4) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return root mean squares of the predicted standard deviation and of the error, bin by bin.

        Parameters
        ----------
        least_share : float
            Bins with a smaller share of all pixels are left out.
        """
        kept = self.sd_pixels >= least_share * self.sd_pixels.sum()
        count = self.sd_pixels[kept]
        return np.sqrt(self.sd_squared[kept] / count), np.sqrt(self.error_squared[kept] / count)


class Scores:
    """Takes predictions tile by tile: keeps mean and standard deviation, scores whole distributions.

    Parameters
    ----------
    truth : ndarray
        Shape (T, labels, Y, X).
    """

    def __init__(self, truth: Array) -> None:
        self.truth = truth
        self.mean, self.sd = np.empty_like(truth), np.empty_like(truth)
        labels = truth.shape[1]
        self.crps = np.zeros(labels)
        self.inside_90 = np.zeros(labels, np.int64)
        self.probability = np.zeros((labels, PROBABILITY_BINS), np.int64)
        self._waiting: dict[tuple[int, int, int], dict[str, Array]] = {}
        self._parts = 0

    def store(self, statistic: str, template: Image) -> Any:
        """Give what `insilico.labeling.label_image` writes a statistic to."""
        if statistic in ("mean", "sd"):
            return getattr(self, statistic)[:, :, None]
        self._parts += 1
        return _Part(self, statistic, template)

    def take(self, statistic: str, place: tuple[slice, ...], pixels: Array) -> None:
        """Take one part of the distributions of a tile; the last one completes them."""
        times, _, _, rows, columns = place
        key = (times.start, rows.start, columns.start)
        parts = self._waiting.setdefault(key, {})
        parts[statistic] = pixels[0, :, 0]
        if len(parts) < self._parts:
            return
        del self._waiting[key]
        distribution = LogisticMixture.from_parts(parts)
        truth = self.truth[times.start, :, rows, columns]
        probability = distribution.cdf(truth)
        bins = np.minimum(probability * PROBABILITY_BINS, PROBABILITY_BINS - 1).astype(np.intp)
        score = distribution.crps(truth)
        for i in range(truth.shape[0]):
            self.crps[i] += float(score[i].sum(dtype=np.float64))
            self.inside_90[i] += np.count_nonzero((probability[i] >= 0.05) & (probability[i] <= 0.95))
            self.probability[i] += np.bincount(bins[i].ravel(), minlength=PROBABILITY_BINS)


class _Part:
    """What one part of the distributions is written to; nothing can be read from it."""

    def __init__(self, scores: Scores, statistic: str, template: Image) -> None:
        self._scores, self._statistic = scores, statistic
        self.shape, self.dtype = template.shape, template.dtype

    def __setitem__(self, place: tuple[slice, ...], pixels: Array) -> None:
        self._scores.take(self._statistic, place, pixels)


def count_curves(scores: Scores, index: int) -> Curves:
    """Count the pixels of a label, all of whose tiles were taken.

    Parameters
    ----------
    scores : Scores
        Of an image.
    index : int
        Which of its labels.
    """
    true, mean, sd = (array[:, index].ravel() for array in (scores.truth, scores.mean, scores.sd))
    bins = len(VALUE_EDGES) - 1
    step = (VALUE_EDGES[-1] - VALUE_EDGES[0]) / bins
    places = [
        np.clip((values - VALUE_EDGES[0]) / step, 0, bins - 1).astype(np.intp) for values in (true, mean)
    ]
    density = np.bincount(places[0] * bins + places[1], minlength=bins * bins).reshape(bins, bins)
    bins = len(SD_EDGES) - 1
    per_sd = np.clip(np.searchsorted(SD_EDGES, sd) - 1, 0, bins - 1)
    weights = (None, sd.astype(np.float64) ** 2, (mean.astype(np.float64) - true) ** 2)
    by_sd = [np.bincount(per_sd, weight, bins).astype(np.float64) for weight in weights]
    return Curves(scores.probability[index], density, *by_sd)
