"""Motion between frames, and a heat map that moves with the tissue and does not flicker.

Positions are those of the view's corner on the slide, in pixels of the frame, counted from where tracking
began: a place at (x, y) in the frame lies at position + (x, y) on the slide.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.developing import shrunk
from arm_overlay.imaging import opencv

Point = tuple[float, float]

# Pictures that are compared are between this wide and half as wide.
PICTURE_PX = 320
# The peak of the phase correlation holds so much of it when two pictures show one place. On real tissue, it
# holds 1.5 times as much and more in views moved by 30 % of their width, noisy and defocused, and half of it
# and less in unrelated fields (held by tests/arm_overlay/test_stabilizer.py).
CERTAIN = 0.2
# The same on pictures of half the size, where chance makes higher peaks.
_CERTAIN_COARSE = 0.4
# So far, in widths of the view, pictures are compared with the same one, so that errors do not add up.
_REFERENCE_REACH = 0.15
# Structure of a picture, in gray values, below which it shows glass: nothing to be followed.
_LEAST_STRUCTURE = 2.0
# Frames over which speed is measured; the times of single ones are not exact.
_SPEED_FRAMES = 2

# Answers of the network are averaged over about this time while the tissue stays in view.
SMOOTHING_S = 0.15
# What was tumor stays it down to this much below the threshold, and what was not becomes it this much above.
HYSTERESIS = 0.08


@dataclass(frozen=True)
class Motion:
    """How the slide moved until a frame.

    Parameters
    ----------
    position_px : tuple of float
        Position of the view on the slide.
    shift_px : tuple of float
        How far the tissue moved in the view since the frame before; against the position.
    speed_fields_s : float
        In widths of the view a second; 0 where there is nothing to be followed.
    lost : bool
        True when what the picture shows is not in the one before: the slide jumped, moves too fast to be
        followed, or the objective changed. Positions begin anew.
    has_structure : bool
        False on glass, where motion cannot be seen.
    """

    position_px: Point
    shift_px: Point = (0.0, 0.0)
    speed_fields_s: float = 0.0
    lost: bool = False
    has_structure: bool = True


class MotionTracker:
    """Follows the slide by phase correlation of small gray pictures (Kuglin and Hines, 1975)."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew with the next frame."""
        self._reference: NDArray[np.float32] | None = None
        self._before: NDArray[np.float32] | None = None
        self._reference_px: Point = (0.0, 0.0)
        self._position_px: Point = (0.0, 0.0)
        self._path: deque[tuple[float, Point]] = deque(maxlen=_SPEED_FRAMES)

    def track(self, picture: NDArray[np.float32], picture_px: float, time_s: float) -> Motion:
        """Return the motion until a frame.

        Parameters
        ----------
        picture : ndarray
            From `motion_picture`.
        picture_px : float
            Pixels of the frame along one side of a pixel of the picture.
        time_s : float
            When the frame was exposed.
        """
        if self._reference is None or self._reference.shape != picture.shape:
            self.restart()
            self._start(picture, time_s)
            return Motion(self._position_px)
        assert self._before is not None
        width_px = picture.shape[1] * picture_px
        origin = self._reference_px
        found = self._moved(self._reference, picture, picture_px)
        if found is None and self._before is not self._reference:
            origin = self._position_px
            found = self._moved(self._before, picture, picture_px)
        if found is None:
            structured = has_structure(picture)
            # Between two views of glass nothing can be told, and nothing can be left behind either.
            lost = structured or has_structure(self._before)
            if lost:
                self.restart()
            self._start(picture, time_s)
            return Motion(self._position_px, lost=lost, has_structure=structured)
        position = (origin[0] - found[0], origin[1] - found[1])
        shift = (self._position_px[0] - position[0], self._position_px[1] - position[1])
        far = math.dist(position, self._reference_px) > _REFERENCE_REACH * width_px
        if far or origin != self._reference_px:
            self._reference, self._reference_px = picture, position
        self._position_px, self._before = position, picture
        since_s, since_px = self._path[0]
        self._path.append((time_s, position))
        speed = math.dist(position, since_px) / max(time_s - since_s, 1e-3) / width_px
        return Motion(position, shift, speed)

    def _start(self, picture: NDArray[np.float32], time_s: float) -> None:
        self._reference = self._before = picture
        self._reference_px = self._position_px
        self._path.append((time_s, self._position_px))

    def _moved(
        self, earlier: NDArray[np.float32], later: NDArray[np.float32], picture_px: float
    ) -> Point | None:
        """Return how far the tissue moved between two pictures, or None when that is not certain."""
        (x, y), certainty = correlated(earlier, later)
        if certainty >= CERTAIN:
            return x * picture_px, y * picture_px
        # Far out of focus only coarse structure is above the noise.
        (x, y), certainty = correlated(_coarse(earlier), _coarse(later))
        return (2 * x * picture_px, 2 * y * picture_px) if certainty >= _CERTAIN_COARSE else None


