"""What `insilico.z_planes` promises."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import fft, ndimage

from insilico.z_planes import drift_px, interpolation_weights, plane_shifts_px, plane_weights
from lincei.formats.lazy import LazyArray
from lincei.image import Image
from sample_data.cells import simulate_cells

steps = st.one_of(st.none(), st.floats(0.1, 20))

# Shifts (y, x) of 13 planes, in pixels, against the middle one.
DRIFTS = {
    "steady": np.outer(np.arange(13) - 6, [0.45, -0.3]),
    "hardly any, steady": np.outer(np.arange(13) - 6, [0.03, 0.04]),
    "one jump": np.array([[0.0, 0.0]] * 8 + [[3.4, -2.2]] * 5),
    "one plane": np.array([[0.0, 0.0]] * 3 + [[2.5, 1.5]] + [[0.0, 0.0]] * 9),
    "large jump": np.array([[0.0, 0.0]] * 8 + [[25.3, -18.6]] * 5),
    "settling": np.outer(4 * np.exp(-np.arange(13) / 3) - 4 * np.exp(-2), [1, 0.5]),
}


def stack_of(planes: NDArray) -> Image:
    return Image.from_array(planes, axes="ZYX")


def moved(planes: NDArray, shifts: NDArray) -> NDArray:
    """Return planes whose content is moved by ``shifts``."""
    pairs = zip(fft.rfft2(planes.astype(np.float32)), shifts, strict=True)
    shifted = [ndimage.fourier_shift(spectrum, shift, planes.shape[2]) for spectrum, shift in pairs]
    return fft.irfft2(np.stack(shifted), planes.shape[1:])


@pytest.fixture(scope="module")
def real_stack(real_data: Path) -> NDArray:
    files = sorted((real_data / "isl_motor_neurons").glob("phase_z*.tif"))
    # What drift is measured in is the middle 512x512; a margin has room for the shifts.
    return np.stack([tifffile.imread(file)[226:798, 66:638] for file in files]).astype(np.float32)


@pytest.fixture(scope="module")
def simulated() -> NDArray:
    """Thirteen planes of simulated cells in phase contrast."""
    return simulate_cells(1, size_px=384, planes=13).stack.read()[0, 0].astype(np.float32)


class TestPlaneWeights:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 20), steps, steps)
    def test_every_row_adds_up_to_one_and_nothing_is_negative(
        self, planes: int, network: int, step: float | None, network_step: float | None
    ):
        weights = plane_weights(planes, network, z_step_um=step, network_z_step_um=network_step)
        assert weights.shape == (network, planes)
        assert weights.dtype == np.float32
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 20), steps, steps)
    def test_a_stack_upside_down_is_a_network_input_upside_down(
        self, planes: int, network: int, step: float | None, network_step: float | None
    ):
        weights = plane_weights(planes, network, z_step_um=step, network_z_step_um=network_step)
        np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-5)

    @pytest.mark.parametrize("steps_um", [{}, {"z_step_um": 1.5, "network_z_step_um": 1.5}])
    def test_the_networks_own_planes_are_passed_on_as_they_are(self, steps_um: dict[str, float]):
        np.testing.assert_array_equal(plane_weights(13, 13, **steps_um), np.eye(13, dtype=np.float32))

    @pytest.mark.parametrize("steps_um", [{}, {"z_step_um": 3.0, "network_z_step_um": 1.5}])
    def test_a_single_plane_stands_for_all(self, steps_um: dict[str, float]):
        np.testing.assert_array_equal(plane_weights(1, 13, **steps_um), np.ones((13, 1)))

    def test_a_network_of_one_plane_takes_the_middle(self):
        np.testing.assert_array_equal(plane_weights(5, 1), [[0, 0, 1, 0, 0]])
        np.testing.assert_array_equal(plane_weights(4, 1), [[0, 0.5, 0.5, 0]])

    @pytest.mark.parametrize("planes", [2, 5, 7, 26, 40])
    def test_where_a_step_is_not_known_the_stack_spans_what_the_network_spans(self, planes: int):
        weights = plane_weights(planes, 13, z_step_um=1.5)
        positions = weights @ np.arange(planes)
        np.testing.assert_allclose(positions, np.linspace(0, planes - 1, 13), atol=1e-4)

    def test_known_steps_are_compared_in_micrometers_from_the_center(self):
        heights = 2.0 * (np.arange(9) - 4)  # nine planes, 2 um apart; the network's are 1 um apart
        weights = plane_weights(9, 5, z_step_um=2.0, network_z_step_um=1.0)
        np.testing.assert_allclose(weights @ heights, [-2, -1, 0, 1, 2], atol=1e-5)

    def test_beyond_the_ends_the_outermost_plane_is_used(self):
        weights = plane_weights(3, 5, z_step_um=1.0, network_z_step_um=2.0)
        np.testing.assert_array_equal(weights[[0, 1, 3, 4]], [[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]])

    def test_a_denser_stack_of_the_same_specimen_gives_nearly_the_same(self):
        def sharpness(height_um: NDArray) -> NDArray:
            return np.exp(-((height_um / 6) ** 2))

        given_planes = [
            plane_weights(n, 7, z_step_um=s, network_z_step_um=2.0) for n, s in ((13, 1.0), (25, 0.5))
        ]
        seen = [
            weights @ sharpness((np.arange(weights.shape[1]) - weights.shape[1] // 2) * step)
            for weights, step in zip(given_planes, (1.0, 0.5), strict=True)
        ]
        np.testing.assert_allclose(seen[0], seen[1], atol=0.02)

    def test_interpolation_is_linear_between_planes_and_clamped(self):
        weights = interpolation_weights(np.array([-3.0, 0.25, 1.0, 9.0]), 3)
        np.testing.assert_allclose(weights, [[1, 0, 0], [0.75, 0.25, 0], [0, 1, 0], [0, 0, 1]])


class TestDrift:
    @pytest.mark.parametrize("name", DRIFTS)
    def test_known_shifts_of_a_real_stack_are_found(self, name: str, real_stack: NDArray):
        own = plane_shifts_px(stack_of(real_stack))
        found = plane_shifts_px(stack_of(moved(real_stack, DRIFTS[name])))
        np.testing.assert_allclose(found - own, DRIFTS[name] - DRIFTS[name][6], atol=0.1)

    @pytest.mark.parametrize("name", DRIFTS)
    def test_known_shifts_of_one_real_plane_seen_again_and_again_are_found(
        self, name: str, real_stack: NDArray
    ):
        planes = moved(np.repeat(real_stack[6:7], 13, axis=0), DRIFTS[name])
        planes = np.random.default_rng(0).poisson(np.maximum(planes, 0))
        expected = DRIFTS[name] - DRIFTS[name][6]
        np.testing.assert_allclose(plane_shifts_px(stack_of(planes)), expected, atol=0.1)
        assert drift_px(stack_of(planes)) == pytest.approx(np.hypot(*expected.T).max(), abs=0.1)

    @pytest.mark.parametrize("name", DRIFTS)
    def test_known_shifts_through_focus_are_found(self, name: str, simulated: NDArray):
        found = plane_shifts_px(stack_of(moved(simulated, DRIFTS[name])))
        np.testing.assert_allclose(found, DRIFTS[name] - DRIFTS[name][6], atol=0.3)

    def test_what_stays_with_the_camera_does_not_hide_a_drift(self, real_stack: NDArray):
        planes = moved(real_stack, DRIFTS["steady"])
        y, x = (np.linspace(-0.6, 0.6, size) for size in planes.shape[1:])
        vignetting = 1 - 0.5 * (y[:, None] ** 2 + x**2)
        fixed_pattern = 1 + np.random.default_rng(0).normal(0, 0.02, vignetting.shape)
        found = plane_shifts_px(stack_of(planes * vignetting * fixed_pattern))
        own = plane_shifts_px(stack_of(real_stack))
        np.testing.assert_allclose(found - own, DRIFTS["steady"], atol=0.3)

    def test_planes_in_place_have_none_though_their_contrast_changes_through_focus(self):
        assert drift_px(simulate_cells(0, size_px=384).stack) < 0.2

    def test_contrast_that_turns_over_is_no_shift(self, simulated: NDArray):
        middle = simulated[6] - simulated[6].mean()
        planes = np.stack([middle, -middle, middle, -middle])
        shifts = np.array([[0.0, 0.0], [1.5, -1.0], [0.0, 0.0], [0.0, 0.0]])
        np.testing.assert_allclose(plane_shifts_px(stack_of(moved(planes, shifts))), shifts, atol=0.1)

    def test_gain_and_offset_change_nothing(self, real_stack: NDArray):
        np.testing.assert_allclose(
            plane_shifts_px(stack_of(real_stack * 0.01 + 7)), plane_shifts_px(stack_of(real_stack)), atol=0.01
        )

    @pytest.mark.parametrize("side", [512, 128, 40, 16, 1])
    def test_noise_has_none(self, side: int):
        noise = np.random.default_rng(side).normal(1000, 30, (13, side, side))
        assert drift_px(stack_of(noise)) == 0

    def test_a_single_plane_has_none(self, real_stack: NDArray):
        assert drift_px(stack_of(real_stack[:1])) == 0

    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
    def test_a_plane_without_a_picture_counts_as_not_shifted(self, value: float, simulated: NDArray):
        planes = simulated.copy()
        planes[4] = value
        found = plane_shifts_px(stack_of(planes))
        assert np.isfinite(found).all()
        assert np.abs(found).max() < 0.5

    def test_dark_planes_have_none(self):
        assert drift_px(stack_of(np.zeros((3, 64, 64), np.uint16))) == 0

    @pytest.mark.parametrize("shape", [(100, 37), (65, 512), (200, 3)])
    def test_any_shape_of_image_is_taken(self, shape: tuple[int, int], real_stack: NDArray):
        assert np.isfinite(drift_px(stack_of(real_stack[:, : shape[0], : shape[1]])))

    def test_the_time_and_the_channel_asked_for_are_measured(self, simulated: NDArray):
        data = np.broadcast_to(simulated, (2, 2, *simulated.shape)).copy()
        data[1, 1] = moved(simulated, DRIFTS["one jump"])
        image = Image.from_array(data, axes="TCZYX")
        assert drift_px(image, t=1, channel=1) > 3.5
        for t, channel in ((0, 0), (0, 1), (1, 0)):
            assert drift_px(image, t=t, channel=channel) < 0.5

    def test_of_a_huge_image_only_the_center_is_read(self):
        class Center(LazyArray):
            def _read(self, box: tuple[slice, ...]) -> NDArray:
                sizes = [part.stop - part.start for part in box]
                assert np.prod(sizes) <= 3 * 512 * 512
                return np.zeros(sizes, np.uint16)

        assert drift_px(Image(Center((1, 1, 3, 100_000, 100_000), np.uint16))) == 0

    def test_the_input_is_left_as_it_is(self, simulated: NDArray):
        before = simulated.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            drift_px(stack_of(simulated))
        np.testing.assert_array_equal(simulated, before)
