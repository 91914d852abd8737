"""Aligning camera and microdisplay: automatically, with landmarks of the slide, or by hand; and checking.

Nothing here needs a window: `arm_overlay.align_window` shows the operator what the two by hand are about.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from arm_overlay.cameras import Camera, new_camera
from arm_overlay.display_alignment import (
    GOOD_BY_EYE_PX,
    GOOD_RESIDUAL_PX,
    METHODS,
    Alignment,
    AlignmentError,
    Residual,
    align_command_for,
    display_key,
    fit_alignment,
    load_alignment,
    manual_matrix,
    mapped,
    objective_name,
    residual_of,
    save_alignment,
)
from arm_overlay.displays import Microdisplay, Monitor, need_qt
from arm_overlay.fiducials import Charuco, Dots, Fiducial, Matches
from arm_overlay.frames import Frame
from arm_overlay.imaging import opencv
from lincei.errors import LinceiError, UsageError
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled

Gray = NDArray[np.float32]

# A display lights up a few refreshes after it was told to, and lights down as slowly. Cameras that buffer or
# send frames over a network show it later: how much later is measured first, up to the limit.
SETTLE_S = 0.12
_SETTLE_LIMIT_S = 3.0
# A change of light that is no noise, in blocks of the frame; and how alike settled frames are.
_CHANGE, _SETTLED_SHARE, _SETTLED_FRAMES = 0.01, 0.1, 4
_SHOW_LIMIT_S = 15.0
_FRAME_LIMIT_S = 3.0
_PICTURE_LASTS_S = 10.0
# Fewer points may be chance, and do not show how well the map fits.
_FEWEST_FOUND = 8
_OTHERWISE = "Where the camera cannot see the display at all, use --method landmarks."
# A camera that is white here sees no light added.
_SATURATED_SHARE = 0.05

_LANDMARKS = (3, 2)
_TEMPLATE_PX = 49
_SEARCH_PX = 60
_SAME_PLACE = 0.85


class PictureDisplay(Protocol):
    """A display that shows pictures: `arm_overlay.displays.Microdisplay`, or what stands for one."""

    @property
    def monitor(self) -> Monitor:
        """Which one."""
        ...

    @property
    def trouble(self) -> str:
        """What is wrong with it; empty while all is well."""
        ...

    @property
    def last_picture_s(self) -> float | None:
        """When a picture was lit last, on the clock of `time.monotonic`."""
        ...

    def show_picture(self, picture: NDArray[Any], *, lasts_s: float) -> None:
        """Show a picture, shape (Y, X), uint8."""
        ...

    def blank(self, reason: str) -> None:
        """Go dark."""
        ...


@dataclass(frozen=True)
class Aligned:
    """What an alignment or a check came to.

    Parameters
    ----------
    alignment : Alignment
        The new one; of a check, the stored one.
    residual : Residual or None
        How well it fits, or how far off it is now.
    good : bool
        Whether it may be used as it is.
    sentence : str
        For the operator.
    path : Path or None
        Where it is stored.
    """

    alignment: Alignment
    residual: Residual | None
    good: bool
    sentence: str
    path: Path | None = None


def run_align(
    camera: str,
    display: str,
    objective: str,
    method: str = "automatic",
    *,
    check: bool = False,
    start_from: str = "",
    scale: float = 1.0,
    exposure_ms: float | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> Aligned:
    """Align a camera and a display and store the result: what ``lincei arm align`` does.

    Parameters
    ----------
    camera, display : str
        Specifications, see `arm_overlay.cameras` and `arm_overlay.displays.choose_monitor`.
    objective : str
        Such as ``"20x"``.
    method : str
        ``"automatic"`` needs no window; ``"landmarks"`` and ``"manual"`` open one.
    check : bool
        Tell how far off the stored alignment is now, instead of making one. One that was started from another
        objective's is confirmed so, where it fits.
    start_from : str
        The objective whose alignment this one is started from, without measuring anything; it is used once it
        was checked.
    scale : float
        With ``start_from``, see `Alignment.seeded`.
    exposure_ms : float, optional
        Exposure time to set; the camera's own when left out.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Raises
    ------
    UsageError
        When an argument has no meaning.
    AlignmentError
        When it cannot be done; the sentence says why.
    """
    objective = objective_name(objective)
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}", "--method", f"Choose from: {', '.join(METHODS)}.")
    if check and start_from:
        raise UsageError(
            "an alignment is either started from another or checked", "--check", "Do one, then the other."
        )
    if scale != 1.0 and not start_from:
        raise UsageError(
            "--scale belongs to --start-from", "", "Name the other objective with --start-from too."
        )
    if not 0 < scale < math.inf:
        raise UsageError(f"--scale is {scale:g}", "", "It must be above 0; 1 keeps the size.")
    if display.strip() in ("", "none"):
        raise UsageError(
            "no display was named", "--display", "Name one; `lincei arm displays` lists those there are."
        )
    device = new_camera(camera)
    with device, _microdisplay(display) as microdisplay:
        if exposure_ms is not None:
            device.set_exposure_ms(exposure_ms)
        if start_from:
            return _started_from(device, microdisplay, objective, start_from, scale)
        if check:
            stored = _stored(device, microdisplay, objective)
            if method == "automatic":
                return check_automatically(
                    device, microdisplay, stored, progress=progress, cancelled=cancelled
                )
            return _in_window(device, microdisplay, objective, "landmarks", stored)
        if method == "automatic":
            alignment = align_automatically(
                device, microdisplay, objective, progress=progress, cancelled=cancelled
            )
            return stored_as(alignment)
        return _in_window(device, microdisplay, objective, method, None)


def align_automatically(
    camera: Camera,
    display: PictureDisplay,
    objective: str,
    *,
    fiducials: Sequence[Fiducial] | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> Alignment:
    """Show fiducials on the display, find them in the camera's frames, and fit.

    Parameters
    ----------
    camera : Camera
        Opened, with a slide that does not move (or none) and the lamp on or off.
    display : PictureDisplay
        In the eyepiece, in focus for the camera.
    objective : str
        The one in the light path.
    fiducials : sequence of Fiducial, optional
        Tried in turn until one is found well; a ChArUco board, then a grid of blinking dots, when left out.

    Returns
    -------
    Alignment
        Not stored yet.

    Raises
    ------
    AlignmentError
        When the camera does not see the display, is saturated, or nothing fits.
    """
    size = display.monitor.size_px
    tried = fiducials if fiducials is not None else (Charuco(size), Dots(size))
    total = sum(len(fiducial.pairs) for fiducial in tried)
    best: Alignment | None = None
    problem: AlignmentError | None = None
    done = 0
    try:
        settle_s = _settling_s(camera, display, cancelled)
        for fiducial in tried:
            seen = _look(camera, display, fiducial, settle_s, done, total, progress, cancelled)
            done += len(fiducial.pairs)
            try:
                found = _fitted(seen, camera, display, objective)
            except AlignmentError as error:
                problem = error
                continue
            if best is None or _judged_px(found) < _judged_px(best):
                best = found
            if _judged_px(best) <= GOOD_RESIDUAL_PX / 2:
                break
    finally:
        display.blank("aligned")
    if best is None:
        assert problem is not None
        raise problem
    return best


def check_automatically(
    camera: Camera,
    display: PictureDisplay,
    alignment: Alignment,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> Aligned:
    """Tell how far off an alignment is now: fiducials are shown again, nothing is fitted to them for keeps.

    One that waits for confirmation is confirmed, and stored, where it is good.
    """
    now = align_automatically(camera, display, alignment.objective, progress=progress, cancelled=cancelled)
    if now.camera_size_px != alignment.camera_size_px:
        raise AlignmentError(
            "the camera's frames have another size than the alignment was made for",
            camera.name,
            "Align again.",
        )
    # Points all over the view, and where the display's light falls on them now.
    width, height = now.camera_size_px
    x, y = np.meshgrid(np.linspace(0, width - 1, 9), np.linspace(0, height - 1, 7))
    points = np.column_stack([x.ravel(), y.ravel()])
    return judged(alignment, residual_of(alignment, points, now.to_display(points)), 2 * GOOD_RESIDUAL_PX)


def judged(alignment: Alignment, residual: Residual, good_px: float) -> Aligned:
    """Return what a check came to; one that waited for confirmation and is good is confirmed and stored."""
    good = residual.max_px <= good_px
    text = (
        f"The alignment of {alignment.objective} is off by {residual.rms_px:.2f} px of the display now "
        f"(largest {residual.max_px:.2f})"
    )
    if not good:
        again = f"align again: `{align_command_for(alignment.objective)}`."
        return Aligned(alignment, residual, False, f"{text}; {again}")
    if alignment.confirmed:
        return Aligned(alignment, residual, True, f"{text}; it is good.")
    confirmed = dataclasses.replace(alignment, confirmed=True, residual=residual)
    return Aligned(confirmed, residual, True, f"{text}; it is confirmed.", save_alignment(confirmed))


def stored_as(alignment: Alignment) -> Aligned:
    """Store a new alignment and say how good it is."""
    path = save_alignment(alignment)
    residual = alignment.residual
    limit = GOOD_RESIDUAL_PX if alignment.method == "automatic" else GOOD_BY_EYE_PX
    good = residual is None or residual.left_out_rms_px <= limit
    text = f"{alignment.describe()[0].upper()}{alignment.describe()[1:]}. Stored in {path}."
    if not good:
        text += f" That is more than {limit:g} px: see that nothing moves meanwhile, and align again."
    return Aligned(alignment, residual, good, text, path)


def gray_of(frame: Frame) -> Gray:
    """Return a frame in gray, shape (Y, X), float32, 0 to 1, linear where the camera is; nothing balanced."""
    pixels = frame.pixels
    if frame.bayer:
        cv2 = opencv()
        code = getattr(cv2, f"COLOR_Bayer{frame.bayer}2GRAY")
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), code)
    gray = pixels.astype(np.float32)
    if gray.ndim == 3:
        gray = gray.mean(axis=2)
    gray /= 2**frame.bits - 1
    return gray


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the camera saw of a fiducial."""

    matches: Matches
    size_px: tuple[int, int]
    saturated: float
    dark: bool


