"""What `lincei.pixel_size` promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from lincei.pixel_size import ResampledArray, resampled, resampled_size, zoom_factor

factors = st.floats(0.08, 6)


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def smooth(size: int, wavelength_px: float) -> NDArray[np.float32]:
    """Waves along both axes."""
    y, x = np.mgrid[:size, :size] * (2 * np.pi / wavelength_px)
    return (np.cos(y + 0.3) * np.cos(0.8 * x)).astype(np.float32)


class TestZoomFactor:
    @pytest.mark.parametrize(
        ("size", "wanted"), [(None, 0.5), (0.5, None), (None, None), (0.5, 0.5), (0.5, 0.505)]
    )
    def test_an_unknown_or_equal_size_is_not_scaled(self, size: float | None, wanted: float | None):
        assert zoom_factor(size, wanted) == 1

    def test_larger_pixels_are_enlarged(self):
        assert zoom_factor(1.3, 0.65) == 2
        assert zoom_factor(0.325, 0.65) == 0.5

    def test_no_image_shrinks_to_nothing(self):
        assert resampled_size(3, 0.01) == 1


class TestResampled:
    @settings(max_examples=40, deadline=None)
    @given(factor=factors, height=st.integers(1, 60), width=st.integers(1, 60))
    def test_a_constant_stays_constant(self, factor: float, height: int, width: int):
        result = resampled(np.full((height, width, 2), 7.25, np.float32), factor)
        assert result.shape == (resampled_size(height, factor), resampled_size(width, factor), 2)
        np.testing.assert_allclose(result, 7.25, rtol=1e-6)

    @settings(max_examples=40, deadline=None)
    @given(factor=factors, seed=st.integers(0, 20))
    def test_no_value_lies_beyond_the_inputs(self, factor: float, seed: int):
        pixels = noise(31, 43, seed=seed)
        result = resampled(pixels, factor)
        assert result.min() >= pixels.min() - 1e-5
        assert result.max() <= pixels.max() + 1e-5

    @pytest.mark.parametrize("factor", [0.3, 0.5, 0.77, 1.3, 2.0, 3.7])
    def test_a_slope_stays_where_it_is(self, factor: float):
        rows = np.repeat(np.arange(200, dtype=np.float32)[:, None], 100, axis=1)
        result = resampled(rows, factor)
        expected = (np.arange(len(result)) + 0.5) / factor - 0.5
        margin = int(np.ceil(factor + 1 / factor)) + 1
        np.testing.assert_allclose(result[margin:-margin, 5], expected[margin:-margin], atol=0.1)

    @pytest.mark.parametrize("factor", [0.25, 0.4, 0.5])
    def test_reducing_aliases_nothing(self, factor: float):
        fine = smooth(400, 1.5 / factor * 0.7)  # waves too fine for the reduced grid
        inside = resampled(fine, factor)[5:-5, 5:-5]
        dropped = fine[:: round(1 / factor), :: round(1 / factor)]
        assert np.abs(inside).max() < 0.25 * np.abs(dropped).max()

    def test_reducing_averages_noise(self):
        assert resampled(noise(400, 400), 0.25).std() < 0.3

    def test_reducing_keeps_the_mean(self):
        pixels = noise(300, 300) + 5
        assert resampled(pixels, 0.37).mean() == pytest.approx(pixels.mean(), abs=0.01)

    @pytest.mark.parametrize("factor", [1.5, 2.0, 3.3])
    def test_there_and_back_gives_the_image_again(self, factor: float):
        pixels = smooth(100, 25)
        there = resampled(pixels, factor)
        back = resampled(there, 1 / factor, (100, 100))
        np.testing.assert_allclose(back[4:-4, 4:-4], pixels[4:-4, 4:-4], atol=0.05)

    @pytest.mark.parametrize("factor", [0.5, 0.7])
    def test_a_smooth_image_survives_being_reduced_and_brought_back(self, factor: float):
        pixels = smooth(120, 40)
        back = resampled(resampled(pixels, factor), 1 / factor, (120, 120))
        np.testing.assert_allclose(back[8:-8, 8:-8], pixels[8:-8, 8:-8], atol=0.1)

    def test_factor_one_changes_nothing(self):
        pixels = noise(20, 30, 2)
        np.testing.assert_array_equal(resampled(pixels, 1.0), pixels)

    @pytest.mark.parametrize("factor", [1.3, 2.0, 2.5])
    def test_enlarging_is_linear_interpolation(self, factor: float):
        pixels = noise(20, 30)
        places = [(np.arange(round(n * factor)) + 0.5) / factor - 0.5 for n in pixels.shape]
        expected = ndimage.map_coordinates(
            pixels, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest"
        )
        np.testing.assert_allclose(resampled(pixels, factor), expected, atol=1e-5)

    @pytest.mark.parametrize("factor", [0.3, 0.4, 0.5, 0.77, 1.0, 1.3, 2.0, 3.1])
    def test_a_pixel_that_is_not_known_takes_only_what_is_made_of_it(self, factor: float):
        pixels = noise(60, 60)
        pixels[30, 20] = np.nan
        lost = np.argwhere(np.isnan(resampled(pixels, factor)))
        assert len(lost)
        distance = np.abs((lost + 0.5) / factor - 0.5 - [30, 20])
        assert distance.max() < max(1.0, 1 / factor)


class TestResampledArray:
    @settings(max_examples=60, deadline=None)
    @given(
        factor=factors,
        sizes=st.tuples(st.integers(1, 50), st.integers(1, 50)),
        ends=st.tuples(*[st.floats(0, 1)] * 4),
    )
    def test_a_region_is_the_same_as_in_the_whole(
        self, factor: float, sizes: tuple[int, int], ends: tuple[float, float, float, float]
    ):
        source = noise(2, 1, 3, *sizes)
        lazy = ResampledArray(source, factor)
        whole = np.stack(
            [[resampled(np.moveaxis(volume, 0, -1), factor) for volume in time] for time in source]
        )
        whole = np.moveaxis(whole, -1, 2)
        assert lazy.shape == whole.shape
        assert lazy.dtype == np.float32
        np.testing.assert_allclose(lazy[...], whole, atol=1e-5)
        parts = []
        for size, (a, b) in zip(lazy.shape[3:], (ends[:2], ends[2:]), strict=True):
            start = min(int(min(a, b) * size), size - 1)
            parts.append(slice(start, max(start + 1, int(max(a, b) * size))))
        np.testing.assert_allclose(
            lazy[:, :, 1:, parts[0], parts[1]], whole[:, :, 1:, parts[0], parts[1]], atol=1e-5
        )

    @settings(max_examples=40, deadline=None)
    @given(factor=factors, height=st.integers(8, 60), cut=st.floats(0, 1))
    def test_regions_join_when_brought_back_to_the_inputs_grid(self, factor: float, height: int, cut: float):
        there = ResampledArray(noise(1, 1, 1, height, 9), factor)[...]
        back = ResampledArray(there, 1 / factor, (height, 9))
        assert back.shape == (1, 1, 1, height, 9)
        row = min(max(1, int(cut * height)), height - 1)
        joined = np.concatenate([back[..., :row, :], back[..., row:, :]], axis=3)
        np.testing.assert_allclose(joined, back[...], atol=1e-5)

    @pytest.mark.parametrize("factor", [0.5, 0.31, 2.0, 2.7])
    def test_a_region_reads_little_more_than_it_is_made_of(self, factor: float):
        class Counted:
            shape, dtype = (1, 1, 1, 4000, 4000), np.dtype(np.uint16)
            largest = 0

            def __getitem__(self, key: tuple[slice, ...]) -> NDArray[np.uint16]:
                sizes = [len(range(*part.indices(n))) for part, n in zip(key, self.shape, strict=True)]
                self.largest = max(self.largest, int(np.prod(sizes)))
                return np.zeros(sizes, np.uint16)

        source = Counted()
        ResampledArray(source, factor)[:, :, :, 500:600, 700:800]
        side = 100 / factor + 2 * max(1, 1 / factor) + 3
        assert 0 < source.largest <= side**2

    def test_a_missing_value_is_the_same_in_a_region_as_in_the_whole(self):
        source = noise(1, 1, 1, 40, 40)
        source[..., 17, 21] = np.nan
        for factor in (0.5, 0.4, 2.0, 2.5):
            lazy = ResampledArray(source, factor)
            whole = lazy[...]
            for row in range(whole.shape[3] - 1):
                np.testing.assert_allclose(
                    lazy[..., row : row + 2, :], whole[..., row : row + 2, :], atol=1e-5
                )
