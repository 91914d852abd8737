"""Motion is measured, the heat map moves with the tissue, and its outlines do not flicker."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from arm_overlay.stabilizer import (
    CERTAIN,
    MotionTracker,
    Stabilizer,
    correlated,
    has_structure,
    motion_picture,
)
from lincei.metrics import dice

VIEW = (400, 260)


def tissue(seed: int = 0, side: int = 1400) -> NDArray[np.float64]:
    """Return a texture of blobs of several sizes, gray values."""
    random = np.random.default_rng(seed)
    layers = [ndimage.gaussian_filter(random.normal(size=(side, side)), width) for width in (1, 3, 10)]
    return 150 + 30 * sum(layer / layer.std() for layer in layers) / 3**0.5


def view(slide: NDArray[np.float64], x: float, y: float, seed: int = 0) -> NDArray[np.uint8]:
    """Return what a camera sees of a slide with its corner at (x, y), with noise: (Y, X, 3)."""
    width, height = VIEW
    crop = slide[int(y) : int(y) + height + 1, int(x) : int(x) + width + 1]
    part = ndimage.shift(crop, (-(y % 1), -(x % 1)), order=1, mode="nearest")[:height, :width]
    noisy = part[..., None] + np.random.default_rng(seed).normal(0, 4, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def test_the_way_of_the_tissue_is_measured_to_a_fraction_of_a_pixel() -> None:
    slide, tracker = tissue(), MotionTracker()
    places = [(300 + 7.25 * i, 400 - 3.5 * i) for i in range(40)]
    for number, (x, y) in enumerate(places):
        picture, pixels = motion_picture(view(slide, x, y, number))
        motion = tracker.track(picture, 2 * pixels, number / 30)
        assert not motion.lost
        # One pixel of what was developed is two of the frame.
        assert motion.position_px == pytest.approx((2 * (x - 300), 2 * (y - 400)), abs=2.0)
        if number:
            assert motion.shift_px == pytest.approx((-14.5, 7.0), abs=2.0)
    assert motion.speed_fields_s == pytest.approx(30 * np.hypot(7.25, 3.5) / VIEW[0], rel=0.1)


@pytest.mark.parametrize("size", [(400, 260), (401, 259), (333, 187), (160, 100), (97, 51)])
def test_pictures_of_any_size_show_no_motion_that_is_not_there(size: tuple[int, int]) -> None:
    slide = np.clip(tissue(), 0, 255).astype(np.uint8)[: size[1], : size[0], None].repeat(3, axis=2)
    picture, pixels = motion_picture(slide)
    assert picture.shape[0] % 2 == picture.shape[1] % 2 == 0
    tracker = MotionTracker()
    tracker.track(picture, pixels, 0.0)
    motion = tracker.track(picture.copy(), pixels, 0.1)
    assert motion.position_px == pytest.approx((0, 0), abs=0.02)


def test_pictures_are_left_as_they_are() -> None:
    slide = tissue()
    pictures = [motion_picture(view(slide, 100 + 10 * i, 100))[0] for i in range(2)]
    copies = [picture.copy() for picture in pictures]
    correlated(*pictures)
    for picture, copy in zip(pictures, copies, strict=True):
        np.testing.assert_array_equal(picture, copy)


def test_on_real_tissue_one_place_is_told_from_another(real_data: Path) -> None:
    sections = [
        cv2.imread(str(path))[::2, ::2]
        for path in sorted((real_data / "he_breast_40x" / "images").glob("*.jpg"))
    ]
    random = np.random.default_rng(0)

    def picture(section: NDArray[np.uint8], x: int, y: int) -> NDArray[np.float32]:
        part = cv2.GaussianBlur(section[y : y + 600, x : x + 960], (0, 0), 4)
        noisy = np.clip(part + random.normal(0, 4, part.shape), 0, 255).astype(np.uint8)
        return motion_picture(noisy)[0]

    for section in sections:
        for x, y in ((100, 50), (300, 300)):
            _, certainty = correlated(picture(section, x, y), picture(section, x + 288, y))
            assert certainty > 1.5 * CERTAIN
            for other in sections:
                if other is not section:
                    _, certainty = correlated(picture(section, x, y), picture(other, x, y))
                    assert certainty < CERTAIN / 2


def test_a_slide_at_rest_does_not_drift() -> None:
    slide, tracker = tissue(), MotionTracker()
    positions = []
    for number in range(60):
        picture, pixels = motion_picture(view(slide, 500, 500, number))
        positions.append(tracker.track(picture, pixels, number / 30).position_px)
    assert np.abs(np.array(positions[-10:]).mean(axis=0)).max() < 0.3
    assert np.abs(positions).max() < 1


def test_a_jump_to_another_place_is_told_and_then_followed_again() -> None:
    slide, tracker = tissue(), MotionTracker()
    seen = [(100, 100), (102, 100), (900, 800), (904, 800)]
    motions = []
    for number, place in enumerate(seen):
        picture, pixels = motion_picture(view(slide, *place, number))
        motions.append(tracker.track(picture, pixels, number / 30))
    assert [motion.lost for motion in motions] == [False, False, True, False]
    assert motions[3].position_px == pytest.approx((4, 0), abs=0.5)


def test_a_scene_that_was_seen_with_a_reference_far_behind_is_still_followed() -> None:
    slide, tracker = tissue(), MotionTracker()
    for number in range(12):  # each step a quarter of the view
        picture, pixels = motion_picture(view(slide, 50 + 75 * number, 300, number))
        motion = tracker.track(picture, pixels, number / 10)
        assert not motion.lost
    assert motion.position_px == pytest.approx((75 * 11, 0), abs=6)
    assert motion.speed_fields_s == pytest.approx(10 * 75 / VIEW[0], rel=0.1)


def test_glass_shows_no_motion_and_is_nothing_to_be_lost() -> None:
    tracker = MotionTracker()
    y, x = np.mgrid[: VIEW[1], : VIEW[0]]
    lamp = 240 - 60 * ((y / VIEW[1] - 0.5) ** 2 + (x / VIEW[0] - 0.5) ** 2)
    for number in range(6):
        picture, pixels = motion_picture(view(lamp, 0, 0, number))
        assert not has_structure(picture)
        motion = tracker.track(picture, pixels, number / 30)
        assert not motion.lost
        assert motion.speed_fields_s < 0.1
    picture, pixels = motion_picture(view(tissue(), 300, 300))
    assert has_structure(picture)
    assert tracker.track(picture, pixels, 0.2).lost


def blob(x: float, y: float, radius: float = 8.0) -> NDArray[np.float32]:
    """Return a heat map (40, 60) with one soft disk."""
    rows, columns = np.mgrid[:40, :60]
    edge = (radius - np.hypot(rows - y, columns - x)) / 1.5
    return (1 / (1 + np.exp(-edge))).astype(np.float32)


def center(heat: NDArray[Any]) -> tuple[float, float]:
    rows, columns = np.mgrid[: heat.shape[0], : heat.shape[1]]
    return float((columns * heat).sum() / heat.sum()), float((rows * heat).sum() / heat.sum())


def test_the_heat_map_moves_with_the_tissue() -> None:
    stabilizer = Stabilizer()
    stabilizer.add(blob(30, 20), (0.0, 0.0), 8.0, 0.0, 0.5)
    # The view moved 20 pixels to the right and 12 up: what it shows moved to the left and down.
    average, steady, known = stabilizer.at((20.0, -12.0), 8.0)
    assert center(average) == pytest.approx((27.5, 21.5), abs=0.05)
    assert not known[:, -2:].any()
    assert not known[:1].any()
    assert known[2:, :57].all()
    assert not steady[~known].any()


def test_answers_to_a_moving_slide_are_averaged_where_the_tissue_is() -> None:
    stabilizer = Stabilizer()
    random = np.random.default_rng(0)
    errors, plain = [], []
    for number in range(30):
        x = 20 + 0.6 * number
        noise = random.normal(0, 0.2, (40, 60)).astype(np.float32)
        stabilizer.add(blob(x, 20) + noise, (-4.8 * number, 0.0), 8.0, number / 30, 0.5)
        average, _, known = stabilizer.at((-4.8 * number, 0.0), 8.0)
        errors.append(float((average - blob(x, 20))[known].std()))
        plain.append(float(noise.std()))
    assert np.mean(errors[10:]) < 0.5 * np.mean(plain)


def test_outlines_of_a_still_noisy_scene_flicker_much_less() -> None:
    random = np.random.default_rng(1)
    stabilizer = Stabilizer()
    plain, steady = [], []
    for number in range(60):
        # Probabilities near the border of a region vary from frame to frame.
        answer = np.clip(blob(30, 20, 12) + random.normal(0, 0.12, (40, 60)), 0, 1).astype(np.float32)
        stabilizer.add(answer, (0.0, 0.0), 8.0, number / 30, 0.5)
        plain.append(answer > 0.5)
        steady.append(stabilizer.at((0.0, 0.0), 8.0)[1] > 0.5)

    def flicker(masks: list[NDArray[np.bool_]]) -> float:
        """Return one less the Dice of consecutive frames, on average."""
        later = masks[20:]
        return float(np.mean([1 - dice(a, b) for a, b in itertools.pairwise(later)]))

    assert flicker(plain) > 0.02
    assert flicker(steady) < 0.15 * flicker(plain)
    truth = blob(30, 20, 12) > 0.5
    assert dice(steady[-1], truth) > 0.97


def test_what_was_tumor_stays_a_little_below_the_threshold_and_no_longer() -> None:
    stabilizer = Stabilizer(smoothing_s=0.0, hysteresis=0.1)

    def is_tumor(value: float, time_s: float) -> bool:
        stabilizer.add(np.full((9, 9), value, np.float32), (0.0, 0.0), 8.0, time_s, 0.5)
        return bool(stabilizer.at((0.0, 0.0), 8.0)[1][4, 4] > 0.5)

    said = [is_tumor(value, i / 30) for i, value in enumerate((0.45, 0.55, 0.65, 0.45, 0.55, 0.35, 0.55))]
    assert said == [False, False, True, True, True, False, False]


def test_a_map_of_another_size_begins_anew() -> None:
    stabilizer = Stabilizer()
    stabilizer.add(blob(30, 20), (0.0, 0.0), 8.0, 0.0, 0.5)
    stabilizer.add(np.zeros((10, 10), np.float32), (0.0, 0.0), 8.0, 0.1, 0.5)
    assert stabilizer.at((0.0, 0.0), 8.0)[0].shape == (10, 10)
    assert not stabilizer.is_empty
    stabilizer.reset()
    assert stabilizer.is_empty
