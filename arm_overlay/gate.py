"""Whether a frame is in focus: a few patches of tissue, rated by `focusqc` in a small share of the time."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.developing import Developing, developed
from arm_overlay.frames import Frame
from arm_overlay.imaging import opencv

if TYPE_CHECKING:
    from lincei.engine import Engine

FOCUS_MODEL = "focus-he"
PATCHES = 8
# Patches are rated at the binning that comes nearest to this pixel size, the focus model's reference; at the
# frame's own where that is coarser. Fields up to one depth of field away are in focus then, and four away are
# not (held by tests/arm_overlay/test_focus_gate.py on real sections).
RATED_PIXEL_UM = 0.65
# Rating takes about this share of the time, and is done at most and at least this often.
TIME_SHARE = 0.05
INTERVAL_S = 0.1
LONGEST_INTERVAL_S = 0.3
# Ratings in a row that it takes to change one's mind; after one that disagrees, the next frame is rated too.
_AGREEING = 2
# A slide that moves further than this while a frame is exposed is smeared, which looks like defocus.
_SMEAR_PX = 1.5
_USUAL_EXPOSURE_MS = 10.0
# A patch of glass has less contrast (standard deviation of gray values in the small picture) than this.
_LEAST_CONTRAST = 2.0


class FocusGate:
    """Tells when frames are out of focus.

    Parameters
    ----------
    threads : int
        Processor threads; 0 uses all.

    Raises
    ------
    LinceiError
        When the focus model is not there, or no engine runs it.
    """

    def __init__(self, threads: int = 0) -> None:
        from focusqc.focus_image import found_model, open_engine_for
        from focusqc.options import FocusOptions
        from focusqc.patches import PATCH_PX

        self._patch_px = PATCH_PX
        self._engine: Engine = open_engine_for(found_model(FOCUS_MODEL), FocusOptions(threads=threads))
        # Compiled now, not when the first frame comes.
        self._engine.run(np.zeros((PATCHES, 1, PATCH_PX, PATCH_PX), np.float32))
        self.restart()

    def restart(self) -> None:
        """Forget all ratings: another slide or objective."""
        self._out: bool | None = None
        self._disagreeing = 0
        self._rated_s = self._next_s = -math.inf

    def is_out_of_focus(
        self,
        frame: Frame,
        developing: Developing,
        picture: NDArray[np.float32],
        picture_px: float,
        *,
        pixel_size_um: float,
        speed_fields_s: float = 0.0,
    ) -> bool:
        """Return whether frames are out of focus, as of the last rating; rate this one when it is time to.

        Parameters
        ----------
        frame : Frame
            Of a color camera.
        developing : Developing
            White balance and the like.
        picture : ndarray
            The frame small and gray, in which tissue is looked for (`arm_overlay.stabilizer.motion_picture`).
        picture_px : float
            Pixels of the frame along one side of a pixel of the picture.
        pixel_size_um : float
            Of the frame.
        speed_fields_s : float
            Speed of the slide; a smeared frame is not rated.
        """
        exposure_s = (frame.exposure_ms or _USUAL_EXPOSURE_MS) / 1000
        smear_px = speed_fields_s * frame.size_px[0] * exposure_s
        # A clock that went back, as in another recording, is no reason to wait.
        if self._rated_s <= frame.time_s < self._next_s or smear_px > _SMEAR_PX:
            return bool(self._out)
        started_s = time.perf_counter()
        binning = rated_binning(pixel_size_um)
        places = tissue_patches(picture, picture_px, frame.size_px, self._patch_px * binning)
        if places:
            self._hear(self._rated_out(frame, developing, places, binning))
        took_s = time.perf_counter() - started_s
        self._rated_s = frame.time_s
        interval_s = min(max(INTERVAL_S, took_s / TIME_SHARE), LONGEST_INTERVAL_S)
        self._next_s = frame.time_s + (0.0 if self._disagreeing else interval_s)
        return bool(self._out)

    def _hear(self, out: bool) -> None:
        """Take in one rating; a single one does not overrule those before it."""
        if self._out is None:
            self._out = out
        if out == self._out:
            self._disagreeing = 0
            return
        self._disagreeing += 1
        if self._disagreeing >= _AGREEING:
            self._out, self._disagreeing = out, 0

    def _rated_out(
        self, frame: Frame, developing: Developing, places: list[tuple[int, int]], binning: int
    ) -> bool:
        """Return whether patches say that they are out of focus, with certainty."""
        from focusqc.levels import certainty, in_focus, pooled

        # Always as many, as the engine compiles for a number of patches; empty ones say nothing.
        patches = np.zeros((PATCHES, 1, self._patch_px, self._patch_px), np.float32)
        even = Developing(developing.white_balance, None, developing.gamma, developing.black_level)
        for patch, (x, y) in zip(patches, places, strict=False):
            patch[0] = _gray(_cropped(frame, x, y, self._patch_px * binning), even, binning)
        probabilities = self._engine.run(patches)["probabilities"][: len(places)]
        certainties = certainty(probabilities)
        total = float(certainties.sum())
        weighted = float((certainties**2).sum()) / total if total > 0 else 0.0
        # Uncertain patches show no tissue: that is not out of focus.
        return str(in_focus(pooled(probabilities), weighted)) == "no"


def rated_binning(pixel_size_um: float) -> int:
    """Return how many pixels of a frame, along each side, make one that is rated: 1, 2, 4, 8."""
    return 2 ** int(np.clip(round(math.log2(RATED_PIXEL_UM / pixel_size_um)), 0, 3))


def tissue_patches(
    picture: NDArray[np.float32], picture_px: float, size_px: tuple[int, int], side_px: int
) -> list[tuple[int, int]]:
    """Return where patches with the most structure lie, none over another.

    Parameters
    ----------
    picture : ndarray
        The frame small and gray.
    picture_px : float
        Pixels of the frame along one side of a pixel of the picture.
    size_px : tuple of int
        Width and height of the frame.
    side_px : int
        Side of a patch in pixels of the frame.

    Returns
    -------
    list of (int, int)
        x and y of their first pixels, even numbers, at most `PATCHES`; none where there is only glass, or
        the frame is smaller than a patch.
    """
    columns, rows = size_px[0] // side_px, size_px[1] // side_px
    if columns < 1 or rows < 1:
        return []
    cv2 = opencv()
    # As much of the picture as the whole patches cover.
    width, height = round(columns * side_px / picture_px), round(rows * side_px / picture_px)
    covered = picture[:height, :width]
    mean, squares = (
        cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA) for values in (covered, covered**2)
    )
    contrast = np.sqrt(np.maximum(np.reshape(squares - mean**2, -1), 0))
    best = np.argsort(-contrast, kind="stable")[:PATCHES]
    return [
        (int(place % columns) * side_px // 2 * 2, int(place // columns) * side_px // 2 * 2)
        for place in best
        if contrast[place] > _LEAST_CONTRAST
    ]


def _cropped(frame: Frame, x: int, y: int, side_px: int) -> Frame:
    pixels = frame.pixels[y : y + side_px, x : x + side_px]
    return Frame(pixels, frame.time_s, frame.number, frame.bits, frame.bayer)


def _gray(patch: Frame, developing: Developing, binning: int) -> NDArray[Any]:
    """Return the plain mean of red, green and blue, shape (side, side), as the focus model was trained on."""
    gray: NDArray[Any] = developed(patch, developing, 1 / binning).mean(axis=2)
    return gray
