"""Arrows to regions near the border of the view and outside it, which are remembered for a while."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arm_overlay.overlay import Arrow, Region

Point = tuple[float, float]

MOST_ARROWS = 4
# Regions out of view are forgotten after so long, or so many widths of the view away.
MEMORY_S = 120.0
REACH_FIELDS = 3.0
MOST_REMEMBERED = 32
# A region this near the border, as a share of the view's shorter side, has an arrow.
NEAR_BORDER = 0.08
# Tips lie this far inside the view, so that they are seen whole.
_INSET = 0.04


@dataclass(frozen=True)
class _Remembered:
    """Where a region's middle lies on the slide, how large it is, and when it was seen last."""

    place_px: Point
    area_px: float
    time_s: float


class RegionMemory:
    """The regions that were seen lately, in positions on the slide (see `arm_overlay.stabilizer`)."""

    def __init__(self) -> None:
        self._known: list[_Remembered] = []

    def forget(self) -> None:
        """Begin anew: positions have."""
        self._known = []

    def see(
        self, regions: Sequence[Region], position_px: Point, size_px: tuple[int, int], time_s: float
    ) -> None:
        """Take in the regions of a frame; what was remembered in its view gives way to them."""
        width, height = size_px
        kept = []
        for known in self._known:
            x, y = known.place_px[0] - position_px[0], known.place_px[1] - position_px[1]
            in_view = 0 <= x < width and 0 <= y < height
            near = math.hypot(x - width / 2, y - height / 2) <= REACH_FIELDS * width
            if not in_view and near and time_s - known.time_s <= MEMORY_S:
                kept.append(known)
        seen = []
        for region in regions:
            x, y = _middle(region)
            place = (x + position_px[0], y + position_px[1])
            seen.append(_Remembered(place, region.area_px, time_s))
        # The largest are kept where there are many.
        self._known = sorted(kept + seen, key=lambda known: -known.area_px)[:MOST_REMEMBERED]

    def arrows(
        self, regions: Sequence[Region], position_px: Point, size_px: tuple[int, int]
    ) -> tuple[Arrow, ...]:
        """Return arrows to regions outside the view, the nearest first, then to those at its border.

        Parameters
        ----------
        regions : sequence of Region
            In view.
        position_px : tuple of float
            Position of the view.
        size_px : tuple of int
            Its width and height.
        """
        width, height = size_px
        center = ((width - 1) / 2, (height - 1) / 2)
        outside = []
        for known in self._known:
            x, y = known.place_px[0] - position_px[0], known.place_px[1] - position_px[1]
            if 0 <= x < width and 0 <= y < height:
                continue
            beyond = math.hypot(max(-x, 0, x - width), max(-y, 0, y - height))
            outside.append((beyond, Arrow(_at_border((x, y), center), _angle(center, (x, y)), outside=True)))
        near = []
        for region in regions:
            from_border = _from_border(region, size_px)
            place = int(np.argmin(from_border))
            if from_border[place] <= NEAR_BORDER * min(size_px):
                x, y = (float(value) for value in region.exterior[place])
                inside = _at_border((x, y), center)
                tip = inside if _farther((x, y), inside, center) else (x, y)
                near.append((float(from_border[place]), Arrow(tip, _angle(center, _middle(region)))))
        found = [arrow for _, arrow in sorted(outside, key=lambda pair: pair[0])]
        found += [arrow for _, arrow in sorted(near, key=lambda pair: pair[0])]
        return tuple(found[:MOST_ARROWS])


def _middle(region: Region) -> Point:
    """Return the middle of the box around a region."""
    low, high = region.exterior.min(axis=0), region.exterior.max(axis=0)
    return float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2


def _from_border(region: Region, size_px: tuple[int, int]) -> NDArray[np.float64]:
    """Return the distance of each corner of a region from the border of the view."""
    far = np.array(size_px, np.float64) - 1
    distances: NDArray[np.float64] = np.minimum(region.exterior, far - region.exterior).min(axis=1)
    return distances


def _angle(start: Point, end: Point) -> float:
    """Return the direction from one place to another: 0 to the right, 90 down."""
    return math.degrees(math.atan2(end[1] - start[1], end[0] - start[0]))


def _at_border(place: Point, center: Point) -> Point:
    """Return where the way from the center to a place leaves the view, a little inside it."""
    x, y = place[0] - center[0], place[1] - center[1]
    inset = _INSET * 2 * min(center)
    share = min(
        (center[0] - inset) / abs(x) if x else math.inf, (center[1] - inset) / abs(y) if y else math.inf
    )
    return (center[0] + x * share, center[1] + y * share) if math.isfinite(share) else center


def _farther(place: Point, than: Point, center: Point) -> bool:
    return math.dist(place, center) > math.dist(than, center)
