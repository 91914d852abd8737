"""What `lincei.normalize` promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lincei import normalize
from lincei.errors import LinceiError
from lincei.formats.lazy import LazyArray
from lincei.image import Image
from lincei.normalize import IntensityScaling, percentile_scaling, sample_channel, standard_scaling


def image_of(pixels: NDArray[Any], axes: str = "ZYX") -> Image:
    return Image.from_array(pixels, axes=axes, source="a.tif")


def stack(seed: int = 0, shape: tuple[int, ...] = (5, 80, 90)) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).normal(30_000, 2000, shape).astype(np.uint16)


class Counted(LazyArray):
    """A lazy image that is computed where it is read, and notes how much was read."""

    def __init__(self, shape: tuple[int, ...], dtype: Any = np.uint16) -> None:
        super().__init__(shape, dtype)
        self.pixels, self.largest = 0, 0
        self.planes: set[tuple[int, int]] = set()

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        t, _, z, y, x = box
        sizes = tuple(part.stop - part.start for part in box)
        self.pixels += int(np.prod(sizes))
        self.largest = max(self.largest, int(np.prod(sizes)))
        self.planes.update((i, j) for i in range(t.start, t.stop) for j in range(z.start, z.stop))
        # Brighter from top to bottom, 0 to 10,000, with a little texture.
        rows = np.arange(y.start, y.stop) * (10_000 / self.shape[3])
        texture = (np.arange(x.start, x.stop) * 7919) % 101
        return np.broadcast_to((rows[:, None] + texture).astype(self.dtype), sizes)


class TestStandardScaling:
    def test_the_median_becomes_zero_and_a_standard_deviation_one(self):
        pixels = stack()
        scaled = standard_scaling(image_of(pixels)).apply(pixels)
        assert np.median(scaled) == pytest.approx(0, abs=0.01)
        assert scaled.std() == pytest.approx(1, rel=0.02)

    @settings(max_examples=25, deadline=None)
    @given(gain=st.floats(1e-3, 1e3), offset=st.floats(-1e4, 1e4), seed=st.integers(0, 50))
    def test_gain_and_offset_change_nothing(self, gain: float, offset: float, seed: int):
        pixels = stack(seed, (2, 40, 40)).astype(np.float64)
        scaled = standard_scaling(image_of(pixels)).apply(pixels)
        other = pixels * gain + offset
        np.testing.assert_allclose(standard_scaling(image_of(other)).apply(other), scaled, atol=1e-5)

    @pytest.mark.parametrize(
        "dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64]
    )
    def test_the_data_type_changes_nothing(self, dtype: Any):
        pixels = np.random.default_rng(0).integers(0, 120, (3, 50, 50))
        expected = standard_scaling(image_of(pixels.astype(np.float64))).apply(pixels.astype(np.float64))
        typed = pixels.astype(dtype)
        found = standard_scaling(image_of(typed)).apply(typed)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_large_integers_keep_their_differences(self):
        pixels = (2**31 + np.random.default_rng(0).integers(0, 100, (1, 50, 50))).astype(np.uint32)
        scaled = standard_scaling(image_of(pixels)).apply(pixels)
        assert len(np.unique(scaled)) == len(np.unique(pixels))

    def test_a_few_bright_specks_change_little(self):
        pixels = stack()
        specked = pixels.copy()
        specked[:, 10:14, 10:14] = 65_535
        clean, dirty = (standard_scaling(image_of(p)) for p in (pixels, specked))
        assert dirty.zero == pytest.approx(clean.zero, abs=20)
        assert dirty.unit == pytest.approx(clean.unit, rel=0.03)

    def test_all_planes_and_times_have_one_scaling(self):
        pixels = np.stack([np.full((20, 20), value, np.uint16) for value in range(100, 700, 100)])
        scaling = standard_scaling(image_of(pixels))
        assert scaling.zero == 350
        times = standard_scaling(image_of(pixels.reshape(2, 3, 20, 20), "TZYX"))
        assert times == scaling

    def test_each_channel_has_its_own(self):
        pixels = np.stack([stack(1)[0], 2 * (stack(2)[0] // 4)])
        both = image_of(pixels, "CYX")
        for channel in range(2):
            assert standard_scaling(both, channel) == standard_scaling(image_of(pixels[channel], "YX"))
        assert standard_scaling(both, 0) != standard_scaling(both, 1)


class TestPercentileScaling:
    def test_the_percentiles_become_zero_and_one(self):
        pixels = stack()
        scaled = percentile_scaling(image_of(pixels), background=1, bright=99.9).apply(pixels)
        assert np.percentile(scaled, [1, 99.9]) == pytest.approx([0, 1], abs=1e-3)

    def test_a_sparse_label_is_scaled_by_its_bright_pixels(self):
        pixels = np.random.default_rng(0).normal(100, 5, (1, 400, 400))
        pixels[0, 100:120, 200:220] = 4000  # 0.25 % of the pixels
        scaled = percentile_scaling(image_of(pixels), background=1, bright=99.9).apply(pixels)
        assert np.median(scaled) == pytest.approx(0, abs=0.01)
        assert scaled[0, 110, 210] == pytest.approx(1, abs=0.01)

    def test_a_label_too_sparse_for_its_percentile_is_refused(self):
        pixels = np.zeros((1, 200, 200), np.uint16)
        pixels[0, 3, 4] = 4000
        with pytest.raises(LinceiError, match="nothing to see"):
            percentile_scaling(image_of(pixels), background=1, bright=99.9)


class TestScaling:
    @settings(max_examples=25, deadline=None)
    @given(zero=st.floats(-1e4, 1e4), unit=st.floats(1e-2, 1e4))
    def test_inverting_gives_the_gray_values_back(self, zero: float, unit: float):
        values = np.linspace(zero - 5 * unit, zero + 5 * unit, 50)
        scaling = IntensityScaling(zero, unit)
        np.testing.assert_allclose(
            scaling.invert(scaling.apply(values)), values, rtol=1e-5, atol=1e-5 * (abs(zero) + unit)
        )

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
    def test_applying_leaves_the_input_as_it_is(self, dtype: Any):
        values = np.arange(10).astype(dtype)
        before = values.copy()
        IntensityScaling(3.0, 2.0).apply(values)
        np.testing.assert_array_equal(values, before)


class TestBadImages:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_pixels_that_are_no_numbers_are_refused(self, bad: float):
        pixels = stack().astype(np.float32)
        pixels[2, 5, 7] = bad
        with pytest.raises(LinceiError, match=r"a\.tif.*NaN or infinite.*Replace"):
            standard_scaling(image_of(pixels))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_a_constant_channel_is_refused(self, dtype: Any):
        image = Image.from_array(np.full((2, 3, 40, 40), 7, dtype), axes="CZYX", source="a.tif")
        with pytest.raises(LinceiError, match=r"a\.tif: channel 1 has.*same value.*shutter"):
            standard_scaling(image, 1)


class TestSample:
    def test_of_a_small_image_every_pixel_is_taken(self):
        pixels = stack()
        np.testing.assert_array_equal(np.sort(sample_channel(image_of(pixels), 0)), np.sort(pixels.ravel()))

    def test_it_is_the_same_every_time(self):
        image = image_of(stack(shape=(3, 700, 900)))
        np.testing.assert_array_equal(sample_channel(image, 0), sample_channel(image, 0))

    @pytest.mark.parametrize(
        "shape",
        [
            (1, 1, 1, 60_000, 60_000),
            (1, 1, 13, 20_000, 30_000),
            (40, 1, 25, 512, 512),
            (300, 1, 7, 5000, 4000),
            (1, 1, 2, 300, 200_000),
        ],
    )
    def test_a_huge_lazy_image_is_sampled_without_reading_it_whole(self, shape: tuple[int, ...]):
        lazy = Counted(shape)
        values = sample_channel(Image(lazy), 0)
        assert lazy.pixels <= 2.5 * normalize._READ_PIXELS
        assert lazy.largest <= normalize._WHOLE_PLANE_PIXELS
        # Enough for a percentile such as 99.9, and not more than is said.
        assert 100_000 <= values.size <= 1.2 * normalize.SAMPLE_PIXELS
        assert np.percentile(values, [5, 50, 95]) == pytest.approx([550, 5050, 9550], abs=250)

    def test_planes_are_taken_from_all_over_a_long_recording(self):
        lazy = Counted((400, 1, 2, 1000, 1000))
        sample_channel(Image(lazy), 0)
        times = sorted({t for t, _ in lazy.planes})
        assert len(times) >= 60
        assert times[0] == 0
        assert times[-1] > 380

    def test_blocks_say_the_same_as_whole_planes(self, monkeypatch: pytest.MonkeyPatch):
        image = Image(Counted((1, 1, 2, 3000, 3500)))
        whole = standard_scaling(image)
        monkeypatch.setattr(normalize, "_WHOLE_PLANE_PIXELS", 1_000_000)
        blocks = standard_scaling(image)
        assert blocks.zero == pytest.approx(whole.zero, rel=0.03)
        assert blocks.unit == pytest.approx(whole.unit, rel=0.05)
