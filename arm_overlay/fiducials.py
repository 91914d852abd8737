"""Pictures for the microdisplay whose points a camera finds again, and the finding.

The display adds its light to the image of the tissue. Pictures are therefore shown in pairs, light and dark
swapped: in the difference of the two frames the tissue, and whatever else does not change, is gone, be the
background bright or dark. Two kinds:

- `Charuco`, a chessboard with ArUco markers: one pair; corners to a small fraction of a pixel.
- `Dots`, a grid of dots that tell their numbers by blinking: several pairs, but nothing in them is finer
  than a dot, so that they are read through blur where markers are not.

Both may be mirrored, turned and partly outside the camera's view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from arm_overlay.imaging import opencv

cv2 = opencv()

Picture = NDArray[np.uint8]
Difference = NDArray[np.float32]

# Side of a marker, as a part of its square's.
_MARKER = 0.6

_EMPTY = np.zeros((0, 2))


@dataclass(frozen=True, eq=False)
class Matches:
    """Points of a fiducial that the camera found.

    Parameters
    ----------
    camera_px, display_px : ndarray
        Shape (N, 2), float64: x and y of the same points in pixels of the camera and of the display; the
        center of the first pixel is (0, 0).
    """

    camera_px: NDArray[np.float64]
    display_px: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.camera_px)


class Fiducial(Protocol):
    """What is shown, and how it is found again."""

    @property
    def pairs(self) -> list[tuple[Picture, Picture]]:
        """Pictures of the display's size, shape (Y, X), in pairs with light and dark swapped."""

    def find(self, differences: Sequence[Difference]) -> Matches:
        """Return the points found, given for each pair the camera's first frame less its second.

        Frames are gray, shape (Y, X), in any unit. No points where none are seen.
        """


