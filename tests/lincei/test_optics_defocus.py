"""What `lincei.optics` promises of defocused points and of cameras."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import j0

from lincei.optics import (
    blur_diameter_um,
    defocus_kernel,
    defocus_psf,
    exposed,
    saturated,
    vignetted,
    with_offset,
    with_read_noise,
    with_shot_noise,
)

PIXEL_UM = 0.65


def psf_by_quadrature(
    r: float, z: float, na: float = 0.5, wavelength: float = 0.5, index: float = 1.0
) -> float:
    """Return the integral of the design, by adaptive quadrature of its real and imaginary parts."""
    k, aperture = 2 * np.pi * index / wavelength, na / index

    def field(rho: float) -> complex:
        return complex(j0(k * aperture * r * rho) * np.exp(-0.5j * k * rho**2 * z * aperture**2) * rho)

    parts = (quad(lambda rho, part=part: part(field(rho)), 0, 1, limit=400)[0] for part in (np.real, np.imag))
    return float(sum(part**2 for part in parts))


def light_within(radius_um: float, z: float, na: float = 0.5, index: float = 1.0) -> float:
    """Return the share of a point's light within a radius."""
    r = np.linspace(0, radius_um, 8001)
    intensity = defocus_psf(r, z, na=na, refractive_index=index)
    found = 2 * np.pi * np.trapezoid(intensity * r, r)
    return float(found / (np.pi * (0.5 / (2 * np.pi * na)) ** 2))


def diameter_px(kernel: NDArray[np.float32]) -> float:
    """Return the diameter of the even disk that has 80 % of its light in as small a circle as the kernel."""
    reach = kernel.shape[0] // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    radius = np.hypot(y, x).ravel()
    order = np.argsort(radius, kind="stable")
    light = np.cumsum(kernel.ravel()[order])
    return float(2 * np.interp(0.8, light, radius[order]) / np.sqrt(0.8))


class TestDefocusPSF:
    @pytest.mark.parametrize(
        ("r", "z", "expected", "tolerance"),
        # The last one is written with its digits cut off, not rounded: it is 0.001142557.
        [(0.0, 0.0, 0.25, 1e-12), (0.0, 1.0, 0.20264, 5e-6), (1.0, 0.0, 0.00114255, 1e-8)],
    )
    def test_the_constants_of_the_design_hold(self, r: float, z: float, expected: float, tolerance: float):
        found = defocus_psf(r, z, na=0.5, wavelength_um=0.5, refractive_index=1.0)
        assert float(found) == pytest.approx(expected, abs=tolerance)

    def test_on_the_axis_it_is_the_known_sinc(self):
        """|(exp(-i a) - 1) / (2 a)|^2 with a = k z NA^2 / (2 n^2)."""
        for z in (0.5, 2.0, 7.3, 20.0):
            a = 2 * np.pi / 0.5 * z * 0.25 / 2
            assert float(defocus_psf(0.0, z)) == pytest.approx((np.sin(a / 2) / a) ** 2, abs=1e-12)

    def test_it_is_dark_at_the_first_ring_in_focus(self):
        dark = 3.8317059702 / (2 * np.pi / 0.5 * 0.5)
        assert float(defocus_psf(dark, 0.0)) < 1e-18
        assert float(defocus_psf(1.3 * dark, 0.0)) > 1e-4

    @settings(max_examples=40, deadline=None)
    @given(
        r=st.floats(0, 15),
        z=st.floats(-20, 20),
        index=st.sampled_from([1.0, 1.33, 1.515]),
        share=st.floats(0.05, 0.95),
        wavelength=st.floats(0.4, 0.8),
    )
    def test_it_is_the_integral_of_the_design_anywhere(
        self, r: float, z: float, index: float, share: float, wavelength: float
    ):
        na = share * index
        found = defocus_psf(r, z, na=na, wavelength_um=wavelength, refractive_index=index)
        assert float(found) == pytest.approx(psf_by_quadrature(r, z, na, wavelength, index), abs=2e-8)

    @pytest.mark.parametrize("z", [0.0, 2.0, 8.0, 20.0])
    @pytest.mark.parametrize(("na", "index"), [(0.5, 1.0), (0.9, 1.33)])
    def test_light_is_spread_by_defocus_not_lost(self, z: float, na: float, index: float):
        assert 0.995 < light_within(60.0, z, na, index) < 1.0005

    def test_most_light_lies_in_the_paraxial_disk_far_from_focus(self):
        for z in (10.0, 20.0):
            radius = blur_diameter_um(z) / 2
            assert light_within(radius, z) > 0.85
            assert light_within(radius / 2, z) == pytest.approx(0.25, abs=0.06)

    def test_neither_the_side_of_focus_nor_that_of_the_axis_matters(self):
        r = np.linspace(0, 12, 40)
        np.testing.assert_allclose(defocus_psf(r, 6.0), defocus_psf(r, -6.0), atol=1e-15)
        np.testing.assert_allclose(defocus_psf(r, 6.0), defocus_psf(-r, 6.0), atol=1e-15)

    def test_only_lengths_in_wavelengths_count(self):
        r = np.linspace(0, 5, 20)
        np.testing.assert_allclose(
            defocus_psf(r, 3.0), defocus_psf(1.4 * r, 4.2, wavelength_um=0.7), atol=1e-12
        )

    @pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4)])
    def test_it_is_of_the_shape_of_the_radii(self, shape: tuple[int, ...]):
        found = defocus_psf(np.ones(shape), 1.0)
        assert found.shape == shape
        assert found.dtype == np.float64

    @pytest.mark.parametrize("na", [0.0, -0.5, 1.2])
    def test_an_aperture_that_no_lens_in_air_has_is_refused(self, na: float):
        with pytest.raises(ValueError, match="na must be above 0"):
            defocus_psf(0.0, 0.0, na=na)

    def test_oil_allows_a_larger_aperture(self):
        assert np.isfinite(defocus_psf([0.0, 0.3], 0.5, na=1.4, refractive_index=1.515)).all()

    @pytest.mark.parametrize("changes", [{"wavelength_um": 0.0}, {"refractive_index": 0.0}])
    def test_lengths_must_be_above_zero(self, changes: dict[str, float]):
        with pytest.raises(ValueError, match="must be above 0"):
            defocus_psf(0.0, 0.0, **changes)


