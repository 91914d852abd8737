from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from optical_path import (
    CAMERA_PX,
    DISPLAY_PX,
    MONITOR,
    OpticalPath,
    PathCamera,
    PathDisplay,
    largest_error_px,
    some_map,
)
from virtual_screens import TwoMonitors

import arm_overlay.aligning as aligning
from arm_overlay.aligning import (
    LandmarkAlignment,
    ManualAlignment,
    align_automatically,
    check_automatically,
    find_landmarks,
    gray_of,
    judged,
    run_align,
    stored_as,
)
from arm_overlay.display_alignment import (
    AlignmentError,
    display_key,
    fit_alignment,
    load_alignment,
    mapped,
    save_alignment,
)
from arm_overlay.fiducials import Charuco
from arm_overlay.frames import Frame
from lincei.errors import CancelledError, UsageError
from lincei.progress import Progress

TRUE = some_map(rotation_deg=14, shear=0.04, mirrored=True, keystone=(0.06, 0.0))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINCEI_ARM", str(tmp_path / "arm"))


def align(path: OpticalPath, *, bayer: str = "", objective: str = "20x", **options: Any) -> Any:
    return align_automatically(PathCamera(path, bayer=bayer), PathDisplay(path), objective, **options)


# -- automatic


def test_automatic_alignment_finds_the_map_to_less_than_a_pixel_and_says_so() -> None:
    path = OpticalPath(TRUE)
    camera, display = PathCamera(path), PathDisplay(path)
    reports: list[Progress] = []
    alignment = align_automatically(camera, display, "20x", progress=reports.append)
    assert largest_error_px(alignment.matrix, TRUE) < 1
    assert alignment.residual is not None
    assert alignment.residual.rms_px < 0.5
    assert (alignment.camera_size_px, alignment.display_size_px) == (CAMERA_PX, DISPLAY_PX)
    assert (alignment.objective, alignment.display, alignment.method) == ("20x", "DUMMY1", "automatic")
    assert display.blanked
    assert display.path.picture is None
    assert reports
    assert all(0 < update.done <= update.total for update in reports)


def test_a_color_camera_behind_a_mosaic_aligns_as_well() -> None:
    alignment = align(OpticalPath(TRUE), bayer="GRBG", fiducials=[Charuco(DISPLAY_PX)])
    assert largest_error_px(alignment.matrix, TRUE) < 1


def test_dots_take_over_where_markers_are_blurred() -> None:
    alignment = align(OpticalPath(TRUE, blur_px=4.0))
    assert largest_error_px(alignment.matrix, TRUE) < 1


def test_a_display_that_the_camera_cannot_see_is_told_with_the_way_out() -> None:
    with pytest.raises(AlignmentError, match=r"does not see the fiducials.*--method landmarks"):
        align(OpticalPath(TRUE, light=0.0), fiducials=[Charuco(DISPLAY_PX)])


def test_points_that_disagree_are_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)

    def disagreeing(camera_px: Any, display_px: Any, **options: Any) -> Any:
        # As when tissue is taken for fiducials: found anywhere.
        return fit_alignment(random.permutation(camera_px), display_px, **options)

    monkeypatch.setattr(aligning, "fit_alignment", disagreeing)
    with pytest.raises(AlignmentError, match=r"the points disagree.*--method landmarks"):
        align(OpticalPath(TRUE), fiducials=[Charuco(DISPLAY_PX)])


def test_a_saturated_camera_is_told_to_dim_the_lamp() -> None:
    with pytest.raises(AlignmentError, match=r"saturated.*Dim the lamp"):
        align(OpticalPath(TRUE, brightness=1.0, light=0.5), fiducials=[Charuco(DISPLAY_PX)])


def test_a_display_that_shows_nothing_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aligning, "_SHOW_LIMIT_S", 0.1)
    path = OpticalPath(TRUE)
    display = PathDisplay(path)
    display.trouble = "the monitor DUMMY1 is not there"
    monkeypatch.setattr(display, "show_picture", lambda picture, *, lasts_s: None)
    with pytest.raises(AlignmentError, match="the monitor DUMMY1 is not there"):
        align_automatically(PathCamera(path), display, "20x")


