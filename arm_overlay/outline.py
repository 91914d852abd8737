"""From a heat map to smooth outlines: marching squares, holes with their regions, sizes and scores.

All regions are measured together, array by array: a region more costs the live loop next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.overlay import Region
from lincei.errors import UsageError

# Three degrees apart: no diameter is underestimated by more than 1 - cos(1.5 degrees), 0.35 per mille.
_ANGLES = np.arange(60) * (math.pi / 60)
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1).astype(np.float32)
_PROJECTIONS_AT_ONCE = 2**22
# The cubic B-spline 1.75, 0.75, 0.25 and 1.25 cells from its center, and what takes its second moment away: a
# kernel without one leaves every parabola as it is, and so does not shrink what is round.
_SPLINE = np.convolve([1 / 384, 121 / 384, 235 / 384, 27 / 384], [-1 / 6, 4 / 3, -1 / 6])
# Cells by which a map is continued at its borders, of which the kernel uses three.
_MARGIN, _USED = 4, 3


@dataclass(frozen=True)
class _Rings:
    """Closed rings one after the other.

    Parameters
    ----------
    points : ndarray
        Shape (N, 2), float32, x and y in pixels of the frame; each ring ends with its first point.
    starts : ndarray
        Where each ring begins; one more at the end.
    regions : ndarray
        The first ring of each region, its exterior; one more at the end. Its holes follow.
    """

    points: NDArray[np.float32]
    starts: NDArray[np.intp]
    regions: NDArray[np.intp]


def regions_of(
    probability: NDArray[Any],
    threshold: float,
    *,
    cell_px: float,
    size_px: tuple[int, int],
    high: float | None = None,
    smallest_px: float = 0.0,
) -> tuple[Region, ...]:
    """Outline the regions of a heat map.

    The map is smoothed by a cubic B-spline that keeps parabolas (the quasi-interpolant of de Boor and Fix,
    1973), so that nothing shrinks and what alternates from cell to cell is halved. It is followed at half a
    cell by marching squares (Lorensen and Cline, 1987, in the plane). Regions that go on beyond the frame are
    closed along its border.

    Parameters
    ----------
    probability : ndarray
        Shape (Y, X): floating point, 0 to 1, or uint8, 0 to 255. The center of cell (i, j) lies at
        y = (i + 0.5) ``cell_px`` - 0.5, x alike, in pixels of the frame. It may reach beyond the frame, and
        where it ends before the frame its outermost cells go on.
    threshold : float
        A region is where the smoothed probability is above it.
    cell_px : float
        Side of a cell in pixels of the frame: the network's stride, times how many pixels of the frame one of
        its input's is wide.
    size_px : tuple of int
        Width and height of the frame.
    high : float, optional
        Hysteresis: only regions are kept in which some cell is above this.
    smallest_px : float
        Regions and holes whose largest diameter is below this are left out (holes are filled).

    Returns
    -------
    tuple of Region
        The largest first; in pixels of the frame.

    Examples
    --------
    >>> import numpy as np
    >>> heat = np.zeros((20, 30))
    >>> heat[5:10, 5:15] = 1
    >>> region, = regions_of(heat, 0.5, cell_px=8, size_px=(240, 160))
    >>> round(region.area_px / 8**2)  # 5 x 10 cells
    50
    """
    if probability.ndim != 2:
        raise UsageError(f"a heat map has 2 axes, not {probability.ndim}")
    if probability.dtype == np.uint8:
        heat = probability.astype(np.float32)
        heat *= np.float32(1 / 255)
    else:
        heat = np.asarray(probability, np.float32)
    seed = threshold if high is None else max(high, threshold)
    if not heat.size or not float(heat.max()) > seed:
        return ()
    rings = _level_rings(heat, threshold, cell_px, size_px)
    if rings is None:
        return ()
    diameters, areas = _diameters(rings), _areas(rings)
    kept = (diameters >= smallest_px) & (areas > 0)
    crossings = _Crossings(rings, heat.shape, cell_px)
    cells = crossings.sums(None)
    sums = crossings.sums(heat)
    seeds = crossings.sums(heat > seed) if high is not None else cells
    found = []
    for first, end in zip(rings.regions[:-1].tolist(), rings.regions[1:].tolist(), strict=True):
        holes = [ring for ring in range(first + 1, end) if kept[ring]]
        whole = [first, *holes]
        if not kept[first] or (high is not None and not seeds[whole].sum() > 0):
            continue
        count = float(cells[whole].sum())
        outlines = [rings.points[rings.starts[ring] : rings.starts[ring + 1] - 1] for ring in whole]
        found.append(
            Region(
                outlines[0],
                tuple(outlines[1:]),
                area_px=float(areas[first] - areas[holes].sum()),
                diameter_px=float(diameters[first]),
                # Between the centers of cells there is nothing to average.
                score=min(1.0, float(sums[whole].sum()) / count) if count > 0 else threshold,
            )
        )
    return tuple(sorted(found, key=lambda region: -region.area_px))


def points_of(probability: NDArray[Any], threshold: float, *, cell_px: float) -> NDArray[np.float32]:
    """Return the places where a map of points has its peaks.

    Parameters
    ----------
    probability : ndarray
        Shape (Y, X), as for `regions_of`: how likely an object's center lies in a cell.
    threshold : float
        A peak is a cell above it and no lower than its eight neighbors; equal ones side by side are one peak.
    cell_px : float
        As for `regions_of`.

    Returns
    -------
    ndarray
        Shape (N, 2), float32: x and y in pixels of the frame, row by row.
    """
    from scipy import ndimage

    heat = probability.astype(np.float32)
    if probability.dtype == np.uint8:
        heat *= np.float32(1 / 255)
    highest = ndimage.maximum_filter(heat, size=3, mode="nearest")
    labels, count = ndimage.label((heat == highest) & (heat > threshold), structure=np.ones((3, 3)))
    centers = ndimage.center_of_mass(labels > 0, labels, range(1, count + 1))
    places = np.asarray(centers, np.float64).reshape(-1, 2)[:, ::-1]
    return ((places + 0.5) * cell_px - 0.5).astype(np.float32)


def region_of(exterior: NDArray[Any], holes: Sequence[NDArray[Any]] = (), *, score: float = 0.0) -> Region:
    """Return the region within a ring and outside others, with its area and largest diameter.

    Parameters
    ----------
    exterior : ndarray
        Shape (N, 2), x and y, not closed.
    holes : sequence of ndarray
        Alike.
    score : float
        Mean probability in it.
    """
    rings = _joined([exterior, *holes])
    areas = _areas(rings)
    return Region(
        np.asarray(exterior, np.float32),
        tuple(np.asarray(hole, np.float32) for hole in holes),
        area_px=float(areas[0] - areas[1:].sum()),
        diameter_px=float(_diameters(rings)[0]),
        score=score,
    )


def scaled(region: Region, factor: float) -> Region:
    """Return a region in pixels of the same image enlarged by ``factor`` (reduced below 1)."""

    def moved(ring: NDArray[Any]) -> NDArray[Any]:
        # Pixel centers have whole numbers, so that the corner of an image is (-0.5, -0.5) at any scale.
        return np.asarray((ring + 0.5) * factor - 0.5, np.float32)

    return Region(
        moved(region.exterior),
        tuple(moved(hole) for hole in region.holes),
        region.area_px * factor**2,
        region.diameter_px * factor,
        region.score,
    )


def cells_in(regions: Sequence[Region], shape: tuple[int, int], cell_px: float) -> NDArray[np.bool_]:
    """Return the cells of a heat map whose centers lie in regions that do not overlap.

    Parameters
    ----------
    regions : sequence of Region
        In pixels of the frame.
    shape : tuple of int
        Y and X of the heat map.
    cell_px : float
        As for `regions_of`; 1 gives the pixels themselves.

    Returns
    -------
    ndarray of bool
        Of that shape.
    """
    if not regions:
        return np.zeros(shape, np.bool_)
    rings = _joined([ring for region in regions for ring in (region.exterior, *region.holes)])
    return _Crossings(rings, shape, cell_px).inside()


def _joined(rings: Sequence[NDArray[Any]]) -> _Rings:
    """Put open rings together."""
    points = np.concatenate([part for ring in rings for part in (ring, ring[:1])]).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum([len(ring) + 1 for ring in rings])]).astype(np.intp)
    return _Rings(points, starts, np.array([0, len(rings)], np.intp))


def _level_rings(
    heat: NDArray[np.float32], threshold: float, cell_px: float, size_px: tuple[int, int]
) -> _Rings | None:
    """Follow a level of a map; None where nothing is above it."""
    from contourpy import FillType, contour_generator

    pads = [
        (_MARGIN, _MARGIN + max(0, math.ceil(size / cell_px) - cells))
        for size, cells in zip(size_px[::-1], heat.shape, strict=True)
    ]
    fine = _twice_as_fine(np.pad(heat, pads, mode="edge"))
    lines = contour_generator(z=fine, fill_type=FillType.ChunkCombinedOffsetOffset)
    lists: Any = lines.filled(threshold, np.inf)
    points, starts, regions = (chunks[0] for chunks in lists)  # a single chunk
    if points is None:
        return None
    places = ((points + 0.5) / 2 - (_MARGIN - _USED)) * cell_px - 0.5
    # What lies outside the frame is drawn onto its border, which cuts it off there.
    places = np.clip(places, -0.5, np.array(size_px) - 0.5)
    return _Rings(places.astype(np.float32), starts.astype(np.intp), regions.astype(np.intp))


def _twice_as_fine(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Smooth a map and sample it at half the distance; three cells go at each border."""
    rows, columns = (size - 2 * _USED for size in heat.shape)
    high = np.zeros((rows, 2, heat.shape[1]), np.float32)
    for side, weights in enumerate((_SPLINE, _SPLINE[::-1])):
        for first, weight in enumerate(weights.tolist(), start=side):
            high[:, side] += np.float32(weight) * heat[first : first + rows]
    high = high.reshape(2 * rows, heat.shape[1])
    fine = np.zeros((2 * rows, columns, 2), np.float32)
    for side, weights in enumerate((_SPLINE, _SPLINE[::-1])):
        part = np.zeros((2 * rows, columns), np.float32)
        for first, weight in enumerate(weights.tolist(), start=side):
            part += np.float32(weight) * high[:, first : first + columns]
        fine[..., side] = part
    return fine.reshape(2 * rows, 2 * columns)