def _look(
    camera: Camera,
    display: PictureDisplay,
    fiducial: Fiducial,
    settle_s: float,
    done: int,
    total: int,
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> _Seen:
    """Show the pictures of a fiducial and find its points."""
    differences = []
    saturated: list[float] = []
    brightest = 0.0
    pairs = fiducial.pairs
    # A single pair is shown twice, so that a lamp that drifts cancels; many average by themselves.
    order = "abba" if len(pairs) == 1 else "ab"
    for number, pair in enumerate(pairs):
        sums: dict[str, Gray | float] = {"a": 0.0, "b": 0.0}
        for which in order:
            stop_if_cancelled(cancelled)
            picture = pair["ab".index(which)]
            lit_s = _lit(display, picture)
            gray = np.mean([gray_of(f) for f in _frames_from(camera, lit_s + settle_s, 2)], axis=0)
            saturated.append(float(np.mean(gray > 0.99)))
            brightest = max(brightest, float(gray.max()))
            sums[which] = sums[which] + gray
        differences.append(np.asarray(sums["a"] - sums["b"], dtype=np.float32))
        report(progress, Progress("aligning", done + number + 1, total))
    height, width = differences[0].shape
    return _Seen(fiducial.find(differences), (width, height), max(saturated), brightest < 0.02)


def _lit(display: PictureDisplay, picture: NDArray[np.uint8]) -> float:
    """Show a picture; return when it was lit."""
    asked_s = time.monotonic()
    display.show_picture(picture, lasts_s=_PICTURE_LASTS_S)
    while (lit_s := display.last_picture_s) is None or lit_s < asked_s:
        if time.monotonic() > asked_s + _SHOW_LIMIT_S:
            reason = display.trouble or "it does not answer"
            raise AlignmentError(
                f"the display shows nothing: {reason}", display.monitor.name, "Check its cable and power."
            )
        time.sleep(0.005)
    return lit_s


def _frames_from(camera: Camera, time_s: float, count: int) -> list[Frame]:
    """Return the first frames whose exposure began after a time."""
    frames: list[Frame] = []
    while len(frames) < count:
        frame = camera.grab(_FRAME_LIMIT_S)
        if _exposed_s(frame, camera) >= time_s:
            if frames and frame.size_px != frames[0].size_px:
                raise AlignmentError("the size of the frames changed under way", camera.name, "Try again.")
            frames.append(frame)
        elif time.monotonic() > time_s + _SHOW_LIMIT_S:
            raise AlignmentError(
                "the camera's frames are seconds late", camera.name, "Close other programs, and try again."
            )
    return frames


def _exposed_s(frame: Frame, camera: Camera) -> float:
    """Return when the exposure of a frame began, as far as the camera tells."""
    return frame.time_s - (frame.exposure_ms or camera.exposure_ms or 0.0) / 1000


def _settling_s(camera: Camera, display: PictureDisplay, cancelled: CancelCheck | None) -> float:
    """Return how long after a picture was lit frames show it, by switching from dark to light."""
    width, height = display.monitor.size_px
    lit_s = _lit(display, np.zeros((height, width), np.uint8))
    before = np.mean([_blocks(frame) for frame in _frames_from(camera, lit_s + SETTLE_S, 3)], axis=0)
    lit_s = _lit(display, np.full((height, width), 255, np.uint8))
    seen: list[tuple[float, Gray]] = []
    while not seen or seen[-1][0] < _SETTLE_LIMIT_S:
        stop_if_cancelled(cancelled)
        frame = camera.grab(_FRAME_LIMIT_S)
        seen.append((_exposed_s(frame, camera) - lit_s, _blocks(frame)))
        last = [blocks for _, blocks in seen[-_SETTLED_FRAMES:]]
        change = float(np.abs(last[-1] - before).max())
        if (
            len(last) == _SETTLED_FRAMES
            and change > _CHANGE
            and float(np.ptp(last, axis=0).max()) < _SETTLED_SHARE * change
        ):
            return max(SETTLE_S, seen[-_SETTLED_FRAMES][0] + SETTLE_S / 2)
    # Nothing changed that can be told from noise; the fiducials will show whether that is so.
    return SETTLE_S


def _blocks(frame: Frame) -> Gray:
    """Return a frame's light in a few large blocks, where noise has averaged out."""
    blocks: Gray = opencv().resize(gray_of(frame), (8, 6), interpolation=opencv().INTER_AREA)
    return blocks


def _fitted(seen: _Seen, camera: Camera, display: PictureDisplay, objective: str) -> Alignment:
    """Return the alignment that fits what was seen.

    Raises
    ------
    AlignmentError
        When it cannot be fitted; it says what is most likely the cause.
    """
    if seen.saturated > _SATURATED_SHARE:
        raise AlignmentError(
            f"{100 * seen.saturated:.0f} % of the camera's pixels are saturated, so that it cannot see the "
            "display's light",
            camera.name,
            "Dim the lamp (or switch it off) or shorten the exposure, and try again.",
        )
    if len(seen.matches) < _FEWEST_FOUND:
        light = (
            "Its image is dark: lengthen the exposure, or make the display brighter."
            if seen.dark
            else "Dim the lamp, and see that the slide does not move and the display is in focus."
        )
        raise AlignmentError(
            "the camera does not see the fiducials on the display",
            camera.name,
            f"{light} {_OTHERWISE}",
        )
    try:
        matrix, kind, residual = fit_alignment(
            seen.matches.camera_px, seen.matches.display_px, camera_size_px=seen.size_px
        )
    except AlignmentError as error:
        # Without the display in view, tissue may be taken for some fiducials.
        raise AlignmentError(error.what, camera.name, f"{error.what_to_do} {_OTHERWISE}") from error
    return new_alignment(
        matrix,
        kind,
        residual,
        objective=objective,
        method="automatic",
        camera=camera,
        size_px=seen.size_px,
        monitor=display.monitor,
    )


def new_alignment(
    matrix: NDArray[np.float64],
    kind: str,
    residual: Residual | None,
    *,
    objective: str,
    method: str,
    camera: Camera,
    size_px: tuple[int, int],
    monitor: Monitor,
) -> Alignment:
    """Return an alignment with what it belongs to."""
    return Alignment(
        matrix=matrix,
        kind=kind,
        objective=objective,
        camera_size_px=size_px,
        display_size_px=monitor.size_px,
        display=display_key(monitor),
        method=method,
        residual=residual,
        camera=camera.name,
    )


def _judged_px(alignment: Alignment) -> float:
    assert alignment.residual is not None
    return alignment.residual.left_out_rms_px


# -- landmarks ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Landmark:
    """A place of the slide, and how to know it again."""

    template: Gray
    # x and y in the frame it was found in; and of the template's upper left corner.
    at_px: tuple[float, float]


class LandmarkAlignment:
    """The observer sets a cross onto landmarks of the slide, which the camera has found.

    Parameters
    ----------
    gray : ndarray
        The camera's view of the slide, shape (Y, X), float32, from `gray_of`.
    display_size_px : tuple of int
        Width and height of the display.
    start : ndarray, optional
        A map, shape (3, 3), that says where the cross begins; the view fitted into the display when left out.

    Raises
    ------
    AlignmentError
        When the view has fewer than four landmarks.
    """

    def __init__(
        self, gray: Gray, display_size_px: tuple[int, int], start: NDArray[np.float64] | None = None
    ) -> None:
        self.camera_size_px = (int(gray.shape[1]), int(gray.shape[0]))
        self.display_size_px = display_size_px
        self._start = manual_matrix(self.camera_size_px, display_size_px) if start is None else start
        places = find_landmarks(gray)
        smooth = _smooth(gray)
        self._landmarks = [_Landmark(_template(smooth, at), at) for at in places]
        self.landmarks_px = np.array(places)
        self.index = 0
        self._pairs: dict[int, tuple[tuple[float, float], tuple[float, float]]] = {}
        self.cross_px = self._expected()

    def __len__(self) -> int:
        return len(self._landmarks)

    @property
    def done(self) -> int:
        """How many landmarks have been set."""
        return len(self._pairs)

    @property
    def pairs(self) -> Matches:
        """What was set so far."""
        camera = np.array([pair[0] for pair in self._pairs.values()]).reshape(-1, 2)
        return Matches(camera, np.array([pair[1] for pair in self._pairs.values()]).reshape(-1, 2))

    def follow(self, gray: Gray) -> bool:
        """Find the landmarks again in a newer frame, since slides slip; tell whether the present one is."""
        smooth = _smooth(gray)
        there = False
        for number, landmark in enumerate(self._landmarks):
            at = _found_again(smooth, landmark.template, self.landmarks_px[number])
            if at is not None:
                self.landmarks_px[number] = at
                there = there or number == self.index
        return there

    def move(self, dx: float, dy: float) -> None:
        """Move the cross by display pixels; it stays on the display."""
        width, height = self.display_size_px
        x, y = self.cross_px
        self.cross_px = (min(max(x + dx, 0.0), width - 1.0), min(max(y + dy, 0.0), height - 1.0))

    def set(self) -> None:
        """The cross is on the landmark: keep the pair and go on to the next one."""
        x, y = self.landmarks_px[self.index]
        self._pairs[self.index] = ((float(x), float(y)), self.cross_px)
        self.select((self.index + 1) % len(self))

    def select(self, index: int) -> None:
        """Go to a landmark; the cross goes where it was set, or where it is expected."""
        self.index = index
        self.cross_px = self._pairs[index][1] if index in self._pairs else self._expected()

    def fitted(self) -> tuple[NDArray[np.float64], str, Residual]:
        """Fit what was set, as `fit_alignment` does.

        Raises
        ------
        AlignmentError
            With fewer than four, or when they lie on a line.
        """
        # A hand is no outlier: what disagrees shows in the residual, and is set again.
        return fit_alignment(
            self.pairs.camera_px,
            self.pairs.display_px,
            camera_size_px=self.camera_size_px,
            tolerance_px=4 * GOOD_BY_EYE_PX,
        )

    def against(self, alignment: Alignment) -> Residual:
        """Return how far off an alignment is on what was set."""
        return residual_of(alignment, self.pairs.camera_px, self.pairs.display_px)

    def picture(self) -> NDArray[np.uint8]:
        """Return the cross for the display, shape (Y, X), with a gap in the middle to see through."""
        cv2 = opencv()
        width, height = self.display_size_px
        picture = np.zeros((height, width), dtype=np.uint8)
        x, y = self.cross_px
        gap, arm = max(3, height // 180), max(12, height // 18)
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            ends = [(round(16 * (x + dx * reach)), round(16 * (y + dy * reach))) for reach in (gap, arm)]
            cv2.line(picture, *ends, 255, max(1, height // 500), cv2.LINE_AA, 4)
        return picture

    def _expected(self) -> tuple[float, float]:
        matrix = self._start
        try:
            matrix = self.fitted()[0]
        except AlignmentError:
            if self._pairs:
                # Too few for a fit: what the last one was off by.
                camera, display = self.pairs.camera_px[-1:], self.pairs.display_px[-1:]
                shift = np.eye(3)
                shift[:2, 2] = (display - mapped(matrix, camera))[0]
                matrix = shift @ matrix
        x, y = mapped(matrix, self.landmarks_px[self.index])[0]
        width, height = self.display_size_px
        return min(max(float(x), 0.0), width - 1.0), min(max(float(y), 0.0), height - 1.0)


def find_landmarks(gray: Gray) -> list[tuple[float, float]]:
    """Return places of a view that a person knows again: the most distinct corner of each part of it.

    Parameters
    ----------
    gray : ndarray
        Shape (Y, X), float32, 0 to 1.

    Returns
    -------
    list of tuple of float
        x and y in pixels, four to six.

    Raises
    ------
    AlignmentError
        When the view is too empty.
    """
    cv2 = opencv()
    smooth = _smooth(gray)
    height, width = smooth.shape
    # After Shi and Tomasi (Good features to track, CVPR 1994), over the size of a group of nuclei.
    strength = cv2.cornerMinEigenVal(smooth, 17, ksize=5)
    # The farther out, the less the map extrapolates.
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    strength = strength * (0.2 + np.hypot(x, y)).astype(np.float32)
    places: list[tuple[float, float]] = []
    columns, rows = _LANDMARKS
    strongest = float(np.percentile(strength, 99.5))
    for row in range(rows):
        for column in range(columns):
            # Away from the border, where the eyepiece's circle may cut it off.
            left, right = (int(width * (0.12 + 0.76 * (column + end) / columns)) for end in (0.1, 0.9))
            top, bottom = (int(height * (0.12 + 0.76 * (row + end) / rows)) for end in (0.1, 0.9))
            part = strength[top:bottom, left:right]
            down, across = np.unravel_index(int(part.argmax()), part.shape)
            at_y, at_x = int(top + down), int(left + across)
            around = smooth[at_y - 16 : at_y + 17, at_x - 16 : at_x + 17]
            if part.max() > 0.05 * strongest and around.size and np.ptp(around) > 0.06:
                places.append((float(at_x), float(at_y)))
    if len(places) < 4:
        raise AlignmentError(
            f"the camera sees {len(places)} landmarks, and four are needed",
            "alignment",
            "Move to tissue with dark spots all over the view, and focus.",
        )
    return places


def _smooth(gray: Gray) -> Gray:
    smoothed: Gray = opencv().GaussianBlur(gray, (0, 0), 2.0)
    return smoothed


def _template(smooth: Gray, at: tuple[float, float]) -> Gray:
    half = _TEMPLATE_PX // 2
    x, y = (round(value) for value in at)
    return smooth[y - half : y + half + 1, x - half : x + half + 1].copy()


def _found_again(smooth: Gray, template: Gray, near: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return where a template lies now, near where it lay last; None when it is gone."""
    half = _TEMPLATE_PX // 2
    x, y = np.round(near).astype(int)
    reach = half + _SEARCH_PX
    left, top = max(0, x - reach), max(0, y - reach)
    part = smooth[top : y + reach + 1, left : x + reach + 1]
    if min(part.shape) < _TEMPLATE_PX:
        return None
    likeness = opencv().matchTemplate(part, template, opencv().TM_CCOEFF_NORMED)
    row, column = np.unravel_index(int(likeness.argmax()), likeness.shape)
    if likeness[row, column] < _SAME_PLACE:
        return None
    return (
        left + half + column + _peak(likeness[row], int(column)),
        top + half + row + _peak(likeness[:, column], int(row)),
    )


def _peak(values: Gray, at: int) -> float:
    """Return how far from its largest value the top of the parabola through it and its neighbors lies."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = (float(value) for value in values[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else 0.5 * (before - after) / bend


# -- by hand ------------------------------------------------------------------------------------------------


@dataclass
class ManualAlignment:
    """Shift, scale, rotation and mirroring, set by hand on a target of concentric circles.

    The operator brings something distinct to the middle of the camera's view, where the window shows the
    same circles; the observer shifts the circles in the eyepiece until they surround it there, and turns and
    scales them until tissue meets the circles and the tick at the same places.

    Parameters
    ----------
    camera_size_px, display_size_px : tuple of int
        Width and height.
    """

    camera_size_px: tuple[int, int]
    display_size_px: tuple[int, int]
    shift_px: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    rotation_deg: float = 0.0
    mirrored: bool = False
    _circles: NDArray[np.float64] = field(init=False, repr=False)

    RADII = (0.04, 0.12, 0.24, 0.36, 0.48)

    def __post_init__(self) -> None:
        angles = np.linspace(0, 2 * math.pi, 181)
        self._circles = np.column_stack([np.cos(angles), np.sin(angles)])

    @classmethod
    def from_alignment(cls, alignment: Alignment) -> ManualAlignment:
        """Begin with what is nearest to another alignment: its shift, scale, rotation and mirroring."""
        begun = cls(alignment.camera_size_px, alignment.display_size_px)
        middle = (np.array(alignment.camera_size_px) - 1) / 2
        around = alignment.to_display(middle + np.array([[0, 0], [1, 0], [0, 1]]))
        derivative = np.column_stack([around[1] - around[0], around[2] - around[0]])
        begun.mirrored = bool(np.linalg.det(derivative) < 0)
        unmirrored = derivative @ np.diag([-1.0 if begun.mirrored else 1.0, 1.0])
        left, stretch, right = np.linalg.svd(unmirrored)
        turn = left @ right
        begun.rotation_deg = math.degrees(math.atan2(turn[1, 0], turn[0, 0]))
        fitting = min(d / c for d, c in zip(begun.display_size_px, begun.camera_size_px, strict=True))
        begun.scale = float(stretch.mean()) / fitting
        dx, dy = around[0] - (np.array(begun.display_size_px) - 1) / 2
        begun.shift_px = (float(dx), float(dy))
        return begun

    def matrix(self) -> NDArray[np.float64]:
        """Return the map, shape (3, 3), from camera pixels to display pixels."""
        return manual_matrix(
            self.camera_size_px,
            self.display_size_px,
            shift_px=self.shift_px,
            scale=self.scale,
            rotation_deg=self.rotation_deg,
            mirrored=self.mirrored,
        )

    def shift(self, dx: float, dy: float) -> None:
        """Shift by display pixels."""
        self.shift_px = (self.shift_px[0] + dx, self.shift_px[1] + dy)

    def stretch(self, factor: float) -> None:
        """Make it larger by a factor."""
        self.scale = min(max(self.scale * factor, 0.1), 10.0)

    def turn(self, degrees: float) -> None:
        """Turn clockwise."""
        self.rotation_deg = (self.rotation_deg + degrees + 180) % 360 - 180

    def target(self) -> list[NDArray[np.float64]]:
        """Return the target's lines in camera pixels: circles, a cross, and a tick at the upper right.

        The tick lies off the axes, so that turned and mirrored targets look different.
        """
        middle = (np.array(self.camera_size_px) - 1) / 2
        short = min(self.camera_size_px)
        lines = [middle + radius * short * self._circles for radius in self.RADII]
        reach, tick = self.RADII[-1] * short, np.array([math.cos(-1.0), math.sin(-1.0)])
        lines += [middle + reach * np.array(ends) for ends in ([[-1, 0], [1, 0]], [[0, -1], [0, 1]])]
        lines.append(middle + short * np.outer(self.RADII[-2:], tick))
        return lines

    def picture(self) -> NDArray[np.uint8]:
        """Return the target for the display, shape (Y, X)."""
        width, height = self.display_size_px
        picture = np.zeros((height, width), dtype=np.uint8)
        matrix = self.matrix()
        shown = [mapped(matrix, line) for line in self.target()]
        draw_lines(picture, shown, 255, max(1, height // 500))
        return picture


def draw_lines(
    picture: NDArray[np.uint8], lines: Sequence[NDArray[np.float64]], color: Any, width_px: int
) -> None:
    """Draw open lines of corners, shape (N, 2), into a picture, to a sixteenth of a pixel."""
    fixed = [np.round(16 * line).astype(np.int32) for line in lines]
    opencv().polylines(picture, fixed, False, color, width_px, opencv().LINE_AA, 4)


# -- what run_align is made of ------------------------------------------------------------------------------


@contextmanager
def _microdisplay(spec: str) -> Iterator[Microdisplay]:
    """Open the display; dark again at the end."""
    with Microdisplay(spec, notice_s=0.0) as display:
        yield display


def _frame_size(camera: Camera) -> tuple[int, int]:
    return camera.grab(_FRAME_LIMIT_S).size_px


def _stored(camera: Camera, display: PictureDisplay, objective: str) -> Alignment:
    monitor = display.monitor
    return load_alignment(
        objective, _frame_size(camera), display_key(monitor), monitor.size_px, unconfirmed=True
    )


def _started_from(
    camera: Camera, display: PictureDisplay, objective: str, start_from: str, scale: float
) -> Aligned:
    monitor = display.monitor
    other = load_alignment(start_from, _frame_size(camera), display_key(monitor), monitor.size_px)
    seeded = other.seeded(objective, scale)
    path = save_alignment(seeded)
    sentence = (
        f"The alignment of {objective} was started from that of {start_from}. It is not used before it was "
        f"checked: `{align_command_for(objective, '--check')}`."
    )
    return Aligned(seeded, None, False, sentence, path)


def _in_window(
    camera: Camera, display: Microdisplay, objective: str, method: str, checked: Alignment | None
) -> Aligned:
    """Open the window for what an observer does; a check is done with landmarks."""
    need_qt()
    from arm_overlay.align_window import show_align_window

    start = checked
    if start is None:
        monitor = display.monitor
        try:
            start = load_alignment(
                objective, _frame_size(camera), display_key(monitor), monitor.size_px, unconfirmed=True
            )
        except LinceiError:
            start = None  # nothing to begin with
    return show_align_window(camera, display, objective, method, start=start, checking=checked is not None)