def test_frames_from_before_the_picture_are_not_used() -> None:
    path = OpticalPath(TRUE)

    class SlowDisplay(PathDisplay):
        """Lights up only a while after it said so, as displays do."""

        def show_picture(self, picture: NDArray[Any], *, lasts_s: float) -> None:
            self.last_picture_s = self.lit_s = time.monotonic()
            self.coming = picture

    display = SlowDisplay(path)

    class Watching(PathCamera):
        def grab(self, timeout_s: float = 1.0) -> Frame:
            if time.monotonic() > display.lit_s + 0.8 * aligning.SETTLE_S:
                path.picture = display.coming
            return super().grab(timeout_s)

    alignment = align_automatically(Watching(path), display, "20x", fiducials=[Charuco(DISPLAY_PX)])
    assert largest_error_px(alignment.matrix, TRUE) < 1


def test_a_camera_that_is_late_without_knowing_it_is_waited_for() -> None:
    path = OpticalPath(TRUE)

    class Late(PathCamera):
        """Hands frames over half a second later, as network cameras do, as if they were new."""

        def __init__(self, path: OpticalPath) -> None:
            super().__init__(path)
            self.pictures: list[tuple[float, Any]] = []

        def grab(self, timeout_s: float = 1.0) -> Frame:
            now_s = time.monotonic()
            self.pictures.append((now_s, display.shown))
            seen = [shown for at_s, shown in self.pictures if at_s <= now_s - 0.5]
            path.picture = seen[-1] if seen else None
            return super().grab(timeout_s)

    class Apart(PathDisplay):
        shown: Any = None

        def show_picture(self, picture: NDArray[Any], *, lasts_s: float) -> None:
            self.shown, self.last_picture_s = picture, time.monotonic()

    display = Apart(path)
    alignment = align_automatically(Late(path), display, "20x", fiducials=[Charuco(DISPLAY_PX)])
    assert largest_error_px(alignment.matrix, TRUE) < 1


def test_aligning_stops_when_it_is_asked_to_and_leaves_the_display_dark() -> None:
    path = OpticalPath(TRUE)
    display = PathDisplay(path)
    with pytest.raises(CancelledError):
        align_automatically(PathCamera(path), display, "20x", cancelled=lambda: True)
    assert display.blanked


# -- checking


def test_a_check_says_how_far_off_an_alignment_has_become() -> None:
    path = OpticalPath(TRUE)
    camera, display = PathCamera(path), PathDisplay(path)
    alignment = align_automatically(camera, display, "20x", fiducials=[Charuco(DISPLAY_PX)])
    good = check_automatically(camera, display, alignment)
    assert good.good
    assert good.residual is not None
    assert good.residual.max_px < 1
    # Somebody bumps into the display.
    bumped = np.eye(3)
    bumped[:2, 2] = (6, -8)
    path.matrix = bumped @ TRUE
    off = check_automatically(camera, display, alignment)
    assert not off.good
    assert off.residual is not None
    assert off.residual.rms_px == pytest.approx(10, abs=1)
    assert "align again" in off.sentence


def test_a_check_confirms_what_was_started_from_another_objective() -> None:
    path = OpticalPath(TRUE)
    camera, display = PathCamera(path), PathDisplay(path)
    first = align_automatically(camera, display, "20x", fiducials=[Charuco(DISPLAY_PX)])
    save_alignment(first)
    seeded = first.seeded("10x")
    save_alignment(seeded)
    checked = check_automatically(camera, display, seeded)
    assert "it is confirmed" in checked.sentence
    loaded = load_alignment("10x", CAMERA_PX, display_key(MONITOR), DISPLAY_PX)
    assert loaded.confirmed
    assert loaded.seeded_from == "20x"
    assert loaded.residual is not None


# -- landmarks


def observed(
    landmarks: LandmarkAlignment, true: NDArray[np.float64], *, clumsy_px: float = 0.0, seed: int = 0
) -> None:
    """Move the cross with whole steps onto each landmark, as an observer does."""
    random = np.random.default_rng(seed)
    for _ in range(len(landmarks)):
        target = mapped(true, landmarks.landmarks_px[landmarks.index])[0] + random.normal(0, clumsy_px, 2)
        dx, dy = np.round(target - landmarks.cross_px)
        landmarks.move(float(dx), float(dy))
        landmarks.set()


def test_landmarks_surround_the_view_and_lie_on_structure() -> None:
    gray = OpticalPath(TRUE).seen()
    places = np.array(find_landmarks(gray))
    assert 4 <= len(places) <= 6
    assert np.ptp(places[:, 0]) > CAMERA_PX[0] / 2
    assert np.ptp(places[:, 1]) > CAMERA_PX[1] / 3


