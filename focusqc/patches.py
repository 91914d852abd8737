"""Where the patches of 84x84 pixels lie in an image, and their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lincei.errors import UsageError

PATCH_PX = 84


@dataclass(frozen=True)
class PatchGrid:
    """Where patches begin: every row of ``y`` with every column of ``x``, row by row.

    Parameters
    ----------
    y, x : tuple of int
        First rows and first columns, in pixels.
    padded : bool
        True when the image is smaller than a patch along y or x, and the patch reaches beyond it.
    """

    y: tuple[int, ...]
    x: tuple[int, ...]
    padded: bool

    def __len__(self) -> int:
        return len(self.y) * len(self.x)


def patch_grid(height: int, width: int, tile_count: Sequence[int] | None = None) -> PatchGrid:
    """Place patches on an image.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels.
    tile_count : (int, int), optional
        Patches along x and along y, spread evenly as the ImageJ plugin does it. When left out, patches lie
        side by side from the top left, and those of the last row and column end where the image ends.

    Raises
    ------
    UsageError
        When the tile count is not two whole numbers of at least 1, or more patches are asked for than there
        are pixels to begin at.
    """
    if tile_count is None:
        y, x = _side_by_side(height), _side_by_side(width)
    else:
        if len(tile_count) != 2 or min(tile_count) < 1:
            raise UsageError(
                f"--tile-count is {','.join(map(str, tile_count))}",
                "",
                "Give two whole numbers of at least 1: patches along x, patches along y, such as 4,3.",
            )
        y, x = _spread(height, tile_count[1], "y"), _spread(width, tile_count[0], "x")
    return PatchGrid(y, x, min(height, width) < PATCH_PX)


def _side_by_side(size: int) -> tuple[int, ...]:
    """Return the first pixels of patches without gaps; the last one ends at the far edge."""
    if size <= PATCH_PX:
        return (0,)
    starts = list(range(0, size - PATCH_PX + 1, PATCH_PX))
    if starts[-1] + PATCH_PX < size:
        starts.append(size - PATCH_PX)
    return tuple(starts)


def _spread(size: int, count: int, axis: str) -> tuple[int, ...]:
    """Return the first pixels of ``count`` patches spread as the ImageJ plugin spreads them.

    Patch i begins at 84 i + (i + 1) (S - 84 n) / (n + 1), the quotient cut toward zero as Java does; with
    more patches than fit side by side they overlap.
    """
    if count > max(1, size - PATCH_PX + 1):
        raise UsageError(
            f"--tile-count asks for {count} patches along {axis}, where the image has {size} pixels",
            "",
            "Ask for fewer patches.",
        )
    spare = size - PATCH_PX * count
    starts = []
    for i in range(count):
        product = (i + 1) * spare
        quotient = abs(product) // (count + 1)
        starts.append(PATCH_PX * i + (quotient if product >= 0 else -quotient))
    # Cut toward zero, a start may lie outside by rounding, or because the image is smaller than a patch.
    return tuple(min(max(start, 0), max(0, size - PATCH_PX)) for start in starts)


def patch_pixels(plane: NDArray[Any], grid: PatchGrid, first: int, last: int) -> NDArray[np.float32]:
    """Return the pixels of patches ``first`` to ``last`` (excluded).

    Parameters
    ----------
    plane : ndarray, shape (Y, X)
        One plane, of any type.
    grid : PatchGrid
        Where the patches lie.
    first, last : int
        Which patches, counted row by row.

    Returns
    -------
    ndarray
        Shape (last - first, 1, 84, 84), float32. What lies beyond an image that is smaller than a patch
        is filled by mirroring.
    """
    if grid.padded:
        plane = padded(plane)
    pixels = np.empty((last - first, 1, PATCH_PX, PATCH_PX), np.float32)
    columns = len(grid.x)
    for i in range(first, last):
        y, x = grid.y[i // columns], grid.x[i % columns]
        pixels[i - first, 0] = plane[y : y + PATCH_PX, x : x + PATCH_PX]
    return pixels


def padded(plane: NDArray[Any]) -> NDArray[Any]:
    """Return a plane that is at least as large as a patch, mirrored at its lower and right edges."""
    missing = [(0, max(0, PATCH_PX - size)) for size in plane.shape]
    return np.pad(plane, missing, mode="symmetric")
