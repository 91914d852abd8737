"""Probabilities of patches spread over the pixels of an image, computed where they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from focusqc.levels import LEVELS
from lincei.formats.lazy import Box, LazyArray

if TYPE_CHECKING:
    from focusqc.rating import PlaneRating


class ProbabilityPixels(LazyArray):
    """An image of 11 channels for each rated channel, float32, as large as what was rated.

    Of a large image it would fill the memory several times over.

    Parameters
    ----------
    planes : mapping of (int, int, int) to PlaneRating
        By position along time, rated channels and z.
    shape : (int, int, int, int, int)
        Of the array: T, 11 times the rated channels, Z, Y, X.
    """

    def __init__(
        self, planes: Mapping[tuple[int, int, int], PlaneRating], shape: tuple[int, int, int, int, int]
    ) -> None:
        super().__init__(shape, np.float32)
        self._planes = planes

    def _read(self, box: Box) -> NDArray[Any]:
        times, levels, zs, rows, columns = box
        result = np.full([part.stop - part.start for part in box], np.nan, np.float32)
        for (t, c, z), plane in self._planes.items():
            first, last = max(levels.start, c * LEVELS), min(levels.stop, (c + 1) * LEVELS)
            if times.start <= t < times.stop and zs.start <= z < zs.stop and first < last:
                wanted = slice(first - c * LEVELS, last - c * LEVELS)
                place = (t - times.start, slice(first - levels.start, last - levels.start), z - zs.start)
                result[place] = _spread(plane, wanted, rows, columns)
        return result


def _spread(plane: PlaneRating, levels: slice, rows: slice, columns: slice) -> NDArray[np.float32]:
    """Return the probabilities of some levels in a rectangle; where patches overlap the mean of theirs."""
    size = (rows.stop - rows.start, columns.stop - columns.start)
    total = np.zeros((levels.stop - levels.start, *size), np.float32)
    count = np.zeros(size, np.float32)
    for row, y in enumerate(plane.y):
        top, bottom = max(y - rows.start, 0), min(y + plane.patch_px[0] - rows.start, size[0])
        if top >= bottom:
            continue
        for column, x in enumerate(plane.x):
            left, right = max(x - columns.start, 0), min(x + plane.patch_px[1] - columns.start, size[1])
            if left < right:
                total[:, top:bottom, left:right] += plane.probabilities[row, column, levels, None, None]
                count[top:bottom, left:right] += 1
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.float32(np.nan))