def test_empty_glass_has_no_landmarks() -> None:
    empty = np.random.default_rng(0).normal(0.8, 0.01, CAMERA_PX[::-1]).astype(np.float32)
    with pytest.raises(AlignmentError, match=r"0 landmarks, and four are needed.*Move to tissue"):
        find_landmarks(empty)


def test_a_cross_on_each_landmark_gives_the_map() -> None:
    true = some_map(rotation_deg=20, mirrored=True)
    landmarks = LandmarkAlignment(OpticalPath(true).seen(), DISPLAY_PX)
    observed(landmarks, true)
    matrix, _, residual = landmarks.fitted()
    # The cross moves by whole pixels.
    assert residual.rms_px < 1
    assert largest_error_px(matrix, true) < 2.5


def test_a_clumsy_observer_gets_a_residual_that_says_so() -> None:
    true = some_map()
    landmarks = LandmarkAlignment(OpticalPath(true).seen(), DISPLAY_PX)
    observed(landmarks, true, clumsy_px=5.0)
    _, _, residual = landmarks.fitted()
    assert 1 < residual.rms_px < 15
    assert residual.outliers == 0


def test_after_two_landmarks_the_cross_begins_near_the_next_ones() -> None:
    shift = np.eye(3)
    shift[:2, 2] = (70, -40)
    true = shift @ some_map()
    landmarks = LandmarkAlignment(OpticalPath(true).seen(), DISPLAY_PX)
    expected = mapped(true, landmarks.landmarks_px)
    assert np.linalg.norm(landmarks.cross_px - expected[0]) > 50
    for number in (0, 1):
        landmarks.cross_px = tuple(expected[number])
        landmarks.set()
    assert np.linalg.norm(landmarks.cross_px - expected[2]) < 2


def test_landmarks_follow_a_slide_that_slips() -> None:
    true = some_map(rotation_deg=5)
    path = OpticalPath(true, noise=0.01)
    landmarks = LandmarkAlignment(path.seen(), DISPLAY_PX)
    before = landmarks.landmarks_px.copy()
    path.tissue = np.roll(path.tissue, (-9, 14), axis=(0, 1))
    assert landmarks.follow(path.seen())
    np.testing.assert_allclose(
        landmarks.landmarks_px - before, np.tile((14, -9), (len(landmarks), 1)), atol=0.5
    )
    observed(landmarks, true)
    assert largest_error_px(landmarks.fitted()[0], true) < 2.5


def test_a_landmark_that_has_left_the_view_is_not_there() -> None:
    random = np.random.default_rng(0)
    here, elsewhere = (
        0.6 + 2 * cv2.GaussianBlur(random.normal(0, 1, (400, 640)).astype(np.float32), (0, 0), 5)
        for _ in range(2)
    )
    landmarks = LandmarkAlignment(here, DISPLAY_PX)
    before = landmarks.landmarks_px.copy()
    assert landmarks.follow(here)
    assert not landmarks.follow(elsewhere)
    np.testing.assert_allclose(landmarks.landmarks_px, before, atol=0.1)


def test_three_landmarks_or_a_line_of_them_are_not_enough() -> None:
    true = some_map()
    landmarks = LandmarkAlignment(OpticalPath(true).seen(), DISPLAY_PX)
    for _ in range(3):
        landmarks.set()
    with pytest.raises(AlignmentError, match="3 points; 4 are needed"):
        landmarks.fitted()
    landmarks.landmarks_px[:, 1] = 200
    for _ in range(len(landmarks)):
        landmarks.set()
    with pytest.raises(AlignmentError, match="lie on a line"):
        landmarks.fitted()


def test_the_cross_stays_on_the_display_and_is_drawn_where_it_is() -> None:
    landmarks = LandmarkAlignment(OpticalPath(some_map()).seen(), DISPLAY_PX)
    landmarks.move(-10000, -10000)
    assert landmarks.cross_px == (0, 0)
    landmarks.move(301, 202)
    picture = landmarks.picture()
    assert picture.shape == DISPLAY_PX[::-1]
    y, x = np.average(np.indices(picture.shape).reshape(2, -1), axis=1, weights=picture.ravel())
    assert (x, y) == pytest.approx((301, 202), abs=0.2)
    # One sees through its middle.
    assert picture[202, 301] == 0


# -- by hand


def test_by_hand_it_begins_where_the_last_alignment_was() -> None:
    alignment = align(OpticalPath(some_map(rotation_deg=-30, mirrored=True, shift_px=(40, 9))))
    manual = ManualAlignment.from_alignment(alignment)
    assert manual.mirrored
    assert largest_error_px(manual.matrix(), alignment.matrix) < 1


