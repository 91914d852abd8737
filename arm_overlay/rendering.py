"""How an overlay looks: outlines, heat map, text, arrows, points, on black or over the frame.

The one place where overlays are drawn: for the microdisplay, the operator's window, snapshots, movies and
outlined still images. Shapes are warped as geometry and drawn at the display's own resolution, so that lines
are equally thin and smooth whatever the scale between camera and display; only the heat map is warped as an
image.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arm_overlay.imaging import opencv
from arm_overlay.overlay import Arrow, Overlay
from lincei.errors import LinceiError

cv2 = opencv()

RGB = NDArray[np.uint8]
Mask = NDArray[np.uint8]

RESEARCH_NOTE = "Research use only"
PULSE_PERIOD_S = 2.5

# No hematoxylin or eosin is green.
GREEN = (0, 255, 0)

# Sizes as parts of the shorter side of what is drawn.
_LINE, _TEXT, _NOTE, _ARROW, _POINT = 1 / 360, 1 / 26, 1 / 48, 1 / 11, 1 / 100
_SMALLEST_TEXT_PX = 10
# Of the radius of the field of view: how far from its center texts, the note and arrow tips may lie.
_TEXT_REACH, _NOTE_REACH, _ARROW_REACH = 0.78, 0.93, 0.95

# Corners are drawn in sixteenths of a pixel; those that bend a line by less than a quarter are left out.
_SHIFT = 4
_ONE = 1 << _SHIFT
_BEND_PX = 0.25
# Outlines with longer edges have their corners rounded, by cutting off no more than this.
_ROUNDED_FROM_PX, _ROUNDING_PX = 3.0, 4.0
_ROUNDINGS = 2
# Beyond this, corners are not in reach of 32-bit fixed point.
_FARTHEST_PX = 1e6

# The pulse never goes dark: an outline that is not seen would be taken for none.
_PULSE_LOW = 0.45
# A heat map is clear below the first of these; 255 is drawn this opaque over a frame.
_HEAT_FROM, _HEAT_OPACITY = 0.1, 0.6
# Behind texts over a frame: how much of the frame is left.
_TEXT_SHADE = 0.45


@dataclass(frozen=True)
class Style:
    """How overlays are drawn, in whatever mode.

    Parameters
    ----------
    color : tuple of int
        Red, green and blue, 0 to 255, of all but the heat map.
    line_width_px : int or None
        Width of outlines, in pixels of what is drawn; holes are half as wide. None: 1/360 of the shorter
        side.
    brightness : float
        Above 0, up to 1 (full). Over a frame it has no effect.
    field_of_view : tuple of float or None
        A circle outside which nothing is drawn: x and y of its center and its diameter, as parts of width,
        height and shorter side, so that ``(0.5, 0.5, 1.0)`` is the largest that fits. None: no circle.
    research_note : bool
        Write "Research use only", small.
    """

    color: tuple[int, int, int] = GREEN
    line_width_px: int | None = None
    brightness: float = 1.0
    field_of_view: tuple[float, float, float] | None = None
    research_note: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if len(self.color) != 3 or not all(0 <= value <= 255 for value in self.color):
            raise LinceiError(
                f"{self.color} is no color", "", "Give red, green and blue, each from 0 to 255."
            )
        if self.line_width_px is not None and not 1 <= self.line_width_px <= 100:
            raise LinceiError(f"a line cannot be {self.line_width_px} pixels wide", "", "Give 1 to 100.")
        if not 0 < self.brightness <= 1:
            raise LinceiError(f"the brightness is {self.brightness}", "", "It must be above 0, at most 1.")
        if self.field_of_view is not None and not (
            len(self.field_of_view) == 3
            and all(math.isfinite(value) for value in self.field_of_view)
            and 0 < self.field_of_view[2] <= 10
        ):
            raise LinceiError(
                f"the field of view is {self.field_of_view}",
                "",
                "Give x and y of its center and its diameter, as parts of width, height and shorter side, "
                "such as 0.5, 0.5, 0.9.",
            )


def fit(frame_size_px: tuple[int, int], size_px: tuple[int, int]) -> NDArray[np.float64]:
    """Return the warp that fits a whole frame into a display, centered, without changing its proportions.

    Parameters
    ----------
    frame_size_px, size_px : tuple of int
        Width and height of frame and display.

    Returns
    -------
    ndarray
        Shape (3, 3), from pixels of the frame to pixels of the display; centers of pixels are whole numbers.

    Examples
    --------
    >>> fit((100, 100), (400, 200))[0].tolist()
    [2.0, 0.0, 100.5]
    """
    scale = min(size_px[0] / frame_size_px[0], size_px[1] / frame_size_px[1])
    left, top = ((size_px[axis] - scale * frame_size_px[axis]) / 2 for axis in (0, 1))
    return np.array([[scale, 0, left + (scale - 1) / 2], [0, scale, top + (scale - 1) / 2], [0, 0, 1.0]])


def pulse(time_s: float) -> float:
    """Return the light of a pulsing outline at a time, 0.45 to 1; it takes 2.5 s from bright to bright.

    Examples
    --------
    >>> pulse(0.0), round(pulse(1.25), 2), round(pulse(2.5), 2)
    (1.0, 0.45, 1.0)
    """
    return _PULSE_LOW + (1 - _PULSE_LOW) * (0.5 + 0.5 * math.cos(2 * math.pi * time_s / PULSE_PERIOD_S))


def draw(
    overlay: Overlay,
    size_px: tuple[int, int],
    warp: ArrayLike | None = None,
    style: Style | None = None,
    *,
    time_s: float = 0.0,
) -> RGB:
    """Draw an overlay on black, for a display that adds light.

    Parameters
    ----------
    overlay : Overlay
        What to draw; a blank one gives black.
    size_px : tuple of int
        Width and height of the display.
    warp : array_like, shape (3, 3), optional
        From pixels of the frame to pixels of the display; see `fit`, which is used when left out.
    style : Style, optional
        How to draw.
    time_s : float
        A clock, for the phase of the mode "animation".

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)
        Red, green, blue. `Renderer` draws many without a new array for each.
    """
    return Renderer(size_px).draw(overlay, warp, style, time_s=time_s)


def drawn_over(
    frame_rgb: NDArray[Any],
    overlay: Overlay,
    style: Style | None = None,
    *,
    time_s: float = 0.0,
) -> RGB:
    """Draw an overlay over its frame.

    Of a blank overlay the reason is written.

    Parameters
    ----------
    frame_rgb : ndarray of uint8, shape (Y, X, 3)
        The frame, at any size: the overlay is scaled to it. It is not changed.
    overlay : Overlay
        What to draw.
    style : Style, optional
        How to draw.
    time_s : float
        A clock, for the phase of the mode "animation".

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)
    """
    height, width = frame_rgb.shape[:2]
    return Renderer((width, height)).draw_over(frame_rgb, overlay, style, time_s=time_s)


class Renderer:
    """Draws overlays of one size into buffers that it keeps.

    Parameters
    ----------
    size_px : tuple of int
        Width and height of what is drawn.
    """

    def __init__(self, size_px: tuple[int, int]) -> None:
        if min(size_px) < 1 or max(size_px) > 32767:
            raise LinceiError(f"a picture of {size_px[0]} by {size_px[1]} pixels cannot be drawn")
        self.size_px = (int(size_px[0]), int(size_px[1]))
        width, height = self.size_px
        self._short = min(self.size_px)
        # One channel: how much of a pixel is covered. Two are needed to widen lines from one into the other.
        self._ink: Mask = np.zeros((height, width), np.uint8)
        self._thin: Mask = np.zeros((height, width), np.uint8)
        self._black: Mask = np.zeros((height, width), np.uint8)
        self._heat: Mask | None = None
        self._rgb: RGB = np.zeros((height, width, 3), np.uint8)
        self._circle: tuple[tuple[float, float, float], Mask] | None = None

    def draw(
        self,
        overlay: Overlay,
        warp: ArrayLike | None = None,
        style: Style | None = None,
        *,
        time_s: float = 0.0,
    ) -> RGB:
        """Draw on black, as the function `draw`.

        Returns
        -------
        ndarray of uint8, shape (Y, X, 3)
            A buffer of this object, which the next call overwrites.
        """
        style = style or Style()
        matrix = self._matrix(overlay, warp)
        light = style.brightness * (pulse(time_s) if overlay.mode == "animation" else 1.0)
        self._ink[:] = 0
        if overlay.blank_reason:
            self._rgb[:] = 0
            return self._rgb
        self._draw_shapes(overlay, matrix, style)
        self._draw_texts(overlay.texts, matrix, style)
        self._mask(self._ink, style)
        if self._heat_map(overlay, matrix, style):
            cv2.applyColorMap(self._heat, _heat_colors(style.brightness), self._rgb)
            _blend(self._rgb, self._ink, [light * value for value in style.color])
        else:
            # Three planes, most of them empty: several times as quick as a table of colors.
            shares = [light * value / 255 for value in style.color]
            cv2.merge([self._plane(share) for share in shares], self._rgb)
        return self._rgb

    def draw_over(
        self,
        frame_rgb: NDArray[Any],
        overlay: Overlay,
        style: Style | None = None,
        *,
        time_s: float = 0.0,
    ) -> RGB:
        """Draw over a frame of this object's size, as `drawn_over`.

        Returns
        -------
        ndarray of uint8, shape (Y, X, 3)
            A buffer of this object, which the next call overwrites.
        """
        if frame_rgb.shape != self._rgb.shape or frame_rgb.dtype != np.uint8:
            raise LinceiError(
                f"the frame has the shape {frame_rgb.shape} and the type {frame_rgb.dtype}, "
                f"not {self._rgb.shape} and uint8"
            )
        style = style or Style()
        matrix = self._matrix(overlay, None)
        self._rgb[:] = frame_rgb
        self._ink[:] = 0
        texts: Sequence[str] = overlay.texts
        if overlay.blank_reason:
            texts = [overlay.blank_reason]
        else:
            self._draw_shapes(overlay, matrix, style)
            if self._heat_map(overlay, matrix, style):
                # What the frame keeps of itself, and what the colors add.
                kept, added = _heat_layers()
                cv2.multiply(self._rgb, cv2.applyColorMap(self._heat, kept), self._rgb, 1 / 255)
                cv2.add(self._rgb, cv2.applyColorMap(self._heat, added), self._rgb)
        for left, top, right, bottom in self._draw_texts(texts, matrix, style):
            shaded = self._rgb[top:bottom, left:right]
            cv2.convertScaleAbs(shaded, shaded, _TEXT_SHADE)
        self._mask(self._ink, style)
        light = pulse(time_s) if overlay.mode == "animation" and not overlay.blank_reason else 1.0
        _blend(self._rgb, self._ink, [float(value) for value in style.color], opacity=light)
        return self._rgb

    def _plane(self, share: float) -> Mask:
        """Return a part of the ink."""
        if share in (0.0, 1.0):
            return self._ink if share else self._black
        return np.asarray(cv2.convertScaleAbs(self._ink, None, share), np.uint8)

    def _matrix(self, overlay: Overlay, warp: ArrayLike | None) -> NDArray[np.float64]:
        """Return the warp, checked."""
        if warp is None:
            return fit(overlay.frame_size_px, self.size_px)
        matrix = np.asarray(warp, np.float64)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
            raise LinceiError(
                "the alignment of camera and display is no invertible 3x3 matrix", "", "Align them anew."
            )
        return matrix

    def _draw_shapes(self, overlay: Overlay, matrix: NDArray[np.float64], style: Style) -> None:
        """Draw regions, points and arrows, as far as the mode shows them."""
        width = style.line_width_px or max(1, round(self._short * _LINE))
        if overlay.mode in ("outline", "animation"):
            self._lines([region.exterior for region in overlay.regions], matrix, width)
            # After the exteriors, whose widening would widen them too.
            holes = [hole for region in overlay.regions for hole in region.holes]
            self._lines(holes, matrix, max(1, width // 2))
            if overlay.points is not None and len(overlay.points):
                self._points(overlay.points, matrix, max(1, width - 1))
        if overlay.mode == "arrows":
            for arrow in overlay.arrows:
                self._arrow(arrow, matrix, style, width)

    def _lines(self, rings: Sequence[NDArray[Any]], matrix: NDArray[np.float64], width: int) -> None:
        """Draw closed lines."""
        shown = _rings_shown(rings, matrix, self.size_px)
        if not shown:
            return
        # A thin smooth line made wider is as smooth, and takes a tenth of the time of a wide smooth one.
        # Between two rows of pixels it is half as bright in each: twice the light keeps it bright all along.
        self._thin[:] = 0
        cv2.polylines(self._thin, shown, True, 255, 1, cv2.LINE_AA, _SHIFT)
        if width > 1:
            cv2.dilate(self._thin, _disk(width), self._thin)
        cv2.convertScaleAbs(self._thin, self._thin, 2)
        cv2.max(self._ink, self._thin, self._ink)

    def _points(self, points: NDArray[Any], matrix: NDArray[np.float64], width: int) -> None:
        """Draw a ring around each point."""
        radius = max(3.0, self._short * _POINT)
        for x, y in _in_view(_warped(points, matrix), self.size_px, radius):
            center = (round(float(x) * _ONE), round(float(y) * _ONE))
            cv2.circle(self._ink, center, round(radius * _ONE), 255, width, cv2.LINE_AA, _SHIFT)

    def _arrow(self, arrow: Arrow, matrix: NDArray[np.float64], style: Style, width: int) -> None:
        """Draw one arrow: filled when it points out of the view, else its outline."""
        angle = math.radians(arrow.angle_deg)
        ends = np.array(arrow.tip_px) + np.outer((-1.0, 0.0), (math.cos(angle), math.sin(angle)))
        tail, tip = _warped(ends, matrix)
        along = tip - tail
        if not np.isfinite(along).all() or not np.any(along):
            return
        along /= np.hypot(*along)
        tip = self._within(tip, style)
        across = np.array((-along[1], along[0]))
        length = self._short * _ARROW
        # In parts of the length: along (backwards) and across.
        shape = ((0, 0), (0.5, 0.3), (0.5, 0.11), (1, 0.11), (1, -0.11), (0.5, -0.11), (0.5, -0.3))
        corners = np.array([tip - length * (back * along - side * across) for back, side in shape])
        fixed = np.round(corners * _ONE).astype(np.int32)
        if arrow.outside:
            cv2.fillPoly(self._ink, [fixed], 255, cv2.LINE_AA, _SHIFT)
        else:
            cv2.polylines(self._ink, [fixed], True, 255, width, cv2.LINE_AA, _SHIFT)

    def _field(self, style: Style) -> tuple[NDArray[np.float64], float]:
        """Return center and radius of the field of view in pixels; of the view itself where there is none."""
        x, y, diameter = style.field_of_view or (0.5, 0.5, 1.0)
        width, height = self.size_px
        return np.array((x * width - 0.5, y * height - 0.5)), diameter * self._short / 2

    def _within(self, tip: NDArray[np.float64], style: Style) -> NDArray[np.float64]:
        """Move an arrow's tip to where it is seen: into the circle, or into the rectangle without one."""
        center, radius = self._field(style)
        away = tip - center
        if style.field_of_view:
            far = float(np.hypot(*away)) / (_ARROW_REACH * radius)
        else:
            reach = _ARROW_REACH * np.array(self.size_px) / 2
            far = float(np.max(np.abs(away) / reach))
        return center + away / max(far, 1.0)

    def _draw_texts(
        self, lines: Sequence[str], matrix: NDArray[np.float64], style: Style
    ) -> list[tuple[int, int, int, int]]:
        """Write lines and note below the center; return the boxes they fill: left, top, right, bottom.

        They are upright for who sees the frame upright, however the display is turned or mirrored.
        """
        center, radius = self._field(style)
        blocks: list[tuple[Mask, float]] = []
        if lines:
            block = _text_block(tuple(lines), max(_SMALLEST_TEXT_PX, round(self._short * _TEXT)))
            blocks.append((block, _TEXT_REACH * radius - block.shape[0] / 2))
        if style.research_note:
            block = _text_block((RESEARCH_NOTE,), max(_SMALLEST_TEXT_PX, round(self._short * _NOTE)))
            blocks.append((block, _NOTE_REACH * radius - block.shape[0] / 2))
        turned = _orientation(matrix, self.size_px)
        return [
            box
            for block, down in blocks
            if (box := self._stamp(block, center + turned @ np.array((0.0, down)), turned)) is not None
        ]

    def _stamp(
        self, block: Mask, middle: NDArray[np.float64], turned: NDArray[np.float64]
    ) -> tuple[int, int, int, int] | None:
        """Put a mask around a middle, turned; return the box it fills, or None outside the view."""
        height, width = block.shape
        size = np.ceil(np.abs(turned) @ np.array((width, height))).astype(int)
        # Whole pixels keep upright letters sharp.
        left, top = np.round(middle - (size - 1) / 2).astype(int).tolist()
        if not np.array_equal(turned, np.eye(2)):
            offset = (size - 1) / 2 - turned @ ((np.array((width, height)) - 1) / 2)
            block = cv2.warpAffine(block, np.column_stack([turned, offset]), tuple(size.tolist()))
        x0, y0 = max(left, 0), max(top, 0)
        x1 = min(left + int(size[0]), self.size_px[0])
        y1 = min(top + int(size[1]), self.size_px[1])
        if x0 >= x1 or y0 >= y1:
            return None
        target = self._ink[y0:y1, x0:x1]
        np.maximum(target, block[y0 - top : y1 - top, x0 - left : x1 - left], out=target)
        return x0, y0, x1, y1

    def _heat_map(self, overlay: Overlay, matrix: NDArray[np.float64], style: Style) -> bool:
        """Warp the heat map to this size; return False when the mode shows none."""
        if overlay.mode != "heatmap" or overlay.heat_map is None or not overlay.heat_map.size:
            return False
        if self._heat is None:
            self._heat = np.zeros_like(self._ink)
        cells = np.ascontiguousarray(overlay.heat_map, np.uint8)
        # A cell is as large as the frame divided by their number; its center is the value's place.
        across = overlay.frame_size_px[0] / cells.shape[1]
        down = overlay.frame_size_px[1] / cells.shape[0]
        placed = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1.0]])
        # Beyond the middle of the cells at the border there is half a cell more.
        padded = cv2.copyMakeBorder(cells, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        total = matrix @ placed @ np.array([[1.0, 0, -1], [0, 1, -1], [0, 0, 1]])
        if abs(total[2, :2]).max() < 1e-12:
            affine = total[:2] / total[2, 2]
            cv2.warpAffine(padded, affine, self.size_px, self._heat, cv2.INTER_LINEAR)
        else:
            cv2.warpPerspective(padded, total, self.size_px, self._heat, cv2.INTER_LINEAR)
        # Cut off at the frame's own border.
        width, height = overlay.frame_size_px
        corners = np.array(((0, 0), (width, 0), (width, height), (0, height))) - 0.5
        border = _fixed(_warped(corners, matrix))
        if border is not None:
            self._thin[:] = 0
            cv2.fillPoly(self._thin, [border], 255, cv2.LINE_AA, _SHIFT)
            cv2.min(self._heat, self._thin, self._heat)
        self._mask(self._heat, style)
        return True

    def _mask(self, ink: Mask, style: Style) -> None:
        """Clear what lies outside the circular field of view."""
        if style.field_of_view is None:
            return
        if self._circle is None or self._circle[0] != style.field_of_view:
            circle = np.zeros_like(self._ink)
            center, radius = self._field(style)
            x, y = np.round(center * _ONE).astype(int).tolist()
            cv2.circle(circle, (x, y), round(radius * _ONE), 255, -1, cv2.LINE_AA, _SHIFT)
            self._circle = (style.field_of_view, circle)
        cv2.min(ink, self._circle[1], ink)


def _warped(points: ArrayLike, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return warped points, shape (N, 2); NaN for those behind the horizon of a homography."""
    known = np.asarray(points, np.float64).reshape(-1, 2)
    turned = known @ matrix[:, :2].T + matrix[:, 2]
    depth = turned[:, 2:] * np.sign(matrix[2, 2] or 1.0)
    depth[depth < 1e-9] = np.nan
    return turned[:, :2] * np.sign(matrix[2, 2] or 1.0) / depth


def _in_view(points: NDArray[np.float64], size_px: tuple[int, int], margin_px: float) -> NDArray[np.float64]:
    """Return the points that are seen, or nearly."""
    seen = np.all((points > -margin_px) & (points < np.array(size_px) + margin_px), axis=1)
    return points[seen]


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32] | None:
    """Return corners in fixed point, or None when one cannot be reached."""
    if not np.all(np.abs(points) < _FARTHEST_PX):
        return None
    return np.round(points * _ONE).astype(np.int32)


def _rings_shown(
    rings: Sequence[NDArray[Any]], matrix: NDArray[np.float64], size_px: tuple[int, int]
) -> list[NDArray[np.int32]]:
    """Return the rings that are seen, warped, smoothed, in fixed point.

    All are handled as one array: a thousand rings take a few milliseconds.
    """
    rings = [ring for ring in rings if len(ring) > 2]
    if not rings:
        return []
    points = _warped(np.concatenate(rings), matrix)
    lengths = np.array([len(ring) for ring in rings])
    starts = np.cumsum(lengths) - lengths
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    # NaN, behind the horizon, compares as False.
    seen = np.all((high > -_ROUNDING_PX) & (low < np.array(size_px) + _ROUNDING_PX), axis=1)
    seen &= np.all((low > -_FARTHEST_PX) & (high < _FARTHEST_PX), axis=1)
    if not seen.any():
        return []
    points, lengths = points[np.repeat(seen, lengths)], lengths[seen]
    for _ in range(_ROUNDINGS):
        ahead = _following(points, lengths)
        edges = ahead - points
        edge_px = np.hypot(edges[:, 0], edges[:, 1])
        if edge_px.mean() < _ROUNDED_FROM_PX:
            break
        # Chaikin's corner cutting (Computer Graphics and Image Processing 3:346, 1974), with a longest cut:
        # a long straight edge stays where it is.
        cut = np.minimum(0.25, _ROUNDING_PX / np.maximum(edge_px, 1e-9))[:, None]
        points = np.stack([points + cut * edges, ahead - cut * edges], axis=1).reshape(-1, 2)
        lengths = 2 * lengths
    fixed = np.round(points * _ONE).astype(np.int32)
    ends = np.cumsum(lengths).tolist()
    return [
        cv2.approxPolyDP(fixed[start:end], _BEND_PX * _ONE, True)
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]


def _following(points: NDArray[np.float64], lengths: NDArray[Any]) -> NDArray[np.float64]:
    """Return for each corner the next one of its ring."""
    ends = np.cumsum(lengths)
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = ends - lengths
    return points[following]


def _orientation(matrix: NDArray[np.float64], size_px: tuple[int, int]) -> NDArray[np.float64]:
    """Return the rotation or reflection (2x2) that is nearest to the warp in the middle of the display.

    The polar decomposition of its derivative; turns below half a degree are none, so that letters stay sharp.
    """
    middle = np.linalg.inv(matrix) @ np.array((size_px[0] / 2, size_px[1] / 2, 1.0))
    x, y, depth = matrix @ (middle / middle[2])
    derivative = (matrix[:2, :2] - np.outer((x, y), matrix[2, :2]) / depth) / depth
    left, _, right = np.linalg.svd(derivative)
    turned = left @ right
    return np.eye(2) if np.abs(turned - np.eye(2)).max() < 0.01 else turned


def _blend(rgb: RGB, ink: Mask, color: Sequence[float], opacity: float = 1.0) -> None:
    """Lay ink of a color over a picture. Ink covers little of it as a rule: only those pixels are touched."""
    covered = cv2.findNonZero(ink)
    if covered is None:
        return
    columns, rows = covered.reshape(-1, 2).T
    weight = ink[rows, columns, None].astype(np.float32) * (opacity / 255)
    below = rgb[rows, columns].astype(np.float32)
    rgb[rows, columns] = np.round(below + weight * (np.array(color, np.float32) - below)).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _heat_colors(brightness: float) -> RGB:
    """Return the colors of a heat map on black, shape (256, 1, 3): green, yellow where it is certain."""
    share = np.arange(256) / 255
    light = np.clip((share - _HEAT_FROM) / (1 - _HEAT_FROM), 0, 1)
    rgb = np.stack([255 * np.clip(2 * light - 1, 0, 1), 255 * np.clip(1.4 * light, 0, 1), 0 * light], -1)
    return np.round(brightness * rgb).astype(np.uint8)[:, None]


@functools.lru_cache(maxsize=1)
def _heat_layers() -> tuple[RGB, RGB]:
    """Return for each value of a heat map 255 times the part of the frame that stays; the color added."""
    colors = heat_colors_over()[:, None]
    opacity = colors[..., 3:] * np.ones(3)
    return (
        np.round(255 * (1 - opacity)).astype(np.uint8),
        np.round(255 * opacity * colors[..., :3]).astype(np.uint8),
    )


def heat_colors_over() -> NDArray[np.float64]:
    """Return the colors of a heat map that lies over a frame: clear, then green, yellow where it is certain.

    Returns
    -------
    ndarray
        Shape (256, 4): red, green, blue and opacity, 0 to 1, of each value of an overlay's heat map.
    """
    share = np.arange(256) / 255
    opacity = _HEAT_OPACITY * np.clip((share - _HEAT_FROM) / (0.5 - _HEAT_FROM), 0, 1)
    red = np.clip(2 * share - 1, 0, 1)
    return np.stack([red, 0.8 + 0.2 * red, 0 * share, opacity], axis=-1)


@functools.lru_cache(maxsize=16)
def _disk(width: int) -> Mask:
    """Return what widens a line of one pixel to ``width``."""
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)), np.uint8)


@functools.lru_cache(maxsize=64)
def _text_block(lines: tuple[str, ...], text_px: int) -> Mask:
    """Return lines of text, centered, as a mask with a narrow margin; letters are ``text_px`` high."""
    from PIL import Image, ImageDraw, ImageFont

    # Pillow's own letters have no micro sign; as elsewhere in lincei, a micrometer is "um".
    lines = tuple(
        line.replace("\N{MICRO SIGN}", "u").replace("\N{GREEK SMALL LETTER MU}", "u") for line in lines
    )
    font = ImageFont.load_default(size=text_px)
    boxes = [font.getbbox(line) for line in lines]
    margin, step = max(2, text_px // 4), round(1.3 * text_px)
    width = int(max(box[2] - box[0] for box in boxes)) + 2 * margin
    height = step * len(lines) + 2 * margin
    mask = Image.new("L", (width, height))
    pen = ImageDraw.Draw(mask)
    for number, (line, box) in enumerate(zip(lines, boxes, strict=True)):
        left = (width - (box[2] - box[0])) / 2 - box[0]
        pen.text((left, margin + number * step), line, 255, font=font)
    return np.asarray(mask)
