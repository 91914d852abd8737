"""Nuclei found in a plane by one simple rule, and how well those of a prediction agree with the true ones.

The rule is the same for stained and for predicted planes and knows nothing of either: smooth, threshold,
split where two outlines touch. It is meant for comparing the two, not for segmenting difficult tissue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.int32]

# What a nucleus measures where its pixel size is not known, and one of 10 um would have this at 0.5 um.
UNKNOWN_DIAMETER_PX = 20.0
# Above the plane's lower quartile, on the label's normalized scale: less than that is background, not stain.
LEAST_CONTRAST = 0.1
MATCHING_IOU = 0.5

# As shares of a nucleus's diameter.
_SMOOTHING, _SMALLEST, _NECK = 0.1, 0.5, 0.05


@dataclass(frozen=True)
class NucleiMatch:
    """Nuclei of a prediction and of the truth, and which of them are the same.

    Parameters
    ----------
    true, predicted : int
        How many there are.
    pairs : tuple of (int, int)
        Numbers of a true and of a predicted nucleus that are the same one.
    """

    true: int
    predicted: int
    pairs: tuple[tuple[int, int], ...]


def object_f1(true: int, predicted: int, matched: int) -> float:
    """Return the F1 score of found objects: 2 matched / (true + predicted); NaN where there are none at all.

    Examples
    --------
    >>> object_f1(true=10, predicted=8, matched=6)
    0.6666666666666666
    """
    return 2 * matched / (true + predicted) if true + predicted else math.nan


def count_error(true: int, predicted: int) -> float:
    """Return by which share of the true number the predicted one is off; of no true object, of one.

    Examples
    --------
    >>> count_error(true=10, predicted=8)
    0.2
    """
    return abs(predicted - true) / max(true, 1)


def find_nuclei(plane: Array, *, diameter_px: float = UNKNOWN_DIAMETER_PX) -> Labels:
    """Find nuclei: smooth, threshold, split.

    Parameters
    ----------
    plane : ndarray
        Shape (Y, X), on the label's normalized scale.
    diameter_px : float
        What a typical nucleus measures. A plane is smoothed by a Gaussian of a tenth of it; what is smaller
        than a disk of half of it is left out.

    Returns
    -------
    ndarray
        int32, shape (Y, X): 0 background, then 1, 2, ... each nucleus.

    Notes
    -----
    Values are cut at 0 and 1, so that a few bright specks weigh no more than nuclei. The threshold is Otsu's
    (IEEE Trans. SMC 9:62, 1979) of the smoothed plane, but at least `LEAST_CONTRAST` above the lower
    quartile, so that noise holds no nuclei. Holes are filled. Touching nuclei are split by a watershed of the
    distance to the background (Meyer, Signal Processing 38:113, 1994), where its ridge between two peaks is
    lower than both by a twentieth of the diameter.
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu
    from skimage.measure import label
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    smooth = ndimage.gaussian_filter(np.clip(plane, 0, 1, dtype=np.float32), _SMOOTHING * diameter_px)
    least = float(np.percentile(smooth, 25)) + LEAST_CONTRAST
    threshold = max(float(threshold_otsu(smooth)), least)
    inside = ndimage.binary_fill_holes(smooth > threshold)
    distance = ndimage.distance_transform_edt(inside).astype(np.float32)
    distance = ndimage.gaussian_filter(distance, _NECK * diameter_px)
    clusters, _ = ndimage.label(inside)
    peaks = np.zeros(inside.shape, bool)
    # One cluster at a time: sorting the background's pixels would take most of the time.
    for number, box in enumerate(ndimage.find_objects(clusters), start=1):
        own = clusters[box] == number
        peaks[box] |= own & (h_maxima(np.where(own, distance[box], 0), _NECK * diameter_px) > 0)
    split = watershed(-distance, label(peaks), mask=inside)
    areas = np.bincount(split.ravel())
    kept = areas >= math.pi / 4 * (_SMALLEST * diameter_px) ** 2
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    result: Labels = numbers[split]
    return result


def match_nuclei(true: Labels, predicted: Labels) -> NucleiMatch:
    """Match nuclei whose intersection over union is at least `MATCHING_IOU`, each with one other at most.

    Parameters
    ----------
    true, predicted : ndarray
        As from `find_nuclei`, of one shape.

    Returns
    -------
    NucleiMatch
        With an overlap of one half or more, the only rivals are two exact halves of one nucleus; the one
        with the lower number gets it.
    """
    count = int(predicted.max()) + 1
    areas_true, areas_predicted = np.bincount(true.ravel()), np.bincount(predicted.ravel())
    shared = (true > 0) & (predicted > 0)
    codes, pixels = np.unique(true[shared].astype(np.int64) * count + predicted[shared], return_counts=True)
    pairs: dict[int, int] = {}
    for code, both in zip(codes.tolist(), pixels.tolist(), strict=True):
        one, other = divmod(code, count)
        union = areas_true[one] + areas_predicted[other] - both
        if both >= MATCHING_IOU * union and one not in pairs and other not in pairs.values():
            pairs[one] = other
    return NucleiMatch(len(areas_true) - 1, count - 1, tuple(pairs.items()))