class TestDefocusKernel:
    @pytest.mark.parametrize("level", range(11))
    def test_it_keeps_all_light_and_has_its_center_in_the_middle(self, level: int):
        kernel = defocus_kernel(2.0 * level)
        side = kernel.shape[0]
        assert kernel.shape == (side, side)
        assert side % 2 == 1
        assert kernel.dtype == np.float32
        assert kernel.min() >= 0
        assert kernel.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
        place = np.arange(side) - side // 2
        assert kernel.sum(axis=0) @ place == pytest.approx(0, abs=1e-5)
        assert kernel.sum(axis=1) @ place == pytest.approx(0, abs=1e-5)
        for same in (kernel.T, kernel[::-1], kernel[:, ::-1]):
            np.testing.assert_allclose(kernel, same, atol=1e-8)

    @pytest.mark.parametrize("level", range(3, 11))
    def test_the_blur_of_a_level_is_about_three_pixels_a_level_wide(self, level: int):
        assert diameter_px(defocus_kernel(2.0 * level)) == pytest.approx(3 * level, rel=0.08)

    def test_every_level_blurs_more_than_the_one_before(self):
        widths = [diameter_px(defocus_kernel(2.0 * level)) for level in range(11)]
        assert all(a < b for a, b in itertools.pairwise(widths))

    def test_in_focus_most_light_falls_onto_one_pixel(self):
        kernel = defocus_kernel(0.0)
        assert kernel.max() == kernel[kernel.shape[0] // 2, kernel.shape[0] // 2] > 0.65

    def test_finer_pixels_add_up_to_coarse_ones(self):
        coarse = defocus_kernel(6.0, pixel_size_um=0.9)
        fine = defocus_kernel(6.0, pixel_size_um=0.3)
        reach, wide = coarse.shape[0] // 2, fine.shape[0] // 2
        whole = np.zeros((3 * coarse.shape[0],) * 2)
        low = 3 * reach + 1 - wide
        assert low >= 0
        whole[low : low + fine.shape[0], low : low + fine.shape[0]] = fine
        binned = whole.reshape(coarse.shape[0], 3, coarse.shape[0], 3).sum(axis=(1, 3))
        np.testing.assert_allclose(coarse, binned, atol=2e-3)

    def test_a_larger_aperture_is_more_sensitive_to_defocus(self):
        assert diameter_px(defocus_kernel(6.0, na=0.75)) > 1.3 * diameter_px(defocus_kernel(6.0, na=0.5))

    def test_a_pixel_of_no_size_is_refused(self):
        with pytest.raises(ValueError, match="pixel_size_um must be above 0, not 0"):
            defocus_kernel(2.0, pixel_size_um=0.0)

    def test_an_impossible_objective_is_refused(self):
        with pytest.raises(ValueError, match="na must be above 0"):
            defocus_kernel(2.0, na=1.3)


class TestBlurDiameter:
    def test_it_is_that_of_a_cone_of_light(self):
        assert blur_diameter_um(10.0) == 10.0
        assert blur_diameter_um(-10.0, na=0.75) == 15.0
        assert blur_diameter_um(4.0, na=1.2, refractive_index=1.5) == pytest.approx(6.4)


class TestCamera:
    def random(self) -> np.random.Generator:
        return np.random.default_rng(5)

    def test_exposure_multiplies_light(self):
        light = np.array([[0.0, 0.5], [1.0, 2.5]])
        np.testing.assert_allclose(exposed(light, 200.0), [[0, 100], [200, 500]])
        assert exposed(light, 200.0).dtype == np.float32

    def test_vignetting_takes_its_share_in_the_corner_and_nothing_in_the_center(self):
        found = vignetted(np.ones((401, 601)), 0.4)
        assert found[200, 300] == pytest.approx(1, abs=1e-4)
        assert found[0, 0] == pytest.approx(0.6, abs=0.005)
        assert found[0, 0] == pytest.approx(found[-1, -1], abs=1e-5)
        # Half as far from the center, a quarter of the loss.
        assert found[100, 150] == pytest.approx(0.9, abs=0.005)

    def test_vignetting_is_darkest_far_from_its_center_and_never_below_zero(self):
        found = vignetted(np.ones((100, 100)), 1.0, center=(0.0, 0.0))
        assert found[0, 0] > 0.999
        assert found[-1, -1] == 0
        assert (found >= 0).all()

    def test_no_vignetting_changes_nothing(self):
        light = self.random().random((20, 30)).astype(np.float32)
        np.testing.assert_array_equal(vignetted(light, 0.0), light)

    @pytest.mark.parametrize("mean", [0.5, 20.0, 4000.0])
    def test_shot_noise_has_the_variance_of_its_mean(self, mean: float):
        counts = with_shot_noise(np.full((400, 400), mean), self.random())
        assert counts.mean() == pytest.approx(mean, rel=0.02)
        assert counts.var(dtype=np.float64) == pytest.approx(mean, rel=0.02)
        np.testing.assert_array_equal(counts, np.rint(counts))
        assert counts.dtype == np.float32

    def test_where_there_is_no_light_there_is_no_shot_noise(self):
        assert not with_shot_noise(np.array([0.0, -3.0]), self.random()).any()

    def test_read_noise_is_normal_and_the_same_everywhere(self):
        light = np.where(np.arange(400) < 200, 10.0, 5000.0) * np.ones((400, 1))
        noise = with_read_noise(light, 3.0, self.random()) - light
        for half in (noise[:, :200], noise[:, 200:]):
            assert half.mean() == pytest.approx(0, abs=0.05)
            assert half.std() == pytest.approx(3, rel=0.02)
        assert np.mean(np.abs(noise) < 3) == pytest.approx(0.683, abs=0.005)

    def test_a_seed_makes_the_same_noise_again(self):
        light = np.full((30, 30), 50.0)
        for noisy in (with_shot_noise, lambda x, random: with_read_noise(x, 2.0, random)):
            np.testing.assert_array_equal(noisy(light, self.random()), noisy(light, self.random()))
            assert (noisy(light, self.random()) != noisy(light, np.random.default_rng(6))).any()

    def test_the_camera_adds_its_offset_after_its_gain(self):
        np.testing.assert_allclose(with_offset(np.array([0.0, 10.0, 20.0]), 2.5, 100.0), [100, 125, 150])

    @pytest.mark.parametrize(("bits", "brightest"), [(1, 1), (8, 255), (12, 4095), (16, 65535)])
    def test_what_is_brighter_than_the_brightest_is_cut_off(self, bits: int, brightest: int):
        found = saturated(np.array([-5.0, 0.4, 0.6, brightest + 0.3, 1e9]), bits)
        np.testing.assert_array_equal(found, [0, 0, 1, brightest, brightest])
        assert found.dtype == np.uint16

    @pytest.mark.parametrize("bits", [0, -1, 17])
    def test_a_camera_of_impossible_bits_is_refused(self, bits: int):
        with pytest.raises(ValueError, match=f"bits must be 1 to 16, not {bits}"):
            saturated(np.zeros(3), bits)
