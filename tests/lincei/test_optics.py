"""What `lincei.optics` promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lincei.optics import bright_field_transfer, dic_transfer, phase_contrast_transfer

SHAPE = (128, 160)


def transfer(defocus_um: float = 0.0, shape: tuple[int, int] = SHAPE, **changes: Any) -> NDArray[np.float32]:
    return phase_contrast_transfer(shape, **{"pixel_size_um": 0.65, "defocus_um": defocus_um, **changes})


def contrast(phase: NDArray, **changes: Any) -> NDArray:
    """Return the image of a phase object, less the even light."""
    return np.fft.irfft2(np.fft.rfft2(phase) * transfer(shape=phase.shape, **changes), phase.shape)


def bright_field(shape: tuple[int, int] = SHAPE, **changes: Any) -> NDArray[np.float32]:
    return bright_field_transfer(shape, **{"pixel_size_um": 0.65, "defocus_um": 0.0, **changes})


def dic(shape: tuple[int, int] = SHAPE, **changes: Any) -> NDArray[np.complex64]:
    return dic_transfer(shape, **{"pixel_size_um": 0.65, "defocus_um": 0.0, **changes})


def seen(weak_object: NDArray, found: NDArray) -> NDArray:
    """Return the image of an object by a transfer function, less the even light."""
    return np.fft.irfft2(np.fft.rfft2(weak_object) * found, weak_object.shape)


def frequency(shape: tuple[int, int] = SHAPE, pixel_size_um: float = 0.65) -> NDArray[np.float64]:
    y, x = np.fft.fftfreq(shape[0], pixel_size_um)[:, None], np.fft.rfftfreq(shape[1], pixel_size_um)
    return np.hypot(y, x)


def wave_optics(
    transmission: NDArray,
    *,
    defocus_um: float,
    na: float,
    condenser_na: float,
    sheared: NDArray | None = None,
) -> NDArray:
    """Return the image of any thin object, all plane waves of the condenser added up one by one.

    ``sheared`` is what stands for even light where the object itself is no thin one, as in DIC.
    """
    wavelength, pixel = 0.55, 0.65
    y, x = (np.fft.fftfreq(n, pixel) for n in transmission.shape)
    spectrum = np.fft.fft2(transmission)
    empty = np.fft.fft2(np.ones_like(transmission) if sheared is None else sheared)
    radii = (np.arange(12) + 0.5) / 12 * condenser_na / wavelength
    images = []
    for field in (spectrum, empty):
        total = 0.0
        for radius in radii:
            for angle in np.linspace(0, 2 * np.pi, 48, endpoint=False):
                squared = (y[:, None] + radius * np.sin(angle)) ** 2 + (x + radius * np.cos(angle)) ** 2
                pupil = (squared <= (na / wavelength) ** 2) * np.exp(
                    -1j * np.pi * wavelength * defocus_um * squared
                )
                total = total + radius * np.abs(np.fft.ifft2(field * pupil)) ** 2
        images.append(total)
    return images[0] / images[1].mean()


def disk(radius_px: float) -> NDArray[np.float64]:
    y, x = np.mgrid[:128, :128] - 64
    return np.exp(-((np.hypot(y, x) / radius_px) ** 4))


class TestPhaseContrast:
    @pytest.mark.parametrize("shape", [(128, 160), (33, 47), (1, 8)])
    def test_it_is_of_the_shape_of_a_real_images_spectrum(self, shape: tuple[int, int]):
        found = transfer(shape=shape)
        assert found.shape == np.fft.rfft2(np.zeros(shape)).shape
        assert found.dtype == np.float32
        assert np.isfinite(found).all()

    def test_what_delays_light_is_dark_in_focus_with_a_bright_halo(self):
        image = contrast(disk(6))
        assert image[64, 64] < -0.4
        around = image[64, 64 + 10 : 64 + 20]
        assert around.max() > 0.02

    def test_even_light_passes_unchanged(self):
        assert transfer()[0, 0] == 0
        assert transfer(5.0)[0, 0] == 0

    def test_nothing_finer_than_the_aperture_is_seen(self):
        y, x = np.fft.fftfreq(SHAPE[0], 0.65)[:, None], np.fft.rfftfreq(SHAPE[1], 0.65)
        frequency = np.hypot(y, x)
        limit = (0.3 + 0.1) / 0.55
        found = transfer(na=0.3, annulus_na=0.1)
        assert (frequency > limit).any()
        assert np.abs(found[frequency > limit]).max() < 1e-6
        assert np.abs(found[frequency < 0.9 * limit]).max() > 0.1

    def test_planes_above_and_below_focus_look_alike_and_differ_from_focus(self):
        np.testing.assert_allclose(transfer(4.0), transfer(-4.0))
        fine = slice(20, 40)
        assert np.abs(transfer(8.0)[0, fine]).mean() < 0.7 * np.abs(transfer(0.0)[0, fine]).mean()

    def test_contrast_turns_over_through_focus(self):
        signs = {float(np.sign(transfer(z)[0, 30])) for z in np.arange(0, 30, 1.0)}
        assert {-1.0, 1.0} <= signs

    def test_it_is_that_of_the_plane_waves_of_an_annulus_averaged(self):
        z, wavelength, annulus = 6.0, 0.55, 0.25
        found = transfer(z, na=10.0, annulus_na=annulus, wavelength_um=wavelength, halo_um=1e6)
        qx = np.fft.rfftfreq(SHAPE[1], 0.65)[10]
        angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
        s = annulus / wavelength * np.cos(angles)
        expected = np.mean(-2 * np.cos(np.pi * wavelength * z * (qx**2 + 2 * qx * s)))
        assert found[0, 10] == pytest.approx(expected, abs=1e-4)

    def test_the_scale_counts_not_the_pixels(self):
        coarse, fine = transfer(3.0, (64, 64)), transfer(3.0, (128, 128), pixel_size_um=0.325)
        np.testing.assert_allclose(coarse[:16, :16], fine[:16, :16], atol=1e-6)

    def test_wide_structures_lose_their_contrast(self):
        assert abs(contrast(disk(40))[64, 64]) < 0.5 * abs(contrast(disk(6))[64, 64])

    @pytest.mark.parametrize("annulus_na", [0.0, -0.1, 0.5])
    def test_an_annulus_outside_the_objective_is_refused(self, annulus_na: float):
        with pytest.raises(ValueError, match="annulus_na"):
            transfer(annulus_na=annulus_na, na=0.4)


class TestBrightField:
    @pytest.mark.parametrize("shape", [(128, 160), (33, 47), (1, 8)])
    def test_it_is_of_the_shape_of_a_real_images_spectrum(self, shape: tuple[int, int]):
        for of in ("phase", "absorption"):
            found = bright_field(shape, defocus_um=5.0, of=of)
            assert found.shape == np.fft.rfft2(np.zeros(shape)).shape
            assert found.dtype == np.float32
            assert np.isfinite(found).all()

    def test_what_only_delays_light_is_invisible_in_focus(self):
        assert np.abs(bright_field()).max() < 1e-7

    def test_its_contrast_reverses_through_focus_and_that_of_what_absorbs_does_not(self):
        np.testing.assert_allclose(bright_field(defocus_um=4.0), -bright_field(defocus_um=-4.0), atol=1e-7)
        np.testing.assert_allclose(
            bright_field(defocus_um=4.0, of="absorption"),
            bright_field(defocus_um=-4.0, of="absorption"),
            atol=1e-7,
        )

    def test_a_lens_of_a_cell_gathers_light_beyond_it(self):
        cell = disk(6)
        for defocus, sign in ((6.0, 1), (-6.0, -1)):
            image = seen(cell, bright_field(cell.shape, defocus_um=defocus))
            assert sign * image[64, 64] > 0.01
            assert abs(image.mean()) < 1e-7

    def test_even_delay_changes_nothing_and_even_absorption_takes_its_share(self):
        assert bright_field(defocus_um=7.0)[0, 0] == 0
        assert bright_field(defocus_um=7.0, of="absorption")[0, 0] == pytest.approx(-1, abs=1e-3)

    def test_nothing_finer_than_both_apertures_together_is_seen(self):
        limit = (0.25 + 0.1) / 0.55
        q = frequency()
        for of in ("phase", "absorption"):
            found = np.abs(bright_field(defocus_um=2.0, na=0.25, condenser_na=0.1, of=of))
            assert (q > limit).any()
            assert found[q > limit].max() < 1e-6
            assert found[(q > 0.8 * limit) & (q < 0.95 * limit)].max() > 1e-3

    def test_an_open_condenser_images_absorption_as_incoherent_light_does(self):
        share = np.clip(frequency() * 0.55 / (2 * 0.4), 0, 1)
        expected = 2 / np.pi * (np.arccos(share) - share * np.sqrt(1 - share**2))
        np.testing.assert_allclose(
            -bright_field(na=0.4, condenser_na=0.4, of="absorption"), expected, atol=1e-3
        )

    def test_a_closed_condenser_gives_the_rings_of_coherent_light(self):
        q, z = frequency(), 10.0
        found = bright_field(defocus_um=z, condenser_na=0.001)
        through = q < 0.99 * 0.4 / 0.55
        np.testing.assert_allclose(found[through], 2 * np.sin(np.pi * 0.55 * z * q[through] ** 2), atol=5e-3)

    def test_wide_structures_follow_the_transport_of_intensity(self):
        """I = 1 - z lambda / (2 pi n) laplacian(phi), whatever the condenser."""
        for condenser_na in (0.05, 0.2, 0.3):
            found = bright_field((1, 4096), defocus_um=1.5, condenser_na=condenser_na, refractive_index=1.33)
            q = frequency((1, 4096))[0, 1:40]
            np.testing.assert_allclose(found[0, 1:40], 2 * np.pi * 0.55 * 1.5 / 1.33 * q**2, rtol=5e-3)

    def test_opening_the_condenser_costs_phase_contrast(self):
        narrow, wide = (np.abs(bright_field(defocus_um=5.0, condenser_na=na)).sum() for na in (0.1, 0.38))
        assert wide < 0.6 * narrow

    @pytest.mark.parametrize("defocus_um", [-5.0, 0.0, 3.0])
    def test_a_weak_object_looks_as_wave_optics_says(self, defocus_um: float):
        random = np.random.default_rng(0)
        blur = np.exp(-((frequency((64, 64)) * 1.2) ** 2))
        phase, absorbed = (0.02 * seen(random.normal(size=(64, 64)), blur) for _ in range(2))
        expected = wave_optics(
            np.exp(1j * phase - absorbed / 2), defocus_um=defocus_um, na=0.4, condenser_na=0.25
        )
        parts = {"phase": phase, "absorption": absorbed}
        found = 1 + sum(
            seen(part, bright_field((64, 64), defocus_um=defocus_um, condenser_na=0.25, of=of))
            for of, part in parts.items()
        )
        assert np.abs(found - expected).max() < 0.03 * np.abs(expected - 1).max()

    def test_the_scale_counts_not_the_pixels(self):
        coarse = bright_field((64, 64), defocus_um=3.0)
        fine = bright_field((128, 128), defocus_um=3.0, pixel_size_um=0.325)
        np.testing.assert_allclose(coarse[:16, :16], fine[:16, :16], atol=1e-6)

    @pytest.mark.parametrize("condenser_na", [0.0, -0.1, 0.5])
    def test_a_condenser_outside_the_objective_is_refused(self, condenser_na: float):
        with pytest.raises(ValueError, match="condenser_na"):
            bright_field(condenser_na=condenser_na, na=0.4)


class TestDIC:
    def test_it_is_of_the_shape_of_a_real_images_spectrum(self):
        for shape in ((128, 160), (33, 47), (1, 8)):
            found = dic(shape, defocus_um=5.0)
            assert found.shape == np.fft.rfft2(np.zeros(shape)).shape
            assert found.dtype == np.complex64
            assert np.isfinite(found).all()

    @pytest.mark.parametrize("angle", [0.0, 30.0, 90.0])
    def test_a_round_cell_is_bright_where_its_delay_rises_along_the_shear_and_dark_behind(self, angle: float):
        image = seen(disk(8), dic((128, 128), shear_angle_deg=angle))
        step = np.rint(8 * np.array([np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))])).astype(int)
        assert image[64 - step[0], 64 - step[1]] > 0.02
        assert image[64 + step[0], 64 + step[1]] < -0.02
        turned = np.roll(image[::-1, ::-1], (1, 1), (0, 1))
        np.testing.assert_allclose(turned, -image, atol=1e-6)

    def test_it_is_blind_in_focus_to_what_does_not_change_along_the_shear(self):
        y = np.arange(128)[:, None]
        fibers = np.cos(2 * np.pi * y / 16) * np.ones((1, 128))
        assert np.abs(seen(fibers, dic((128, 128), shear_angle_deg=0.0))).max() < 1e-6
        assert np.abs(seen(fibers, dic((128, 128), shear_angle_deg=90.0))).max() > 0.1

    def test_out_of_focus_these_look_as_in_bright_field(self):
        across = dic(defocus_um=5.0, shear_angle_deg=90.0)[0]
        np.testing.assert_allclose(across, bright_field(defocus_um=5.0, condenser_na=0.3)[0], atol=1e-6)

    def test_wide_structures_show_their_slope_along_the_shear(self):
        y, x = (np.mgrid[:256, :256] - 128) * 0.65
        phase = np.exp(-(y**2 + x**2) / (2 * 25**2))
        slope_y, slope_x = np.gradient(phase, 0.65)
        angle = np.deg2rad(30)
        for bias in (90.0, 40.0, -90.0):
            found = seen(phase, dic((256, 256), shear_um=0.4, shear_angle_deg=30, bias_deg=bias))
            slope = 0.4 * (slope_x * np.cos(angle) + slope_y * np.sin(angle)) / np.tan(np.deg2rad(bias) / 2)
            assert np.abs(found - slope).max() < 0.02 * np.abs(slope).max()

    def test_no_relief_is_left_where_the_beams_are_half_a_wave_apart(self):
        assert np.abs(dic(bias_deg=180.0)).max() < 1e-6

    def test_without_shear_it_is_bright_field(self):
        for of in ("phase", "absorption"):
            np.testing.assert_allclose(
                dic(defocus_um=4.0, shear_um=0.0, of=of),
                bright_field(defocus_um=4.0, condenser_na=0.3, of=of),
                atol=1e-6,
            )

    def test_nothing_finer_than_both_apertures_together_is_seen(self):
        found, q = np.abs(dic(na=0.25, condenser_na=0.1, defocus_um=2.0)), frequency()
        assert found[q > 0.35 / 0.55].max() < 1e-6
        assert found[q < 0.3 / 0.55].max() > 0.1

    @pytest.mark.parametrize("defocus_um", [0.0, -4.0])
    def test_a_weak_object_looks_as_wave_optics_says(self, defocus_um: float):
        """Two beams, two pixels of diagonal apart and a quarter wave out of step, brought together."""
        shape, pixel = (64, 64), 0.65
        random = np.random.default_rng(0)
        blur = np.exp(-((frequency(shape) * 1.2) ** 2))
        phase, absorbed = (0.02 * seen(random.normal(size=shape), blur) for _ in range(2))
        transmission = np.exp(1j * phase - absorbed / 2)
        bias = np.exp(1j * np.pi / 4)
        ahead, behind = (np.roll(transmission, shift, (0, 1)) for shift in ((-1, -1), (1, 1)))
        expected = wave_optics(
            bias * ahead - behind / bias,
            defocus_um=defocus_um,
            na=0.4,
            condenser_na=0.25,
            sheared=np.full(shape, bias - 1 / bias),
        )
        found = 1 + sum(
            seen(
                part,
                dic(shape, defocus_um=defocus_um, condenser_na=0.25, shear_um=2 * np.sqrt(2) * pixel, of=of),
            )
            for of, part in (("phase", phase), ("absorption", absorbed))
        )
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected - 1).max()

    @pytest.mark.parametrize("bias_deg", [0.0, 360.0, -720.0])
    def test_a_dark_field_is_refused(self, bias_deg: float):
        with pytest.raises(ValueError, match="bias_deg"):
            dic(bias_deg=bias_deg)
