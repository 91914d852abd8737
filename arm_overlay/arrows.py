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
    """The box around a region on the slide, how large it is, and when it was seen last."""

    low: Point
    high: Point
    area_px: float
    time_s: float

    @property
    def middle(self) -> Point:
        return (self.low[0] + self.high[0]) / 2, (self.low[1] + self.high[1]) / 2

    def overlaps(self, other: _Remembered) -> bool:
        """Whether the two boxes share something."""
        return all(
            self.low[axis] <= other.high[axis] and other.low[axis] <= self.high[axis] for axis in (0, 1)
        )

    def joined(self, other: _Remembered) -> _Remembered:
        """Return the box around both, seen when this one was."""
        low = (min(self.low[0], other.low[0]), min(self.low[1], other.low[1]))
        high = (max(self.high[0], other.high[0]), max(self.high[1], other.high[1]))
        return _Remembered(low, high, max(self.area_px, other.area_px), self.time_s)


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
        seen = []
        for region in regions:
            box = _box(region, position_px, time_s)
            if float(_from_border(region, size_px).min()) < 1:
                # Cut off by the border: what was seen of it before belongs to it.
                for known in self._known:
                    whole = box.joined(known)
                    small = (
                        whole.high[0] - whole.low[0] < 2 * width and whole.high[1] - whole.low[1] < 2 * height
                    )
                    if known.overlaps(box) and small:
                        box = whole
            seen.append(box)
        kept = []
        for known in self._known:
            x, y = known.middle[0] - position_px[0], known.middle[1] - position_px[1]
            in_view = 0 <= x < width and 0 <= y < height
            near = math.hypot(x - width / 2, y - height / 2) <= REACH_FIELDS * width
            again = any(known.overlaps(box) for box in seen)
            if not in_view and near and not again and time_s - known.time_s <= MEMORY_S:
                kept.append(known)
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
        outside, away = [], []
        for known in self._known:
            x, y = known.middle[0] - position_px[0], known.middle[1] - position_px[1]
            if 0 <= x < width and 0 <= y < height:
                continue
            beyond = math.hypot(max(-x, 0, x - width), max(-y, 0, y - height))
            outside.append((beyond, Arrow(_at_border((x, y), center), _angle(center, (x, y)), outside=True)))
            away.append(known)
        near = []
        for region in regions:
            box = _box(region, position_px, 0.0)
            if any(known.overlaps(box) for known in away):
                continue  # a part of one that has an arrow already
            from_border = _from_border(region, size_px)
            place = int(np.argmin(from_border))
            if from_border[place] <= NEAR_BORDER * min(size_px):
                x, y = (float(value) for value in region.exterior[place])
                inside = _at_border((x, y), center)
                tip = inside if math.dist((x, y), center) > math.dist(inside, center) else (x, y)
                middle = (box.middle[0] - position_px[0], box.middle[1] - position_px[1])
                near.append((float(from_border[place]), Arrow(tip, _angle(center, middle))))
        found = [arrow for _, arrow in sorted(outside, key=lambda pair: pair[0])]
        found += [arrow for _, arrow in sorted(near, key=lambda pair: pair[0])]
        return tuple(found[:MOST_ARROWS])


def _box(region: Region, position_px: Point, time_s: float) -> _Remembered:
    """Return the box around a region on the slide."""
    (left, top), (right, bottom) = region.exterior.min(axis=0).tolist(), region.exterior.max(axis=0).tolist()
    x, y = position_px
    return _Remembered((left + x, top + y), (right + x, bottom + y), region.area_px, time_s)


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
