"""What `lincei.optics` promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lincei.optics import phase_contrast_transfer

SHAPE = (128, 160)


def transfer(defocus_um: float = 0.0, shape: tuple[int, int] = SHAPE, **changes: Any) -> NDArray[np.float32]:
    return phase_contrast_transfer(shape, **{"pixel_size_um": 0.65, "defocus_um": defocus_um, **changes})


def contrast(phase: NDArray, **changes: Any) -> NDArray:
    """Return the image of a phase object, less the even light."""
    return np.fft.irfft2(np.fft.rfft2(phase) * transfer(shape=phase.shape, **changes), phase.shape)


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
