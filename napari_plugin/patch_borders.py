"""Borders of rated patches: rectangles of a Shapes layer, or an image that is drawn where it is seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusqc.overlay import border_width_px, level_colors, patch_cells
from focusqc.rating import FocusRating, PlaneRating

# Levels of the image of borders are added until one is no longer than this along a side.
_COARSEST_PX = 1024
# Patches that are drawn smaller than this are filled; there is no room for a border.
_SMALLEST_FRAMED_PX = 4
_FILLED_ALPHA = 150


def plane_index(plane: PlaneRating, axes: str) -> tuple[int, ...]:
    """Return where a plane lies along a layer's axes before Y and X."""
    place = {"T": plane.time, "C": plane.channel, "Z": plane.z}
    return tuple(place[axis] for axis in axes if axis in place)


def patch_count(rating: FocusRating) -> int:
    """Return how many patches all planes of a rating have."""
    return sum(plane.probabilities.shape[0] * plane.probabilities.shape[1] for plane in rating.planes)


def border_px(rating: FocusRating) -> int:
    """Return how wide the borders of a rating are drawn, in pixels of the image."""
    return border_width_px(max(rating.size_px), min(rating.planes[0].patch_px))


def border_rectangles(rating: FocusRating, axes: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the borders as rectangles.

    Parameters
    ----------
    rating : FocusRating
        All planes are drawn, each in its place.
    axes : str
        Of the layer, such as ``"ZYX"``.

    Returns
    -------
    vertices : ndarray of float64, shape (patches, 4, axes)
        Corners in pixels of the layer, in the order of `FocusRating.patch_rows`. They lie inside the patches
        by half the width of a line, so that lines of neighbors touch and none hides another.
    colors : ndarray of float64, shape (patches, 4)
        Red, green, blue and alpha from 0 to 1.
    """
    inset = border_px(rating) / 2 - 0.5  # pixels reach half a pixel beyond their middle
    vertices, colors = [], []
    for plane in rating.planes:
        cells = [
            np.array(patch_cells(starts, side, size), float)
            for starts, side, size in zip((plane.y, plane.x), plane.patch_px, rating.size_px, strict=True)
        ]
        (top, bottom), (left, right) = ((part[:, 0] + inset, part[:, 1] - 1 - inset) for part in cells)
        corners = np.empty((len(plane.y), len(plane.x), 4, len(axes)))
        corners[..., :-2] = plane_index(plane, axes)
        corners[..., 0, -2] = corners[..., 1, -2] = top[:, None]
        corners[..., 2, -2] = corners[..., 3, -2] = bottom[:, None]
        corners[..., 0, -1] = corners[..., 3, -1] = left
        corners[..., 1, -1] = corners[..., 2, -1] = right
        vertices.append(corners.reshape(-1, 4, len(axes)))
        rgb = level_colors(plane.patch_levels, plane.patch_certainties).reshape(-1, 3) / 255
        colors.append(np.pad(rgb, ((0, 0), (0, 1)), constant_values=1.0))
    return np.concatenate(vertices), np.concatenate(colors)


def border_levels(rating: FocusRating, axes: str, shape: Sequence[int]) -> list[BorderPixels]:
    """Return the borders as an image and its coarser levels, each half as large; nothing is drawn yet.

    Parameters
    ----------
    rating : FocusRating
        All planes are drawn, each in its place.
    axes : str
        Of the layer, such as ``"ZYX"``.
    shape : sequence of int
        Of the layer, red, green, blue not counted.
    """
    count = 1 + max(0, math.ceil(math.log2(max(rating.size_px) / _COARSEST_PX)))
    planes = {plane_index(plane, axes): plane for plane in rating.planes}
    return [BorderPixels(planes, shape, border_px(rating), 2**number) for number in range(count)]


class BorderPixels:
    """Borders of patches as red, green, blue and alpha, drawn where they are indexed.

    Parameters
    ----------
    planes : mapping of tuple of int to PlaneRating
        By their places along the axes before Y and X; elsewhere there is nothing.
    shape : sequence of int
        Of the layer, Y and X last.
    border_px : int
        Width of the borders in pixels of the layer.
    step : int
        How many of the layer's pixels along a side become one.
    """

    def __init__(
        self,
        planes: Mapping[tuple[int, ...], PlaneRating],
        shape: Sequence[int],
        border_px: int,
        step: int = 1,
    ) -> None:
        self._planes = planes
        height, width = (-(-int(size) // step) for size in shape[-2:])
        self.shape: tuple[int, ...] = (*map(int, shape[:-2]), height, width, 4)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.uint8)
        self.size = math.prod(self.shape)
        first = next(iter(planes.values()))
        self._rows, self._columns = (
            _Lines(patch_cells(starts, side, int(size)), pixels, border_px, step)
            for starts, side, size, pixels in zip(
                (first.y, first.x), first.patch_px, shape[-2:], (height, width), strict=True
            )
        )

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """Draw a part; whole numbers and slices are taken."""
        parts = list(key) if isinstance(key, tuple) else [key]
        for number, part in enumerate(parts):
            if part is Ellipsis:
                parts[number : number + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
                break
        parts += [slice(None)] * (self.ndim - len(parts))
        picked = [np.arange(size)[part] for size, part in zip(self.shape, parts, strict=True)]
        *before, rows, columns, samples = (np.atleast_1d(places) for places in picked)
        drawn = np.zeros((*map(len, before), len(rows), len(columns), 4), np.uint8)
        for place in np.ndindex(drawn.shape[:-3]):
            at = tuple(int(places[i]) for places, i in zip(before, place, strict=True))
            if at in self._planes:
                self._draw(self._planes[at], rows, columns, drawn[place])
        return drawn[..., samples].reshape([n for places in picked for n in places.shape])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Draw all of it."""
        if copy is False:
            raise ValueError("borders are drawn when they are asked for: there is nothing to share")
        return np.asarray(self[...], dtype=dtype)

    def _draw(
        self, plane: PlaneRating, rows: NDArray[Any], columns: NDArray[Any], target: NDArray[np.uint8]
    ) -> None:
        y, x = self._rows.cell[rows][:, None], self._columns.cell[columns]
        target[..., :3] = level_colors(plane.patch_levels, plane.patch_certainties)[y, x]
        inside = (y >= 0) & (x >= 0)
        if min(self._rows.smallest_px, self._columns.smallest_px) < _SMALLEST_FRAMED_PX:
            target[..., 3] = np.where(inside, _FILLED_ALPHA, 0)
        else:
            border = self._rows.border[rows][:, None] | self._columns.border[columns]
            target[..., 3] = np.where(inside & border, 255, 0)


class _Lines:
    """Along one side: the patch that each pixel belongs to (-1: none), and whether it is of its border."""

    def __init__(self, cells: Sequence[tuple[int, int]], size: int, border_px: int, step: int) -> None:
        self.cell: NDArray[np.int64] = np.full(size, -1)
        self.border: NDArray[np.bool_] = np.zeros(size, bool)
        self.smallest_px = min(last - first for first, last in cells) / step
        wide = max(1, round(border_px / step))
        for number, (first, last) in enumerate(cells):
            begin, end = round(first / step), max(round(first / step) + 1, round(last / step))
            self.cell[begin:end] = number
            self.border[begin : min(begin + wide, end)] = True
            self.border[max(begin, end - wide) : end] = True
