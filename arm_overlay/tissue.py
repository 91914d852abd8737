"""Where a section is tissue and where bare glass, found on a coarse copy: glass need not be looked at."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lincei.image import Image
from lincei.pixel_size import ResampledArray
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled

# Stained tissue has a color: the brightest of red, green and blue is above the darkest by at least this.
LEAST_CHROMA = 10
# What has none is tissue where its green is darker than this part of the brightest green (folds, pigment) ...
DARK_PART = 0.8
# ... but not where there is no light at all: scanners fill with black what they left out.
BLACK = 30
# Glass of an image that is not white-balanced has a color too. It is told from pale tissue, whose darkest
# color is green, by that; and by being even: cells within so many gray values of the usual one among the
# brightest, with all their neighbors, are so large a part of the image.
_BRIGHT_PERCENTILE, _EVEN, _LEAST_EVEN = 97, 5, 0.005
# Of all cells, the share that may be brighter than the brightest green.
_BRIGHTEST_PERCENTILE = 99
# Cells that differ by less are of one color.
_ONE_COLOR = 0.5
_READ_AT_ONCE_PX = 2**22


@dataclass(frozen=True, eq=False)
class Tissue:
    """What a coarse copy of a section shows.

    Parameters
    ----------
    cells : ndarray
        Shape (Y, X), bool: where a cell is tissue. None is where all have one color.
    unlit : ndarray
        Shape (Y, X), bool: where it is black, as in what a scanner left out.
    brightest : float
        The brightest green, 0 to 255: that of glass, or of the palest tissue where there is no glass.
    constant : bool
        Whether all cells have one color.
    tinted : bool
        Whether glass has a color, beside which that of tissue was judged.
    """

    cells: NDArray[np.bool_]
    unlit: NDArray[np.bool_]
    brightest: float
    constant: bool
    tinted: bool = False

    def widened(self, reach: int) -> NDArray[np.bool_]:
        """Return the cells that are tissue or up to ``reach`` cells away along y and x, but not unlit."""
        return _widened(self.cells, reach) & ~self.unlit


def find_tissue(
    image: Image,
    cells_per_px: float,
    shape: tuple[int, int],
    white: float,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> Tissue:
    """Tell tissue from glass by its color.

    Where glass is tinted (an image that is not white-balanced), colors are judged beside its color. Only a
    tint toward purple is not seen as one: it is that of pale tissue.

    Parameters
    ----------
    image : Image
        Red, green and blue. Of a pyramid, the finest level whose cells are to be
        told apart; a coarser one is read where it suffices.
    cells_per_px : float
        Cells along one side of a pixel of ``image``.
    shape : tuple of int
        Rows and columns of cells.
    white : float
        The value that stands for full brightness.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    Tissue
    """
    chosen, chosen_ratio = image, 1.0
    for level in image.levels:
        ratio = image.shape[4] / level.shape[4]
        if cells_per_px * ratio > 1:  # coarser than the cells
            break
        chosen, chosen_ratio = level, ratio
    chosen_cells = cells_per_px * chosen_ratio
    colors = np.empty((3, *shape), np.float32)
    coarse = ResampledArray(chosen.data, chosen_cells, shape)
    rows = max(1, int(_READ_AT_ONCE_PX * chosen_cells / chosen.shape[4]))
    for first in range(0, shape[0], rows):
        stop_if_cancelled(cancelled)
        band = slice(first, min(first + rows, shape[0]))
        colors[:, band] = coarse[0, :, 0, band] * np.float32(255 / white)
        report(progress, Progress("looking for tissue", band.stop, shape[0]))
    glass = _color_of_tinted_glass(colors)
    if glass is None:
        return tissue_in(colors)
    colors *= (glass.max() / glass)[:, None, None]
    return dataclasses.replace(tissue_in(colors), tinted=True)


def tissue_in(colors: NDArray[Any]) -> Tissue:
    """Tell tissue from glass in cells of one color each.

    Parameters
    ----------
    colors : ndarray
        Shape (3, Y, X): red, green and blue, 0 to 255; glass is nearly white in them.
    """
    brightest = float(np.percentile(colors[1], _BRIGHTEST_PERCENTILE))
    highest = colors.max(axis=0)
    stained = highest - colors.min(axis=0) >= LEAST_CHROMA
    dark = colors[1] <= DARK_PART * brightest
    unlit = highest < BLACK
    constant = bool((np.ptp(colors, axis=(1, 2)) < _ONE_COLOR).all())
    # Where glass meets what was left out, cells are gray, which is no color of tissue.
    cells = (stained & ~unlit) | (dark & ~_widened(unlit, 1))
    return Tissue(cells & (not constant), unlit, brightest, constant)


def _color_of_tinted_glass(colors: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Return the color of glass, shape (3,), or None where none is tinted."""
    from scipy.ndimage import minimum_filter

    bright = colors[1] >= np.percentile(colors[1], _BRIGHT_PERCENTILE)
    glass = np.median(colors[:, bright], axis=1)
    if np.ptp(glass) < LEAST_CHROMA or glass.argmin() == 1:
        return None
    even = (np.abs(colors - glass[:, None, None]) <= _EVEN).all(axis=0)
    if minimum_filter(even, 3, mode="nearest").mean() < _LEAST_EVEN:
        return None
    return np.asarray(glass, np.float32)


def _widened(cells: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    from scipy.ndimage import maximum_filter

    return np.asarray(maximum_filter(cells, size=2 * reach + 1, mode="constant"), np.bool_)