def _diameters(rings: _Rings) -> NDArray[np.float32]:
    """Return the longest distance between two points of each ring: the widest of its extents."""
    widest = np.zeros(len(rings.starts) - 1, np.float32)
    parts = math.ceil(len(rings.points) * len(_DIRECTIONS) / _PROJECTIONS_AT_ONCE)
    for directions in np.array_split(_DIRECTIONS, min(parts, len(_DIRECTIONS))):
        along = directions @ rings.points.T
        high = np.maximum.reduceat(along, rings.starts[:-1], axis=1)
        low = np.minimum.reduceat(along, rings.starts[:-1], axis=1)
        np.maximum(widest, (high - low).max(axis=0), out=widest)
    return widest


def _areas(rings: _Rings) -> NDArray[np.float64]:
    """Return the area within each ring, whichever way round it goes (Gauss's formula)."""
    # Counted from a point of each ring: products of large coordinates would leave few digits.
    corners = np.repeat(rings.points[rings.starts[:-1]], np.diff(rings.starts), axis=0)
    x, y = (rings.points - corners).astype(np.float64).T
    products = np.zeros(len(x))
    products[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
    products[rings.starts[1:] - 1] = 0  # from one ring to the next
    areas: NDArray[np.float64] = 0.5 * np.abs(np.add.reduceat(products, rings.starts[:-1]))
    return areas


class _Crossings:
    """Where rings cross the rows of a map's cell centers.

    Parameters
    ----------
    rings : _Rings
        Closed rings.
    shape : tuple of int
        Y and X of the map.
    cell_px : float
        Side of a cell in pixels.
    """

    def __init__(self, rings: _Rings, shape: tuple[int, int], cell_px: float) -> None:
        self._shape, self._count = shape, len(rings.starts) - 1
        x, y = ((rings.points.astype(np.float64) + 0.5) / cell_px - 0.5).T
        # An edge crosses the rows from its upper end up to, but not at, its lower one.
        rows = np.ceil(y).clip(0, shape[0]).astype(np.intp)
        rises = np.diff(rows)
        rises[rings.starts[1:-1] - 1] = 0  # from one ring to the next there is no edge
        edges = np.nonzero(rises)[0]
        counts = np.abs(rises[edges])
        edge = np.repeat(edges, counts)
        nth = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._rows = np.minimum(rows[edge], rows[edge + 1]) + nth
        slopes = (x[edge + 1] - x[edge]) / (y[edge + 1] - y[edge])
        columns = np.ceil(x[edge] + (self._rows - y[edge]) * slopes)
        self._columns = columns.clip(0, shape[1]).astype(np.intp)
        self._downwards = np.sign(rises[edge])
        self._ring = np.searchsorted(rings.starts, edge, side="right") - 1

    def sums(self, values: NDArray[Any] | None) -> NDArray[np.float64]:
        """Return the sum of a map over the cells in each ring, below 0 for holes; of None, their number.

        The cells between two crossings of a row are those left of the second, less those left of the first.
        """
        left: NDArray[Any] = self._columns
        if values is not None:
            before = np.zeros((values.shape[0], values.shape[1] + 1))
            np.cumsum(values, axis=1, out=before[:, 1:])
            left = before[self._rows, self._columns]
        sums = np.bincount(self._ring, weights=left * self._downwards, minlength=self._count)
        return sums.astype(np.float64)

    def inside(self) -> NDArray[np.bool_]:
        """Return the cells that lie within an odd number of rings."""
        height, width = self._shape
        places = self._rows * (width + 1) + self._columns
        crossings = np.bincount(places, minlength=height * (width + 1)).reshape(height, width + 1)
        return np.cumsum(crossings, axis=1)[:, :width] % 2 == 1