def test_by_hand_each_key_changes_what_it_says() -> None:
    manual = ManualAlignment(CAMERA_PX, DISPLAY_PX)
    manual.shift(12, -5)
    manual.stretch(1.1)
    manual.turn(15)
    manual.mirrored = True
    true = some_map(shift_px=(12, -5), scale=1.1, rotation_deg=15, mirrored=True)
    assert largest_error_px(manual.matrix(), true) < 1e-6


def test_the_target_looks_different_when_it_is_mirrored() -> None:
    manual = ManualAlignment(CAMERA_PX, DISPLAY_PX)
    plain = manual.picture()
    assert plain.any()
    manual.mirrored = True
    assert np.abs(manual.picture().astype(int) - plain).max() > 200


# -- what is stored, and said


def test_a_good_alignment_is_stored_and_its_residual_said() -> None:
    aligned = stored_as(align(OpticalPath(TRUE), fiducials=[Charuco(DISPLAY_PX)]))
    assert aligned.good
    assert aligned.path is not None
    assert aligned.path.is_file()
    assert "residual 0." in aligned.sentence
    assert "px of the display" in aligned.sentence


def test_a_poor_alignment_is_said_to_be_poor() -> None:
    alignment = align(OpticalPath(TRUE), fiducials=[Charuco(DISPLAY_PX)])
    residual = dataclasses.replace(alignment.residual, left_out_rms_px=3.0)
    aligned = stored_as(dataclasses.replace(alignment, residual=residual))
    assert not aligned.good
    assert "more than 1 px" in aligned.sentence
    assert not judged(alignment, dataclasses.replace(residual, max_px=9.0), 2.0).good


def test_gray_of_any_frame_lies_between_0_and_1() -> None:
    gray = np.full((4, 6), 1023, np.uint16)
    for frame in (
        Frame(gray, 0.0, 0, bits=10),
        Frame(gray, 0.0, 0, bits=10, bayer="RGGB"),
        Frame(np.full((4, 6, 3), 255, np.uint8), 0.0, 0),
    ):
        assert gray_of(frame).shape == (4, 6)
        np.testing.assert_allclose(gray_of(frame), 1.0, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("simulated", "none", "20x"), "no display was named"),
        (("simulated", "DUMMY1", "20x", "by magic"), "no method 'by magic'"),
        (("nonsense", "DUMMY1", "20x"), "no kind of camera"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_opened(arguments: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run_align(*arguments)


def test_a_scale_that_would_do_nothing_or_nothing_good_is_refused() -> None:
    with pytest.raises(UsageError, match="belongs to --start-from"):
        run_align("simulated", "DUMMY1", "20x", scale=2.0)
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="above 0"):
            run_align("simulated", "DUMMY1", "20x", start_from="10x", scale=scale)


def test_a_wrong_objective_is_refused() -> None:
    with pytest.raises(UsageError, match="'large' is no objective"):
        run_align("simulated", "DUMMY1", "large")


class EyepieceCamera(PathCamera):
    """Sees what the second monitor really shows."""

    def __init__(self, path: OpticalPath, screens: TwoMonitors) -> None:
        super().__init__(path)
        self.screens = screens

    def grab(self, timeout_s: float = 1.0) -> Frame:
        self.path.picture = self.screens.eyepiece_pixels(DISPLAY_PX)[..., 1]
        return super().grab(timeout_s)


def test_with_the_real_display_process_camera_and_display_are_aligned_checked_and_seeded(
    two_monitors: TwoMonitors, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = OpticalPath(TRUE)
    monkeypatch.setattr(aligning, "new_camera", lambda spec: EyepieceCamera(path, two_monitors))
    aligned = run_align("a camera", "DUMMY1", "20x")
    assert aligned.good, aligned.sentence
    assert largest_error_px(aligned.alignment.matrix, TRUE) < 1
    assert two_monitors.operator_is_untouched()
    assert run_align("a camera", "DUMMY1", "20x", check=True).good
    started = run_align("a camera", "DUMMY1", "10x", start_from="20x")
    assert not started.good
    assert "not used before it was checked" in started.sentence
    assert run_align("a camera", "DUMMY1", "10x", check=True).good
    assert load_alignment("10x", CAMERA_PX, aligned.alignment.display, DISPLAY_PX).confirmed