def _coarse(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a picture of half the size, for the Fourier transform."""
    height, width = (transformable(side // 2) for side in picture.shape)
    coarse: NDArray[np.float32] = shrunk(picture[: 2 * height, : 2 * width], (width, height))
    return coarse


def correlated(earlier: NDArray[np.float32], later: NDArray[np.float32]) -> tuple[Point, float]:
    """Return how far two pictures' content is apart, x and y in their pixels, and how certain that is.

    Parameters
    ----------
    earlier, later : ndarray
        From `motion_picture`, of one shape.

    Returns
    -------
    (tuple of float, float)
        The way of the content from the earlier to the later one, and the share of the correlation that is in
        its peak.
    """
    cv2 = opencv()
    window = _window(earlier.shape)
    # OpenCV would fade the pictures themselves, not a copy, where they need no padding (seen in 5.0).
    faded = [cv2.multiply(picture - picture.mean(), window) for picture in (earlier, later)]
    shift, certainty = cv2.phaseCorrelate(*faded)
    return (float(shift[0]), float(shift[1])), float(certainty)


def motion_picture(colors: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
    """Return a small gray picture of a developed frame, and how many of its pixels one is wide.

    Parameters
    ----------
    colors : ndarray
        Shape (Y, X, 3), uint8.

    Returns
    -------
    (ndarray, float)
        Shape (Y', X'), float32, from the top left corner on: the sides are even and suit the Fourier
        transform. In pictures of odd sides OpenCV's phase correlation is off by half a pixel.
    """
    halvings = max(0, math.ceil(math.log2(colors.shape[1] / PICTURE_PX)))
    wide = 2 ** min(halvings, int(math.log2(colors.shape[0])))
    colors = shrunk(colors, (colors.shape[1] // wide, colors.shape[0] // wide))
    height, width = (transformable(side) for side in colors.shape[:2])
    # Green has most of the stain's contrast, and of the camera's light.
    return colors[:height, :width, 1].astype(np.float32), float(wide)


def has_structure(picture: NDArray[np.float32]) -> bool:
    """Tell whether a picture shows more than glass, uneven light and noise."""
    cv2 = opencv()
    fine = cv2.GaussianBlur(picture, (0, 0), 1.5)
    return float((fine - cv2.GaussianBlur(fine, (0, 0), 6.0)).std()) > _LEAST_STRUCTURE


class Stabilizer:
    """A heat map that moves with the tissue, averaged over time, whose outlines do not flicker.

    Each cell's threshold depends on what the cell was before (hysteresis), and what it was moves with the
    tissue too.
    """

    def __init__(self, smoothing_s: float = SMOOTHING_S, hysteresis: float = HYSTERESIS) -> None:
        self.smoothing_s = smoothing_s
        self.hysteresis = hysteresis
        self.reset()

    def reset(self) -> None:
        """Forget all answers."""
        self._average: NDArray[np.float32] | None = None
        self._steady: NDArray[np.float32] | None = None
        self._position_px: Point = (0.0, 0.0)
        self._time_s = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether there is no answer yet."""
        return self._average is None

    def share_of_new(self, elapsed_s: float) -> float:
        """Return the share of a new answer in the average, so long after the one before."""
        return -math.expm1(-max(elapsed_s, 0.0) / self.smoothing_s) if self.smoothing_s > 0 else 1.0

    def add(
        self,
        answer: NDArray[np.float32],
        position_px: Point,
        cell_px: float,
        time_s: float,
        threshold: float,
    ) -> None:
        """Take in what the network answered to a frame.

        Parameters
        ----------
        answer : ndarray
            Shape (Y, X), float32: probabilities.
        position_px : tuple of float
            Position of that frame.
        cell_px : float
            Side of a cell in pixels of the frame.
        time_s : float
            When the frame was exposed.
        threshold : float
            Probability from which on something is tumor.
        """
        average = self._average
        if average is None or average.shape != answer.shape or self._steady is None:
            self._average = self._steady = np.array(answer, np.float32)
        else:
            cells = _cells_between(self._position_px, position_px, cell_px)
            fresh = self.share_of_new(time_s - self._time_s)
            before, known = _moved_map(average, cells)
            averaged = np.where(known, before + np.float32(fresh) * (answer - before), answer)
            steady, _ = _moved_map(self._steady, cells)
            self._average = averaged
            self._steady = averaged + np.where(known, self._lean(steady, threshold), np.float32(0))
        self._position_px, self._time_s = position_px, time_s

    def at(
        self, position_px: Point, cell_px: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Return the heat map where the view is now.

        Parameters
        ----------
        position_px : tuple of float
            Position of the frame.
        cell_px : float
            As for `add`.

        Returns
        -------
        (ndarray, ndarray, ndarray of bool)
            The averaged probabilities; the same with hysteresis, to be outlined at the threshold; and where
            they are known. What came into view since the last answer is unknown, and 0.
        """
        assert self._average is not None
        assert self._steady is not None
        cells = _cells_between(self._position_px, position_px, cell_px)
        average, known = _moved_map(self._average, cells)
        steady, _ = _moved_map(self._steady, cells)
        return average, steady, known

    def _lean(self, steady: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
        """Return what is added to the probabilities: more where there was tumor, less where there was none.

        It is spread over neighboring cells, so that outlines run smoothly between them.
        """
        cv2 = opencv()
        # Never so much that a probability of 0 would be tumor, or one of 1 would not.
        reach = min(self.hysteresis, threshold / 2, (1 - threshold) / 2)
        was_tumor = (steady > threshold).astype(np.float32)
        lean: NDArray[np.float32] = cv2.blur(was_tumor, (3, 3), borderType=cv2.BORDER_REPLICATE)
        lean *= np.float32(2 * reach)
        lean -= np.float32(reach)
        return lean


def _cells_between(earlier_px: Point, later_px: Point, cell_px: float) -> Point:
    """Return how far tissue moves in the view between two positions, in cells."""
    return (earlier_px[0] - later_px[0]) / cell_px, (earlier_px[1] - later_px[1]) / cell_px


def _moved_map(values: NDArray[np.float32], cells: Point) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a map moved by a number of cells, 0 where nothing came from, and where something did."""
    height, width = values.shape
    x, y = cells
    if abs(x) < 1e-3 and abs(y) < 1e-3:
        return values, np.ones(values.shape, np.bool_)
    cv2 = opencv()
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    moved: NDArray[Any] = cv2.warpAffine(
        values, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    # A cell of which half is known is known.
    columns, rows = np.arange(width) - x, np.arange(height) - y
    known: NDArray[np.bool_] = ((rows > -0.5) & (rows < height - 0.5))[:, None] & (
        (columns > -0.5) & (columns < width - 0.5)
    )
    return np.where(known, moved, np.float32(0)), known


_windows: dict[tuple[int, ...], NDArray[np.float32]] = {}


def _window(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the window that fades pictures out towards their borders."""
    if shape not in _windows:
        if len(_windows) > 8:
            _windows.clear()
        _windows[shape] = opencv().createHanningWindow(shape[::-1], opencv().CV_32F)
    return _windows[shape]


def transformable(side: int) -> int:
    """Return the longest even side of at most this that suits the Fourier transform; 2 at least."""
    cv2 = opencv()
    side = max(2, side // 2 * 2)
    while cv2.getOptimalDFTSize(side) != side:
        side -= 2
    return side