@dataclass(frozen=True)
class Charuco:
    """A chessboard with ArUco markers, over the whole display.

    Parameters
    ----------
    display_size_px : tuple of int
        Width and height.
    across : int
        Squares across the longer side.
    """

    display_size_px: tuple[int, int]
    across: int = 16

    @cached_property
    def _square_px(self) -> int:
        return max(self.display_size_px) // self.across

    @cached_property
    def _squares(self) -> tuple[int, int]:
        width, height = self.display_size_px
        return width // self._square_px, height // self._square_px

    @cached_property
    def _origin_px(self) -> tuple[int, int]:
        """Left and top of the board, which lies in the middle of the display."""
        left, top = (
            (size - count * self._square_px) // 2
            for size, count in zip(self.display_size_px, self._squares, strict=True)
        )
        return left, top

    @cached_property
    def _board(self) -> Any:
        columns, rows = self._squares
        # Large bits are read through blur: the dictionary with the fewest that numbers all markers.
        names = {50: cv2.aruco.DICT_4X4_50, 100: cv2.aruco.DICT_4X4_100, 250: cv2.aruco.DICT_4X4_250}
        name = next(name for count, name in names.items() if columns * rows / 2 <= count)
        return cv2.aruco.CharucoBoard(self._squares, 1.0, _MARKER, cv2.aruco.getPredefinedDictionary(name))

    @property
    def pairs(self) -> list[tuple[Picture, Picture]]:
        """The board and its negative, both with a dark margin."""
        (columns, rows), side = self._squares, self._square_px
        left, top = self._origin_px
        width, height = self.display_size_px
        board = self._board.generateImage((columns * side, rows * side))
        pair = np.zeros((2, height, width), dtype=np.uint8)
        pair[:, top : top + rows * side, left : left + columns * side] = board, 255 - board
        return [(pair[0], pair[1])]

    def find(self, differences: Sequence[Difference]) -> Matches:
        """Return the chessboard's corners that the camera sees."""
        (difference,) = differences
        seen = _as_bytes(difference)
        width = seen.shape[1]
        as_seen, swapped = self._corners(seen), self._corners(np.ascontiguousarray(seen[:, ::-1]))
        # Optics mirror; a mirrored marker is none of the dictionary, so the way with more corners is right.
        corners, ids = max(as_seen, swapped, key=lambda found: len(found[1]))
        if len(ids) == 0:
            return Matches(_EMPTY, _EMPTY)
        if corners is swapped[0]:
            corners = np.column_stack([width - 1 - corners[:, 0], corners[:, 1]])
        columns = self._squares[0] - 1
        left, top = self._origin_px
        # Between two pixels, whose centers are at whole numbers.
        display = self._square_px * np.column_stack([ids % columns + 1, ids // columns + 1]) - 0.5
        return Matches(_refined(difference, corners, display), display + np.array((left, top)))

    def _corners(self, seen: Picture) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        parameters = cv2.aruco.DetectorParameters()
        # The display may fill a part of the view only, and blurred bits need a wide neighborhood.
        parameters.minMarkerPerimeterRate = 0.015
        parameters.adaptiveThreshWinSizeMin = 7
        parameters.adaptiveThreshWinSizeMax = 71
        parameters.adaptiveThreshWinSizeStep = 16
        detector = cv2.aruco.CharucoDetector(self._board, cv2.aruco.CharucoParameters(), parameters)
        corners, ids, _, _ = detector.detectBoard(seen)
        if ids is None or len(ids) == 0:
            return _EMPTY, np.zeros(0, dtype=np.int64)
        return np.asarray(corners, dtype=np.float64).reshape(-1, 2), np.asarray(ids).ravel().astype(np.int64)


@dataclass(frozen=True)
class Dots:
    """A grid of dots over the whole display; each tells its number by blinking.

    Parameters
    ----------
    display_size_px : tuple of int
        Width and height.
    across : int
        Dots along the longer side.
    """

    display_size_px: tuple[int, int]
    across: int = 15

    @cached_property
    def _pitch_px(self) -> float:
        return max(self.display_size_px) / self.across

    @cached_property
    def _radius_px(self) -> int:
        return max(2, round(0.25 * self._pitch_px))

    @cached_property
    def _centers_px(self) -> NDArray[np.float64]:
        columns, rows = (int(size // self._pitch_px) for size in self.display_size_px)
        x, y = np.meshgrid(np.arange(columns) - (columns - 1) / 2, np.arange(rows) - (rows - 1) / 2)
        middle = (np.array(self.display_size_px) - 1) / 2
        # On whole pixels, so that a dot's center is where it was drawn.
        return np.round(middle + self._pitch_px * np.column_stack([x.ravel(), y.ravel()]))

    @cached_property
    def _bits(self) -> int:
        """Bits of a number, one of them its parity, which turns down what was misread."""
        return math.ceil(math.log2(len(self._centers_px))) + 1

    @property
    def pairs(self) -> list[tuple[Picture, Picture]]:
        """For each bit of a dot's number the dots that have it, and the others."""
        pairs = []
        for bit in range(self._bits):
            pair = np.zeros((2, self.display_size_px[1], self.display_size_px[0]), dtype=np.uint8)
            for number, (x, y) in enumerate(self._centers_px):
                lit = 0 if _code(number) >> bit & 1 else 1
                cv2.circle(pair[lit], (int(x), int(y)), self._radius_px, 255, cv2.FILLED, cv2.LINE_AA)
            pairs.append((pair[0], pair[1]))
        return pairs

    def find(self, differences: Sequence[Difference]) -> Matches:
        """Return the centers of the dots that the camera sees."""
        signed = np.stack([cv2.GaussianBlur(difference, (0, 0), 1.0) for difference in differences])
        # A dot changes in every pair of frames, tissue in none.
        changing = np.abs(signed).mean(axis=0)
        _, mask = cv2.threshold(_as_bytes(changing), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask)
        height, width = mask.shape
        floor = float(np.median(changing[mask == 0])) if (mask == 0).any() else 0.0
        camera, numbers = [], []
        areas = statistics[1:, cv2.CC_STAT_AREA]
        typical = np.median(areas[areas > 12]) if (areas > 12).any() else np.inf
        for index in range(1, count):
            left, top, wide, high, area = statistics[index]
            inside = left > 0 and top > 0 and left + wide < width and top + high < height
            if not inside or not 0.3 * typical < area < 3 * typical:
                continue
            window = np.s_[top - 1 : top + high + 1, left - 1 : left + wide + 1]
            # The dot and the pixel around it, which holds what the threshold cut off.
            own = cv2.dilate((labels[window] == index).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            means = signed[(slice(None), *window)][:, own].mean(axis=1)
            if np.abs(means).min() < 0.4 * np.abs(means).max():
                continue
            code = sum(1 << bit for bit, is_lit in enumerate(means > 0) if is_lit)
            number = code >> 1
            if number >= len(self._centers_px) or code != _code(number):
                continue
            weights = np.where(own, np.maximum(changing[window] - floor, 0), 0)
            ys, xs = np.mgrid[top - 1 : top + high + 1, left - 1 : left + wide + 1]
            camera.append([np.average(xs, weights=weights), np.average(ys, weights=weights)])
            numbers.append(number)
        if not numbers:
            return Matches(_EMPTY, _EMPTY)
        # A number read twice is read wrong at least once.
        _, first, times = np.unique(numbers, return_index=True, return_counts=True)
        once = first[times == 1]
        return Matches(np.array(camera)[once], self._centers_px[np.array(numbers)[once]])


def _code(number: int) -> int:
    """Return a dot's number with its parity as the last bit."""
    return number << 1 | number.bit_count() & 1


def _as_bytes(difference: Difference) -> Picture:
    """Return a difference with its noise smoothed, stretched over the gray values of a byte."""
    smooth = cv2.GaussianBlur(difference, (0, 0), 1.0)
    low, high = np.percentile(smooth[::4, ::4], (1, 99))
    stretched: Picture = cv2.convertScaleAbs(np.clip((smooth - low) * (255 / max(high - low, 1e-6)), 0, 255))
    return stretched


def _refined(
    difference: Difference, corners: NDArray[np.float64], display: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return chessboard corners where the gradients around them say."""
    if len(corners) < 2:
        return corners
    # The square in the camera, from the distances of corners here and there.
    here = np.linalg.norm(corners - corners.mean(axis=0), axis=1).mean()
    there = np.linalg.norm(display - display.mean(axis=0), axis=1).mean()
    side = np.unique(np.diff(np.unique(display[:, 0]))).min(initial=there) * here / max(there, 1e-6)
    # The window ends before the markers begin: their edges would pull.
    half = int(np.clip((1 - _MARKER) / 2 * side, 2, 20))
    smooth = cv2.GaussianBlur(difference, (0, 0), float(np.clip(side / 20, 1.0, 3.0)))
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 40, 0.001)
    refined = cv2.cornerSubPix(
        smooth, corners.astype(np.float32).reshape(-1, 1, 2).copy(), (half, half), (-1, -1), criteria
    ).reshape(-1, 2)
    return np.asarray(refined, dtype=np.float64)
