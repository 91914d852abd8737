from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optical_path import CAMERA_PX, DISPLAY_PX, OpticalPath, largest_error_px, some_map

from arm_overlay.display_alignment import fit_alignment, mapped
from arm_overlay.fiducials import Charuco, Dots, Fiducial, Matches

KINDS: dict[str, Fiducial] = {"charuco": Charuco(DISPLAY_PX), "dots": Dots(DISPLAY_PX)}
MAPS: dict[str, dict[str, Any]] = {
    "turned, sheared": {"rotation_deg": 27.0, "shear": 0.06, "scale": 0.9},
    "mirrored": {"mirrored": True, "rotation_deg": -110.0, "scale": 1.2},
    "a part of the display": {"scale": 0.5, "shift_px": (260.0, -90.0), "rotation_deg": 5.0},
    "keystone": {"keystone": (0.12, -0.07), "mirrored": True},
}


def found(fiducial: Fiducial, path: OpticalPath) -> Matches:
    """Return what is found of a fiducial with two frames of each picture."""
    differences = []
    for pair in fiducial.pairs:
        means = []
        for picture in pair:
            path.picture = picture
            means.append((path.gray().astype(np.float32) + path.gray()) / 2)
        differences.append(means[0] - means[1])
    return fiducial.find(differences)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MAPS)
def test_fiducials_on_tissue_give_the_map_to_less_than_a_pixel(name: str, kind: str) -> None:
    true = some_map(**MAPS[name])
    matches = found(KINDS[kind], OpticalPath(true))
    matrix, fitted, residual = fit_alignment(matches.camera_px, matches.display_px, camera_size_px=CAMERA_PX)
    assert len(matches) >= 12
    assert residual.rms_px < 0.3
    assert residual.max_px < 1
    assert largest_error_px(matrix, true) < 1
    # Small keystone may be lost in the noise; where there is some, it must be seen.
    if name == "keystone":
        assert fitted == "homography"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "conditions",
    [
        {"brightness": 0.0, "light": 0.6},
        {"brightness": 0.85, "light": 0.1},
        {"light": 0.05, "noise": 0.02},
    ],
    ids=["lamp off", "bright tissue, dim display", "dim and noisy"],
)
def test_fiducials_are_found_in_dim_light_on_dark_and_on_bright_ground(
    kind: str, conditions: dict[str, float]
) -> None:
    true = some_map(rotation_deg=-8.0, mirrored=True)
    matches = found(KINDS[kind], OpticalPath(true, **conditions))
    matrix, _, residual = fit_alignment(matches.camera_px, matches.display_px, camera_size_px=CAMERA_PX)
    assert residual.rms_px < 1
    assert largest_error_px(matrix, true) < 1


def test_dots_are_read_where_markers_are_blurred_away() -> None:
    true = some_map(rotation_deg=12.0)
    blurred = OpticalPath(true, blur_px=4.0)
    assert len(found(KINDS["charuco"], blurred)) < 4
    matches = found(KINDS["dots"], blurred)
    matrix, _, _ = fit_alignment(matches.camera_px, matches.display_px, camera_size_px=CAMERA_PX)
    assert largest_error_px(matrix, true) < 1


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_where_the_display_is_not_seen(kind: str) -> None:
    assert len(found(KINDS[kind], OpticalPath(some_map(), light=0.0))) < 4


def test_a_dot_that_is_hidden_by_a_reflection_does_not_take_another_ones_number() -> None:
    true = some_map()
    path = OpticalPath(true, noise=0.003)
    dots = KINDS["dots"]
    # A saturated spot changes with no picture.
    path.tissue[150:260, 250:420] = 1.0
    matches = found(dots, path)
    assert 20 < len(matches) < 110
    errors = np.linalg.norm(mapped(true, matches.camera_px) - matches.display_px, axis=1)
    assert np.percentile(errors, 80) < 1
    matrix, _, _ = fit_alignment(matches.camera_px, matches.display_px, camera_size_px=CAMERA_PX)
    assert largest_error_px(matrix, true) < 1


@pytest.mark.parametrize("size", [(1920, 1080), (800, 600), (1024, 1280)])
@pytest.mark.parametrize("kind", [Charuco, Dots])
def test_pictures_have_the_displays_size_and_swap_light_and_dark(kind: Any, size: tuple[int, int]) -> None:
    pairs = kind(size).pairs
    for one, other in pairs:
        assert one.shape == other.shape == size[::-1]
        assert one.dtype == np.uint8
        # What is lit in one is dark in the other; smooth edges may be partly lit in neither.
        assert not np.any((one > 0) & (other > 0) & (one.astype(int) + other != 255))
    lit = np.max([np.maximum(one, other) for one, other in pairs], axis=0)
    assert np.all(lit == np.maximum(*pairs[0]))


def test_dots_tell_their_number_and_its_parity() -> None:
    dots = Dots(DISPLAY_PX)
    places = dots._centers_px.astype(int)
    codes = np.zeros(len(places), int)
    for bit, (one, _) in enumerate(dots.pairs):
        codes += (one[places[:, 1], places[:, 0]] == 255).astype(int) << bit
    assert len(np.unique(codes)) == len(codes)
    assert all(int(code).bit_count() % 2 == 0 for code in codes)
