"""The focus gate on real stained sections, sharp and defocused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from arm_overlay.developing import NEUTRAL, developed, white_balance_of
from arm_overlay.frames import Frame
from arm_overlay.gate import INTERVAL_S, FocusGate, rated_binning, tissue_patches
from arm_overlay.imaging import WAVELENGTH_UM, View, numerical_aperture, raw_camera, seen
from arm_overlay.stabilizer import motion_picture

CAMERA = raw_camera(bits=8, black_level=0.0)
SIZE = (720, 450)


@pytest.fixture(scope="module")
def gate() -> FocusGate:
    return FocusGate(threads=1)


@pytest.fixture(scope="module")
def section(real_data: Path) -> NDArray[np.uint8]:
    """A breast section, 0.25 um per pixel."""
    path = sorted((real_data / "he_breast_40x" / "images").glob("*.jpg"))[0]
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


def photographed(section: NDArray[np.uint8], objective: str, depths_of_field: float, number: int) -> Frame:
    """Return a part of a section as a raw camera sees it, so many depths of field out of focus."""
    depth_um = WAVELENGTH_UM / numerical_aperture(objective) ** 2
    size_um = CAMERA.pixel_size_um(objective)
    part = section[200:, 300:][: round(SIZE[1] * size_um / 0.25), : round(SIZE[0] * size_um / 0.25)]
    pixels = seen(
        np.ascontiguousarray(part),
        0.25,
        View(objective, defocus_um=depths_of_field * depth_um),
        CAMERA,
        np.random.default_rng(number),
    )
    return Frame(pixels, float(number), number, 8, CAMERA.bayer, exposure_ms=5.0)


def out_of_focus(gate: FocusGate, frame: Frame, pixel_size_um: float, speed_fields_s: float = 0.0) -> bool:
    glass = Frame(
        seen(
            np.full((64, 64, 3), 255, np.uint8), 1.0, View(), CAMERA, np.random.default_rng(9),
            to_pixel_size_um=1.0,
        ),
        0.0, 0, 8, CAMERA.bayer,
    )  # fmt: skip
    developing = white_balance_of(glass, NEUTRAL)
    picture, pixels = motion_picture(developed(frame, developing, 0.5))
    return gate.is_out_of_focus(
        frame, developing, picture, 2 * pixels, pixel_size_um=pixel_size_um, speed_fields_s=speed_fields_s
    )


@pytest.mark.parametrize("objective", ["10x", "20x", "40x"])
def test_sharp_tissue_is_in_focus_and_defocused_tissue_is_not(
    gate: FocusGate, section: NDArray[np.uint8], objective: str
) -> None:
    size_um = CAMERA.pixel_size_um(objective)
    for depths_of_field, expected in ((0.0, False), (1.0, False), (4.0, True), (8.0, True)):
        gate.restart()
        frame = photographed(section, objective, depths_of_field, 0)
        assert out_of_focus(gate, frame, size_um) is expected, depths_of_field


def test_glass_says_nothing_of_focus(gate: FocusGate) -> None:
    gate.restart()
    glass = np.full((1800, 2880, 3), 250, np.uint8)
    frame = Frame(seen(glass, 0.25, View("20x"), CAMERA, np.random.default_rng(0)), 0.0, 0, 8, CAMERA.bayer)
    assert not out_of_focus(gate, frame, 0.586)


def test_one_rating_alone_does_not_overrule_those_before(gate: FocusGate, section: NDArray[np.uint8]) -> None:
    gate.restart()
    said = [
        out_of_focus(gate, photographed(section, "20x", defocus, number), 0.586)
        for number, defocus in enumerate((0, 8, 0, 8, 8, 8, 0, 0))
    ]
    assert said == [False, False, False, False, True, True, True, False]


def test_frames_between_two_ratings_and_smeared_ones_are_not_rated(
    gate: FocusGate, section: NDArray[np.uint8]
) -> None:
    gate.restart()
    sharp, blurred = (photographed(section, "20x", defocus, 0) for defocus in (0, 8))
    assert not out_of_focus(gate, sharp, 0.586)
    for number in range(1, 4):  # soon after, and long after but smeared
        soon = dataclasses.replace(blurred, time_s=0.2 * INTERVAL_S * number)
        assert not out_of_focus(gate, soon, 0.586)
        fast = dataclasses.replace(blurred, time_s=100.0 + number)
        assert not out_of_focus(gate, fast, 0.586, speed_fields_s=1.0)
    said = [
        out_of_focus(gate, dataclasses.replace(blurred, time_s=200.0 + number), 0.586) for number in range(3)
    ]
    assert said[-1]


def test_frames_are_rated_near_the_focus_models_own_pixel_size() -> None:
    sizes = {2.93: 1, 1.17: 1, 0.586: 1, 0.293: 2, 0.15: 4, 0.05: 8}
    assert {size: rated_binning(size) for size in sizes} == sizes


def test_patches_lie_on_tissue_and_inside_the_frame() -> None:
    random = np.random.default_rng(0)
    picture = np.full((120, 200), 230.0, np.float32) + random.normal(0, 0.5, (120, 200)).astype(np.float32)
    picture[60:, 100:] -= random.uniform(0, 60, (60, 100)).astype(np.float32)
    patches = tissue_patches(picture, 4.0, (800, 480), 84)
    assert patches
    assert all(x + 84 > 400 and y + 84 > 240 for x, y in patches)
    assert all(x + 84 <= 800 and y + 84 <= 480 for x, y in patches)
    assert all(x % 2 == y % 2 == 0 for x, y in patches)
    assert tissue_patches(picture, 4.0, (80, 480), 84) == []
    assert tissue_patches(np.full((120, 200), 230.0, np.float32), 4.0, (800, 480), 84) == []
