"""What a microscope and a camera do to a section."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from arm_overlay import imaging
from arm_overlay.frames import BAYER_PATTERNS
from arm_overlay.imaging import (
    NUMERICAL_APERTURES,
    CameraModel,
    View,
    blurred,
    digitized,
    displayed,
    mosaic,
    moved,
    projected,
    random_camera,
    random_view,
    raw_camera,
    recorded,
    seen,
    transmitted,
)
from lincei.errors import LinceiError, UsageError
from lincei.optics import defocus_kernel

# Without noise to speak of, vignetting, or colors that mix.
CLEAN = CameraModel(
    full_well_e=1e9,
    read_noise_e=0.0,
    glass_level=1.0,
    gamma=1.0,
    bits=16,
    sensor_colors=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
)


def random_numbers(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def glass(height: int = 64, width: int = 96, value: int = 255) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def section(side: int = 200) -> NDArray[np.uint8]:
    """Return colors with structures of many sizes."""
    white = random_numbers(1).standard_normal((side, side, 3))
    smooth = sum(np.repeat(np.repeat(white[::k, ::k], k, 0), k, 1)[:side, :side] for k in (1, 4, 20))
    return np.clip(150 + 40 * smooth, 0, 255).astype(np.uint8)


class TestPixelSize:
    @pytest.mark.parametrize(
        ("objective", "size_um"), [("4x", 2.93), ("10x", 1.172), ("20x", 0.586), ("40x", 0.293)]
    )
    def test_it_follows_from_sensor_objective_and_adapter(self, objective: str, size_um: float):
        assert CameraModel().pixel_size_um(objective) == pytest.approx(size_um)

    def test_there_is_none_of_an_objective_that_cannot_be_simulated(self):
        with pytest.raises(UsageError, match="4x, 10x, 20x, 40x"):
            CameraModel().pixel_size_um("63x")

    @pytest.mark.parametrize("objective", NUMERICAL_APERTURES)
    def test_a_section_comes_out_at_the_cameras_scale(self, objective: str):
        found = seen(glass(400, 640), 1.0, View(objective), CameraModel(), random_numbers())
        scale = 1 / CameraModel().pixel_size_um(objective)
        assert found.shape == (round(400 * scale), round(640 * scale), 3)

    def test_another_scale_can_be_asked_for(self):
        found = seen(glass(40, 60), 0.5, View("20x"), CameraModel(), random_numbers(), to_pixel_size_um=1.0)
        assert found.shape == (20, 30, 3)

    def test_an_unknown_objective_is_refused_with_those_there_are(self):
        with pytest.raises(UsageError, match="4x, 10x, 20x, 40x"):
            seen(glass(), 1.0, View("63x"), CameraModel(), random_numbers())


class TestLight:
    def test_display_values_come_back_from_light(self):
        values = np.arange(256, dtype=np.uint8).reshape(16, 16)
        light = transmitted(values)
        assert light.max() == pytest.approx(1)
        assert light[8, 0] == pytest.approx(0.2158605, abs=1e-6)  # 128, IEC 61966-2-1
        np.testing.assert_array_equal(displayed(light), values)

    def test_resampling_keeps_the_light(self):
        light = transmitted(section())
        for size_um in (0.9, 1.0, 1.7, 4.0):
            found = projected(light, 1.0, size_um, na=0.5)
            assert found.mean() == pytest.approx(light.mean(), rel=0.02)

    def test_a_low_aperture_blurs_more(self):
        light = transmitted(section())
        fine = [projected(light, 0.5, 0.5, na=na).std() for na in (0.75, 0.3, 0.13)]
        assert fine[0] > 1.1 * fine[1] > 1.2 * fine[2]


class TestBlur:
    def test_a_point_becomes_the_point_spread_function(self):
        point = np.zeros((101, 101), np.float32)
        point[50, 50] = 1
        kernel = defocus_kernel(2.0, pixel_size_um=0.5, na=0.5, wavelength_um=0.55)
        found = blurred(point, 0.5, na=0.5, defocus_um=2.0)
        reach = kernel.shape[0] // 2
        np.testing.assert_allclose(found[50 - reach : 51 + reach, 50 - reach : 51 + reach], kernel, atol=1e-6)

    def test_a_wide_blur_on_coarse_pixels_is_that_on_fine_ones(self):
        light = transmitted(section(400))[..., 1]
        kernel = defocus_kernel(20.0, pixel_size_um=0.586, na=0.5, wavelength_um=0.55)
        exact = fftconvolve(light, kernel, mode="same")[80:-80, 80:-80]
        found = blurred(light, 0.586, na=0.5, defocus_um=20.0)[80:-80, 80:-80]
        assert np.sqrt(((found - exact) ** 2).mean()) < 0.05 * exact.std()

    def test_both_sides_of_focus_look_alike(self):
        light = transmitted(section(64))
        np.testing.assert_array_equal(
            blurred(light, 0.5, na=0.5, defocus_um=-3), blurred(light, 0.5, na=0.5, defocus_um=3)
        )

    def test_display_values_can_be_blurred_as_they_are(self):
        found = blurred(section(64), 0.5, na=0.5, defocus_um=3)
        assert found.dtype == np.uint8
        assert found.std() < 0.7 * section(64).std()


class TestMotion:
    def test_a_point_is_smeared_along_the_way_and_no_light_is_lost(self):
        point = np.zeros((41, 41), np.float32)
        point[20, 20] = 1
        found = moved(point, (8.0, 0.0))
        assert found.sum() == pytest.approx(1)
        assert found[20, 17:24] == pytest.approx(1 / 8, rel=0.05)
        assert found[20, :15].max() == found[20, 26:].max() == 0
        assert np.delete(found, 20, axis=0).max() < 1e-6

    def test_the_way_may_be_slanted(self):
        point = np.zeros((41, 41), np.float32)
        point[20, 20] = 1
        rows, columns = np.nonzero(moved(point, (6.0, -6.0)) > 0.02)
        assert np.corrcoef(rows, columns)[0, 1] < -0.9
        assert np.ptp(rows) == np.ptp(columns) == 6

    def test_hardly_any_motion_changes_nothing(self):
        light = transmitted(section(32))
        assert moved(light, (0.1, -0.1)) is light


class TestLamp:
    def test_its_brightness_and_color_are_factors(self):
        view = View(light=0.5, light_color=(1.0, 0.8, 0.6), vignetting=0.0)
        found = seen(glass(), 1.0, view, CLEAN, random_numbers(), to_pixel_size_um=1.0)
        np.testing.assert_allclose(found[20, 20] / 65535, (0.5, 0.4, 0.3), atol=1e-4)

    def test_corners_are_darker_than_the_middle(self):
        found = seen(glass(), 1.0, View(vignetting=0.3), CLEAN, random_numbers(), to_pixel_size_um=1.0)
        assert found[0, 0, 1] / found[32, 48, 1] == pytest.approx(0.7, abs=0.02)


class TestCamera:
    @pytest.mark.parametrize("bayer", BAYER_PATTERNS)
    def test_a_mosaic_keeps_the_color_that_its_name_says(self, bayer: str):
        colors = np.broadcast_to(np.array([10, 20, 30], np.uint8), (4, 6, 3))
        expected = np.array([{"R": 10, "G": 20, "B": 30}[color] for color in bayer]).reshape(2, 2)
        np.testing.assert_array_equal(mosaic(colors, bayer), np.tile(expected, (2, 3)))

    @pytest.mark.parametrize("bits", [8, 10, 12])
    def test_glass_fills_what_it_is_said_to_fill_whatever_the_bits(self, bits: int):
        camera = raw_camera("GRBG", bits, glass_level=0.8, full_well_e=1e9)
        found = recorded(np.ones((8, 8, 3), np.float32), camera, random_numbers())
        assert found.dtype == (np.uint8 if bits == 8 else np.uint16)
        green, red = found[0, 0] / (2**bits - 1), found[0, 1] / (2**bits - 1)
        assert green == pytest.approx(0.8, abs=0.004)
        assert red == pytest.approx(0.8 * camera.sensitivity[0], abs=0.004)

    def test_light_beyond_the_full_well_is_cut_off(self):
        found = recorded(np.full((8, 8, 3), 9.0, np.float32), raw_camera(bits=10), random_numbers())
        assert (found == 1023).mean() > 0.99

    def test_white_balance_makes_glass_neutral(self):
        camera = raw_camera(full_well_e=1e9)
        red, green, blue = camera.sensitivity
        balanced = dataclasses.replace(camera, white_balance=(green / red, 1.0, green / blue))
        found = recorded(np.ones((8, 8, 3), np.float32), balanced, random_numbers())
        assert np.ptp(found.astype(int)) <= 2

    def test_gamma_brightens_the_middle_and_leaves_the_ends(self):
        light = np.repeat(np.array([0.0, 0.25, 1.0], np.float32), 3).reshape(1, 3, 3)
        found = recorded(light, dataclasses.replace(CLEAN, gamma=2.0), random_numbers())
        np.testing.assert_allclose(found[0, :, 1] / 65535, (0, 0.5, 1), atol=0.002)

    def test_shot_noise_has_the_variance_of_the_photoelectrons(self):
        camera = dataclasses.replace(CLEAN, full_well_e=10_000.0, read_noise_e=20.0)
        found = recorded(np.full((200, 200, 3), 0.36, np.float32), camera, random_numbers())
        electrons = found / 65535 * 10_000
        assert electrons.mean() == pytest.approx(3600, rel=0.005)
        assert electrons.var() == pytest.approx(3600 + 400, rel=0.03)

    def test_without_noise_the_same_light_gives_the_same_value(self):
        electrons = np.full((4, 4), 500.0, np.float32)
        assert np.ptp(digitized(electrons, raw_camera(), None)[::2, ::2]) == 0

    def test_equal_seeds_give_equal_pictures_and_others_do_not(self):
        pictures = [seen(section(64), 0.5, View(), raw_camera(), random_numbers(s)) for s in (1, 1, 2)]
        np.testing.assert_array_equal(pictures[0], pictures[1])
        assert (pictures[0] != pictures[2]).any()

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [({"bayer": "RGBG"}, "RGGB"), ({"bits": 9}, "bits"), ({"gamma": 0.0}, "gamma")],
    )
    def test_a_camera_that_cannot_be_is_refused(self, wrong: dict, named: str):
        with pytest.raises(ValueError, match=named):
            CameraModel(**wrong)


class TestChance:
    def test_cameras_and_views_differ_and_stay_near_the_usual(self):
        random = random_numbers()
        picture = section(96)
        plain = seen(picture, 1.0, View(vignetting=0.0), CameraModel(), random, to_pixel_size_um=1.0)
        found = [
            seen(picture, 1.0, random_view(random, "10x"), random_camera(random), random, to_pixel_size_um=1)
            for _ in range(12)
        ]
        means = np.array([one.reshape(-1, 3).mean(axis=0) for one in found])
        assert means.std(axis=0).min() > 3
        assert np.abs(means.mean(axis=0) - plain.reshape(-1, 3).mean(axis=0)).max() < 40
        assert all(one.dtype == np.uint8 and one.shape == picture.shape for one in found)

    def test_what_is_asked_to_stay_stays(self):
        random = random_numbers()
        assert random_camera(random, bits=12).bits == 12
        assert random_view(random, "40x", defocus_um=0.0).defocus_um == 0

    def test_defocus_goes_with_the_depth_of_field(self):
        spread = [
            np.std([random_view(random_numbers(s), name).defocus_um for s in range(200)])
            for name in ("4x", "40x")
        ]
        assert spread[0] / spread[1] == pytest.approx((0.75 / 0.13) ** 2, rel=0.01)


def test_without_opencv_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(LinceiError, match=r"pip install 'lincei\[arm\]'"):
        imaging.opencv()
