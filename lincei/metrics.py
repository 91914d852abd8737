"""Figures of merit between a prediction and the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

# Of the structural similarity: side of its windows, and rows of windows that are computed at a time.
_WINDOW_PX, _BAND_PX = 7, 512


def pearson_r(prediction: Array, truth: Array) -> float:
    """Pearson correlation coefficient over all pixels; NaN when either is constant.

    Examples
    --------
    >>> round(pearson_r(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0])), 6)
    1.0
    """
    a = np.asarray(prediction, np.float64).ravel()
    b = np.asarray(truth, np.float64).ravel()
    if a.min() == a.max() or b.min() == b.max():
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else float("nan")


def nrmse(prediction: Array, truth: Array, data_range: float = 1.0) -> float:
    """Root-mean-square error as a share of ``data_range`` (1 on a label's normalized scale)."""
    difference = np.asarray(prediction, np.float64) - np.asarray(truth, np.float64)
    return float(np.sqrt(np.mean(difference**2)) / data_range)


def psnr(prediction: Array, truth: Array, data_range: float = 1.0) -> float:
    """Peak signal-to-noise ratio in decibels: 20 log10(``data_range`` / root-mean-square error).

    Infinite where prediction and truth are equal.

    Examples
    --------
    >>> round(psnr(np.array([0.0, 0.1]), np.array([0.1, 0.0])), 6)
    20.0
    """
    share = nrmse(prediction, truth, data_range)
    return float(-20 * np.log10(share)) if share > 0 else float("inf")


def ssim(prediction: Array, truth: Array, data_range: float = 1.0) -> float:
    """Structural similarity index of two planes (Wang et al., IEEE TIP 13:600, 2004), 7x7 windows.

    NaN for planes smaller than a window.
    """
    from skimage.metrics import structural_similarity

    if min(prediction.shape) < _WINDOW_PX:
        return float("nan")
    total, windows = 0.0, prediction.shape[0] - _WINDOW_PX + 1
    # In bands: of a large plane, a dozen intermediate arrays in double precision would fill the memory.
    for first in range(0, windows, _BAND_PX):
        count = min(_BAND_PX, windows - first)
        band = slice(first, first + count + _WINDOW_PX - 1)
        planes = (np.asarray(plane[band], np.float64) for plane in (prediction, truth))
        total += count * float(structural_similarity(*planes, data_range=data_range, win_size=_WINDOW_PX))
    return total / windows


def coverage(low: Array, high: Array, truth: Array) -> float:
    """Share of pixels whose truth lies between ``low`` and ``high``, both included."""
    return float(np.mean((truth >= low) & (truth <= high)))


def calibration_error(confidence: Array, correct: Array, bins: int = 15) -> float:
    """Expected calibration error: how far stated probabilities are from how often they come true.

    Parameters
    ----------
    confidence : ndarray, shape (N,)
        Probability of the answer that was given, 0 to 1.
    correct : ndarray, shape (N,)
        Whether it was right.
    bins : int
        Equal parts of 0 to 1; in each, mean confidence and share of right answers are compared.

    Returns
    -------
    float
        Mean difference, weighted with the number of answers in each bin.

    References
    ----------
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.

    Examples
    --------
    >>> round(calibration_error(np.array([0.9, 0.9]), np.array([True, False])), 6)
    0.4
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    differences = np.bincount(place, confidence - correct, minlength=bins)
    return float(np.abs(differences).sum() / counts.sum())


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman correlation: Pearson's of the ranks, ties sharing theirs. NaN when one of them is constant."""
    from scipy.stats import rankdata

    return pearson_r(rankdata(a), rankdata(b))


def roc_auc(scores: Array, truth: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: how often a positive scores higher than a negative, ties counting half.

    NaN where there are not both.

    Examples
    --------
    >>> round(roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])), 6)
    0.75
    """
    from scipy.stats import rankdata

    positive = np.asarray(truth, np.bool_).ravel()
    count = int(positive.sum())
    if count in (0, positive.size):
        return float("nan")
    ranks = rankdata(np.asarray(scores).ravel())
    above = float(ranks[positive].sum()) - count * (count + 1) / 2
    return above / (count * (positive.size - count))


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks: twice what they share, over both. 1 where both are empty.

    Examples
    --------
    >>> round(dice(np.array([True, True, False]), np.array([True, False, False])), 6)
    0.666667
    """
    found, truth = np.asarray(found, np.bool_), np.asarray(truth, np.bool_)
    both = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / both if both else 1.0
